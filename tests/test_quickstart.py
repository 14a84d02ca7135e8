"""The quickstart runs all its stages and reports what it measured."""

import json

import pytest

from dermiq.quickstart import METRICS, STAGES, main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    small = ["trainer.max_steps=2", "trainer.limit_test_batches=2", "data.init_args.eval_batch_size=4"]
    main(["--out", str(out), "--seeds", "3", "--overrides", *small])
    return out, json.loads((out / "results.json").read_text())


def test_every_stage_is_measured(results):
    _, found = results
    assert found["seeds"] == [3]
    assert set(found["stages"]["3"]) == set(STAGES)
    for metrics in found["stages"]["3"].values():
        assert set(METRICS) <= set(metrics)


def test_the_gain_is_the_mean_difference_over_images(results):
    out, found = results
    stages = found["stages"]["3"]
    difference = stages["grpo"]["sampled_accuracy"] - stages["warmstart"]["sampled_accuracy"]
    assert found["gains"]["grpo"]["mean"] == pytest.approx(difference, abs=1e-6)
    rows = (out / "seed3" / "grpo" / "test_predictions.jsonl").read_text().splitlines()
    assert len(rows) == 8


def test_later_stages_start_from_the_warm_start(results):
    out, _ = results
    for stage in ("grpo", "continued"):
        config = (out / "seed3" / stage / "config.yaml").read_text()
        assert f"adapter_path: {out / 'seed3' / 'warmstart' / 'adapter'}" in config
