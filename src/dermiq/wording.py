"""The refusals of jsonargparse, which go over many lines and levels, as what they are about: an option and a reason."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module

from dermiq.programs import did_you_mean, nearest, worded

_MARK, _PART = "\ue000", "\ue001"  # around a refusal that the text of an outer parser quotes, and between its parts
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
_PLACES = (  # where classes and functions of configurations stand
    *("dermiq.modules", "dermiq.datamodules", "dermiq.datamodules.sources", "dermiq.rewards", "dermiq.advantages"),
    *("dermiq.losses", "dermiq.kg", "dermiq.backbone", "dermiq.callbacks", "dermiq.checkpointing", "dermiq.sharding"),
    *("dermiq.modules.schedules", "dermiq.alignment_loss", "dermiq.text_encoder", "dermiq.thumbnails"),
    *("torch.optim", "torch.optim.lr_scheduler", "lightning.pytorch.callbacks", "lightning.pytorch.loggers"),
)


@dataclass(frozen=True)
class Refusal:
    """What a parser refuses.

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
    if found := re.search(f"{_MARK}([^{_MARK}]*){_MARK}", message):
        key, reason, hint, sure, others = found[1].split(_PART)
        above = re.findall(r'Parser key "([^"]+)"', message[: found.start()])
        return Refusal(joined(*above, key), reason, joined(*above, hint) if hint else "", bool(sure), others)
    key = joined(*re.findall(r'Parser key "([^"]+)"', message))
    unknown = _unknown(message)
    if unknown is not None:
        name = joined(key, unknown)
        return _nearest_option(name, names) if name else Refusal("", _alone(message))
    return Refusal(key, _class_reason(message) or _kind_reason(message) or _rest(message))


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
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message):
        names = ", ".join(sorted(_classes([_by_name(found[2])])))
        return f"takes a {found[2]}{f' ({names})' if names else ''}, and {found[1]} is none."
    if found := re.search(r"(Not a valid subclass of|Expected an instantiatable class, but) (.*)", message):
        return f"takes a class and its options, not this ({found[0][:120]})."
    given = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message)
    name = f"{given[1]}.{given[2]}" if given else ""
    if not given:
        other = re.search(r"given class_path '([^']+)'|import path string: (\S+)|Got value: ([\w.]+)", message)
        missing = re.search(r"No module named '[^']+'|Expected a dot import path string|Unexpected import", message)
        if other is None or missing is None:
            return ""
        name = next(filter(None, other.groups()))
    known = _classes(bases) or _importable()
    close = nearest(name.rpartition(".")[2], known, 0.6)
    if close is None and any(base in _KINDS for base in bases) and "." not in name:
        return ""
    return f"names {name!r}, which is not there{did_you_mean(known[close] if close else None, _IMPORTED)}"


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
    for line in lines:
        text = line.split(". Got value")[0].strip()
        if text.startswith(("path but", "dot import path", "import path")):
            continue
        if literal := re.match(r"(?:typing\.)?Literal\[(.*)\]", text):
            yield "one of " + ", ".join(each.strip(" '") for each in literal[1].split(","))
        else:
            name = re.sub(r"<class '([\w.]+)'>", r"\1", text)
            name = re.sub(r"^typing\.", "", name).split("[")[0]
            yield _KINDS.get(name.removeprefix("builtins."), name.rpartition(".")[2])


def _rest(message: str) -> str:
    """Any other message, in one line."""
    if found := re.search(r'expected "subcommand" to be one of \{(.*)\}', message):
        return f"Say what to do: {found[1].replace(',', ', ')}."
    if "invalid choice" in message:
        return worded(message)
    if found := re.search(r"the following arguments are required: (.*)", message):
        return f"lacks {found[1]}."
    if found := re.search(r"argument \S+: expected one argument", message):
        return "needs a value: --NAME=VALUE."
    text = re.sub(r'Parser key "[^"]+":', "", message)
    return f"cannot be used: {' '.join(text.split())[:240]}"


def _classes(bases: Iterable[str]) -> dict[str, str]:
    """Name -> path of the classes below some base classes."""
    found: dict[str, str] = {}
    todo = [cls for path in bases if (cls := _imported(path)) is not None]
    while todo:
        for cls in todo.pop().__subclasses__():
            if not cls.__name__.startswith("_"):
                found.setdefault(cls.__name__, f"{cls.__module__}.{cls.__name__}")
            todo.append(cls)
    shorter = _importable()
    return {name: shorter.get(name, path) for name, path in found.items()}


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    value = getattr(sys.modules.get(module), name, None)
    return value if isinstance(value, type) and value is not type(None) else None


def _by_name(name: str) -> str:
    found = (f"{module}.{name}" for module in list(sys.modules) if module.startswith("dermiq"))
    return next((path for path in found if _imported(path) is not None), "")


def _importable() -> dict[str, str]:
    """Name -> path of what stands where configurations find it."""
    found: dict[str, str] = {}
    for place in _PLACES:
        for name, value in vars(import_module(place)).items():
            if callable(value) and not name.startswith("_"):
                found.setdefault(name, f"{place}.{name}")
    return found
