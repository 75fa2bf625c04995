"""What a notification says: Jinja2 templates, which are data files of this package.

A template is a folder of `templates/`: `subject.txt`, `text.txt` and `html.html`, and `short.txt` for what goes by SMS
or push, where the subject says too little. HTML is escaped, and a field that the data lacks is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import (
    Environment,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    UndefinedError,
    pass_context,
    select_autoescape,
)
from jinja2.runtime import Context

from schoolbell.gateways.errors import NeverWorks
from schoolbell.notifications.channels import Channel

ZONE = "time_zone"
"""The name in a template's context of the person's time zone."""


class Unrenderable(NeverWorks):
    """The template and the data don't fit: the text names the field, or says that there is no such template."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A notification as a channel says it."""

    subject: str | None
    text: str
    html: str | None


class _Missing(StrictUndefined):
    """A field that the data lacks: any use of it raises, with its name."""

    @property
    def _undefined_message(self) -> str:
        return f"data: {self._undefined_name}: missing"


def render(template: str, channel: Channel, data: Mapping[str, Any], name: str, zone: ZoneInfo) -> Rendered:
    """A notification in words.

    Args:
        template: the name of its folder.
        channel: by which it goes.
        data: the fields that the template asks for; its dates and times are text in ISO 8601.
        name: the recipient's, `name` in the template unless the data has one.
        zone: the recipient's, in which times are told.

    Raises:
        Unrenderable: there is no such template, or the data lacks a field.
    """
    context = {"name": name, **data, ZONE: zone}
    try:
        subject = _text(f"{template}/subject.txt", context)
        if channel is not Channel.EMAIL:
            short = _text(f"{template}/short.txt", context) if _exists(f"{template}/short.txt") else subject
            return Rendered(subject if channel is Channel.PUSH else None, short, None)
        text = environment().get_template(f"{template}/text.txt").render(context).strip() + "\n"
        return Rendered(subject, text, environment().get_template(f"{template}/html.html").render(context))
    except TemplateNotFound:
        raise Unrenderable("template: there is none of this name") from None
    except UndefinedError as error:
        raise Unrenderable(str(error.message)) from None
    except TemplateError as error:
        raise Unrenderable(f"template: {type(error).__name__} at line {getattr(error, 'lineno', '?')}") from None
    except (TypeError, ValueError) as error:
        raise Unrenderable(f"data: {type(error).__name__}") from None


@cache
def environment() -> Environment:
    """The templates, each compiled on first use."""
    made = Environment(
        loader=PackageLoader("schoolbell.notifications"),
        autoescape=select_autoescape(("html",)),
        undefined=_Missing,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["local_time"] = _local_time
    return made


@cache
def _exists(path: str) -> bool:
    return path in environment().list_templates()


def _text(path: str, context: Mapping[str, Any]) -> str:
    """One line: a line break in a subject would begin another header."""
    return " ".join(environment().get_template(path).render(context).split())


@pass_context
def _local_time(context: Context, moment: str) -> str:
    """A time in ISO 8601 as people read it, e.g. `Wednesday 4 March 2026, 11:00 CET`."""
    local = datetime.fromisoformat(str(moment)).astimezone(context[ZONE])
    return f"{local:%A} {local.day} {local:%B %Y, %H:%M %Z}"
