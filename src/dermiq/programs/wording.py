"""Refusals of jsonargparse, many lines over several levels, reduced to an option and a reason."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from dermiq.programs.arguments import did_you_mean, nearest, worded
from dermiq.programs.yaml_files import near_file

_MARK, _PART = "\ue000", "\ue001"  # around a refusal that the text of an outer parser quotes, and between its parts
_WITHIN_FILE = r'Parser key "[^"]+":\s+Unable to load config \'[^\']*\'\s+- (?=Parser key)'  # its keys are said again
_SHOWN = 16  # names in a sentence, at most
_SURE = 0.75  # similarity of names, above which no other name of the same end is looked for
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "names with values",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "collections.abc.Sequence": "a list",
    "collections.abc.Iterable": "a list",
    "NoneType": "null",
}
_FOREIGN = ("torch.optim", "torch.optim.lr_scheduler", "lightning.pytorch.callbacks", "lightning.pytorch.loggers")


@dataclass(frozen=True)
class Refusal:
    """An option that a parser refuses, and the reason.

    Attributes:
        key: the option, in dots and without ``init_args``; empty where it is about none.
        reason: what is wrong with it, as the rest of a sentence that begins with it; empty for an unknown option.
        hint: the option that was probably meant, where it is unknown.
        sure: whether that one is near.
        others: names that stand where an unknown one was given.
    """

    key: str
    reason: str = ""
    hint: str = ""
    sure: bool = False
    others: str = ""

    def quoted(self) -> str:
        """As text that `read` finds in the text of an outer parser."""
        return _MARK + _PART.join((self.key, self.reason, self.hint, "1" if self.sure else "", self.others)) + _MARK


def read(message: str, names: Collection[str]) -> Refusal:
    """The refusal in a parser's message.

    Args:
        message: as jsonargparse words it; what inner parsers refuse is quoted in it.
        names: the options of this parser.
    """
    message = re.sub(_WITHIN_FILE, "", message)
    if found := re.search(f"{_MARK}([^{_MARK}]*){_MARK}", message):
        key, reason, hint, sure, others = found[1].split(_PART)
        above = re.findall(r'Parser key "([^"]+)"', message[: found.start()])
        return Refusal(joined(*above, key), reason, joined(*above, hint) if hint else "", bool(sure), others)
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if "Unable to load config" in message:
        found = re.search(r"Unable to load config ['\"](.*)['\"]", message)
        value = found[1] if found else ""
        absent = value.endswith((".yaml", ".yml")) and not Path(value).is_file()
        reason = _missing_file(value) if absent else f"takes names with values, not {value!r}."
        return Refusal(joined(*keys[:1]), reason)
    key = joined(*keys)
    unknown = _unknown(message)
    if unknown is not None:
        name = joined(key, unknown)
        return _nearest_option(name, names) if name else Refusal("", _alone(message))
    return Refusal(key, _class_reason(message) or _kind_reason(message) or _rest(message))


def is_quoted(message: str) -> bool:
    """True if a message holds the refusal of an inner parser."""
    return _MARK in message


def joined(*parts: str) -> str:
    """A key in dots without what jsonargparse puts between the names of options."""
    names = ".".join(filter(None, parts)).split(".")
    return ".".join(name for name in names if name not in ("init_args", "dict_kwargs"))


def better_hint(refusal: Refusal, names: Collection[str]) -> Refusal:
    """The refusal of an unknown option with a hint from among all options known, where its own is none or weak."""
    if refusal.reason or refusal.sure:
        return refusal
    last = refusal.key.split(".")[-1]
    same = [name for name in names if name.split(".")[-1] == last and name != refusal.key]
    if same:
        return replace(refusal, hint=min(same, key=len))
    if refusal.hint:
        return refusal
    found = nearest(last, {name.split(".")[-1] for name in names}, _SURE)
    ends = [name for name in names if found and name.split(".")[-1] == found]
    return replace(refusal, hint=min(ends, key=len)) if ends else refusal


def _unknown(message: str) -> str | None:
    """The unknown option that a message is about; empty for a word that is none, None if it is about another thing."""
    patterns = (
        r"^(?:.*\n)*?\s*(?:.*: )?Option '([^']+)' is not accepted()",
        r"Subcommand '\w+' does not accept option '([^']+)'()",
        r"Group '([^']+)' does not accept option '([^']+)'",
        r"unrecognized arguments: --([^\s=]+)()",
        r"No action for key \"([^\"]+)\"()",
    )
    for pattern in patterns:
        if found := re.search(pattern, message):
            return joined(*found.groups())
    return "" if "unrecognized arguments: " in message else None


def _alone(message: str) -> str:
    words = message.split("unrecognized arguments: ")[-1].split()
    return f"{words[0] if words else ''!r} stands alone. Options have the form --NAME=VALUE."


def _nearest_option(key: str, names: Collection[str]) -> Refusal:
    """Go down the names to the first part that is wrong, and look beside it."""
    parts, above, level = key.split("."), "", set[str]()
    for place, part in enumerate(parts):
        level = {name[len(above) :].split(".")[0] for name in names if name.startswith(above)}
        if part in level:
            above += f"{part}."
            continue
        for cutoff, sure in ((_SURE, True), (0.55, False)):
            if found := nearest(part, level, cutoff):
                return Refusal(key, hint=above + ".".join([found, *parts[place + 1 :]]), sure=sure)
        break
    return Refusal(key, others=", ".join(sorted(level)) if len(level) <= _SHOWN else "")


def _class_reason(message: str) -> str:
    """What is wrong with a class or a function that is named; empty if that is not it."""
    bases = re.findall(r"<class '([\w.]+)'>", (re.search(r"Subtypes: \[(.*)\]", message) or [""])[0])
    if name := _named(message):
        known = _classes(bases) or _importable()
        close = nearest(name.rpartition(".")[2], known)
        if close or "." in name or not any(base in _KINDS for base in bases):
            return f"names {name!r}, which is not there{did_you_mean(known[close] if close else None, _IMPORTED)}"
    if found := re.search(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", message):
        names = ", ".join(sorted(_classes([_by_name(found[2])])))
        return (
            f"takes a class of the kind {found[2]}{f' ({names})' if names else ''}, and {found[1] or 'this'} is none."
        )
    if "is abstract" in message:
        return "lacks its class: name it as class_path."
    if found := re.search(r"Not a valid subclass of (\w+)(?:\. Got value: (.*))?", message):
        value = found[2] or (re.search(r"Given value: (.*)", message) or ["", ""])[1]
        return f"takes a class of the kind {found[1]} and its options, not {value[:80]!r}."
    return ""


def _named(message: str) -> str:
    """The class or function that a message says cannot be imported; empty if it says no such thing."""
    whole = re.search(r"class_path[ =]'([^']+)'|import path string: (\S+)|Got value: ([\w.]+)", message)
    missing = r"No module named '[^']+'|Expected a dot import path string|module '([\w.]+)' has no attribute '(\w+)'"
    found = re.search(missing, message)
    if found is None:
        return ""
    named = next(filter(None, whole.groups())) if whole else ""
    return named if named or found[1] is None else f"{found[1]}.{found[2]}"


_RELATIVE = "A relative path begins at the file that names it, or at the directory that the command is run in."
_IMPORTED = "It is where Python imports a class or a function from, such as dermiq.modules.GRPOModule."


def _kind_reason(message: str) -> str:
    """Which kind of value is wanted; empty if that is not it."""
    wanted = dict.fromkeys(_kinds(re.findall(r"Expected an? ([^\n]+)", message)))
    if not wanted:
        return ""
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    shown = value[1] if value else ""
    if nested := re.match(r"NestedArg\(key='.*?', val=(.*)\)$", shown):
        shown = nested[1].strip("'")
    *most, last = wanted
    words = f"{', '.join(most)} or {last}" if most else last
    choices = [each.strip(" '") for each in re.findall(r"one of ([^;]*)", words) for each in each.split(",")]
    close = nearest(shown, choices, 0.5)
    return f"takes {words}, not {shown[:80]!r}{did_you_mean(close) if close else '.'}"


def _kinds(lines: Iterable[str]) -> Iterator[str]:
    choices: dict[str, None] = {}
    for line in lines:
        text = line.split(". Got value")[0].strip()
        if text.startswith(("path but", "dot import path", "import path")):
            continue
        if literal := re.match(r"(?:typing\.)?Literal\[(.*)\]", text):
            choices |= dict.fromkeys(each.strip(" '") for each in literal[1].split(","))
        else:
            name = re.sub(r"<class '([\w.]+)'>", r"\1", text)
            name = re.sub(r"^typing\.", "", name).split("[")[0]
            yield _KINDS.get(name.removeprefix("builtins."), name.rpartition(".")[2])
    if choices:
        yield "one of " + ", ".join(choices)


def _rest(message: str) -> str:
    """Any other message, in one line."""
    if found := re.search(r'expected "subcommand" to be one of \{(.*)\}', message):
        return f"Say what to do: {found[1].replace(',', ', ')}."
    if "invalid choice" in message:
        return worded(message)
    if found := re.search(r"the following arguments are required: (.*)", message):
        names = re.sub(r"\b(fit|validate|test|predict)\.", "", found[1])
        return f"lacks {names}."
    if found := re.search(r"argument (?:\S+/)?(--\S+): expected one argument", message):
        return f"{found[1]} needs a value: {found[1]}=VALUE."
    if found := re.search(r"argument (--\S+): ignored explicit", message):
        return f"{found[1]} takes no value."
    if found := re.search(r"Expected a path but (\S+[./]\S+) either not", message):
        return _missing_file(found[1])
    text = re.sub(r'Parser key "[^"]+":|in "<unicode string>".*|argument ', "", message)
    return f"cannot be used: {' '.join(text.split())[:240]}"


def _missing_file(name: str) -> str:
    return f"names a file {name}, which is not there{did_you_mean(near_file(name), _RELATIVE)}"


def _classes(bases: Iterable[str]) -> dict[str, str]:
    """Name -> path of the classes below some base classes."""
    shorter = _importable()  # imports the modules that they stand in
    found: dict[str, str] = {}
    todo = [cls for path in bases if (cls := _imported(path)) is not None]
    while todo:
        for cls in todo.pop().__subclasses__():
            if not cls.__name__.startswith("_"):
                found.setdefault(cls.__name__, f"{cls.__module__}.{cls.__name__}")
            todo.append(cls)
    return {name: shorter.get(name, path) for name, path in found.items()}


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    value = getattr(sys.modules.get(module), name, None)
    return value if isinstance(value, type) and value is not type(None) else None


def _by_name(name: str) -> str:
    found = (f"{module}.{name}" for module in list(sys.modules) if module.startswith("dermiq"))
    return next((path for path in found if _imported(path) is not None), "")


def _importable() -> dict[str, str]:
    """Name -> path of the classes and functions that a configuration can name, the shortest path of each."""
    found: dict[str, str] = {}
    for place in (*_modules(), *_FOREIGN):
        with suppress(ImportError):  # of what an extra installs
            for name, value in vars(import_module(place)).items():
                home = f"{getattr(value, '__module__', '')}."
                if home.startswith(f"{place}.") and callable(value) and not name.startswith("_"):
                    found.setdefault(name, f"{place}.{name}")
    return found


def _modules() -> list[str]:
    """The modules of the packages that the command line has imported, those highest up first."""
    top = [name for name in sys.modules if name.startswith("dermiq.") and name.count(".") == 1]
    inner = [
        each.name
        for name in top
        for each in walk_packages(getattr(sys.modules[name], "__path__", ()), f"{name}.")
        if not each.name.endswith(".__main__")
    ]
    return sorted([*top, *inner], key=lambda name: (name.count("."), name))
