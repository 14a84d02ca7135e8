"""Answers in progress, so that whatever replaces one can wait for its end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event

from dermiq.demo.reading import Reading

_PATIENCE = 2.0  # seconds; an answer ends sooner unless the policy is in the middle of a long step


@dataclass
class _Answer:
    latest: Reading | None = None
    ended: Event = field(default_factory=Event)


class Answers:
    """Answers in progress, at most one per visitor.

    Gradio cancels an answer without waiting for updates on their way to the page, which would hide what replaces it.
    """

    def __init__(self) -> None:
        self._written: dict[str | None, _Answer] = {}

    def follow(self, visitor: str | None, readings: Generator[Reading, None, None]) -> Iterator[Reading]:
        """Yield the readings until `end` is called or the listener is gone.

        Args:
            visitor: whose answer it is.
            readings: closed at the end.
        """
        answer = self._written[visitor] = _Answer()
        try:
            with closing(readings):
                for reading in readings:
                    answer.latest = reading
                    yield reading
                    if self._written.get(visitor) is not answer:
                        return
        finally:
            if self._written.get(visitor) is answer:
                del self._written[visitor]
            answer.ended.set()

    def end(self, visitor: str | None) -> Reading | None:
        """End a visitor's answer and wait for it; its latest reading, None if none is in progress."""
        answer = self._written.pop(visitor, None)
        if answer is None:
            return None
        answer.ended.wait(_PATIENCE)
        return answer.latest
