"""Charts as SVG that stands in the page: drawn by pygal, coloured by the page's style sheet, described in words.

pygal brings styles and scripts of its own, which the page's content security policy would refuse, and draws the light
theme only. So what it has drawn is kept, and the rest is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from pygal.graph.graph import Graph

MONTH_WIDTH, MONTH_HEIGHT = 150, 28
STEPS: Final = 14
"""Heights of a small chart's bars: half of its pixels are enough to see, and most jobs then look alike."""

HISTORY_WIDTH, HISTORY_HEIGHT = 640, 190

_LEFT_OUT: Final = ("defs", "title", "desc", "script", "style")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart."""

    label: str
    """What it is of, e.g. `12 March`."""
    good: float
    bad: float


def month(days: Sequence[tuple[int, int]], described: str) -> Markup:
    """A small chart of runs by day, failed ones set apart.

    Args:
        days: runs and, among them, failures, the oldest day first.
        described: the same in words.
    """
    most = max((runs for runs, _ in days), default=0)

    def steps(count: int) -> int:
        return ceil(count * STEPS / most) if most else 0

    # A single failure among thousands of runs is what the chart is for: it is at least one step high.
    heights = tuple((max(steps(runs) - steps(failures), 0), steps(failures)) for runs, failures in days)
    drawn = Markup(_drawn_month(heights))  # noqa: S704 - made of numbers
    return drawn.format(escape(described))


@lru_cache(maxsize=2_000)
def _drawn_month(heights: tuple[tuple[int, int], ...]) -> str:
    """The chart with a place for its description. Kept, since drawing takes pygal ten milliseconds."""
    chart = _graph(
        "StackedBar",
        width=MONTH_WIDTH,
        height=MONTH_HEIGHT,
        margin=0,
        spacing=0,
        show_x_labels=False,
        show_y_labels=False,
        show_y_guides=False,
        range=(0, STEPS),
    )
    chart.add("good", [good or None for good, _ in heights])
    chart.add("bad", [bad or None for _, bad in heights])
    root = _kept(chart.render_tree())
    drawing = "".join(
        f'<g class="{kind}">{"".join(_rect(bar) for bar in group.iter("rect") if float(bar.get("height", 0)))}</g>'
        for kind, group in zip(("good", "bad"), _series(root), strict=True)
    )
    margin = _origin_of_plot(root)
    return (
        f'<svg class="month" viewBox="0 0 {MONTH_WIDTH} {MONTH_HEIGHT}" role="img" aria-label="{{}}" '
        f'preserveAspectRatio="none"><g transform="{margin}">{drawing}</g></svg>'
    )


def history(bars: Sequence[Bar], described: str, unit: Callable[[float], str]) -> Markup:
    """A large chart with an axis and a tooltip a bar.

    Args:
        bars: what is drawn, from left to right.
        described: the same in words.
        unit: writes a value of the axis.
    """
    chart = _graph(
        "StackedBar",
        width=HISTORY_WIDTH,
        height=HISTORY_HEIGHT,
        margin=4,
        margin_right=26,
        spacing=12,
        show_x_labels=True,
        x_labels=[bar.label for bar in bars],
        x_labels_major_count=6,
        show_minor_x_labels=False,
        truncate_label=-1,
        show_y_labels=True,
        min_scale=2,
        max_scale=4,
        include_x_axis=True,
        value_formatter=unit,
        formatter=unit,
    )
    chart.add("good", [bar.good or None for bar in bars])
    chart.add("bad", [bar.bad or None for bar in bars])
    root = _kept(chart.render_tree())
    for kind, group in zip(("good", "bad"), _series(root), strict=True):
        group.set("class", kind)
        for bar, drawn in zip(bars, [each for each in group.iter("g") if each.get("class") == "bar"], strict=True):
            value = bar.good if kind == "good" else bar.bad
            if not value:
                drawn.clear()
            for rect in drawn.iter("rect"):
                rect.attrib.pop("class")
                ElementTree.SubElement(rect, "title").text = f"{bar.label}: {unit(value)}"
    root.set("class", "history")
    root.set("role", "img")
    root.set("aria-label", described)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - texts are escaped by ElementTree


def _graph(kind: str, **options: Any) -> "Graph":
    return _kinds()[kind](
        **{
            "js": (),
            "css": (),
            "show_legend": False,
            "print_values": False,
            "no_data_text": "",
            "no_prefix": True,
            "explicit_size": False,
            **options,
        }
    )


@cache
def _kinds() -> dict[str, Any]:
    from pygal import StackedBar  # takes 0.2 seconds, which a call of the API need not spend

    return {"StackedBar": StackedBar}


def _kept(root: ElementTree.Element) -> ElementTree.Element:
    """A drawing without what is not of the drawing: comments, styles, scripts, tooltips of pygal's script."""
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag
            if not isinstance(tag, str) or tag in _LEFT_OUT or _is_overlay(child):
                parent.remove(child)
    root.attrib.pop("id", None)
    root.attrib.pop("style", None)
    return root


def _is_overlay(element: ElementTree.Element) -> bool:
    names = element.get("class", "").split()
    return any(name.endswith("overlay") or name in ("tooltip", "titles") for name in names)


def _series(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [group for group in root.iter() if "series" in group.get("class", "").split()]


def _origin_of_plot(root: ElementTree.Element) -> str:
    plots = (each for each in root.iter() if each.get("class", "") == "plot")
    return next((plot.get("transform", "") for plot in plots), "")


def _rect(rect: ElementTree.Element) -> str:
    at = {name: round(float(rect.get(name, 0)), 1) for name in ("x", "y", "width", "height")}
    return "<rect " + " ".join(f'{name}="{value:g}"' for name, value in at.items()) + "/>"
