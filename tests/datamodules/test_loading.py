"""The order of samples, and loaders that go on where they stopped."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from dermiq.datamodules.loading import EpochEndResume, IsolatedDataLoader, ResumableDataLoader
from dermiq.datamodules.sampler import EpochSampler
from dermiq.schema import DataError, TrainingError
from support.runs import adapter, different, logged

LENGTH, BATCH = 23, 4  # five batches, three samples left over


def resumable(workers: int = 0, **options) -> ResumableDataLoader:
    sampler = EpochSampler(LENGTH, BATCH, **options)
    return ResumableDataLoader(
        list(range(LENGTH)), batch_size=BATCH, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )


def served(loader) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("weights", [None, [1.0 + i % 3 for i in range(LENGTH)]])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_what_one_process_with_a_larger_batch_sees(world_size, weights):
    whole = list(EpochSampler(LENGTH, 2 * world_size, seed=7, weights=weights))
    shares = [
        list(EpochSampler(LENGTH, 2, seed=7, weights=weights, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [
        index for step in range(len(shares[0]) // 2) for share in shares for index in share[2 * step : 2 * step + 2]
    ]
    assert together == whole
    assert {len(share) for share in shares} == {len(EpochSampler(LENGTH, 2, rank=0, world_size=world_size))}


def test_order_depends_on_seed_and_epoch_alone():
    sampler, again, other = (
        EpochSampler(LENGTH, BATCH),
        EpochSampler(LENGTH, BATCH),
        EpochSampler(LENGTH, BATCH, seed=1),
    )
    first = list(sampler)
    assert first == list(again) == list(sampler)
    assert len(set(first)) == len(first) == len(sampler) == 20
    assert first != list(other)
    sampler.set_epoch(1)
    assert first != list(sampler)


def test_weights_balance_the_classes():
    labels = ["nv"] * 90 + ["mel"] * 10
    weights = [1 / 90] * 90 + [1 / 10] * 10
    sampler = EpochSampler(100, 10, weights=weights)
    drawn: Counter[str] = Counter()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        drawn.update(labels[i] for i in sampler)
    assert drawn.total() == 2000
    assert abs(drawn["mel"] - 1000) < 4 * (2000 * 0.25) ** 0.5  # four standard deviations of a fair coin


def similar(**options) -> EpochSampler:
    """480 lengths as conversations have them: most short, a few long."""
    lengths = [int(10 * 1.02 ** (i * 7919 % 240)) for i in range(480)]
    return EpochSampler(480, lengths=lengths, **options)


def padding(sampler: EpochSampler, lengths: torch.Tensor) -> float:
    """Share of an epoch's columns that are padding."""
    batches = lengths[torch.tensor(list(sampler))].view(-1, sampler.batch_size)
    return 1 - float(batches.sum() / (batches.amax(1) * sampler.batch_size).sum())


def test_batches_of_similar_length_hold_little_padding():
    grouped = similar(batch_size=8)
    random = EpochSampler(480, 8)
    assert sorted(grouped) == sorted(random) == list(range(480))
    assert grouped.lengths[grouped.order()[0]] == grouped.lengths.max()
    assert padding(random, grouped.lengths) > 0.4 and padding(grouped, grouped.lengths) < 0.15
    first = list(grouped)
    grouped.set_epoch(1)
    assert {*map(tuple, torch.tensor(first).view(-1, 8).tolist())}.isdisjoint(
        map(tuple, torch.tensor(list(grouped)).view(-1, 8).tolist())
    )


@pytest.mark.parametrize("weights", [None, [1.0 + i % 3 for i in range(480)]])
def test_processes_share_batches_of_similar_length(weights):
    whole = torch.tensor(list(similar(batch_size=8, weights=weights, seed=3))).view(-1, 8)
    shares = [
        torch.tensor(list(similar(batch_size=4, weights=weights, seed=3, rank=rank, world_size=2))).view(-1, 4)
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(shares, dim=1), whole)


def test_an_epoch_of_similar_lengths_is_resumed_and_no_other_order():
    def loader(lengths) -> ResumableDataLoader:
        sampler = EpochSampler(LENGTH, BATCH, lengths=lengths)
        return ResumableDataLoader(list(range(LENGTH)), batch_size=BATCH, sampler=sampler)

    lengths = list(range(LENGTH))
    expected = served(loader(lengths))
    stopped, resumed = loader(lengths), loader(lengths)
    for _ in itertools.islice(stopped, 2):
        pass
    resumed.load_state_dict(stopped.state_dict())
    assert served(resumed) == expected[2:]
    with pytest.raises(TrainingError, match="group_by_length True -> False"):
        loader(None).load_state_dict(stopped.state_dict())


def test_too_few_samples_for_one_batch_are_refused():
    with pytest.raises(DataError, match=r"the training split has 5 samples, too few for one batch of 4 x 2 process"):
        EpochSampler(5, 4, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_at_the_next_batch_that_was_not_served(workers):
    whole = resumable(workers)
    whole.sampler.set_epoch(3)
    expected = served(whole)
    for stop in (1, 3, 5):
        loader = resumable(workers)
        iterator = iter(loader)
        loader.sampler.set_epoch(3)  # Lightning sets the epoch after it has asked for the iterator
        assert [next(iterator).tolist() for _ in range(stop)] == expected[:stop]
        state = loader.state_dict()
        assert (state["epoch"], state["served"]) == (3, stop)

        resumed = resumable(workers)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert len(resumed) == 5
        iterator = iter(resumed)
        resumed.sampler.set_epoch(3)
        assert [batch.tolist() for batch in iterator] == expected[stop:]
        assert served(resumed) == expected  # a second pass is a whole one


def test_a_position_holds_for_its_own_epoch_only():
    loader, resumed = resumable(), resumable()
    next(iter(loader))
    resumed.load_state_dict(loader.state_dict())
    resumed.sampler.set_epoch(1)
    loader.sampler.set_epoch(1)
    assert served(resumed) == served(loader)


def test_a_changed_order_is_refused_within_an_epoch_and_accepted_between_epochs():
    loader = resumable()
    for _ in itertools.islice(loader, 2):
        pass
    changed = resumable(seed=5)
    with pytest.raises(TrainingError, match=r"after 2 batches of epoch 0.*seed 0 -> 5.*saved config.yaml"):
        changed.load_state_dict(loader.state_dict())
    served(loader)
    changed.load_state_dict(loader.state_dict())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(workers):
    loaders = [resumable(workers), IsolatedDataLoader(list(range(6)), batch_size=2, num_workers=workers)]
    before = torch.get_rng_state()
    for loader in loaders:
        served(loader)
    assert torch.equal(torch.get_rng_state(), before)


class Broken(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        raise DataError("a.jpg: the image is missing. Check the folder.")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_worded_as_in_the_main_process(workers):
    loader = IsolatedDataLoader(Broken(), batch_size=2, num_workers=workers)
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    assert str(caught.value) == "a.jpg: the image is missing. Check the folder."


# Lightning's side: what a run sees after a resume is what an uninterrupted run would have seen.


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch.tolist()))
        return self.layer(batch[:, None].float()).sum() * 0

    def validation_step(self, batch, batch_idx):
        self.log("val/nothing", 0.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Numbers(LightningDataModule):
    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def train_dataloader(self):
        return resumable(self.workers)

    def val_dataloader(self):
        return IsolatedDataLoader(list(range(4)), batch_size=2)


class Interrupted(Exception):
    pass


class Interrupt(Callback):
    """Writes a checkpoint in a hook at a step, and ends the run there."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.hook, self.step, self.path = hook, step, path

    def _at(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook and trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Interrupted

    def on_train_batch_end(self, trainer, *_):
        self._at("batch", trainer)

    def on_train_epoch_end(self, trainer, *_):
        self._at("epoch", trainer)

    def on_validation_end(self, trainer, *_):
        self._at("validation", trainer)


def fit(limits: dict, workers: int, callback: Callback, ckpt_path: Path | None = None) -> list[tuple[int, list[int]]]:
    trainer = Trainer(
        **limits,
        accelerator="cpu",
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    module = Recorder()
    resume = {} if ckpt_path is None else {"ckpt_path": ckpt_path, "weights_only": False}
    try:
        trainer.fit(module, datamodule=Numbers(workers), **resume)
    except Interrupted:
        assert ckpt_path is None
    return module.seen


EPOCHS, STEPS = {"max_epochs": 3}, {"max_steps": 14}
CASES = [
    (EPOCHS, "batch", 2),
    (EPOCHS, "batch", 5),
    (EPOCHS, "epoch", 10),
    (EPOCHS, "validation", 5),
    (STEPS, "batch", 7),
    (STEPS, "batch", 10),
    (STEPS, "epoch", 5),
    (STEPS, "validation", 10),
    (STEPS | {"limit_train_batches": 4}, "batch", 4),
    (STEPS | {"limit_train_batches": 4}, "epoch", 8),
    (EPOCHS | {"val_check_interval": 2}, "validation", 4),
    (STEPS | {"val_check_interval": 2}, "epoch", 5),
    (STEPS | {"limit_val_batches": 0}, "epoch", 10),
]


@pytest.mark.parametrize(("limits", "hook", "step"), CASES)
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(limits, hook, step, tmp_path):
    whole = fit(limits, 0, Callback())
    before = fit(limits, 0, Interrupt(hook, step, tmp_path / "stop.ckpt"))
    after = fit(limits, 0, EpochEndResume(), tmp_path / "stop.ckpt")
    assert len(before) == step
    assert before + after == whole


@pytest.mark.parametrize(("limits", "hook", "step"), [(EPOCHS, "batch", 7), (STEPS, "epoch", 5)])
def test_a_resumed_run_with_workers_sees_the_same(limits, hook, step, tmp_path):
    whole = fit(limits, 0, Callback())
    before = fit(limits, 2, Interrupt(hook, step, tmp_path / "stop.ckpt"))
    assert before + fit(limits, 2, EpochEndResume(), tmp_path / "stop.ckpt") == whole


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["SFTModule", "GRPOModule"])
def test_a_run_with_a_worker_ends_bit_for_bit_where_one_without_ends(stage, lab, tmp_path):
    options = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4"]
    worker = "--data.num_workers=1"
    lab.run("fit", stage, tmp_path / "whole", *options)
    lab.run("fit", stage, tmp_path / "parts", *options, worker, "--trainer.max_steps=3")
    lab.run("fit", stage, tmp_path / "parts", *options, worker, "--ckpt_path=last")
    assert different(adapter(tmp_path / "whole"), adapter(tmp_path / "parts")) == []
    assert different(logged(tmp_path / "whole"), logged(tmp_path / "parts")) == []


def test_a_replaced_sampler_is_refused():
    with (
        pytest.warns(UserWarning, match="You requested to overfit"),
        pytest.raises(TrainingError, match=r"replaced the sampler.*--data.limit in place of --trainer.overfit_batches"),
    ):
        fit(EPOCHS | {"overfit_batches": 2}, 0, Callback())
