"""The argparse parser of all programs: errors of one line that name the nearest right option."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from dermiq.programs.exits import FAILED, PREFIX

_NUMBERS = {"int": "a whole number", "float": "a number", "_positive": "a whole number from 1 on"}


def nearest(name: str, names: Collection[str], cutoff: float = 0.6) -> str | None:
    """The closest of `names` to a misspelt one, None if none is close; case and dashes do not count.

    >>> nearest("Max-Step", ["max_epochs", "max_steps"])
    'max_steps'
    """
    plain = {each.lower().replace("-", "_"): each for each in names}
    found = get_close_matches(name.lower().replace("-", "_"), plain, 1, cutoff)
    return plain[found[0]] if found else None


def did_you_mean(name: str | None, otherwise: str = "") -> str:
    """The end of a sentence about a wrong name: the right one as a question, else what to do `otherwise`."""
    return f"; did you mean {name}?" if name else f". {otherwise}".rstrip()


class Program(argparse.ArgumentParser):
    """An argument parser whose errors are one line with the nearest right option, and exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(  # type: ignore[override]  # the overloads of typeshed, which say the same
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse as argparse does; the subcommand that an unknown option was given to refuses it."""
        if args is not None and self._subparsers is None:
            self._refuse_unknown([each for each in args if each.startswith("--")])
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self._refuse_unknown(rest)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print the message in one line and exit."""
        self.exit(FAILED, f"{PREFIX}{worded(message)} See {self.prog} --help.\n")

    def _refuse_unknown(self, given: Sequence[str]) -> None:
        known = self._option_string_actions
        for token in given:
            name = token.split("=")[0]
            if token == "--":
                return
            if name.startswith("-") and name not in known:
                self.error(f"There is no option {name}{did_you_mean(nearest(name, known), 'Leave it out.')}")
            if not name.startswith("-"):
                self.error(f"{token!r} is one argument too many.")


def worded(message: str) -> str:
    """An argparse message as a sentence with the remedy."""
    if found := re.match(r"argument (\S+): invalid (\w+) value: (.*)", message):
        option, kind, value = found.groups()
        return f"{option} takes {_NUMBERS.get(kind, f'a {kind}')}, not {value}."
    if found := re.match(r"argument (.+?): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
        what, value, choices = found.groups()
        names = [each.strip(" '") for each in choices.split(",")]
        word = f"{what} takes no" if what.startswith("-") else "There is no command"
        return f"{word} {value!r}{did_you_mean(nearest(value, names), f'There are {choices}.')}"
    if found := re.match(r"the following arguments are required: (.*)", message):
        return f"{found[1]} {'are' if ',' in found[1] else 'is'} missing."
    text = " ".join(message.removeprefix("argument ").split())
    return text if text.endswith((".", "?")) else f"{text}."
