"""Preference pairs: prompts with a better and a worse reply each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from PIL import Image

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.collate import PromptCollate
from dermiq.policy.batches import PreferenceBatch
from dermiq.policy.processing import encode_completions
from dermiq.policy.special_tokens import special_ids
from dermiq.schema import DataError, PreferencePair, Sample


class PreferenceCollate(PromptCollate):
    """Items of preference pairs -> a batch of prompts with both completions of each."""

    def encode(self, samples: Sequence[Sample], images: list[list[Image.Image]]) -> PreferenceBatch:
        """Prompts and completions.

        Raises:
            DataError: if a sample is no pair, a completion holds what the tokenizer cannot write, or a prompt and
                its longer completion do not fit into the model's context.
        """
        pairs = [_pair(sample) for sample in samples]
        self._refuse_unwritable(pairs)
        batch = super().encode(samples, images)
        ids, mask = encode_completions(
            self.processor, [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        )
        longer = mask.sum(dim=1).view(2, -1).amax(dim=0)
        self.refuse_overlong(samples, batch["prompt"]["attention_mask"].sum(dim=1) + longer, 0)
        return {**batch, "completion_ids": ids, "completion_mask": mask}

    def _refuse_unwritable(self, pairs: Sequence[PreferencePair]) -> None:
        """Check that no reply holds a special token of the tokenizer, or what it does not know."""
        tokenizer = self.processor.tokenizer
        special = special_ids(tokenizer)
        for pair, name in product(pairs, ("chosen", "rejected")):
            reply = getattr(pair, name)
            parts = (*reply.split(), reply)
            found = [
                part for part in parts if not special.isdisjoint(tokenizer(part, add_special_tokens=False).input_ids)
            ]
            if found:
                raise DataError(
                    f"pair {pair.id!r}: the {name} reply holds {found[0]!r}, which the tokenizer of {self.model_id} "
                    "cannot write as plain text. If the pairs were written by another model, make them anew with this "
                    "one; otherwise correct the row."
                )


class PreferenceDataModule(DermDataModule):
    """Serves preference pairs for training, and prompt batches of any source for every evaluation.

    ``sources`` usually names `dermiq.datamodules.sources.Preferences` for ``train``, and for ``val`` and ``test``
    what the other stages are judged on.
    """

    def train_collate(self) -> PreferenceCollate:
        """What makes training batches."""
        return PreferenceCollate(self.model_id, self.system_prompt, self.max_new_tokens_reserve)


def _pair(sample: object) -> PreferencePair:
    if not isinstance(sample, PreferencePair):
        raise DataError(
            f"sample {getattr(sample, 'id', sample)!r} is no preference pair. Give the train split a source of pairs: "
            "--data.sources.train=dermiq.datamodules.sources.Preferences."
        )
    return sample
