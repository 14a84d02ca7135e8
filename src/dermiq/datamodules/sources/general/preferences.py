"""Preference pairs as TRL exchanges them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dermiq.datamodules.sample_table import SampleRow, sample_row
from dermiq.datamodules.sources.general.messages import Conversations
from dermiq.datamodules.sources.reading.jsonl_rows import Row, Rows
from dermiq.datamodules.sources.reading.turns import Turns, read_turns, said
from dermiq.schema import DataError, PreferencePair, Sample


class Preferences(Conversations):
    """One `PreferencePair` per row of a file with the columns `prompt`, `chosen` and `rejected`.

    Each is a list of messages or a text (of the user, or of the assistant). Without a `prompt`, `chosen` and
    `rejected` are whole conversations that differ in the last message alone. Images, `id`, `group` and `target`
    stand where those of `Conversations` do; `margin` says by how much the judge preferred the chosen reply. Other
    columns are ignored. The chosen reply counts as the sample's `reply`, too. The arguments are those of
    `Conversations`.
    """

    def _sample_row(self, sample: Sample) -> SampleRow:
        """Its length is that of the conversation with the longer reply."""
        assert isinstance(sample, PreferencePair)
        return sample_row(replace(sample, reply=max(sample.chosen, sample.rejected, key=len)))

    def _turns(self, row: Row, place: str) -> Turns:
        return _with_reply(row, "chosen", place)

    def _sample(self, rows: Rows, index: int, row: Row) -> PreferencePair:
        place = rows.place(index)
        sample = super()._sample(rows, index, row)
        *prompt, chosen = self._turns(row, place).messages
        *other_prompt, rejected = _with_reply(row, "rejected", place).messages
        if prompt != other_prompt:
            raise DataError(
                f"{place}: `chosen` and `rejected` do not begin alike. Correct the row: they may differ in the last "
                "message alone."
            )
        if chosen == rejected:
            raise DataError(f"{place}: `chosen` and `rejected` are the same. Remove the row.")
        margin = _margin(row.get("margin"), place)
        return PreferencePair(**vars(sample), chosen=chosen.text, rejected=rejected.text, margin=margin)


def _with_reply(row: Mapping[str, Any], column: str, place: str) -> Turns:
    """The conversation that ends with the reply of a column."""
    reply, prompt = row.get(column), row.get("prompt")
    whole = isinstance(reply, list) and len(reply) > 1
    if reply is None or (prompt is None and not whole):
        raise DataError(
            f"{place}: {'`prompt`' if reply is not None else f'`{column}`'} is missing. A preference pair needs "
            f"`prompt`, `chosen` and `rejected`; this row has {', '.join(row) or 'nothing'}."
        )
    messages = reply if whole else [*said("user", prompt), *said("assistant", reply)]
    return read_turns({**row, "messages": messages}, f"{place}, {column}")


def _margin(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DataError(f"{place}: the margin {value!r} is no number of at least 0. Correct or remove it.")
    return float(value)
