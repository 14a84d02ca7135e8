"""Reading of the source tables (YAML) into a knowledge graph; ``source/README.md`` has their format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph, identifier
from dermiq.kg.relations import CONDITION, KINDS, STRENGTHS
from dermiq.schema import KnowledgeError

SOURCE = Path(__file__).parents[1] / "source"


class _Loader(yaml.CSafeLoader):
    """YAML loader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def read_tables(source: Path = SOURCE) -> KnowledgeGraph:
    """The graph of bibliography, vocabulary, conditions and treatments.

    Raises:
        KnowledgeError: if a table is not valid YAML or lacks a field, naming the file.
    """
    path = source / "bibliography.yaml"
    with _named(path):
        citations = {
            key: Citation(key, row["title"], row["publisher"], int(row["year"]), row["licence"])
            for key, row in _load(path).items()
        }
    concepts: dict[str, Concept] = {}
    for kind in KINDS:
        path = source / "vocabulary" / f"{kind}.yaml"
        if kind != CONDITION and path.exists():
            with _named(path):
                for name, row in _load(path).items():
                    _add(concepts, _concept(kind, name, row or {}), path)
    facts: list[Fact] = []
    for path in sorted((source / "conditions").glob("*.yaml")):
        with _named(path):
            table = _load(path)
            parents = _values(table["facts"].get("subtype_of", {}))
            row = {**table, "broader": [name for name, _, _ in parents]}
            _add(concepts, _concept(CONDITION, table["name"], row), path)
            facts.extend(_facts(table["name"], table["facts"], table["cite"]))
    path = source / "treatments.yaml"
    if path.exists():
        with _named(path):
            for name, row in _load(path).items():
                facts.extend(_facts(name, {key: row[key] for key in row if key != "cite"}, row["cite"]))
    return KnowledgeGraph(concepts, tuple(facts), citations)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors inside are raised with the path of the table."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise KnowledgeError(f"{path}: {type(error).__name__} {error}. See source/README.md.") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            table = yaml.load(file, _Loader)
    except (yaml.YAMLError, OSError) as error:
        raise KnowledgeError(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise KnowledgeError(f"{path}: not a mapping. See source/README.md.")
    return table


def _add(concepts: dict[str, Concept], concept: Concept, path: Path) -> None:
    if concept.id in concepts:
        raise KnowledgeError(f"{path}: {concept.label!r} is already a {concepts[concept.id].kind}.")
    concepts[concept.id] = concept


def _concept(kind: str, name: str, row: dict[str, Any]) -> Concept:
    parents = row.get("broader") or row.get("part_of") or []
    return Concept(
        id=identifier(name),
        kind=kind,
        label=name,
        synonyms=_texts(row, "synonyms"),
        broader=tuple(map(identifier, [parents] if isinstance(parents, str) else parents)),
        xrefs=_texts(row, "xrefs"),
        definition=row.get("definition") or "",
    )


def _texts(row: dict[str, Any], field: str) -> tuple[str, ...]:
    """The list of texts of a field; YAML reads an unquoted ``no`` or ``1`` as another type, which is refused."""
    texts = row.get(field) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{row.get('name', '')} {field} must be a list of texts, not {texts!r}")
    return tuple(texts)


def _values(body: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(value, strength, note) of one relation."""
    unknown = body.keys() - {*STRENGTHS, "closed", "cite"}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    for strength in STRENGTHS:
        entries = body.get(strength, [])
        if not isinstance(entries, list):
            raise ValueError(f"{strength!r} must be a list, not {entries!r}")
        for entry in entries:
            if isinstance(entry, dict):
                ((value, note),) = entry.items()
                yield value, strength, note
            else:
                yield entry, strength, ""


def _facts(subject: str, table: dict[str, Any], citation: str) -> Iterator[Fact]:
    for relation, body in table.items():
        for value, strength, note in _values(body):
            yield Fact(
                subject=identifier(subject),
                relation=relation,
                value=identifier(value),
                strength=strength,
                closed=bool(body.get("closed", False)),
                citation=body.get("cite", citation),
                note=note,
            )
