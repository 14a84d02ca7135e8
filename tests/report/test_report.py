"""Runs side by side: what they share, how they differ, and how sure that is."""

import csv
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from dermiq.report import compare, read_run
from dermiq.report.__main__ import main, names
from dermiq.report.compare import _corrected
from dermiq.report.tables import show, to_csv, to_json, to_markdown
from dermiq.schema import DataError
from dermiq.trainer.callbacks import predictions_table

METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"


def row(name, target, named, group=None, **more):
    """A `PredictionRow`, as far as a comparison reads it."""
    return {
        "id": name, "dataset": "clinic", "group": group or name, "kind": "diagnosis", "question": "What is it?",
        "target": target, "named": named, "correct": named == target, "named_lineage": [], "concepts": [],
        "reward": float(named == target), "scores": {}, "skin_type": None,
    } | more  # fmt: skip


def answers(right, groups=None, **columns):
    """Rows that are right or wrong about one of two conditions."""
    return [
        row(
            f"s{i}", "ab"[i % 2], "ab"[i % 2] if each else "", groups and groups[i],
            **{name: values[i] for name, values in columns.items()},
        )
        for i, each in enumerate(right)
    ]  # fmt: skip


@pytest.fixture
def tested(tmp_path):
    """Writes the rows of a run where a test leaves them, and reads them again."""

    def write(name, rows, metrics=None):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / PREDICTIONS).write_bytes(predictions_table(rows))
        (tmp_path / name / METRICS).write_text(json.dumps({f"test/{key}": v for key, v in (metrics or {}).items()}))
        return read_run(tmp_path / name, name)

    return write


def difference(comparison, metric, run="after"):
    (found,) = [each for each in comparison.differences if each.metric == metric and each.run == run]
    return found


def all_resamples(values):
    """The mean in each of the n ** n resamples of n values: the distribution that a bootstrap approaches."""
    return np.array(list(itertools.product(values, repeat=len(values)))).mean(axis=1)


def test_a_difference_by_hand_and_by_all_resamples(tested):
    before = tested("before", answers([1, 0, 0, 0, 1, 0]))
    after = tested("after", answers([1, 1, 1, 0, 0, 1]))
    found = difference(compare([before, after]), "accuracy")
    assert (found.n, found.first_value, found.value) == (6, pytest.approx(2 / 6), pytest.approx(4 / 6))
    exact = all_resamples([0, 1, 1, 0, -1, 1])  # 46,656 of them
    assert found.difference == pytest.approx(2 / 6)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(exact, [0.025, 0.975])))
    p = 2 * min(np.mean(exact <= 1e-9), np.mean(exact >= -1e-9))
    assert 0 < p < 0.5 and found.p == pytest.approx(p, abs=0.02) and found.p_holm == found.p


def test_an_interval_is_that_of_scipy(tested):
    bootstrap = pytest.importorskip("scipy.stats", reason="scipy comes with scikit-learn").bootstrap
    rng = np.random.default_rng(1)
    one = rng.normal(size=60)
    other = one + rng.normal(0.3, 1, size=60)
    runs = [
        tested(name, answers([1] * 60, height=list(values))) for name, values in (("before", one), ("after", other))
    ]
    found = difference(compare(runs), "height")
    theirs = bootstrap((other - one,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert found.p == pytest.approx(2 * np.mean(theirs.bootstrap_distribution <= 0), abs=0.01)


def test_whole_groups_are_resampled(tested):
    """Twenty copies of four lesions are no more evidence than four."""
    right, groups = [1, 1, 1, 0], ["g0", "g1", "g2", "g3"]
    before, after = (tested(name, answers(values * 20, groups * 20)) for name, values in (
        ("before", [0, 0, 0, 1]), ("after", right)))  # fmt: skip
    grouped = difference(compare([before, after]), "accuracy")
    exact = all_resamples([1, 1, 1, -1])
    assert (grouped.low, grouped.high) == pytest.approx(tuple(np.quantile(exact, [0.025, 0.975])))
    alone = tuple(
        tested(name, [each | {"group": each["id"]} for each in answers(values * 20)])
        for name, values in (("before", [0, 0, 0, 1]), ("after", right))
    )
    single = difference(compare(alone), "accuracy")
    assert single.difference == grouped.difference
    assert single.high - single.low < 0.5 * (grouped.high - grouped.low)


def test_balanced_accuracy_counts_classes_alike(tested):
    """Of class a (9 samples) nothing changes, of class b (1) all."""
    targets = "aaaaaaaaab"
    before = tested("before", [row(f"s{i}", each, "a") for i, each in enumerate(targets)])
    after = tested("after", [row(f"s{i}", each, each) for i, each in enumerate(targets)])
    found = compare([before, after])
    assert difference(found, "accuracy").difference == pytest.approx(0.1)
    assert difference(found, "balanced_accuracy").difference == pytest.approx(0.5)


def test_numbers_that_the_runs_have_are_compared_where_both_have_them(tested):
    """Unknown columns too, whatever their name; texts, lists and truth values are no numbers."""
    own = {"scores": [{"kg": 0.5}, {}, {"kg": 0.0}, {"kg": 1.0}], "note": ["x"] * 4, "list": [[1.0]] * 4}
    own |= {"sampled": [{"accuracy": i / 4, "reward/kg": 0.5} for i in range(4)], "flag": [True] * 4}
    changed = own | {"scores": [{"kg": 1.0}, {"kg": 1.0}, {"kg": 0.5}, {}]}
    before = tested("before", answers([1, 1, 0, 0], **own, height=[1.0, 2.0, 3.0, 4.0], target_rank=[1, 1, 1, 1]))
    after = tested("after", answers([1, 1, 0, 0], **changed, height=[3.0, 4.0, 5.0, 6.0], target_rank=[1, 1, 2, 2]))
    found = compare([before, after])
    term = difference(found, "reward/kg")
    assert (term.n, term.first_value, term.value) == (2, 0.25, 0.75)
    height = difference(found, "height")
    assert (height.difference, height.low, height.high) == (2.0, 2.0, 2.0) and height.p < 0.001
    same = difference(found, "sampled_accuracy")
    assert same.difference == 0 and same.p == 1
    metrics = {each.metric for each in found.differences}
    assert metrics == {
        "accuracy", "balanced_accuracy", "macro_f1", "reward", "reward/kg", "sampled_accuracy", "sampled_reward/kg",
        "height",
    }  # fmt: skip


def test_equal_fractions_do_not_differ_by_rounding(tested):
    """Sums of thirds and tenths round differently; that is no evidence."""
    values = [i / 30 + 0.1 for i in range(31)]
    runs = [tested(name, answers([1] * 31, height=values, width=values)) for name in ("before", "after")]
    assert {each.p for each in compare(runs).differences} == {1.0}


def test_the_majority_is_a_metric_of_its_own(tested):
    votes = {"majority_lineage": [[]] * 4, "confidence": [0.5] * 4, "target_rank": [1, None, 1, 1]}
    before = tested("before", answers([0, 0, 0, 0], majority=["a", "", "a", "b"], **votes))
    after = tested("after", answers([0, 0, 0, 0], majority=["b", "", "b", "b"], **votes))
    found = difference(compare([before, after]), "majority_accuracy")
    assert (found.first_value, found.value) == (0.75, 0.25)  # targets are a b a b


def test_kinds_of_question_are_kept_apart(tested):
    runs = []
    for name, contradiction in (("before", 0.5), ("after", 0.25)):
        talk = {"kind": "conversation", "named": None, "correct": None, "scores": {"kg_contradiction": contradiction}}
        voted = {"majority": "a", "majority_lineage": [], "target_rank": 1}
        diagnoses = [row(f"d{i}", "a", "a", **voted) for i in range(3)]
        runs.append(tested(name, [*diagnoses, *(row(f"t{i}", "", "") | talk for i in range(4))]))
    found = compare(runs)
    assert difference(found, "accuracy").n == difference(found, "majority_accuracy").n == 3
    contradiction = difference(found, "conversation/reward/kg_contradiction")
    assert (contradiction.n, contradiction.difference) == (4, -0.25)
    assert not any(each.metric in ("reward/kg_contradiction", "conversation/accuracy") for each in found.differences)


def test_nothing_is_tested_on_a_single_group(tested):
    runs = [tested(name, answers([right] * 3, ["patient"] * 3)) for name, right in (("before", 0), ("after", 1))]
    found = difference(compare(runs), "accuracy")
    assert found.difference == 1 and found.low is found.high is found.p is found.p_holm is None


def test_holms_correction_by_hand(tested):
    runs = [tested(name, answers([0, 1, 1])) for name in ("before", "after")]
    one = difference(compare(runs), "accuracy")
    found = _corrected([replace(one, p=p) for p in (0.04, 0.01, 0.03, None)])
    assert [each.p_holm for each in found] == [
        pytest.approx(0.06),
        pytest.approx(0.03),
        pytest.approx(0.06),
        one.p_holm,
    ]


def of_skin(light, dark, count=40):
    """Rows of two skin types with that many right answers each."""
    right = [i < light for i in range(count)] + [i < dark for i in range(count)]
    return answers(right, skin_type=["II"] * count + ["VI"] * count)


def test_skin_types_and_the_gap_between_them(tested):
    found = compare([tested("before", of_skin(30, 10)), tested("after", of_skin(28, 24))])
    shares = {(each.run, each.skin_type): each for each in found.skin_types}
    assert shares["before", "II"].accuracy == 0.75 and shares["after", "VI"].accuracy == 0.6
    assert all(each.n == 40 and each.low < each.accuracy < each.high for each in found.skin_types)
    error = np.sqrt(0.75 * 0.25 / 40)
    assert shares["before", "II"].low == pytest.approx(0.75 - 1.96 * error, abs=0.02)
    before, after = found.gaps
    assert (before.best, before.worst, before.gap, before.difference) == ("II", "VI", 0.5, 0.0)
    assert after.gap == pytest.approx(0.1) and after.difference == pytest.approx(-0.4)
    assert after.difference_low < -0.4 < after.difference_high < 0 and after.p < 0.05


def test_small_skin_types_make_no_gap(tested):
    found = compare([tested(name, of_skin(8, 4, count=10)) for name in ("before", "after")])
    assert len(found.skin_types) == 4 and found.gaps == ()


def test_the_samples_that_all_runs_share_are_compared(tested):
    before = tested("before", answers([1, 1, 0, 0, 1]))
    after = tested("after", list(reversed(answers([1, 1, 1, 0])[1:])))  # in another order too
    found = compare([before, after])
    assert (found.samples, found.left_out) == (3, {"before": 2, "after": 0})
    assert difference(found, "accuracy").difference == pytest.approx(1 / 3)
    assert "left out below: 2 of before." in to_markdown(found)


def test_ids_are_those_of_a_data_set(tested):
    before = tested("before", answers([1, 0]))
    after = tested("after", [each | {"dataset": "other"} for each in answers([1, 0])])
    with pytest.raises(DataError, match="before, after have no sample in common"):
        compare([before, after])


@pytest.mark.parametrize("column", ["target", "question", "kind"])
def test_one_id_for_different_samples_is_refused(column, tested):
    before = tested("before", answers([1, 0]))
    after = tested("after", [each | {column: "another"} for each in answers([1, 0])])
    with pytest.raises(DataError, match=f"'s0' is not the same in before and after: its {column} is .* 'another'"):
        compare([before, after])


def test_files_that_cannot_be_compared_are_named(tested, tmp_path):
    with pytest.raises(DataError, match="'s0', so that it is unclear"):
        tested("twice", [*answers([1, 0]), *answers([1])])
    with pytest.raises(DataError, match="has no column kind, question"):
        tested("old", [{"id": "a", "dataset": "", "group": "", "target": "a", "named": "a", "correct": True}])
    run = tested("run", answers([1])) and tmp_path / "run"
    (run / PREDICTIONS).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"run/predictions.parquet cannot be read .*Test it again"):
        read_run(run, "run")
    for name in (PREDICTIONS, METRICS):
        (run / name).unlink()
        with pytest.raises(DataError, match=rf"{name} is missing. Test the run first: .*cli.py test --config {run}"):
            read_run(run, "run")


@pytest.fixture
def three(tested):
    metrics = {"accuracy": 0.5, "accuracy/low": 0.25, "accuracy/high": 0.75, "reward": 12.0}
    return [tested(name, of_skin(30, dark), metrics) for name, dark in (("a", 5), ("b", 20), ("c", 30))]


def test_json_and_csv_hold_all_figures(three):
    comparison = compare(three)
    whole = json.loads(to_json(comparison), parse_constant=pytest.fail)
    assert whole["runs"] == ["a", "b", "c"] and whole["metrics"]["b"]["accuracy/low"] == 0.25
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    counts = {name: sum(line["table"] == name for line in lines) for name in ("differences", "skin_types", "gaps")}
    assert counts == {name: len(whole[name]) for name in counts} and counts["gaps"] == 3
    (line,) = [
        each for each in lines if each["metric"] == "accuracy" and each["table"] != "metrics" and each["run"] == "c"
    ]
    assert float(line["difference"]) == difference(comparison, "accuracy", "c").difference
    assert float(line["p_holm"]) == difference(comparison, "accuracy", "c").p_holm


def test_what_is_printed(three, monkeypatch):
    comparison = compare(three)
    piped = Console(file=io.StringIO())
    show(comparison, piped)
    text = piped.file.getvalue()
    assert text == to_markdown(comparison) and "\x1b" not in text
    assert "| accuracy | 0.500 [0.250, 0.750] |" in text and "| samples | 80 | 80 | 80 |" in text
    assert "p (Holm)" in text and "p (Holm)" not in to_markdown(compare(three[:2]))
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
    show(comparison, terminal)
    shown = terminal.file.getvalue()
    assert "Gap between skin types" in shown and "─" in shown
    assert not any(f"\x1b[{colour}m" in shown for colour in range(30, 50))


def test_markup_in_a_name_is_shown_as_it_is(tested):
    runs = [tested(name, answers([1, 0])) for name in ("[bold]a", "b|c")]
    comparison = compare(runs)
    assert "b\\|c" in to_markdown(comparison)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
    show(comparison, terminal)
    assert "[bold]a" in terminal.file.getvalue()


def test_the_command_line(three, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["compare", "a", "b", "--out", "out/table.md"])
    printed = capsys.readouterr().out
    written = (tmp_path / "out" / "table.md").read_text()
    assert printed == written + "Wrote out/table.md.\n" and "| accuracy | b | 80 |" in written
    for arguments, message in (
        (["compare", "a"], "RUN"),
        (["compare", "a", "b", "--out", "table.doc"], "one of .md, .csv, .json"),
        ([], "RUN"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    paths = [tmp_path / "seed0" / "dpo", tmp_path / "seed1" / "dpo"]
    assert names(paths) == ["seed0/dpo", "seed1/dpo"]
    assert names([tmp_path, tmp_path / "sft"]) == [tmp_path.name, f"{tmp_path.name}/sft"]


FILES = {METRICS, PREDICTIONS, "confusion.csv", "thumbnails.parquet"}


def test_an_untouched_base_model(lab, tmp_path):
    """Two samples a question; the columns' means are the metrics."""
    lab.run("test", "SFTModule", tmp_path, "--model.eval_samples=2")
    assert {path.name for path in tmp_path.iterdir()} == FILES
    metrics = json.loads((tmp_path / METRICS).read_text(), parse_constant=pytest.fail)
    rows = pq.read_table(tmp_path / PREDICTIONS).to_pylist()
    assert len(rows) == 14
    for name in ("reward", "reward/letters", "sampled_reward/letters", "sampled_accuracy"):
        assert metrics[f"test/{name}"] == pytest.approx(np.mean([each[name] for each in rows]))
    table = list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert sum(int(count) for line in table[1:] for count in line[1:]) == 14
    assert table[0][-2:] == ["other", "none"] and table[0][1:-2] == [line[0] for line in table[1:]]
    one = read_run(tmp_path, "one")
    assert {each.p for each in compare([one, replace(one, name="other")]).differences} == {1.0}


@pytest.mark.slow
def test_checkpoint_adapter_and_base_model_side_by_side(lab, tmp_path):
    """An adapter directory is the checkpoint it was saved with; without either the base model is judged, untouched."""
    (tmp_path / "bare.yaml").write_text("model: {init_args: {backbone: {init_args: {lora: null}}}}\n")
    adapter = f"--model.backbone.adapter_path={tmp_path / 'run' / 'adapter'}"
    lab.run("fit", "SFTModule", tmp_path / "run", "--trainer.max_steps=2")
    lab.run("test", "SFTModule", tmp_path / "run", "--ckpt_path=last")
    lab.run("test", "GRPOModule", tmp_path / "adapter", adapter)
    lab.run("test", "SFTModule", tmp_path / "base")
    lab.run("test", "SFTModule", tmp_path / "bare", f"--config={tmp_path / 'bare.yaml'}")
    directories = [tmp_path / name for name in ("run", "adapter", "base", "bare")]
    assert all(FILES <= {path.name for path in directory.iterdir()} for directory in directories)
    run, adapter, base, bare = (read_run(directory, directory.name) for directory in directories)
    assert run.rows == adapter.rows and base.rows == bare.rows
    found = difference(compare([run, base]), "reward/letters", "base")
    assert found.n == 14 and found.difference != 0
