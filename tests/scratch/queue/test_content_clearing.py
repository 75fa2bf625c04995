"""The content of a session that its teacher wants to be gone."""

from uuid import uuid4

from schoolbell.domains.tutoring.schema import sessions
from tests.factories import Make
from tests.fixtures.database import Stored
from tests.performing import Performer
from tests.scratch.queue.app import handler


def test_content_goes_and_the_session_stays(perform: Performer, make: Make, stored: Stored) -> None:
    session = make.session(content="notes")
    assert perform(handler, {"session_id": session.id}).failed == []
    assert [each.content for each in stored(sessions)] == [None]


def test_message_of_no_session_is_discarded(perform: Performer, stored: Stored) -> None:
    assert perform(handler, {"session_id": uuid4()}).failed == [0]
