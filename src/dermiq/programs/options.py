"""A jsonargparse parser whose refusals are one line: file and line or option, what is wrong, the nearest right name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_loader

from dermiq.files import regular_bytes
from dermiq.programs.arguments import did_you_mean, nearest
from dermiq.programs.wording import Refusal, better_hint, is_quoted, joined, read
from dermiq.programs.yaml_files import check_yaml, near_file, read_yaml
from dermiq.schema import DermIQError

_load = get_loader("yaml")


def _load_checked(text: str) -> Any:
    check_yaml(text)
    return _load(text)


set_loader("yaml", _load_checked, (yaml.YAMLError,))


@dataclass(frozen=True)
class Place:
    """Where an option was given.

    Attributes:
        name: the option as it was written, in dots.
        where: file and line; empty for the command line.
    """

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.name}" if self.where else f"--{self.name}"


class Refused(DermIQError):
    """Refusal of a whole command line, before the option's place in files or arguments is known."""

    def __init__(self, refusal: Refusal, parser: argparse.ArgumentParser) -> None:
        super().__init__(sentence(refusal, parser, ()))
        self.refusal, self.parser = refusal, parser


class OneLine(argparse.ArgumentParser):
    """Mixin for parsers of jsonargparse: abbreviations and unreadable files are refused, in one line."""

    exit_on_error: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """As jsonargparse does it, once the files that are named can be read.

        Raises:
            DermIQError: if something cannot be used, unless this parser is a part of another.
        """
        if not self.exit_on_error:  # the parser around it has made the text of Python's None of `null`
            inner = [f"{arg.removesuffix('None')}null" if arg.endswith("=None") else arg for arg in args or ()]
            return super().parse_args(inner, *more, **kwargs)
        given = list(sys.argv[1:] if args is None else args)
        _check_order(self, given)
        check_configs(config_files(given))
        for arg in given:
            value = arg.partition("=")[2]
            if arg.startswith("--") and value.endswith((".yaml", ".yml")) and Path(value).exists():
                read_yaml(value)
        try:
            return super().parse_args(args, *more, **kwargs)
        except Refused as refused:
            raise DermIQError(sentence(refused.refusal, refused.parser, given)) from refused
        except (ValueError, RecursionError, OSError) as error:
            raise DermIQError(f"The options cannot be read: {' '.join(str(error).split())[:300]}") from error

    def parse_object(self, cfg_obj: Any, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse does it, which would let a group of options be a list or a number."""
        for group in getattr(self, "groups", {}):
            value = cfg_obj.get(group, {}) if hasattr(cfg_obj, "get") else {}
            if value is None or isinstance(value, list | tuple | bool | int | float):
                self.error(f"Parser key \"{group}\":\n  Expected a <class 'dict'>. Got value: {value}")
        return super().parse_object(cfg_obj, *args, **kwargs)  # type: ignore[misc]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what is wrong: for the user if this is the whole command line, else for the parser around it."""
        parser = getattr(ex, "subcommand_parser", None) or self
        if "Config file loop detected" in message and not is_quoted(message):  # a second attempt's
            message = message.split("Config file loop")[0] + (_quoted(ex) or message)
        refusal = read(message, option_names(parser))
        if not self.exit_on_error:
            raise argparse.ArgumentError(None, refusal.quoted()) from ex
        raise Refused(refusal, parser) from ex


def _quoted(error: BaseException | None) -> str:
    """The refusal of an inner parser in an error's causes; empty if there is none."""
    while error is not None:
        if isinstance(error, argparse.ArgumentError) and is_quoted(str(error)):
            return str(error)
        error = error.__cause__ or error.__context__
    return ""


def _check_order(parser: argparse.ArgumentParser, args: Sequence[str]) -> None:
    """Refuse options before the subcommand, which would be read as those of the program."""
    commands: Any = getattr(parser, "_subcommands_action", None)
    wrong = commands and args and args[0].startswith("-") and args[0].split("=")[0] not in ("-h", "--help")
    later = next((arg for arg in args if commands and arg in commands.choices), None)
    if wrong and later:
        raise DermIQError(f"Options stand behind the subcommand: {later} {args[0]} …")


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser, in dots."""
    names = (joined(action.dest) for action in parser._actions if action.option_strings)
    return [name for name in names if name.split(".")[-1] != "help"]


def config_files(args: Sequence[str]) -> list[str]:
    """The files that --config names, in order."""
    following = [value for option, value in pairwise(args) if option in ("--config", "-c")]
    return following + [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]


def check_configs(paths: Sequence[str]) -> None:
    """Refuse configurations that are not there, cannot be read or are of different experiments.

    Raises:
        DermIQError: naming the file, and the line if it has one.
    """
    chosen: dict[str, tuple[str, str]] = {}
    for path in paths:
        if "{" in path or "\n" in path:  # the content itself, which the parser reads
            continue
        classes = _check_config(path)
        for inner in filter(None, (option.file() for option in _written(path))):
            read_yaml(inner)
        for part, name in classes.items():
            former, first = chosen.setdefault(part, (name, path))
            if former.rpartition(".")[2] != name.rpartition(".")[2]:
                raise DermIQError(
                    f"{path}{_line(path, part)}: {part} is a {name} here, and a {former} in {first}. Name one "
                    "experiment with --config; what is laid over it leaves out class_path."
                )


def _check_config(path: str) -> dict[str, str]:
    """The classes that a configuration names for ``model`` and ``data``."""
    if not path:
        raise DermIQError("--config needs a file, such as configs/grpo.yaml.")
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        near = did_you_mean(near_file(path), "Relative paths begin at the directory that the command is run in.")
        raise DermIQError(f"There is no file {path}{near}") from error
    if isinstance(content, dict) and not isinstance(content.get("trainer", {}), dict):
        given = str(content["trainer"])[:80]
        raise DermIQError(f"{path}{_line(path, 'trainer')}: trainer takes names with values, not {given!r}.")
    if not isinstance(content, dict):
        kind = "nothing" if content is None else "a list" if isinstance(content, list) else "a single value"
        raise DermIQError(f"{path} holds {kind}, where options were expected, such as `trainer: {{max_epochs: 1}}`.")
    parts = {name: content[name].get("class_path") for name in ("model", "data") if isinstance(content.get(name), dict)}
    return {name: value for name, value in parts.items() if isinstance(value, str)}


def sentence(refusal: Refusal, parser: argparse.ArgumentParser, args: Sequence[str]) -> str:
    """One sentence: where the option was given, what is wrong with it, and which was probably meant."""
    key = refusal.key.removeprefix(f"{parser.prog.split()[-1]}.") if refusal.reason else refusal.key
    known = [*option_names(parser), *(each.name for path in config_files(args) for each in _written(path))]
    if (beside := _misnamed(key, refusal.reason, args, known)) is not None:
        refusal, key = beside, beside.key
    if refusal.reason and not key:
        if refusal.reason.startswith("lacks"):
            return f"The command {refusal.reason} Name an experiment with --config, such as configs/grpo.yaml."
        return f"{refusal.reason[0].upper()}{refusal.reason[1:]}"
    place = _place(key, refusal.reason, args)
    if refusal.reason:
        return f"{place} {refusal.reason}"
    hint = better_hint(refusal, known).hint
    if hint.rpartition(".")[0] == key.rpartition(".")[0]:  # names of a mapping stand in the place alone
        hint = joined(place.name.rpartition(".")[0], hint.rpartition(".")[2])
    dashes, sayer = ("", f"{place.where}: there") if place.where else ("--", "There")
    those = f"Those there are: {refusal.others}." if refusal.others else "--print_config shows those of a run."
    return f"{sayer} is no option {dashes}{place.name}{did_you_mean(dashes + hint if hint else None, those)}"


def _misnamed(key: str, reason: str, args: Sequence[str], known: Sequence[str]) -> Refusal | None:
    """The option whose mistyped name began a new entry of a mapping (``sources.al.root``), which now lacks the rest."""
    if not reason.startswith("lacks") or not key:
        return None
    for arg in args:
        name = joined(arg[2:].partition("=")[0])
        if arg.startswith("--") and name.startswith(f"{key}.") and name not in known:
            hint = nearest(name, [each for each in known if each.count(".") == name.count(".")], 0.8)
            return Refusal(name, hint=hint, sure=True) if hint else None
    return None


def _place(key: str, reason: str, args: Sequence[str]) -> Place:
    """Where an option was given, the command line before the files, later ones first."""
    for arg in reversed([each for each in args if each.startswith("--")]):
        option, _, value = arg[2:].partition("=")
        name = joined(option.rstrip("+")).removesuffix(".class_path")
        if _same(key, name) or (name.startswith(f"{key}.") and value and repr(value) in reason):
            return Place(name, "")
        if key.startswith(f"{name}."):
            inside = key.removeprefix(f"{name}.")
            lines = [f"{each.path}, line {each.line}" for each in _written(value) if _same(inside, each.name)]
            return Place(key, lines[0] if lines else "")
    for path in reversed(config_files(args)):
        written = list(_written(path))
        found = [each for each in written if f"{each.name}.".startswith(f"{key}.") and repr(each.value) in reason]
        found += [each for each in written if _same(key, each.name)]
        if found:
            first = next((each for each in found if each.value and repr(each.value) in reason), found[0])
            return Place(first.name, f"{first.path}, line {first.line}")
    return Place(key, "")


def _same(key: str, name: str) -> bool:
    """True if both are the same option; the parser's name of it lacks keys of mappings (``sources.all``)."""
    parts, whole = key.split("."), name.split(".")
    if parts[0] != whole[0] or parts[-1] != whole[-1]:
        return False
    rest = iter(whole)
    return all(part in rest for part in parts)


def _line(path: str, key: str) -> str:
    lines = [each.line for each in _written(path) if each.name == key]
    return f", line {lines[-1]}" if lines else ""


@dataclass(frozen=True)
class _Written:
    """An option in a file of YAML; `value` is empty if it is no single one."""

    name: str
    path: str
    line: int
    value: str

    def file(self) -> str:
        """The file of YAML that stands for the value; empty if there is none."""
        path = Path(self.path).parent / self.value
        return str(path) if path.suffix in (".yaml", ".yml") and path.is_file() else ""


def _written(path: str, above: str = "", within: tuple[str, ...] = ()) -> Iterator[_Written]:
    """The options in a file of YAML and in the files that it names; none if it cannot be read.

    Args:
        path: the file.
        above: the option that takes the file.
        within: the files that name it, directly or not.
    """
    try:
        text = regular_bytes(path).decode("utf-8-sig")
        check_yaml(text)
        found = list(_options(yaml.compose(text, yaml.SafeLoader), above, path))
    except (OSError, ValueError, DermIQError, yaml.YAMLError):
        return
    for option in found:
        yield option
        if (inner := option.file()) and inner not in within:
            yield from _written(inner, option.name, (*within, path))


def _options(node: yaml.Node | None, above: str, path: str) -> Iterator[_Written]:
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _options(each, above, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = joined(above, str(key.value)).removesuffix(".class_path")
            single = value.value if isinstance(value, yaml.ScalarNode) else ""
            yield _Written(name, path, key.start_mark.line + 1, single)
            yield from _options(value, name, path)
