"""The answers that are being written, so that what comes instead of one can wait for its end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event

from dermiq.demo.reading import Reading

_PATIENCE = 2.0  # seconds within which an answer ends, unless the policy is in the middle of a long step


@dataclass
class _Answer:
    latest: Reading | None = None
    ended: Event = field(default_factory=Event)


class Answers:
    """The answers that are being written, of each visitor at most one.

    Gradio cancels an answer without waiting for what is on its way to the page, which then hides what comes instead.
    """

    def __init__(self) -> None:
        self._written: dict[str | None, _Answer] = {}

    def follow(self, visitor: str | None, readings: Generator[Reading, None, None]) -> Iterator[Reading]:
        """The readings, until `end` is called or nobody listens any more.

        Args:
            visitor: who asked.
            readings: are closed at the end.
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
        """End a visitor's answer, and wait until it has ended; how far it came, None if none is being written."""
        answer = self._written.pop(visitor, None)
        if answer is None:
            return None
        answer.ended.wait(_PATIENCE)
        return answer.latest
