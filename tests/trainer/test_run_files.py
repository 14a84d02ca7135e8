"""Files of a run that are not as they were written: the report, the export and the study name them, and end."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from study.record import read_records

from dermiq.export.lineage import read_lineage
from dermiq.report.__main__ import main, names
from dermiq.report.charts import ticks
from dermiq.report.stages import read_curves
from dermiq.schema import DataError, DermIQError
from support.reports import TARGETS, diagnosis, talk, write_run

METRICS, PREDICTIONS, THUMBNAILS = "metrics.json", "predictions.parquet", "thumbnails.parquet"
CURVES = "metrics/version_0/metrics.csv"
HEAD = "epoch,step,train/loss\n"


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    rows = [diagnosis(i, TARGETS[i % 4]) for i in range(4)] + [talk(1, "psoriasis is contagious .")]
    return write_run(tmp_path_factory.mktemp("tested") / "run", rows)


@pytest.fixture
def run(tested, tmp_path):
    shutil.copytree(tested, tmp_path / "run")
    return tmp_path / "run"


def put(run, name, content):
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def page(run):
    """The report of a run: empty where it was written, else why not, as one line."""
    try:
        main([str(run), "--out", str(run.parent / "out")])
    except DermIQError as error:
        assert "\n" not in str(error)
        return str(error)
    assert (run.parent / "out" / "index.html").is_file()
    return ""


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        '"x"',
        "3",
        '{"test/accuracy": null}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": true}',
        '{"a": "0.5"}',
        '{"a": {}}',
        '{"a": ' + "9" * 400 + "}",
        '{"a": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        "",
        b"\xff\xfe\x00",
    ],
    ids=range(15),
)
def test_metrics_that_are_none(content, run):
    put(run, METRICS, content)
    assert str(run / METRICS) in page(run)


@pytest.mark.parametrize("name", [PREDICTIONS, THUMBNAILS])
@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PAR1PAR1"], ids=["empty", "junk", "cut"])
def test_tables_that_are_none(name, content, run):
    put(run, name, content)
    assert str(run / name) in page(run)


CHANGES = {
    "correct as text": {"correct": ["yes"] * 5},
    "correct as number": {"correct": [1] * 5},
    "completion as number": {"completion": [3] * 5},
    "no completion": {"completion": [None] * 5},
    "completion left out": {"completion": None},
    "concepts left out": {"concepts": None},
    "lineage left out": {"named_lineage": None},
    "no name": {"named": [None] * 5},
    "no id": {"id": [None] * 5},
    "kind as number": {"kind": [1] * 5},
    "votes as text": {"votes": [["a"]] * 5},
    "votes of another length": {"votes": [[1]] * 5},
    "a ranking of nothing": {"ranking": [[None, None]] * 5},
    "facts as numbers": {"facts": [[1]] * 5},
    "confidence as text": {"confidence": ["high"] * 5},
    "options as text": {"options": ["abc"] * 5},
    "skin type as number": {"skin_type": [3] * 5},
    "half a finding": {"findings_true": [0.5] * 5},
    "a structure": {"site": [{"a": 1}] * 5},
    "one id for all": {"id": ["a"] * 5},
}


@pytest.mark.parametrize("name", CHANGES)
def test_columns_that_are_not_as_written(name, run):
    table = pq.read_table(run / PREDICTIONS)
    for column, values in CHANGES[name].items():
        table = table.drop_columns([column] if column in table.column_names else [])
        table = table if values is None else table.append_column(column, pa.array(values))
    pq.write_table(table, run / PREDICTIONS)
    assert str(run / PREDICTIONS) in page(run)


USES = pa.list_(pa.struct({"dataset": pa.string(), "id": pa.string(), "place": pa.int64()}))


@pytest.mark.parametrize(
    "columns",
    [
        {"x": [1]},
        {"image": ["x"], "shown": ["y"]},
        {"image": pa.array([None], pa.binary()), "shown": pa.array([None], USES)},
        {"image": pa.array([b"x"], pa.binary()), "shown": pa.array([[None]], USES)},
        {
            "image": pa.array([b"x"], pa.binary()),
            "shown": pa.array([[{"dataset": "a", "id": "b", "place": None}]], USES),
        },
    ],
    ids=range(5),
)
def test_thumbnails_that_are_none(columns, run):
    pq.write_table(pa.table(columns), run / THUMBNAILS)
    assert page(run).startswith(f"{run / THUMBNAILS} holds no thumbnails that can be read")


@pytest.mark.parametrize(
    "rows",
    [
        "0,nan,1\n",
        "0,-1,1\n",
        "0,abc,1\n",
        "0,1.5,1\n",
        f"0,{2**60},1\n",
        "0,1,abc\n",
        "0,\0,1\n",
    ],
    ids=range(7),
)
def test_curves_that_are_none(rows, run):
    put(run, CURVES, HEAD + rows)
    assert page(run).startswith(f"{run / CURVES} is no table of metrics that can be read")


def test_a_cell_without_end(run):
    """Whether it is too long for a table or too large for a chart depends on the limit of the csv module."""
    put(run, CURVES, HEAD + '0,1,"' + "9" * 200_000)
    assert page(run) == "" or page(run).startswith(f"{run / CURVES} is no table of metrics that can be read")


def test_curves_without_a_header_or_of_other_bytes(run):
    put(run, CURVES, "0,1,2\n0,2,3\n")
    assert "it has no column step" in page(run)
    put(run, CURVES, b"\xff\xfe\x00")
    assert str(run / CURVES) in page(run)


def test_a_step_far_away_ends(run):
    """Walking over all steps in between took for ever."""
    put(run, CURVES, HEAD + "0,0,1\n0,999999999999,3\n")
    curves = read_curves(run)
    assert curves.values["train/loss"] == (1.0, 3.0) and curves.stretches[-1][1] == 999_999_999_999
    assert page(run) == ""


@pytest.mark.parametrize(
    "rows",
    ["", "0,1,nan\n", "0,1,1e308\n0,2,-1e308\n0,3,1\n", "0,1,1e-320\n0,2,0\n", "0\n0,1\n", "0,1,1\n0,2,1.0000000001\n"],
)
def test_curves_that_can_be_drawn_in_part(rows, run):
    put(run, CURVES, HEAD + rows)
    assert page(run) == ""


def test_ticks_of_small_and_nearly_equal_values():
    assert ticks(1.0, 1.0 + 1e-15)[0] <= 1.0 < ticks(1.0, 1.0 + 1e-15)[-1]
    small = ticks(0, 3e-12)
    assert small[0] == 0 and small[-1] >= 3e-12 and len(set(small)) == len(small)


@pytest.mark.parametrize(
    "content", ["{{{", "", b"\0\xff", "[1]", "&a [*a]", "model: 3", "model: {class_path: 3}", "[" * 5000], ids=range(8)
)
def test_a_configuration_that_is_none_is_left_out(content, run):
    put(run, "config.yaml", content)
    assert page(run) == ""
    (run / "adapter").mkdir()
    with pytest.raises(DermIQError, match=r"config\.yaml"):
        read_lineage(run)


@pytest.mark.parametrize("name", [METRICS, PREDICTIONS, THUMBNAILS, CURVES, "config.yaml"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "circle"])
def test_what_is_no_regular_file(name, kind, run):
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "directory": os.mkdir, "circle": lambda path: path.symlink_to(path)}[kind](path)
    said = page(run)
    assert str(path) in said or name == "config.yaml"


def test_a_file_that_may_not_be_read(run, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert page(run) == f"{run / METRICS} cannot be read (Permission denied). Make it readable, or move it away."


def test_a_run_that_is_a_circle(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "run")
    with pytest.raises(DataError, match="run"):
        names([tmp_path / "run"])


RECORD = {
    "name": "a",
    "ground": "phantom",
    "variant": "b",
    "setting": "",
    "size": 1,
    "seed": 0,
    "fingerprint": "f",
    "rate": 0.1,
    "seconds": {},
    "curves": {},
    "best_step": -1,
    "validation": 0.0,
    "domains": {},
    "metrics": {},
}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        "null",
        "[" * 100_000,
        json.dumps(RECORD | {"domains": []}),
        json.dumps(RECORD | {"domains": {"new": 3}}),
        json.dumps(RECORD | {"rate": "fast"}),
        json.dumps(RECORD | {"name": None}),
        json.dumps({"name": "a"}),
        "{",
        "\xff",
    ],
    ids=range(11),
)
def test_records_that_are_none(content, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=r"records\.jsonl is no file of study records"):
        read_records(path)
    path.write_text(json.dumps(RECORD) + "\n")
    assert read_records(path)[0].name == "a"
