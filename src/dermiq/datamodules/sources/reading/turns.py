"""Turns and images of a conversation, parsed from a row in any of the common formats.

Roles and texts in `messages` (the OpenAI API, TRL, LLaMA-Factory), `prompt` and `completion` (TRL), or
`conversations` (ShareGPT); pictures in the messages themselves, or beside them in `images` or `image`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dermiq.prompts import IMAGE
from dermiq.schema import DataError, Message

_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
_SHOWN = 12


class Turns(NamedTuple):
    """A conversation, parsed from a row.

    Attributes:
        messages: system (or none), then user and assistant in turn, the last the assistant's.
        pictures: as the row has them (path, URL or a mapping of `bytes` and `path`), in the order of their marks.
    """

    messages: tuple[Message, ...]
    pictures: tuple[Any, ...]


def read_turns(row: Mapping[str, Any], place: str) -> Turns:
    """The conversation of a row.

    Args:
        row: column -> value.
        place: where the row stands, for messages.

    Raises:
        DataError: if there is no conversation, its turns are in no sensible order or empty, it holds what is no
            text or image, or its marks and images do not agree in number.
    """
    messages: list[Message] = []
    marks: list[Any] = []
    for number, entry in enumerate(_entries(row, place), start=1):
        message, shown = _message(entry, f"{place}, turn {number}")
        if message.role == "system" and not message.text:
            continue
        _check_turn(messages, message, f"{place}, turn {number}")
        messages.append(message)
        marks += shown
    if not messages or messages[-1].role != "assistant":
        raise DataError(
            f"{place}: the conversation does not end with the assistant, so that there is no reply to learn. Add the "
            "reply, or remove the row."
        )
    return Turns(tuple(messages), _pictures(row, marks, place))


def _entries(row: Mapping[str, Any], place: str) -> list[Any]:
    """The messages as they stand in the row."""
    if row.get("messages"):
        entries = row["messages"]
    elif row.get("conversations"):
        entries = row["conversations"]
    elif row.get("prompt") and row.get("completion"):
        entries = [*said("user", row["prompt"]), *said("assistant", row["completion"])]
    else:
        raise DataError(
            f"{place}: there are no messages. A row needs `messages`, `prompt` with `completion`, or `conversations`; "
            f"this one has {', '.join(list(row)[:_SHOWN]) or 'nothing'}."
        )
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError(f"{place}: the messages are no list of {{role, content}}. Correct the row.")
    return entries


def said(role: str, value: Any) -> list[Any]:
    """Messages as they are, a text as one message of the role."""
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _message(entry: Mapping[str, Any], place: str) -> tuple[Message, list[Any]]:
    """A turn, and for each mark in it the picture, or None where it stands beside the messages."""
    role, content = entry.get("role") or entry.get("from"), entry.get("content", entry.get("value"))
    if entry.get("tool_calls") or entry.get("function_call") or role in ("tool", "function"):
        raise DataError(f"{place}: tool calls are not supported. Remove the row, or its tool calls and results.")
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"{place}: the role {role!r} is unknown; there are system, user and assistant.")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts, pictures = [], []
    for part in parts:
        text, shown = _part(part, place)
        texts.append(text)
        pictures += shown
    return Message(_ROLES[role], "".join(texts).strip()), pictures


def _part(part: Any, place: str) -> tuple[str, list[Any]]:
    """The text of a part of a message, with its pictures."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        text = part.get("text") or ""
        if not isinstance(text, str):
            raise DataError(f"{place}: the content is neither text nor a list of parts. Correct the row.")
        if not _is_whole(text):
            raise DataError(f"{place}: the text holds half a character (\\ud800 to \\udfff). Correct the row.")
        return text, [None] * text.count(IMAGE)
    if kind == "image":
        return IMAGE, [part.get("image") or part.get("path") or part.get("url")]
    if kind == "image_url":
        given = part.get("image_url")
        return IMAGE, [given.get("url", "") if isinstance(given, Mapping) else given or ""]
    raise DataError(f"{place}: a part of the type {kind!r} cannot be used; there are text, image and image_url.")


def _is_whole(text: str) -> bool:
    """False if a text holds a surrogate, one half of a character, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_turn(before: list[Message], message: Message, place: str) -> None:
    expected = "user" if not before or before[-1].role in ("system", "assistant") else "assistant"
    if message.role != expected and (before or message.role != "system"):
        raise DataError(
            f"{place}: this is a turn of the {message.role} where one of the {expected} should stand. User and "
            "assistant take turns, after a system turn or none; join turns of the same role."
        )
    if not message.text:
        raise DataError(f"{place}: the {message.role}'s turn is empty. Fill it in, or remove the row.")
    if message.role != "user" and IMAGE in message.text:
        raise DataError(f"{place}: there is an image in the {message.role}'s turn. Only users can show images.")


def _pictures(row: Mapping[str, Any], marks: list[Any], place: str) -> tuple[Any, ...]:
    """The pictures of all marks, those without one of their own taken from the row's column in order."""
    beside = _listed(row.get("images")) or _listed(row.get("image"))
    if not marks:
        return tuple(beside)
    if marks.count(None) != len(beside):
        raise DataError(
            f"{place}: the messages mark {marks.count(None)} image(s) ({IMAGE} or a part of the type image), and there "
            f"are {len(beside)} in `images`. Make them agree, or leave out all marks to show the images first."
        )
    taken = iter(beside)
    return tuple(next(taken) if picture is None else picture for picture in marks)


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]
