"""The quickstart runs the whole pipeline and reports what it measured."""

import json
import os
import signal

import pyarrow.parquet as pq
import pytest

from dermiq.programs.exits import exit_codes
from dermiq.quickstart import GROUNDED, METRICS, STAGES, Pipeline, changes, main, report
from dermiq.schema import TrainingError
from dermiq.trainer.callbacks import predictions_table
from dermiq.trainer.exclusive_run import Lock

SMALL = [
    "trainer.max_steps=2",
    "trainer.enable_model_summary=false",
    "data.init_args.limit={train: 32, test: 40}",
    "data.init_args.batch_size=2",
    "model.init_args.eval_samples=2",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    main(["--out", str(out), "--seeds", "3", "--overrides", *SMALL])
    return out, json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_every_stage_is_measured(results):
    _, found = results
    assert found["seeds"] == [3]
    assert set(found["stages"]["3"]) == {*STAGES, GROUNDED}
    for stage, metrics in found["stages"]["3"].items():
        wanted = {name for name in METRICS if stage != GROUNDED or name.startswith("conversation/")}
        assert wanted <= set(metrics), stage


@pytest.mark.slow
def test_each_stage_starts_from_the_one_before(results):
    out, _ = results
    before = {"grpo": "warmstart", "sft": "grpo", "dpo": "sft"}
    for stage, start in before.items():
        config = (out / "seed3" / stage / "config.yaml").read_text()
        assert f"adapter_path: {out / 'seed3' / start / 'adapter'}" in config
    assert f"path: {out / 'seed3' / 'pairs' / 'preferences.jsonl'}" in (out / "seed3/dpo/config.yaml").read_text()


@pytest.mark.slow
def test_the_report_tells_the_story(results):
    out, _ = results
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "<title>DermIQ run report: warm start → GRPO++ → SFT → DPO → DPO + KG-RAG</title>" in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(data["cases"]) >= 40 and all(case["pictures"] for case in data["cases"])
    assert all(any(case["answers"][stage] for case in data["cases"]) for stage in range(5))


@pytest.mark.slow
def test_the_grounded_test_tells_its_facts(results):
    out, _ = results
    assert {"facts", "grounded_on"} <= set(pq.read_schema(out / f"seed3/{GROUNDED}/predictions.parquet").names)


def predictions(directory, values):
    """A run's test predictions: (id, kind, sampled values) each."""
    directory.mkdir(parents=True)
    rows = [{"id": name, "group": name, "kind": kind, "sampled": sampled} for name, kind, sampled in values]
    (directory / "predictions.parquet").write_bytes(predictions_table(rows))


@pytest.fixture
def runs(tmp_path):
    """Two seeds; from SFT to DPO two diagnoses gain 0.1 and 0.3, three contradiction rates fall by 0.1, 0.2 and 0.3."""
    talk = {"reward/kg_harm": 0.0, "reward/kg_coverage": 0.0, "reward/truthfulness": 1.0}
    for seed in (0, 1):
        for stage in (*STAGES, GROUNDED):
            gain = 1 if stage == "dpo" else 0
            rows = [(f"d{i}", "diagnosis", {"accuracy": 0.5 + gain * 0.1 * (1 + 2 * i)}) for i in range(2)]
            rates = [0.4 - gain * 0.1 * (1 + i) for i in range(3)]
            rows += [(f"c{i}", "conversation", talk | {"reward/kg_contradiction": rates[i]}) for i in range(3)]
            predictions(tmp_path / f"seed{seed}" / stage, rows)
    return tmp_path, {seed: {stage: {} for stage in (*STAGES, GROUNDED)} for seed in (0, 1)}


def test_changes_by_hand(runs):
    found = {(c.before, c.after, c.metric): c for c in changes(*runs)}
    accuracy = found["sft", "dpo", "accuracy"]
    assert accuracy.mean == pytest.approx(0.2) and not accuracy.conversation
    # Of 0.1 and 0.3 resamples have the mean 0.1 in a quarter of the cases, 0.3 in another, 0.2 in the rest.
    assert accuracy.standard_error == pytest.approx(0.2 / 8**0.5, rel=0.1)
    assert accuracy.interval == pytest.approx((0.1, 0.3))
    contradiction = found["sft", "dpo", "reward/kg_contradiction"]
    assert contradiction.mean == pytest.approx(-0.2) and contradiction.conversation
    assert contradiction.interval == pytest.approx((-0.3, -0.1))  # each in one of 27 resamples, above 2.5 %
    assert found["grpo", "sft", "reward/kg_contradiction"].mean == 0


def test_the_table_says_what_was_measured(capsys):
    metrics = dict.fromkeys(METRICS, 0.25) | {"training_seconds": 12.0}
    change = {"metric": "accuracy", "before": "sft", "after": "dpo", "conversation": False}
    change |= {"mean": -0.01, "standard_error": 0.02, "interval": [-0.05, 0.03]}
    report({"seeds": [0], "stages": {"0": {"sft": metrics, "dpo": metrics}}, "changes": [change]})
    shown = capsys.readouterr().out
    assert "0.250" in shown and "12.0" in shown
    assert "SFT → DPO: accuracy -1.0 points, 95 % interval [-5.0, +3.0]" in " ".join(shown.split())


@pytest.fixture
def stopped(monkeypatch):
    """Stops the quickstart in its first stage, and gives SIGTERM back afterwards."""
    before = signal.getsignal(signal.SIGTERM)

    def stop(self):
        (self.root / "warmstart").mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Pipeline, "run", stop)
    yield
    signal.signal(signal.SIGTERM, before)


def test_it_begins_anew_and_keeps_what_was_there(stopped, tmp_path, capsys):
    for number in (1, 2):
        with pytest.raises(SystemExit) as ended, exit_codes():
            main(["--out", str(tmp_path)])
        assert ended.value.code == 143 and "Interrupted. Started again" in capsys.readouterr().out
        (tmp_path / "seed0" / "warmstart" / f"{number}.txt").write_text("")
    assert (tmp_path / "earlier" / "1" / "seed0" / "warmstart" / "1.txt").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"earlier", "seed0", "tiny"}


def test_two_at_once_are_refused(tmp_path):
    with Lock(tmp_path), pytest.raises(TrainingError, match="is in use by process"):
        main(["--out", str(tmp_path)])
