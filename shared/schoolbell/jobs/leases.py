"""Leases: who holds a job that must not overlap itself.

A lease is a row with an expiry and not a session lock: it survives a lost connection, works behind RDS Proxy, and frees
itself when its holder dies. The holder is a run, so that a run which goes on in another invocation keeps its lease.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

HAND_OVER = timedelta(minutes=5)
"""How long a lease outlives its invocation: time for a run that hands on to itself to start again."""

_TAKE = text(
    """
    INSERT INTO platform.leases AS lease (name, holder, expires_at) VALUES (:name, :holder, :expires_at)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
    WHERE lease.holder = excluded.holder OR lease.expires_at <= :now
    """
)
_RELEASE = text("DELETE FROM platform.leases WHERE name = :name AND holder = :holder")


def take(connection: Connection, name: str, holder: str, now: datetime, until: datetime) -> bool:
    """Takes or renews a lease, and tells whether the holder has it now."""
    values = {"name": name, "holder": holder, "now": now, "expires_at": until}
    return connection.execute(_TAKE, values).rowcount == 1


def release(connection: Connection, name: str, holder: str) -> None:
    """Gives a lease back; nothing happens when somebody else has it by now."""
    connection.execute(_RELEASE, {"name": name, "holder": holder})
