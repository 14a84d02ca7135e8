"""Charts as inline SVG: pure functions of numbers. Colours come from the page's CSS (``currentColor`` and classes)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from dermiq.report.figures import Bin, Estimate

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 12, 28
LARGEST = 9.0  # radius of the bin with the most cases


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """One element; a ``_`` in the name of an attribute is a ``-``, one at its end is dropped.

    >>> element("text", "a < b", text_anchor="end", class_="tick")
    Markup('<text text-anchor="end" class="tick">a &lt; b</text>')
    """
    named = ((name.rstrip("_").replace("_", "-"), escape(_short(value))) for name, value in attributes.items())
    inside = "".join(f' {name}="{value}"' for name, value in named)
    return Markup(f"<{tag}{inside}>{escape(content)}</{tag}>")


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`, some `about` + 1 of them.

    >>> ticks(0, 0.83)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    largest = max(abs(low), abs(high))
    span = high - low if high - low > 1e-9 * largest else largest or 1.0  # a rounding error is no height
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(10, 3 - math.floor(math.log10(step)))
    return [round(step * place, digits) for place in range(first, max(last, first + 1) + 1)]


def bar(estimate: Estimate) -> Markup:
    """A share as a bar as wide as the page lets it be, its interval as a whisker."""
    parts = [element("rect", y=3, height=8, width=f"{100 * estimate.value:.2f}%", class_="fill", rx=1)]
    if estimate.low is not None and estimate.high is not None:
        low, high = f"{100 * estimate.low:.2f}%", f"{100 * estimate.high:.2f}%"
        for kind in ("halo", "whisker"):
            parts.append(element("line", x1=low, x2=high, y1=7, y2=7, class_=kind))
            parts += [element("line", x1=end, x2=end, y1=3, y2=11, class_=kind) for end in (low, high)]
    return element("svg", Markup("").join(parts), height=14, class_="track", aria_hidden="true")


def stack(counts: Mapping[str, int]) -> Markup:
    """Counts of claims by verdict as one bar, as wide as the page lets it be."""
    parts, total, start = [], sum(counts.values()), 0
    for verdict, count in counts.items():
        place = {"x": f"{100 * start / total:.2f}%", "width": f"{100 * count / total:.2f}%"}
        parts.append(element("rect", y=2, height=11, class_=f"part {verdict}", **place))
        start += count
    return element("svg", Markup("").join(parts), height=15, class_="track", aria_hidden="true")


def curve(title: str, stretches: Sequence[tuple[int, int]], values: Sequence[float | None]) -> Markup:
    """A logged value over the steps of training, a point for the middle of each stretch that has one."""
    points = [((a + b) / 2, value) for (a, b), value in zip(stretches, values, strict=True) if value is not None]
    heights = ticks(min(value for _, value in points), max(value for _, value in points))
    across = _Scale(0, max(stretches[-1][1], 1), LEFT, WIDTH - RIGHT)
    up = _Scale(heights[0], heights[-1], HEIGHT - BOTTOM, TOP)
    parts = _grid(up, heights, "{:g}", WIDTH)
    for step in ticks(0, stretches[-1][1], 3):
        if step == int(step) and step <= 0.85 * stretches[-1][1]:  # at the end stands what they are
            parts.append(element("text", int(step), x=across(step), y=HEIGHT - 10, text_anchor="middle", class_="tick"))
    parts.append(element("text", "steps", x=WIDTH - RIGHT, y=HEIGHT - 10, text_anchor="end", class_="tick"))
    places = [(across(step), up(value)) for step, value in points]
    parts.append(element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="curve"))
    parts += [element("circle", cx=x, cy=y, r=2, class_="fill") for x, y in places]
    first, last = points[0][1], points[-1][1]
    label = f"{title} over the steps of training: from {first:.3g} at the beginning to {last:.3g} at the end"
    return _picture(parts, WIDTH, HEIGHT, label)


def reliability(title: str, bins: Sequence[Bin]) -> Markup:
    """Accuracy over the majority's share of the votes; an area for the cases of a bin, a dashed line for the ideal."""
    size, margin = 260, 2 * LARGEST
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    across, up = _Scale(0, 1, LEFT, size - margin), _Scale(0, 1, size - BOTTOM, TOP)
    parts = _grid(up, shares, "{:.0%}", size)
    parts += [
        element("text", f"{x:.0%}", x=across(x), y=size - 10, text_anchor="middle", class_="tick") for x in shares
    ]
    parts.append(element("line", x1=across(0), y1=up(0), x2=across(1), y2=up(1), class_="ideal"))
    most = max(each.accuracy.n or 0 for each in bins)
    for each in bins:
        x, found = across(each.confidence), each.accuracy
        if found.low is not None and found.high is not None:
            parts.append(element("line", x1=x, x2=x, y1=up(found.low), y2=up(found.high), class_="whisker"))
        radius = max(2.0, LARGEST * math.sqrt((found.n or 0) / most))
        parts.append(element("circle", cx=x, cy=up(found.value), r=radius, class_="bubble"))
    return _picture(parts, size, size, f"Reliability of the majority vote after {title}")


class _Scale:
    """Numbers from `low` to `high` -> places from `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start, self.factor = low, start, (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.factor


def _grid(up: _Scale, heights: Sequence[float], form: str, width: int) -> list[Markup]:
    parts = []
    for height in heights:
        words = form.format(height).replace("-", "\N{MINUS SIGN}")
        parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=up(height), y2=up(height), class_="grid"))
        parts.append(element("text", words, x=LEFT - 6, y=up(height) + 4, text_anchor="end", class_="tick"))
    return parts


def _picture(parts: Sequence[Markup], width: int, height: int, label: str) -> Markup:
    content = Markup("").join(parts)
    return element("svg", content, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_="chart")


def _short(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value
