"""Reader of YAML files that people write: a fault is one sentence that names the file and the line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dermiq.files import regular_bytes
from dermiq.programs.arguments import nearest
from dermiq.schema import DermIQError

LARGEST = 1 << 22  # bytes
VALUES, DEPTH = 100_000, 100  # in one file, aliases written out
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YAMLFault(yaml.MarkedYAMLError):
    """Valid YAML that nobody can have meant, such as a duplicate key."""


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        FileNotFoundError: if it is not there.
        DermIQError: if it is no regular file, no UTF-8, no YAML, or YAML that `check_yaml` refuses.
    """
    content = regular_bytes(path)
    if len(content) > LARGEST:
        raise DermIQError(f"{path} has {len(content):,} bytes, too many for a file of YAML. Name another file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DermIQError(f"{path} cannot be read, line {line}: this is no UTF-8. Save the file as UTF-8.") from error
    if "\0" in text:
        raise DermIQError(f"{path} cannot be read: it holds zero bytes, so it is no UTF-8. Save it as UTF-8.")
    try:
        check_yaml(text)
        return yaml.load(text, _Loader)  # a safe one
    except yaml.YAMLError as error:
        line, problem = _explained(error, text)
        place = f", line {line}" if line else ""
        raise DermIQError(f"{path} cannot be read{place}: {problem}") from error
    except ValueError as error:  # of what looks like a number or a date: 2026-13-45
        raise DermIQError(f"{path} cannot be read: {error}. Put the value in quotation marks.") from error


def near_file(path: str | Path) -> str | None:
    """An existing file of YAML of nearly this name, or of this name in a folder of nearly that one."""
    folder, name = Path(path).parent, Path(path).name
    if folder.is_dir():
        found = nearest(name, [each.name for each in folder.glob("*.y*ml")], 0.75)
        return str(folder / found) if found else None
    if not folder.parent.is_dir():
        return None
    found = nearest(folder.name, [each.parent.name for each in folder.parent.glob(f"*/{name}")], 0.75)
    return str(folder.parent / found / name) if found else None


def _explained(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """Line (0 if unknown) and sentence of what is wrong with YAML."""
    mark = error.problem_mark or error.context_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return 0, "this is no text that YAML allows. Name a file of YAML."
    line = (text.splitlines() or [""])[min(mark.line, text.count("\n"), len(text.splitlines()) - 1)]
    if isinstance(error, YAMLFault):
        return mark.line + 1, str(error.problem)
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return mark.line + 1, "a tab stands where YAML wants spaces. Indent with spaces."
    said = ", ".join(str(part) for part in (error.context, error.problem) if part)
    return mark.line + 1, f"this is no YAML ({said}). Mend the line, or the one before it."


@dataclass
class _Open:
    """A list or a mapping that is still being read."""

    anchor: str | None
    mapping: bool
    size: int = 1
    keys: dict[str, int] = field(default_factory=dict)
    wants_key: bool = True


def check_yaml(text: str) -> None:
    """Refuse duplicate keys, and aliases and nesting that no memory could hold; nothing of it is built.

    Raises:
        YAMLFault: at the first such place.
        yaml.YAMLError: if it is no YAML.
    """
    stack = [_Open(None, mapping=False)]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > DEPTH:
                raise _fault(f"lists and mappings are nested more than {DEPTH} deep. Nest them less.", event)
            stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            _add(stack, sizes, done.size, done.anchor, event)
        elif isinstance(event, yaml.ScalarEvent):
            _refuse_twice(stack[-1], event)
            _add(stack, sizes, 1, event.anchor, event)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                inside = any(each.anchor == event.anchor for each in stack)
                words = (
                    "stands within the very value that it repeats" if inside else "repeats a value that is not there"
                )
                raise _fault(f"the alias *{event.anchor} {words}. Write the value out.", event)
            _add(stack, sizes, sizes[event.anchor], None, event)


def _add(stack: list[_Open], sizes: dict[str, int], size: int, anchor: str | None, event: yaml.Event) -> None:
    """Count a value that is complete."""
    if anchor is not None:
        sizes[anchor] = size
    parent = stack[-1]
    parent.size += size
    parent.wants_key = not parent.wants_key
    if parent.size > VALUES:
        raise _fault(f"up to here there are more than {VALUES:,} values, aliases written out. Make them fewer.", event)


def _refuse_twice(parent: _Open, event: yaml.ScalarEvent) -> None:
    if not parent.mapping or not parent.wants_key or event.value == "<<":
        return
    line = event.start_mark.line + 1 if event.start_mark else 0
    if event.value in parent.keys:
        raise _fault(
            f"the key {event.value!r} stands in line {parent.keys[event.value]} already. Leave one of them out.", event
        )
    parent.keys[event.value] = line


def _fault(problem: str, event: yaml.Event) -> YAMLFault:
    mark: Any = event.start_mark  # typeshed knows two classes of marks
    return YAMLFault(problem=problem, problem_mark=mark)
