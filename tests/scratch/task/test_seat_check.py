"""A seat of a waiting list."""

from uuid import uuid4

from tests.performing import Performer
from tests.scratch.task.app import handler


def test_seat_that_nobody_is_offered_is_free(perform: Performer) -> None:
    assert perform(handler, {"seat_id": uuid4()}).result == {"offers": 0}
