"""What teachers are told stands in one file, and its fields are those that the statements fill in."""

import pytest

from schoolbell.domains.tutoring import notices


def test_field_becomes_an_argument_of_format() -> None:
    made = notices.patterns("lifecycle_", "student", "number", "day")
    assert made.keys() == {"gap", "churn", "streak", "enrollment_expiring"}
    assert made["gap"] == {
        "title": "No lesson for %2$s days",
        "body": "%1$s has had no lesson since %3$s, and none is booked.",
    }


def test_percent_sign_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "notices", lambda: {"sale": {"title": "{percent}% less"}})
    assert notices.patterns("sale", "percent") == {"": {"title": "%1$s%% less"}}


def test_field_that_no_statement_fills_in_is_an_error() -> None:
    with pytest.raises(KeyError, match="day"):
        notices.patterns("lifecycle_", "student", "number")


def test_title_with_a_field_is_no_title_without() -> None:
    assert notices.title("session_review") == "A lesson is over and waits for your review"
    with pytest.raises(KeyError, match="number"):
        notices.title("lifecycle_gap")


def test_every_notice_can_be_filled_in() -> None:
    for kind, notice in notices.notices().items():
        assert notice["title"], kind
        assert notice.keys() <= {"title", "body"}, kind
