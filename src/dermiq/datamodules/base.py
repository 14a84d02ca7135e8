"""From sources of samples to the batches of every split."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule

from dermiq.datamodules.collate import Item, PromptCollate, SampleDataset
from dermiq.datamodules.loading import EpochEndResume, EpochSampler, IsolatedDataLoader, ResumableDataLoader
from dermiq.datamodules.sources.base import Outline, Source
from dermiq.datamodules.splits import limit_by_group, split_by_group
from dermiq.prompts import SYSTEM_PROMPT
from dermiq.schema import DataError, Sample

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
ALL = "all"
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
_NEEDS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
_SHOWN = 5


class DermDataModule(LightningDataModule, ABC):
    """Splits, checks and serves the samples of one source, or of one source per split.

    The trainer must leave the samplers alone (``use_distributed_sampler: false``): the loaders share the
    samples out among processes themselves. Evaluation serves each sample exactly once, so that the last
    processes may have one sample less than the first.

    Args:
        model_id: id or directory of the model whose processor encodes the prompts.
        sources: either ``all``, a source to be split, or a source for each of ``train``, ``val``, ``test``.
        fractions: share of each split of the source ``all``; by default 0.8, 0.1 and 0.1.
        split_seed: another seed gives another split.
        batch_size: samples per training batch of one process.
        eval_batch_size: samples per evaluation batch of one process.
        num_workers: processes that load batches ahead; 0 loads in the main process.
        seed: of the order of the training samples.
        balance: draw training samples so that every target is equally frequent, with replacement.
        limit: split -> the most samples to keep of it, whole groups, targets in proportion.
        on_bad_image: ``error`` stops at an image that is missing or cannot be read; ``skip`` leaves its
            sample out and reports it.
        max_new_tokens_reserve: tokens of the model's context that the completion may need.
        system_prompt: of every conversation.

    Raises:
        DataError: if the names of splits do not fit together.
    """

    def __init__(
        self,
        model_id: str,
        sources: dict[str, Source],
        fractions: dict[str, float] | None = None,
        split_seed: int = 0,
        batch_size: int = 1,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        balance: bool = False,
        limit: dict[str, int] | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        max_new_tokens_reserve: int = 256,
        system_prompt: str = SYSTEM_PROMPT,
    ) -> None:
        super().__init__()
        self.model_id, self.sources = model_id, sources
        self.fractions = FRACTIONS if fractions is None else fractions
        self.split_seed, self.seed, self.balance = split_seed, seed, balance
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.limit = {} if limit is None else limit
        self.on_bad_image, self.max_new_tokens_reserve = on_bad_image, max_new_tokens_reserve
        self.system_prompt = system_prompt
        self.splits: dict[str, SampleDataset] = {}
        self.left_out: list[str] = []
        self._outlines: dict[str, list[Outline]] = {}
        _check_names("sources", sources, (ALL,) if ALL in sources else SPLITS)
        _check_names("fractions", self.fractions, SPLITS)
        _check_names("limit", self.limit, SPLITS)

    @abstractmethod
    def train_collate(self) -> PromptCollate:
        """What makes training batches."""

    def eval_collate(self) -> PromptCollate:
        """What makes evaluation batches, the same for all stages."""
        return PromptCollate(self.model_id, self.system_prompt, self.max_new_tokens_reserve)

    def setup(self, stage: str) -> None:
        """Read and split the sources, and encode the longest samples of each split that `stage` needs.

        Raises:
            DataError: if a source is not what it promises, a split is empty, groups straddle splits, images
                are missing (unless skipped), or a prompt does not fit into the model's context.
        """
        if not self.splits:
            self._split()
            if self.trainer is not None:
                self.trainer.callbacks.insert(0, EpochEndResume())  # type: ignore[attr-defined]  # set by a connector
        for split in _NEEDS[stage]:
            if split in self.splits:
                self._check_longest(split)

    def train_dataloader(self) -> ResumableDataLoader:
        """Training batches, in an order set by `seed` and the epoch; the position is saved and resumed."""
        dataset = self._dataset("train")
        weights = self._weights() if self.balance else None
        sampler = EpochSampler(
            len(dataset), self.batch_size, self.seed, weights, *self._process(), lengths=self._lengths()
        )
        return ResumableDataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=self.train_collate(),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> IsolatedDataLoader:
        """Validation batches, in the order of the source."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> IsolatedDataLoader:
        """Test batches, in the order of the source."""
        return self._eval_dataloader("test")

    def predict_dataloader(self) -> IsolatedDataLoader:
        """The test batches."""
        return self._eval_dataloader("test")

    def _eval_dataloader(self, split: str) -> IsolatedDataLoader:
        dataset = self._dataset(split)
        rank, world_size = self._process()
        return IsolatedDataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=range(rank, len(dataset), world_size),
            collate_fn=self.eval_collate(),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _dataset(self, split: str) -> SampleDataset:
        if split not in self.splits:
            raise DataError(
                f"there is no {split} split: the data have {', '.join(self.splits)}. Add it to `fractions` (or to "
                f"`sources`), or do without it (--trainer.limit_{split}_batches=0)."
            )
        return self.splits[split]

    def _process(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _split(self) -> None:
        splits: dict[str, tuple[Source, list[int]]] = {}
        for name, source in self.sources.items():
            source.load()
            outline = self._outlines[name] = source.outline()
            kept = self._without_missing(name, source, len(outline))
            if name == ALL:
                parts = split_by_group(
                    [outline[i].group for i in kept], [outline[i].target for i in kept], self.fractions, self.split_seed
                )
                splits = {split: (source, [kept[i] for i in part]) for split, part in parts.items()}
            elif kept:
                splits[name] = (source, kept)
            else:
                raise DataError(f"the {name} split is empty: its source has no samples.")
        self._refuse_shared_groups()
        self.splits = {
            split: SampleDataset(source, self._limited(split, indices), self.on_bad_image == "skip")
            for split, (source, indices) in splits.items()
        }

    def _without_missing(self, name: str, source: Source, length: int) -> list[int]:
        missing = source.missing()
        if missing:
            report = (
                f"{len(missing)} of {length} images of the source {name!r} are missing: "
                + ", ".join(f"{_absent(source[i])} (sample {source[i].id!r})" for i in missing[:_SHOWN])
                + (", ..." if len(missing) > _SHOWN else "")
            )
            if self.on_bad_image == "error":
                raise DataError(f"{report}. Complete the image folders, or pass --data.on_bad_image=skip.")
            log.warning("%s. Their samples are left out.", report)
            self.left_out += [f"{source[i].id}: {_absent(source[i])}: the image is missing" for i in missing]
        absent = set(missing)
        return [i for i in range(length) if i not in absent]

    def _refuse_shared_groups(self) -> None:
        seen: dict[str, str] = {}
        for name, outline in self._outlines.items():
            for group in {entry.group for entry in outline}:
                if seen.setdefault(group, name) != name:
                    raise DataError(
                        f"the group {group!r} stands in the sources of {seen[group]} and {name}: what is trained on "
                        "would be tested. Take it out of one, or give one source `all` to be split by group."
                    )

    def _outline(self, split: str) -> list[Outline]:
        whole = self._outlines.get(ALL) or self._outlines[split]
        return [whole[i] for i in self.splits[split].indices]

    def _limited(self, split: str, indices: list[int]) -> list[int]:
        if split not in self.limit:
            return indices
        whole = self._outlines.get(ALL) or self._outlines[split]
        chosen = limit_by_group(
            [whole[i].group for i in indices], [whole[i].target for i in indices], self.limit[split], self.split_seed
        )
        return [indices[i] for i in chosen]

    def _weights(self) -> list[float]:
        targets = [entry.target for entry in self._outline("train")]
        frequency = Counter(targets)
        return [1 / frequency[target] for target in targets]

    def _lengths(self) -> list[int] | None:
        """Lengths of the training samples, if batches shall be of similar ones; None leaves their order random."""
        return None

    def _check_longest(self, split: str) -> None:
        """Encode the samples with the longest question, the most images and the longest conversation."""
        outline = self._outline(split)
        rows = range(len(outline))
        collate = self.train_collate() if split == "train" else self.eval_collate()
        for row in {
            max(rows, key=lambda i: outline[i].question_length),
            max(rows, key=lambda i: (outline[i].images, outline[i].question_length)),
            max(rows, key=lambda i: outline[i].length),
        }:
            item: Item = self.splits[split][row]
            if not item.problem:
                collate([item])


def _absent(sample: Sample) -> str:
    """The first image of a sample that is no file; the first of all where they are no paths."""
    return next((path for path in sample.images if not Path(path).is_file()), sample.images[0])


def _check_names(argument: str, given: Mapping[str, object], allowed: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown or (argument != "limit" and not given):
        raise DataError(
            f"`{argument}` has {', '.join(map(repr, unknown)) or 'no entries'}; it may have {', '.join(allowed)}"
            + (f", or {ALL!r} alone." if argument == "sources" else ".")
        )
