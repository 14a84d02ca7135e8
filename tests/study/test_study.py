"""The study's file becomes runs; their configurations parse; finished runs are kept; a kill loses none of them."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from study.__main__ import main
from study.execute import RECORD
from study.plan import FULL, ROOT, read_study
from study.pool import Board, carry_out
from study.record import Outcomes, Record, best, dumped, parsed, read_records, write_records

import dermiq.cli
from dermiq.modules import StageModule
from dermiq.programs.exits import exit_codes
from dermiq.schema import DataError, TrainingError

STUDY = ROOT / "study" / "study.yaml"
VALUES = {"model": "runs/study/tiny", "data": "data"}
RATE = 1e-3


@pytest.fixture(scope="module")
def study():
    return read_study(STUDY, FULL, VALUES)


def record(run, study, validation=0.5):
    outcomes = Outcomes((0, 1), ("a", "b"), (1, 0), (1, 1), (0, 1), (0.75, 0.5), (1.0, 0.0), (0.5, 0.25))
    return Record(
        run.name, run.testbed, run.variant, run.setting, run.size, run.seed, study.fingerprint(run, run.rate or RATE),
        run.rate or RATE, {"train": 10.0, "test": 5.0}, {"train/reward": [(1, 0.5)]}, 8, validation, {"new": outcomes},
    )  # fmt: skip


def test_a_record_survives_its_line_of_json(study, tmp_path):
    first = record(study.runs()[0], study)
    assert parsed(dumped(first)).domains == first.domains
    write_records(tmp_path / "records.jsonl", [first])
    assert dumped(read_records(tmp_path / "records.jsonl")[0]) == dumped(first)
    with pytest.raises(DataError, match="make reproduce"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "broken.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"broken\.jsonl"):
        read_records(tmp_path / "broken.jsonl")


def test_every_run_comes_once_and_after_what_it_needs(study):
    runs = study.runs()
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for place, run in enumerate(runs):
        assert run.start is None or names.index(run.start.name) < place
    headline = study.content["experiments"]["headline"]
    for seed in headline["seeds"]:
        assert f"phantom/grpo_plus_plus/n64/seed{seed}" in names


def test_tuning_sees_other_training_data_than_the_experiments(study):
    tuning = {run.seed for run in study.runs() if run.tuning}
    assert tuning.isdisjoint({run.seed for run in study.runs() if not run.tuning and run.start})


def test_all_variants_are_tuned_over_as_many_rates(study):
    for testbed in study.content["tuning"].values():
        assert len({len(rates) for rates in testbed["rates"].values()}) == 1


def test_no_lesion_of_a_test_is_trained_or_validated_on(study):
    for testbed in study.content["testbeds"].values():
        values = testbed["values"]
        seeds = {part: seeds_in(values[part]) for part in ("train", "val", "test")}
        assert seeds["val"].isdisjoint(seeds["test"])
    assert all(seed < 1000 for each in study.content["testbeds"].values() for seed in seeds_in(each["values"]["test"]))


def seeds_in(value):
    if isinstance(value, dict):
        own = {value["seed"]} if isinstance(value.get("seed"), int) and "count" in value else set()
        return own.union(*(seeds_in(each) for each in value.values()))
    return set().union(*(seeds_in(each) for each in value)) if isinstance(value, list) else set()


@pytest.fixture
def check(study, tmp_path, monkeypatch):
    """Instantiates the configurations of runs; the first of each key."""
    monkeypatch.setattr(dermiq.cli.DermIQCLI, "_run_subcommand", lambda self, subcommand: None)

    def instantiate(key):
        found = {}
        for run in study.runs():
            found.setdefault(key(run), run)
        for run in found.values():
            instantiated(study, run, tmp_path)

    return instantiate


def test_the_configurations_of_the_first_runs_can_be_instantiated(study, tmp_path, monkeypatch):
    monkeypatch.setattr(dermiq.cli.DermIQCLI, "_run_subcommand", lambda self, subcommand: None)
    for variant in ("warm_start", "grpo_plus_plus", "sft_labels"):
        instantiated(study, next(run for run in study.runs() if run.variant == variant), tmp_path)


@pytest.mark.slow
def test_the_configurations_of_every_variant_can_be_instantiated(check):
    check(lambda run: (run.testbed, run.variant, run.setting))


def instantiated(study, run, tmp_path):
    """Parse and instantiate the configurations of a run."""
    paths = []
    for number, source in enumerate(study.configs(run)):
        paths.append(tmp_path / f"{run.name.replace('/', '-')}-{number}.yaml")
        paths[-1].write_text(study.filled(source, run, RATE, tmp_path))
    options = [f"--config={path}" for path in paths]
    cli = dermiq.cli.run(["fit", *options, "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"])
    assert isinstance(cli.model, StageModule), run.name


def test_a_placeholder_that_nothing_fills_is_named(study):
    run = study.runs()[0]
    content = dict(study.content)
    content["testbeds"] = {run.testbed: dict(content["testbeds"][run.testbed], values={})}
    with pytest.raises(DataError, match=r"nothing fills its placeholder"):
        replace(study, content=content).filled(study.configs(run)[0], run, RATE, Path())


def test_the_fingerprint_follows_the_configurations_of_a_run(study):
    run = next(run for run in study.runs() if run.start)
    assert study.fingerprint(run, 1e-3) == study.fingerprint(run, 1e-3)
    assert study.fingerprint(run, 1e-3) != study.fingerprint(run, 2e-3)
    assert study.fingerprint(run, 1e-3) != study.fingerprint(replace(run, size=7), 1e-3)
    elsewhere = replace(study, values={"model": "another/folder", "data": "elsewhere"})
    assert study.fingerprint(run, 1e-3) == elsewhere.fingerprint(run, 1e-3)
    other = replace(run, start=replace(run.start, seed=99))
    assert study.fingerprint(run, 1e-3) != study.fingerprint(other, 1e-3)


def test_a_scale_keeps_what_it_names():
    small = read_study(STUDY, "small", VALUES)
    assert len(small.runs()) < len(read_study(STUDY, FULL, VALUES).runs()) / 3
    assert "headline" in small.content["experiments"]
    with pytest.raises(DataError, match="has no scale 'tall'"):
        read_study(STUDY, "tall", VALUES)


def test_the_best_rate_on_validation_is_chosen(study):
    run = next(run for run in study.runs() if run.tuning)
    scores = ((1e-4, 0.5), (5e-4, 0.7), (1e-3, 0.7))
    assert best(record(replace(run, rate=rate), study, score) for rate, score in scores).rate == 5e-4


def test_the_board_keeps_finished_runs_and_waits_for_rates(study, tmp_path):
    board = Board(study, tmp_path)
    ready = [run for run, _ in board.ready()]
    assert ready and all(run.start is None for run in ready)
    start = ready[0]
    write(tmp_path, record(start, study))
    again = Board(study, tmp_path)
    assert again.take_up() == 1 and start.name not in again.waiting
    write(tmp_path, replace(record(start, study), fingerprint="of yesterday"))
    assert Board(study, tmp_path).take_up() == 0


def write(root, found):
    path = root / found.name / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumped(found))


def test_tuning_decides_the_rate(study, tmp_path):
    board = Board(study, tmp_path)
    for run in board.runs:
        if run.start is None:
            board.finish(run, record(run, study))
    tuning = [run for run in board.runs if run.tuning and (run.testbed, run.variant) == ("phantom", "grpo")]
    main_run = next(run for run in board.runs if run.variant == "grpo" and not run.tuning and run.testbed == "phantom")
    assert board.rate(main_run) is None
    for run, score in zip(tuning, (0.3, 0.6, 0.2), strict=True):
        board.finish(run, record(run, study, score))
    assert board.rate(main_run) == tuning[1].rate
    assert main_run.name in {run.name for run, _ in board.ready()}


def test_what_needs_a_failed_run_fails_with_it(study, tmp_path):
    board = Board(study, tmp_path)
    start = next(run for run in board.runs if run.start is None)
    board.fail(start, "broken")
    assert all(run.start is None or run.start.name != start.name for run in board.waiting.values())


def test_time_left_is_by_what_such_runs_took(study, tmp_path):
    board = Board(study, tmp_path)
    assert board.seconds_left(2) == 0.0
    run = board.runs[0]
    board.finish(run, record(run, study))
    assert board.seconds_left(2) == pytest.approx(15.0 * len(board.waiting) / 2)


SMALLEST = {
    "testbeds": {
        "phantom": {
            "values": {
                "group_size": 2,
                "test": {
                    "class_path": "dermiq.datamodules.phantom.PhantomSource",
                    "init_args": {"count": 6, "seed": 911},
                },
                "val": {
                    "class_path": "dermiq.datamodules.phantom.PhantomSource",
                    "init_args": {"count": 4, "seed": 900},
                },
            }
        }
    },
}


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """The study's own file with two variants, one seed and two steps."""
    content = yaml.safe_load(STUDY.read_text())
    phantom = content["testbeds"]["phantom"]
    phantom["values"] |= SMALLEST["testbeds"]["phantom"]["values"]
    phantom["kinds"] = {kind: {"steps": 2, "interval": 2, "batch": 8} for kind in ("rl", "supervised")}
    phantom["domains"] = {"new": ["phantom-911-"]}
    content["testbeds"] = {"phantom": phantom}
    content["starts"]["warm_start"] |= {"size": 16, "values": content["starts"]["warm_start"]["values"] | {"epochs": 1}}
    headline = content["experiments"]["headline"]
    headline |= {
        "variants": ["warm_start", "grpo", "sft_labels"],
        "seeds": [0],
        "sizes": [16],
        "domains": {"new": "new"},
    }
    headline |= {"of": "grpo", "against": ["sft_labels"]}
    content["experiments"] = {"headline": headline}
    rates = {"rl": [1e-3], "supervised": [1e-3]}
    content["tuning"] = {
        "phantom": {"variants": ["grpo", "sft_labels"], "rates": rates, "size": 16, "seed": 50, "start_seed": 0}
    }
    content["scales"], content["claims"] = {}, []
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_the_study_runs_resumes_and_repeats_itself(smallest, tmp_path, capfd):
    arguments = ["--config", str(smallest), "--publish", str(tmp_path / "study")]
    main([*arguments, "--out", str(tmp_path / "first"), "--jobs", "1"])
    found = read_records(tmp_path / "study" / "records.jsonl")
    assert len(found) == 5 and (tmp_path / "study.md").is_file()
    trained = next(each for each in found if each.name == "phantom/grpo/n16/seed0")
    assert len(trained.domains["new"].majority) == 6 and "train/reward" in trained.curves
    assert not next(each for each in found if "tuning" in each.name).domains

    (tmp_path / "first" / FULL / trained.name / RECORD).unlink()  # as if killed in this run
    main([*arguments, "--out", str(tmp_path / "first"), "--jobs", "1"])
    assert "4 of 5 runs are finished already" in capfd.readouterr().out
    again = {each.name: each for each in read_records(tmp_path / "study" / "records.jsonl")}
    same = replace(again[trained.name], seconds=trained.seconds)
    assert dumped(same) == dumped(trained), "the same seed gives the same curve"


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_finish(smallest, tmp_path):
    content = yaml.safe_load(smallest.read_text())
    content["variants"]["grpo"] = {"title": "broken", "kind": "rl", "values": {"group_size": 0}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    study = read_study(path, FULL, {"model": str(tmp_path / "tiny"), "data": ""})
    from dermiq.tiny import write_tiny_vlm

    write_tiny_vlm(tmp_path / "tiny")
    with pytest.raises(TrainingError, match="phantom/tuning/grpo"):
        carry_out(Board(study, tmp_path / "runs"), 1, Console())
    assert (tmp_path / "runs" / "phantom" / "sft_labels" / "n16" / "seed0" / RECORD).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_processes_and_says_how_it_goes_on(number, code, smallest, tmp_path):
    unignored = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731 (children of a background job or nohup ignore it)
    command = [sys.executable, "-m", "study", "--config", str(smallest), "--out", str(tmp_path), "--jobs", "1"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": unignored}
    process = subprocess.Popen(command, **options)
    until = time.monotonic() + 120
    while not list(tmp_path.rglob("seed0.log.txt")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0].decode()  # ends when no process holds the pipe
    assert process.returncode == code and "Traceback" not in said and "leaked" not in said
    assert "The same command goes on from the 0 finished runs." in said


def test_without_matplotlib_it_says_so_before_the_first_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("page", "figures"):
        monkeypatch.delitem(sys.modules, f"study.{name}", raising=False)
    with pytest.raises(SystemExit) as ended, exit_codes():
        main(["--out", str(tmp_path)])
    assert ended.value.code == 2 and 'pip install -e ".[study]"' in capsys.readouterr().err
