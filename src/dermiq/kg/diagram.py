"""SVG diagram of a condition and its facts.

The condition is in the middle, with a box for each relation on either side and the values in the box. The strength is
shown by weight and dash of the line to a value and by the dot at its end, so the diagram can be read without colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from dermiq.kg.condition_page import title
from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.relations import RELATIONS
from dermiq.kg.verbalising import ADVERBS, capitalised, written

_WIDTH, _MARGIN, _BOX_WIDTH, _HUB_WIDTH = 1260, 28, 410, 264
_LINE, _PADDING, _GAP, _TITLE = 19, 12, 14, 24
_TOP = 92
_VALUE_CHARACTERS, _HUB_CHARACTERS = 36, 18  # of average width in the widest of the fonts
_MAX_MAIN, _MAX_POSSIBLE = 8, 3
_FONT = "'DejaVu Sans', Verdana, Arial, sans-serif"
_STROKES = {
    "always": 'stroke-width="4"',
    "typical": 'stroke-width="2"',
    "possible": 'stroke-width="1.6" stroke-dasharray="5 4"',
    "rare": 'stroke-width="1.2" stroke-dasharray="2 5"',
}
# Okabe and Ito's colours, distinct for colour-blind readers, darkened for lines on a light background.
_COLOURS = (
    ("#0060a0", ("subtype_of", "category", "malignancy")),
    ("#007a5a", ("morphology", "secondary_morphology", "colour", "colour_on_dark_skin", "distribution", "site")),
    ("#7a4a00", ("dermoscopy", "dermoscopy_against", "test", "test_not_needed")),
    ("#a8407c", ("symptom", "absent_symptom", "red_flag", "urgency")),
    ("#b04a00", ("agent", "cause", "risk_factor", "trigger", "relieved_by", "contagious", "transmission")),
    (
        "#3d3d3d",
        (
            "differential",
            "progresses_to",
            "age_group",
            "course",
            "quantity",
            "first_line",
            "second_line",
            "contraindicated",
            "insufficient_alone",
        ),
    ),
)
_COLOUR_OF = {relation: colour for colour, relations in _COLOURS for relation in relations}


@dataclass(frozen=True)
class _Box:
    """A relation with its values: (strength, lines of text) each; the last may be "+ n more", without a strength."""

    relation: str
    rows: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def height(self) -> int:
        return 2 * _PADDING + _TITLE + _LINE * sum(len(lines) for _, lines in self.rows)


def neighbourhood_svg(graph: KnowledgeGraph, condition: str) -> str:
    """A self-contained SVG document of a condition's relations and their values.

    It shows values that are always or typically so and a few that are possibly so; the others are counted.

    Args:
        graph: where to look.
        condition: its name, a synonym, an identifier or an xref.

    Raises:
        KnowledgeError: if the graph has no such condition.
    """
    concept = graph.find(condition)
    boxes = [box for name in RELATIONS if (box := _box(graph, name, graph.about(concept.id, name)))]
    left, right = _columns(boxes)
    depth = max(_height(left), _height(right), 120)
    name = capitalised(written(concept.label))
    hub = textwrap.wrap(name, _HUB_CHARACTERS)
    middle = _TOP + depth // 2
    parts = [*_header(name, len(boxes)), *_legend(graph.about(concept.id, name) for name in RELATIONS)]
    curves: list[str] = []
    frames: list[str] = []
    for column, is_left in ((left, True), (right, False)):
        y = _TOP + (depth - _height(column)) // 2
        for box in column:
            curves.append(_curve(box, y, middle, is_left))
            frames += _frame(box, y, is_left)
            y += box.height + _GAP
    parts += [*curves, *frames, *_hub(hub, middle)]
    height = _TOP + depth + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="{_FONT}" font-size="14" fill="#1a1a1a" role="img" aria-labelledby="title desc">'
    )
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *parts, "</svg>", ""])


def _box(graph: KnowledgeGraph, relation: str, facts: Iterable[Fact]) -> _Box | None:
    """The box of a relation; None if it has no positive value."""
    held = [fact for fact in facts if fact.positive]
    main = [fact for strength in ("always", "typical") for fact in held if fact.strength == strength]
    possible = [fact for fact in held if fact.strength in ("possible", "rare")]
    shown = [*main[:_MAX_MAIN], *possible[:_MAX_POSSIBLE]]
    rows = [(fact.strength, tuple(textwrap.wrap(_label(graph, fact), _VALUE_CHARACTERS))) for fact in shown]
    if more := len(held) - len(shown):
        rows.append(("", (f"+ {more} more",)))
    return _Box(relation, tuple(rows)) if rows else None


def _label(graph: KnowledgeGraph, fact: Fact) -> str:
    """The label of a fact's value, with the range of a quantity."""
    label = written(graph.label(fact.value))
    return f"{label}: {fact.note}" if fact.relation == "quantity" else label


def _columns(boxes: Sequence[_Box]) -> tuple[list[_Box], list[_Box]]:
    """Boxes in order, split into two columns of the most equal height."""
    splits = [(list(boxes[:cut]), list(boxes[cut:])) for cut in range(len(boxes) + 1)]
    return min(splits, key=lambda split: abs(_height(split[0]) - _height(split[1])))


def _height(column: Sequence[_Box]) -> int:
    return sum(box.height + _GAP for box in column) - _GAP if column else 0


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{escape(text)}</text>'


def _header(name: str, relations: int) -> list[str]:
    described = (
        f"A diagram with {name} in the middle and its {relations} relations around it, each with its values. Thick "
        "lines lead to what is always so, thin lines to what is typically so, dashed lines to what is sometimes so."
    )
    return [
        f'<title id="title">{escape(name)} in the knowledge graph of DermIQ</title>',
        f'<desc id="desc">{escape(described)}</desc>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]


def _legend(groups: Iterable[tuple[Fact, ...]]) -> list[str]:
    """The legend of the lines, and the review status of the facts."""
    parts, x = [], _MARGIN
    for strength, stroke in _STROKES.items():
        parts.append(f'<line x1="{x}" y1="32" x2="{x + 44}" y2="32" stroke="#1a1a1a" {stroke}/>')
        parts.append(_dot(x + 50, 32, strength, "#1a1a1a"))
        parts.append(_text(x + 64, 37, ADVERBS[strength]))
        x += 170
    reviews = sorted({fact.review for facts in groups for fact in facts})
    note = f"Not shown: what is never so, notes and sources. Review: {'; '.join(reviews) or 'no facts'}."
    return [*parts, _text(_MARGIN, 64, note, 'font-size="13" fill="#4a4a4a"')]


def _dot(x: float, y: float, strength: str, colour: str) -> str:
    radius, fill = {"always": (6, colour), "typical": (4.5, colour)}.get(strength, (4.5, "#ffffff"))
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'


def _curve(box: _Box, y: int, middle: int, is_left: bool) -> str:
    """The curve from the condition to the facing edge of a box."""
    edge = _MARGIN + _BOX_WIDTH if is_left else _WIDTH - _MARGIN - _BOX_WIDTH
    side = (_WIDTH - _HUB_WIDTH) // 2 if is_left else (_WIDTH + _HUB_WIDTH) // 2
    target = y + _PADDING + _TITLE // 2
    bend = (edge + side) // 2
    return (
        f'<path d="M {side} {middle} C {bend} {middle}, {bend} {target}, {edge} {target}" fill="none" '
        f'stroke="{_COLOUR_OF.get(box.relation, "#3d3d3d")}" stroke-width="1.6" opacity="0.75"/>'
    )


def _frame(box: _Box, y: int, is_left: bool) -> list[str]:
    """A box: its frame and title, a stem on the side that faces the condition, and a branch to each value."""
    colour = _COLOUR_OF.get(box.relation, "#3d3d3d")
    x = _MARGIN if is_left else _WIDTH - _MARGIN - _BOX_WIDTH
    inward = -1 if is_left else 1
    edge = x + _BOX_WIDTH if is_left else x
    anchor = 'text-anchor="end" ' if is_left else ""
    stem, twig, text = (edge + inward * step for step in (18, 58, 72))
    parts = [
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{box.height}" rx="7" fill="#f8f8f6" stroke="{colour}"/>',
        _text(
            edge + inward * 14,
            y + _PADDING + 15,
            capitalised(title(box.relation)),
            f'{anchor}font-weight="bold" fill="{colour}"',
        ),
    ]
    top = y + _PADDING + _TITLE
    row, last = top, top
    for strength, lines in box.rows:
        if strength:
            last = row + _LINE // 2
            parts.append(
                f'<line x1="{stem}" y1="{last}" x2="{twig}" y2="{last}" stroke="{colour}" {_STROKES[strength]}/>'
            )
            parts.append(_dot(twig, last, strength, colour))
        style = anchor if strength else f'{anchor}font-style="italic" fill="#4a4a4a"'
        parts += [_text(text, row + 14 + _LINE * number, line, style) for number, line in enumerate(lines)]
        row += _LINE * len(lines)
    parts.append(f'<line x1="{stem}" y1="{top - 2}" x2="{stem}" y2="{last}" stroke="{colour}" stroke-width="1.6"/>')
    return parts


def _hub(lines: Sequence[str], middle: int) -> list[str]:
    height = 26 * len(lines) + 32
    top = middle - height // 2
    parts = [
        f'<rect x="{(_WIDTH - _HUB_WIDTH) // 2}" y="{top}" width="{_HUB_WIDTH}" height="{height}" rx="14" '
        'fill="#fff6d6" stroke="#1a1a1a" stroke-width="2.5"/>'
    ]
    style = 'text-anchor="middle" font-size="17" font-weight="bold"'
    parts += [_text(_WIDTH / 2, top + 16 + 20 + 26 * number, line, style) for number, line in enumerate(lines)]
    return parts
