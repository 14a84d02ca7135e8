"""The stages through the real command line: fit, validate, test, predict, and what they leave behind."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from support.runs import STAGES, adapter, checkpoint, different, logged

# fmt: off
MEANS = {
    "reward", "completion_length", "reasoning_length", "reward/diagnosis", "reward/letters", "reward/hedging",
}
JUDGED = {"accuracy", "balanced_accuracy", "macro_f1"}
ROW = {
    "id", "dataset", "group", "kind", "images", "question", "options", "label", "target", "skin_type", "site",
    "completion", "answer", "reward", "completion_length", "reasoning_length", "scores", "named", "named_lineage",
    "concepts", "correct",
}
VOTE = {"majority", "majority_lineage", "confidence", "ranking", "votes", "target_rank"}
MEANING = {"malignant", "named_malignant", "hierarchical_f1"}
# fmt: on


def files(root):
    return {str(path.relative_to(root)).split("events.out")[0] for path in root.rglob("*") if path.is_file()}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("stage", "family"), [("SFTModule", "qwen2_5_vl"), ("GRPOModule", "qwen2_5_vl")])
def test_all_subcommands_from_the_saved_config(stage, family, lab, tmp_path, monkeypatch):
    """fit writes a run directory; validate, test and predict read its config.yaml and its checkpoint alone."""
    from dermiq.cli import run

    options = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.val_check_interval=2"]
    lab.run("fit", stage, tmp_path, *options, family=family)
    written = {
        "config.yaml", "checkpoints/last.ckpt", "metrics/version_0/metrics.csv", "tensorboard/version_0/",
        "tensorboard/version_0/hparams.yaml", "adapter/README.md", "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }  # fmt: skip
    assert files(tmp_path) == written

    saved = [f"--config={tmp_path / 'config.yaml'}", "--ckpt_path=last"]
    run(["validate", *saved])
    run(["test", *saved])
    run(["predict", *saved])
    added = {
        "val_metrics.json", "metrics.json", "predictions.parquet", "confusion.csv", "thumbnails.parquet",
        "predictions.jsonl",
    }  # fmt: skip
    assert files(tmp_path) == written | added

    assert json.loads((tmp_path / "val_metrics.json").read_text()).keys() == {f"val/{name}" for name in JUDGED | MEANS}
    metrics = {
        name.removeprefix("test/"): value
        for name, value in json.loads((tmp_path / "metrics.json").read_text()).items()
        if not name.startswith("test/accuracy/site/")
    }
    ends = {f"{name}/{end}" for name in JUDGED for end in ("low", "high")}
    assert metrics.keys() == JUDGED | MEANS | ends | {"accuracy/n"}
    predictions = rows(tmp_path / "predictions.jsonl")
    assert len(predictions) == len({row["id"] for row in predictions}) == metrics["accuracy/n"] == 14
    assert all(row.keys() == ROW for row in predictions)
    assert {row["kind"] for row in predictions} == {"diagnosis"}
    assert metrics["reward"] == pytest.approx(sum(row["reward"] for row in predictions) / 14)
    assert metrics["accuracy"] == sum(row["correct"] for row in predictions) / 14
    tested = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [(row["id"], row["completion"]) for row in tested] == [(row["id"], row["completion"]) for row in predictions]


def test_sampled_answers_are_judged_beside_the_greedy_one(lab, tmp_path):
    """With a terminology: the untrained model never names a condition, and so misses every cancer."""
    options = ["--model.eval_samples=3", "--model.terminology=dermiq.kg.Terminology"]
    lab.run("test", "GRPOModule", tmp_path, *options)
    for row in pq.read_table(tmp_path / "predictions.parquet").to_pylist():
        assert row.keys() >= (ROW - {"scores"}) | VOTE | MEANING
        assert {"sampled_accuracy", "sampled_reward", "sampled_reward/letters"} <= row.keys()
        assert row["malignant"] == (row["label"] in ("mel", "bcc")) and row["named_malignant"] is None
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    of_samples = {f"majority_{name}" for name in JUDGED | {"ece"}} | {"top_3_accuracy", "top_5_accuracy"}
    of_samples |= {f"sampled_{name}" for name in MEANS | {"accuracy"}}
    meaning = {"sensitivity", "specificity", "hierarchical_f1"}
    assert metrics.keys() >= {f"test/{name}" for name in JUDGED | MEANS | of_samples | meaning}
    assert metrics["test/sampled_accuracy"] == metrics["test/sensitivity"] == metrics["test/specificity"] == 0


def test_supervised_training_learns(lab, tmp_path):
    lab.run("fit", "SFTModule", tmp_path, "--trainer.max_epochs=3")
    losses = [float(row["train/loss"]) for row in logged(tmp_path)]
    assert len(losses) == 21 and sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.slow
def test_grpo_learns_what_the_reward_asks_for(lab, tmp_path):
    """Reinforced for the number of different letters alone, completions come to have it."""
    simple = "--model.advantage=dermiq.objectives.advantages.GroupRelative"
    options = ["--trainer.max_epochs=8", simple, "--model.group_size=16", "--model.kl_coef=0"]
    lab.run("fit", "GRPOModule", tmp_path, *options, "--model.optimizer.lr=0.1")
    earned = [float(row["train/reward/letters"]) for row in logged(tmp_path)]
    assert len(earned) == 56
    assert sum(earned[-7:]) / 7 > sum(earned[:7]) / 7 + 0.1


def test_what_grpo_logs(lab, tmp_path):
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=1")
    (row,) = logged(tmp_path)
    assert {name for name in row if name.startswith("train/")} == {
        "train/accuracy", "train/clip_fraction", "train/completion_length", "train/entropy", "train/grad_norm",
        "train/kl", "train/loss", "train/reward", "train/reward/diagnosis", "train/reward/hedging",
        "train/reward/letters", "train/reward_std", "train/truncated", "train/uniform_groups",
        "train/all_wrong_groups", "train/rollout_mismatch",
    }  # fmt: skip
    assert float(row["train/clip_fraction"]) == 0 and float(row["train/kl"]) == pytest.approx(0, abs=1e-6)
    assert float(row["train/uniform_groups"]) == 1


@pytest.mark.parametrize("parts", [1, 12, 30])
def test_micro_batches_change_nothing(parts, lab, tmp_path):
    """One step of SGD: the weights move by the gradient itself."""
    sgd = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1.0"]
    for name, size in (("whole", "null"), ("parts", parts)):
        size = f"--model.tokens_per_pass={size}"
        lab.run("fit", "GRPOModule", tmp_path / name, *sgd, size, "--trainer.max_steps=1")
    whole, cut = adapter(tmp_path / "whole"), adapter(tmp_path / "parts")
    for key in whole:
        torch.testing.assert_close(cut[key], whole[key], atol=1e-6, rtol=1e-5)


def test_accumulated_batches_equal_one_large_batch(lab, tmp_path):
    sgd = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1.0"]
    unclipped = [*sgd, "--model.max_grad_norm=null", "--model.seed=3", "--trainer.max_steps=1"]
    lab.run("fit", "GRPOModule", tmp_path / "two", *unclipped, "--model.accumulate_batches=2")
    lab.run("fit", "GRPOModule", tmp_path / "one", *unclipped, "--data.batch_size=4")
    assert checkpoint(tmp_path / "two")["global_step"] == checkpoint(tmp_path / "one")["global_step"] == 1
    # The second small batch samples by another seed than its half of the large one, so only scale is compared.
    norms = [
        sum(float(value.square().sum()) for key, value in adapter(tmp_path / name).items() if "lora_B" in key) ** 0.5
        for name in ("two", "one")
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.5)


@pytest.mark.parametrize("stage", STAGES)
def test_clipping_bounds_the_step(stage, lab, tmp_path):
    """One step of SGD at rate 1 moves by the clipped norm."""
    sgd = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1.0"]
    still = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.0"]
    clip = ["--model.max_grad_norm=0.001", "--trainer.max_steps=1"]
    lab.run("fit", stage, tmp_path / "moved", *clip, *sgd)
    lab.run("fit", stage, tmp_path / "still", *clip, *still)
    moved, still = adapter(tmp_path / "moved"), adapter(tmp_path / "still")
    distance = sum(float((moved[key] - still[key]).square().sum()) for key in moved) ** 0.5
    assert distance == pytest.approx(0.001, rel=1e-3)
    assert float(logged(tmp_path / "moved")[0]["train/grad_norm"]) > 0.001


def test_completions_are_kept_as_a_table(lab, tmp_path, capsys):
    callbacks = "[{class_path: dermiq.trainer.callbacks.LogCompletions, init_args: {every_n_steps: 1}}]"
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=2", f"--trainer.callbacks={callbacks}")
    table = pq.read_table(tmp_path / "completions" / "step-0000002.parquet").to_pylist()
    assert len(table) == 6 and len({row["id"] for row in table}) == 2
    assert table[0].keys() == {
        "id", "target", "completion", "advantage", "reward", "reward/diagnosis", "reward/letters", "reward/hedging",
    }  # fmt: skip
    assert "step 2: " in capsys.readouterr().out


def test_the_same_seed_gives_the_same_run(lab, tmp_path):
    for name in "ab":
        lab.run("fit", "GRPOModule", tmp_path / name, "--trainer.max_steps=2")
    lab.run("fit", "GRPOModule", tmp_path / "c", "--trainer.max_steps=2", "--model.seed=1")
    assert different(adapter(tmp_path / "a"), adapter(tmp_path / "b")) == []
    assert different(adapter(tmp_path / "a"), adapter(tmp_path / "c"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 0}, "at least 1"),
        ({"inner_epochs": 2, "accumulate_batches": 2}, "cannot both be above 1"),
    ],
)
def test_grpo_options_that_make_no_sense(options, message):
    from dermiq.modules import GRPOModule

    with pytest.raises(ValueError, match=message):
        GRPOModule(None, None, **options)
