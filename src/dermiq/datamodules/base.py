"""The base of the data modules: it splits, checks and serves the samples of sources."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from dermiq.datamodules.collate import Collate, Item, PromptCollate, SampleDataset
from dermiq.datamodules.curriculum import Curriculum, CurriculumSampler, RecordOutcomes
from dermiq.datamodules.file_faults import is_file
from dermiq.datamodules.loading import EpochEndResume, IsolatedDataLoader, ResumableDataLoader
from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sampler import EpochSampler, equalising_weights
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.splits import (
    Numbers,
    cluster_names,
    limit_by_group,
    parts_of,
    shares_in_words,
    split_table,
    straddling,
)
from dermiq.policy.batches import Batch
from dermiq.ranges import COUNT, SEED, check_numbers, check_values
from dermiq.schema import DataError, Sample

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
ALL = "all"
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
BALANCED = {"label": "target", "skin_type": "skin_type", "dataset": "dataset"}
_NEEDS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
_SHOWN = 5


class DermDataModule(LightningDataModule, ABC):
    """Splits, checks and serves the samples of one source, or of one source per split.

    The trainer must leave the samplers alone (``use_distributed_sampler: false``): the loaders share the
    samples out among processes themselves. Evaluation serves each sample exactly once, so that the last
    processes may have one sample less than the first.

    `setup` puts callbacks of its own before those of the trainer: `EpochEndResume`, and with a curriculum
    `RecordOutcomes`.

    Args:
        model_id: id or directory of the model whose processor encodes the prompts.
        sources: either ``all``, a source to be split, or a source for each of ``train``, ``val``, ``test``.
        fractions: share of each split of the source ``all``; by default 0.8, 0.1 and 0.1.
        split_file: in place of `fractions`: which sample of the source ``all`` is in which split, as
            ``python -m dermiq.datamodules.splits`` writes it.
        split_seed: another seed gives another split.
        batch_size: samples per training batch of one process.
        eval_batch_size: samples per evaluation batch of one process.
        num_workers: processes that load batches ahead; 0 loads in the main process.
        seed: of the order of the training samples.
        balance: sample training rows with replacement, so that every combination that occurs of these is
            equally frequent: some of ``label`` (the target), ``skin_type``, ``dataset``; true stands for ``[label]``.
        curriculum: serve training prompts that are answered rightly about half of the time more often than others;
            its weights multiply those of `balance`. For stages that sample answers; see `Curriculum`.
        limit: split -> the most samples to keep of it, whole groups, targets in proportion.
        on_bad_image: ``error`` stops at an image that is missing or cannot be read; ``skip`` leaves its
            sample out and reports it.
        max_new_tokens_reserve: tokens of the model's context that the completion may need.
        system_prompt: of every question to be answered in structure; None takes that of its kind, see
            `dermiq.prompts`.

    Raises:
        DataError: if the names of splits do not fit together, or of what to balance is unknown.
    """

    def __init__(
        self,
        model_id: str,
        sources: dict[str, Source],
        fractions: dict[str, float] | None = None,
        split_seed: int = 0,
        split_file: str | None = None,
        batch_size: int = 1,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        balance: bool | list[str] = False,
        curriculum: Curriculum | None = None,
        limit: dict[str, int] | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        max_new_tokens_reserve: int = 256,
        system_prompt: str | None = None,
    ) -> None:
        super().__init__()
        self.model_id, self.sources = model_id, sources
        self.fractions = FRACTIONS if fractions is None else fractions
        self.split_seed, self.split_file, self.seed = split_seed, split_file, seed
        self.balance = {True: ["label"], False: []}[balance] if isinstance(balance, bool) else balance
        self.curriculum = curriculum
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.limit = {} if limit is None else limit
        self.on_bad_image, self.max_new_tokens_reserve = on_bad_image, max_new_tokens_reserve
        self.system_prompt = system_prompt
        self.splits: dict[str, SampleDataset] = {}
        self.left_out: list[str] = []
        self._tables: dict[str, SampleTable] = {}
        check_numbers(
            self,
            **dict.fromkeys(("batch_size", "eval_batch_size"), COUNT),
            **dict.fromkeys(("seed", "split_seed"), SEED),
            num_workers="[0, 1024]",
            max_new_tokens_reserve="[0, 1000000]",
        )
        check_values("limit", self.limit, dict.fromkeys(self.limit, "[1, inf)"))
        _check_names("sources", sources, (ALL,) if ALL in sources else SPLITS)
        _check_names("fractions", self.fractions, SPLITS)
        _check_names("limit", self.limit, SPLITS, may_be_empty=True)
        _check_names("balance", dict.fromkeys(self.balance), tuple(BALANCED), may_be_empty=True)
        if split_file is not None and (fractions is not None or ALL not in sources):
            raise DataError("`split_file` says how the source `all` is split: give it alone, without `fractions`.")

    @abstractmethod
    def train_collate(self) -> Collate[Batch]:
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
            self._attach(self.trainer.callbacks)  # type: ignore[attr-defined]  # set by a connector
        for split in _NEEDS[stage]:
            if split in self.splits:
                self._check_longest(split)

    def train_dataloader(self) -> ResumableDataLoader:
        """Training batches, in an order set by `seed` and the epoch; the position is saved and resumed."""
        dataset = self._dataset("train")
        balanced = [BALANCED[name] for name in self.balance]
        weights = equalising_weights(self._tables["train"], balanced) if balanced else None
        arguments = (self.batch_size, self.seed, weights, *self._process(), self._lengths())
        if self.curriculum is None:
            sampler = EpochSampler(len(dataset), *arguments)
        else:
            ids = self._tables["train"].strings("id").to_pylist()
            sampler = CurriculumSampler(self.curriculum, ids, *arguments)
        sampler.rows = self._tables["train"].fingerprint()
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

    def _attach(self, callbacks: list[Callback]) -> None:
        """Put the callbacks that the training loader needs before a trainer's own, once."""
        needed: list[Callback] = [EpochEndResume()] if self.curriculum is None else [EpochEndResume(), RecordOutcomes()]
        present = set(map(type, callbacks))
        callbacks[:0] = [callback for callback in needed if type(callback) not in present]

    def _process(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _split(self) -> None:
        whole: dict[str, SampleTable] = {}
        parts: dict[str, tuple[str, Numbers]] = {}
        for name, source in self.sources.items():
            source.load()
            whole[name] = source.table()
            kept = self._without_missing(name, source, len(whole[name]))
            if name == ALL:
                shares = self._shares(whole[name].take(kept))
                parts = {split: (name, kept[share]) for split, share in shares.items()}
            else:
                parts[name] = (name, kept)
        if len(whole) > 1:
            _refuse_shared(whole)
        for split, (name, indices) in parts.items():
            if not len(indices):
                why = f"{self.split_file} gives it no sample" if self.split_file else "its source has no samples"
                raise DataError(f"the {split} split is empty: {why}.")
            chosen = self._limited(split, whole[name], indices)
            self._tables[split] = whole[name].take(chosen)
            # No list: the processes that load batches would copy its pages, as they count references to its numbers.
            self.splits[split] = SampleDataset(
                self.sources[name], array("q", chosen.tobytes()), self.on_bad_image == "skip"
            )
        counts = {split: len(indices) for split, (_, indices) in parts.items()}
        used = {split: len(dataset) for split, dataset in self.splits.items()}
        rank_zero_info(f"Split: {shares_in_words(counts, used)}.")

    def _shares(self, table: SampleTable) -> dict[str, Numbers]:
        """Indices of the samples in each split of the source `all`."""
        if self.split_file is None:
            return split_table(table, self.fractions, self.split_seed)
        shares = parts_of(self.split_file, table)
        _check_names(self.split_file, shares, SPLITS)
        return {split: shares[split] for split in SPLITS if split in shares}

    def _without_missing(self, name: str, source: Source, length: int) -> Numbers:
        missing = source.missing()
        if missing:
            report = (
                f"{len(missing)} of {length} images of the source {name!r} are missing: "
                + ", ".join(f"{_absent(source[i])} (sample {source[i].id!r})" for i in missing[:_SHOWN])
                + (", ..." if len(missing) > _SHOWN else "")
            )
            if self.on_bad_image == "error":
                raise DataError(
                    f"{report}.{_nearest(_absent(source[missing[0]]))} Complete the image folders, or pass "
                    "--data.on_bad_image=skip."
                )
            if len(missing) == length:
                first = _absent(source[missing[0]])
                raise DataError(
                    f"none of the {length} samples of the source {name!r} has its images: the first is {first}."
                    f"{_nearest(first)} Give the source the folder of its images (`root`, `image_root`)."
                )
            log.warning("%s. Their samples are left out.", report)
            self.left_out += [f"{source[i].id}: {_absent(source[i])}: the image is missing" for i in missing]
        return np.delete(np.arange(length), missing)

    def _limited(self, split: str, whole: SampleTable, indices: Numbers) -> Numbers:
        if split not in self.limit:
            return indices
        part = whole.take(indices)
        return indices[limit_by_group(cluster_names(part), part.strings("target"), self.limit[split], self.split_seed)]

    def _lengths(self) -> Numbers | None:
        """Lengths of the training samples, if batches shall be of similar ones; None leaves their order random."""
        return None

    def _check_longest(self, split: str) -> None:
        """Encode the samples with the longest question, the most images and the longest conversation."""
        table = self._tables[split]
        questions, images = table.integers("question_length"), table.integers("images")
        collate = self.train_collate() if split == "train" else self.eval_collate()
        longest = (questions, images * (questions.max() + 1) + questions, table.integers("length"))
        for row in {int(numbers.argmax()) for numbers in longest}:
            item: Item = self.splits[split][row]
            if not item.problem:
                collate([item])


def _refuse_shared(tables: Mapping[str, SampleTable]) -> None:
    """Check that no group and no link stands in two sources."""
    sides = np.repeat(np.arange(len(tables)), [len(part) for part in tables.values()])
    if tied := straddling(SampleTable.concat(list(tables.values())), sides):
        kind, text, *pair = tied
        first, second = (list(tables)[side] for side in pair)
        raise DataError(
            f"the {kind} {text!r} stands in the sources of {first} and {second}: what is trained on would be tested. "
            "Take it out of one, or give one source `all` to be split by group."
        )


def _absent(sample: Sample) -> str:
    """The first image of a sample that is no file; the first of all where they are no paths."""
    return next((path for path in sample.images if not is_file(path)), sample.images[0])


def _nearest(path: str) -> str:
    """A sentence about a missing image: that its folder is missing too, or a file of a similar name; else empty."""
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        return f" There is no folder {folder}."
    stems = {entry.name: os.path.splitext(entry.name)[0].lower() for entry in os.scandir(folder)}
    alike = sorted(other for other, stem in stems.items() if stem in (name.lower(), os.path.splitext(name)[0].lower()))
    return f" There is {os.path.join(folder, alike[0])}." if alike else ""


def _check_names(
    argument: str, given: Mapping[str, object], allowed: Sequence[str], may_be_empty: bool = False
) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown or (not given and not may_be_empty):
        raise DataError(
            f"`{argument}` has {', '.join(map(repr, unknown)) or 'no entries'}; it may have {', '.join(allowed)}"
            + (f", or {ALL!r} alone." if argument == "sources" else ".")
        )
