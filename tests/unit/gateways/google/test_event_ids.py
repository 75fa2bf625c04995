"""The id of a lesson's event."""

import re
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schoolbell.gateways.google.calendar import event_id


@given(st.uuids())
def test_google_takes_the_id_of_any_session(session: UUID) -> None:
    assert re.fullmatch(r"[a-v0-9]{5,1024}", event_id(session))


@given(st.uuids(), st.uuids())
def test_a_session_has_one_id_and_shares_it_with_no_other(one: UUID, other: UUID) -> None:
    assert (event_id(one) == event_id(other)) == (one == other)
