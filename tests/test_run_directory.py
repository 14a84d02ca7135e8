"""One class knows the names of a run's files; its readers of what lies there."""

import ast
from pathlib import Path

import pytest

from dermiq.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
HOME = ROOT / "src" / "dermiq" / "run_directory.py"


def names():
    """The names of the files and folders of a run, but for one that data sets have, too."""
    return {path.name for path in vars(RunDirectory("run")).values()} - {"run", "images"}


def file_names_in(source):
    """Lines with a constant that is the name of a run's file, or a folder's in a path or by itself in a constant."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.left, node.right]  # a folder's name is an ordinary word elsewhere
        elif isinstance(node, ast.Assign):
            parts = [node.value, *getattr(node.value, "elts", [])]
        else:
            parts = [node] if isinstance(node, ast.Constant) and "." in str(node.value) else []
        found |= {each.lineno for each in parts if isinstance(each, ast.Constant) and each.value in names()}
    return sorted(found)


def test_no_other_module_names_a_file_of_a_run():
    named = {
        str(path.relative_to(ROOT)): lines
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "study").rglob("*.py")]
        if path != HOME and (lines := file_names_in(path.read_text(encoding="utf-8")))
    }
    assert named == {}


def test_what_that_test_finds():
    assert len(names()) == 18 and len(file_names_in(HOME.read_text(encoding="utf-8"))) == 18
    lines = ['root / "adapter"', 'LAST = "last.ckpt"', 'A, B = "earlier", 3', 'read("metrics.json")', 'row["adapter"]']
    assert file_names_in("\n".join([*lines, 'say("it is in metrics.json")'])) == [1, 2, 3, 4]


def table(run, version, *rows):
    path = run.logs / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,a,b\n" + "".join(f"{row}\n" for row in rows))


def test_curves_go_on_in_the_order_of_numbers(tmp_path):
    """Version 10 comes after version 2; several values of one step stay in order."""
    run = RunDirectory(tmp_path)
    assert run.curves(["a"]) == {}
    table(run, 10, "4,1.0,7.0")
    table(run, 2, "0,4.0,", "2,3.0,", "2,2.5,", "4,9.0,", "5,9.0,")
    assert run.curves({"a"}) == {"a": [(0, 4.0), (2, 3.0), (2, 2.5), (4, 1.0)]}
    assert run.curves(["b"]) == {"b": [(4, 7.0)]}


@pytest.mark.parametrize(
    ("subcommands", "expected"),
    [
        (("test",), {"metrics.json", "predictions.parquet", "test_predictions.jsonl", "test_thumbnails.rank1.jsonl"}),
        (("validate",), {"val_metrics.json"}),
        (("predict",), {"predictions.jsonl", "predictions.rank0.jsonl", "predictions.rank12.jsonl"}),
    ],
)
def test_results_by_subcommand(subcommands, expected, tmp_path):
    run = RunDirectory(tmp_path)
    written = {
        run.metrics_file, run.predictions, run.validation_file, run.tested_lines(), run.thumbnail_lines(1, 2),
        run.predicted_lines(), run.predicted_lines(0, 13), run.predicted_lines(12, 13),
    }  # fmt: skip
    for path in written:
        path.touch()
    assert {path.name for path in run.results(*subcommands) if path.exists()} == expected
    assert {path for path in run.results() if path.exists()} == written
