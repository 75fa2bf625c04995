"""Every template is whole, says something on each channel, and names the field that it misses."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from schoolbell.notifications import templates
from schoolbell.notifications.channels import Channel
from schoolbell.notifications.templates import Unrenderable, render

PARIS = ZoneInfo("Europe/Paris")
ALL = sorted(path.name for path in (Path(templates.__file__).parent / "templates").iterdir() if path.is_dir())
FIELDS = {"title": "Rate below 80%", "body": "It is 79%.", "expires_at": "2026-03-04T10:00:00+00:00"}


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize("template", ALL)
def test_each_template_can_be_rendered_on_each_channel(template: str, channel: Channel) -> None:
    said = render(template, channel, FIELDS, "Ada", PARIS)
    assert said.text.strip()
    assert bool(said.subject) == (channel is not Channel.SMS)
    assert bool(said.html) == (channel is Channel.EMAIL)
    if said.html:
        assert "<p>Hello Ada,</p>" in said.html
        assert "</html>" in said.html


def test_html_is_escaped_and_plain_text_is_not() -> None:
    said = render("lifecycle_gap", Channel.EMAIL, {"title": "t", "body": "<script>&"}, "<b>Ada</b>", PARIS)
    assert "<script>&" in said.text
    assert "&lt;script&gt;&amp;" in (said.html or "")
    assert "&lt;b&gt;Ada&lt;/b&gt;" in (said.html or "")
    assert "<script>" not in (said.html or "")


def test_a_subject_is_one_line() -> None:
    said = render("lifecycle_gap", Channel.EMAIL, {"title": "No lesson\r\nBcc: x@example.org", "body": "b"}, "A", PARIS)
    assert said.subject == "No lesson Bcc: x@example.org"


@pytest.mark.parametrize(
    ("template", "data", "reason"),
    [
        ("waitlist_offer", {}, "data: expires_at: missing"),
        ("metric_alert", {"title": "t"}, "data: body: missing"),
        ("waitlist_offer", {"expires_at": "tomorrow"}, "data: ValueError"),
        ("waitlist_offer", {"expires_at": 7}, "data: ValueError"),
        ("no_such", {}, "template: there is none of this name"),
        ("../layout", {}, "template: there is none of this name"),
        ("", {}, "template: there is none of this name"),
    ],
)
def test_what_does_not_fit_is_named(template: str, data: dict[str, object], reason: str) -> None:
    with pytest.raises(Unrenderable) as refused:
        render(template, Channel.EMAIL, data, "Ada", PARIS)
    assert str(refused.value) == reason


def test_times_are_told_in_the_recipients_zone() -> None:
    data = {"expires_at": "2026-03-29T00:30:00+00:00"}
    assert "Sunday 29 March 2026, 01:30 CET" in render("waitlist_offer", Channel.SMS, data, "Ada", PARIS).text
    data = {"expires_at": "2026-03-29T01:30:00+00:00"}
    assert "Sunday 29 March 2026, 03:30 CEST" in render("waitlist_offer", Channel.SMS, data, "Ada", PARIS).text


def test_what_the_data_says_stands_over_the_persons_name() -> None:
    assert "Hello Head," in render("session_review", Channel.EMAIL, {"name": "Head"}, "Ada", PARIS).text
