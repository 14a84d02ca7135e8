"""The curriculum: its weights, the order they make, and that a resumed run goes on with the same ones."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.curriculum import Curriculum, CurriculumSampler
from dermiq.datamodules.loading import ResumableDataLoader
from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sampler import EpochSampler
from dermiq.schema import DataError, TrainingError
from support.processes import shell
from support.runs import adapter, checkpoint, different, logged

IDS = [f"s{number}" for number in range(10)]
KNOWN = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])  # of three samples, four answers each


DEFAULT = Curriculum()


def sampler(ids=IDS, batch_size=2, curriculum=DEFAULT, **options) -> CurriculumSampler:
    return CurriculumSampler(curriculum, ids, batch_size, **options)


def float64(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


# Weights


def test_weights_by_hand():
    """Rates 1/2 (none seen), 5/10, 1/10, 9/10, 1/100: p (1 - p) = 0.25, 0.25, 0.09, 0.09, 0.0099, over 0.25."""
    weights = Curriculum(floor=0.1, prior=1).weights(float64(0, 4, 0, 8, 0), float64(0, 8, 8, 8, 98))
    torch.testing.assert_close(weights, float64(1, 1, 0.36, 0.36, 0.1))


def test_weights_are_relative_to_the_most_learnable_prompt():
    """Rates 1/10 and 1/100: 0.09 and 0.0099, over 0.09. A stronger prior of 5 has 5/18 and 5/108: over 65/324."""
    correct, tried = float64(0, 0), float64(8, 98)
    torch.testing.assert_close(Curriculum().weights(correct, tried), float64(1, 0.11))
    stronger = Curriculum(prior=5).weights(correct, tried)
    torch.testing.assert_close(stronger, float64(1, (5 * 103 / 108**2) / (65 / 324)))


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"floor": 1.5}, {"prior": 0.0}, {"discount": 1.1}])
def test_what_makes_no_sense_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(DataError, match=rf"needs 0 < floor <= 1.*{name}={wrong[name]}.*--data.curriculum"):
        Curriculum(**wrong)


# The order


def test_the_first_epoch_serves_every_sample_once_in_random_order():
    first = list(sampler())
    assert sorted(first) == list(range(10)) != first
    assert first == list(sampler()) != list(sampler(seed=1))


def test_outcomes_tell_on_the_next_epoch_by_hand():
    """Rates 5/6, 3/6, 1/6 and 1/2: weights 20/36, 1, 20/36 and 1 of those that were not served."""
    order = sampler(curriculum=Curriculum(floor=0.1, prior=1, discount=0.5))
    before = list(order)
    order.record(order.outcomes(["s7", "s2", "s4"], KNOWN))
    order.set_epoch(0)
    assert list(order) == before and (order.weights == 1).all()
    order.set_epoch(1)
    expected = torch.ones(10, dtype=torch.float64)
    expected[[7, 4]] = 20 / 36
    torch.testing.assert_close(order.weights, expected)
    # Half of each count is left for the third epoch: 2 of 2, 1 of 2, 0 of 2, then 4 of 4 more of the last.
    order.record(order.outcomes(["s4"], torch.ones(1, 4, dtype=torch.bool)))
    assert order.correct[[7, 2, 4]].tolist() == [2, 1, 4] and order.tried[[7, 2, 4]].tolist() == [2, 2, 6]
    order.set_epoch(2)
    torch.testing.assert_close(order.weights[[7, 2, 4]], float64(3 / 16, 1 / 4, 15 / 64) * 4)


def test_a_sample_that_stands_twice_in_a_batch_counts_twice():
    order = sampler()
    counts = order.outcomes(["s3", "s3"], torch.tensor([[True, False, False], [True, True, False]]))
    assert counts[:, 3].tolist() == [3, 6] and counts.sum() == 9


@pytest.mark.parametrize("seed", range(5))
def test_each_sample_is_served_as_often_as_its_weight_asks_for(seed):
    order = sampler(batch_size=1, seed=seed)
    order.weights = torch.rand(10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    wanted = 10 * order.weights / order.weights.sum()
    assert (torch.bincount(order.order(), minlength=10) - wanted).abs().max() < 1
    over_epochs = Counter(index for order.epoch in range(1000) for index in order)
    assert max(abs(over_epochs[i] / 1000 - float(wanted[i])) for i in range(10)) < 0.07


def test_weights_multiply_those_of_balance():
    order = sampler(weights=[1.0] * 5 + [3.0] * 5)
    assert order.weights.tolist() == [1.0] * 5 + [3.0] * 5
    order.record(order.outcomes(["s7", "s2", "s4"], KNOWN))
    order.set_epoch(1)
    torch.testing.assert_close(order.weights[[7, 2, 4, 9]], float64(3 * 20 / 36, 1, 20 / 36, 3))


def test_processes_share_what_one_process_with_a_larger_batch_sees():
    parts = [sampler(batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    orders = [sampler(batch_size=4), *parts]
    for order in orders:
        order.record(order.outcomes(["s7", "s2", "s4"], KNOWN))
        order.set_epoch(1)
    whole, first, second = (torch.tensor(list(order)).view(2, -1) for order in orders)
    assert torch.equal(torch.cat([first, second], dim=1), whole)


def test_two_samples_of_one_id_are_refused():
    with pytest.raises(DataError, match="two training samples have the id 'b'"):
        sampler(["a", "b", "b", "c"])


# Resuming


def loader(workers=0, **options) -> ResumableDataLoader:
    return ResumableDataLoader(
        list(range(10)),
        batch_size=2,
        sampler=sampler(**options),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def epochs(served: ResumableDataLoader, first: int, last: int = 3):
    """The batches from an epoch on, with outcomes that the samples decide."""
    for epoch in range(first, last):
        iterator = iter(served)
        served.sampler.set_epoch(epoch)
        for batch in iterator:
            indices = batch.tolist()
            right = torch.tensor([[index % 4 > answer for answer in range(4)] for index in indices])
            served.sampler.record(served.sampler.outcomes([IDS[index] for index in indices], right))
            yield epoch, indices


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop", [2, 5, 8, 10])
def test_a_resumed_loader_serves_what_an_uninterrupted_one_does(stop, workers, tmp_path):
    """Stopped within the first epoch of five batches, at its end, within the second and at its end."""
    whole = loader()
    expected = list(epochs(whole, 0))
    stopped = loader(workers)
    seen = list(itertools.islice(epochs(stopped, 0), stop))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = loader(workers)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert seen + list(epochs(resumed, stop // 5)) == expected
    assert different(resumed.state_dict(), whole.state_dict()) == []
    assert whole.sampler.weights.unique().numel() > 2


def test_another_curriculum_is_refused_within_an_epoch_and_accepted_between_epochs():
    stopped = loader()
    for _ in itertools.islice(epochs(stopped, 0), 2):
        pass
    state = stopped.state_dict()
    with pytest.raises(TrainingError, match=r"curriculum Curriculum\(floor=0.1, .* -> Curriculum\(floor=0.5, "):
        loader(curriculum=Curriculum(floor=0.5)).load_state_dict(state)
    without = ResumableDataLoader(list(range(10)), batch_size=2, sampler=EpochSampler(10, 2))
    with pytest.raises(TrainingError, match=r"curriculum Curriculum\(floor=0.1, .* -> None"):
        without.load_state_dict(state)
    for _ in epochs(stopped, 0, 1):
        pass
    changed = loader(curriculum=Curriculum(floor=0.5))
    changed.load_state_dict(stopped.state_dict())
    without.load_state_dict(stopped.state_dict())
    assert torch.equal(changed.sampler.tried, stopped.sampler.tried) and changed.sampler.tried.sum() > 0


def test_counts_of_other_samples_are_refused_between_epochs_too():
    stopped = loader()
    for _ in epochs(stopped, 0, 1):
        pass
    with pytest.raises(TrainingError, match="counts the successes of other training samples"):
        loader(ids=IDS[::-1]).load_state_dict(stopped.state_dict())


# Runs


class Known(LightningModule):
    """Its answers are right as often as the number of a sample says: never, always, or every second time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.automatic_optimization = False
        self.seen: list[Counter[int]] = []

    def on_train_epoch_start(self):
        self.seen.append(Counter())

    def training_step(self, batch, batch_idx):
        kinds = [int(sample.id.rsplit("-", 1)[-1]) % 4 for sample in batch["samples"]]
        self.seen[-1].update(kinds)
        right = torch.tensor([{0: [False] * 8, 1: [True] * 8}.get(kind, [True, False] * 4) for kind in kinds])
        return {"rollout": SimpleNamespace(samples=batch["samples"]), "scores": SimpleNamespace(correct=right)}

    def validation_step(self, batch, batch_idx):
        raise NotImplementedError

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, data, **options) -> None:
    quiet = ("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary", "use_distributed_sampler")
    trainer = Trainer(accelerator="cpu", max_epochs=2, limit_val_batches=0, **dict.fromkeys(quiet, False), **options)
    trainer.fit(module, datamodule=data)


@pytest.fixture
def phantom(family_dir) -> PromptDataModule:
    source = PhantomSource(32, size=16)
    return PromptDataModule(str(family_dir("idefics3")), {"train": source}, batch_size=8, curriculum=DEFAULT)


def test_draws_shift_to_prompts_of_intermediate_success(phantom):
    """Half of the 32 samples have a rate of 1/2, weight 1; the others one of 1/10 or 9/10, weight 0.36."""
    module = Known()
    fit(module, phantom)
    first, second = module.seen
    assert first == {0: 8, 1: 8, 2: 8, 3: 8}
    # 32 draws in proportion to 16 * 1 : 16 * 0.36 are 23.5 : 8.5; each sample's number is rounded up or down.
    assert second.total() == 32 and abs(second[2] + second[3] - 23.5) < 4 and max(second[0], second[1]) < 8


def test_a_second_trainer_has_its_outcomes_recorded_too(phantom):
    phantom.setup("fit")
    module = Known()
    fit(module, phantom)
    assert module.seen[0] != module.seen[1]


def test_a_loader_that_is_made_anew_is_refused(phantom):
    with pytest.raises(DataError, match=r"--trainer.reload_dataloaders_every_n_epochs would replace"):
        fit(Known(), phantom, reload_dataloaders_every_n_epochs=1)


class Silent(Known):
    """A stage that samples no answers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = True

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 1)).sum()


def test_a_stage_that_samples_nothing_is_refused(phantom):
    with pytest.raises(DataError, match=r"Silent samples no answers. Leave --data.curriculum out, or train"):
        fit(Silent(), phantom)


OPTIONS = [
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=4",
    "--data.curriculum={floor: 0.05, prior: 0.5}",
    "--model.rewards.terms={diagnosis: {fn: support.parts.by_chance}}",
]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(lab, tmp_path):
    """Stopped within the first epoch of four batches, at its end, and within the second."""
    lab.run("fit", "GRPOModule", tmp_path / "whole", *OPTIONS)
    resume = []
    for stop in (2, 4, 6):
        lab.run("fit", "GRPOModule", tmp_path / "parts", *OPTIONS, f"--trainer.max_steps={stop}", *resume)
        resume = ["--ckpt_path=last"]
    lab.run("fit", "GRPOModule", tmp_path / "parts", *OPTIONS, *resume)
    first, second = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    for part in ("state_dict", "optimizer_states", "dermiq", "global_step", "epoch"):
        assert different(first[part], second[part]) == [], part
    (state,), (other) = (each["loops"]["fit_loop"]["state_dict"]["combined_loader"] for each in (first, second))
    assert different([state], other) == []
    assert state["sampler"]["weights"].unique().numel() > 2 and state["sampler"]["correct"].sum() > 0
    assert different(adapter(tmp_path / "whole"), adapter(tmp_path / "parts")) == []
    assert different(logged(tmp_path / "whole"), logged(tmp_path / "parts")) == []


@pytest.mark.slow
def test_two_processes_count_what_one_does(lab, tmp_path):
    still = [*OPTIONS, "--trainer.max_epochs=2", "--model.optimizer.lr=0.0"]
    limit = "--trainer.limit_train_batches=2"
    lab.run("fit", "GRPOModule", tmp_path / "one", *still, limit, "--data.batch_size=4")
    two = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    shell(lab.arguments("fit", "GRPOModule", tmp_path / "two", *still, limit, *two))
    states = [checkpoint(tmp_path / name)["loops"]["fit_loop"] for name in ("one", "two")]
    one, two = (state["state_dict"]["combined_loader"][0]["sampler"] for state in states)
    assert different(one, two) == []
    assert float(one["tried"].sum()) == pytest.approx(3 * 8 * (1 + 0.8))  # the first epoch's counts are discounted
