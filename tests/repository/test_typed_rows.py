"""Rows of predictions and batches are typed: a column that is renamed in one place alone does not pass `make check`."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from mypy import api

from dermiq.metrics import PredictionRow
from dermiq.metrics.evaluation import NOT_READ
from dermiq.policy import batches
from dermiq.report import reading
from dermiq.report.compare import _NO_MEASURES

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "dermiq"
COLUMNS = set(PredictionRow.__annotations__)
ENTRIES = {
    name
    for kind in (batches.PromptBatch, batches.ConversationBatch, batches.PreferenceBatch)
    for name in kind.__annotations__
}
TYPED = ("metrics/rows.py", "policy/batches.py", "objectives/scored.py", "schema.py")
READERS = [
    path
    for folder in ("metrics", "modules", "report")
    for path in (SOURCES / folder).glob("*.py")
    if "PredictionRow" in path.read_text()
]


def literal_keys(path: Path, names: set[str]) -> dict[str, str]:
    """Literal keys by which the mappings of these names are read in a file, each with `[]` or `get`."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"), args=[ast.Constant(value=str(key)), *_]
            ) if name in names:
                found.setdefault(key, "get")
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))) if name in names:
                found[key] = "[]"
    return found


def typed_dicts(path: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Class -> its fields, and the names that its docstring describes, of the typed dicts in a file."""
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    found: dict[str, tuple[set[str], set[str]]] = {}
    for node in classes:
        bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
        if bases & {"TypedDict", *found}:
            fields = {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
            found[node.name] = fields, set(re.findall(r"^    (\w+): ", ast.get_docstring(node), re.MULTILINE))
    return found


@pytest.mark.parametrize("name", TYPED)
def test_every_field_is_described_where_it_is_defined(name):
    found = typed_dicts(SOURCES / name)
    assert found and all(fields == described for fields, described in found.values()), found


def test_readers_of_rows_name_columns_that_exist():
    found = {
        key: path.name for path in READERS for key in literal_keys(path, {"row", "one", "other", "before", "after"})
    }
    assert len(found) > 20 and not found.keys() - COLUMNS, found


def test_lists_of_columns_name_columns_that_exist():
    lists = [NOT_READ, reading.NEEDED, _NO_MEASURES]
    lists += [names for _, names in reading._KINDS.values()]
    assert all(names and not set(names) - COLUMNS for names in lists), lists


def test_readers_of_batches_name_entries_that_exist():
    paths = [path for path in SOURCES.rglob("*.py") if path.name != "loading.py"]  # there: Lightning's count of batches
    found = {key: path.name for path in paths for key in literal_keys(path, {"batch"})}
    assert len(found) > 5 and not found.keys() - ENTRIES, found


def test_no_batch_is_an_untyped_mapping():
    hints = [
        ast.unparse(argument.annotation)
        for package in ("datamodules", "modules", "objectives", "policy")
        for path in (SOURCES / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
        if argument.arg == "batch" and argument.annotation is not None
    ]
    untyped = [hint for hint in hints if not hint.endswith("Batch")]
    assert len(hints) > 20 and set(untyped) <= {"Any"}, untyped  # Lightning's hooks of callbacks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defined_in", "names", "readers"),
    [
        ("metrics/rows.py", {"row", "one", "other"}, [path.relative_to(SOURCES) for path in READERS]),
        (
            "policy/batches.py",
            {"batch"},
            ["modules/sft.py", "modules/dpo.py", "policy/rollout.py", "policy/decoding.py", "policy/grounding.py"],
        ),
    ],
)
def test_a_renamed_field_is_a_type_error_wherever_it_is_read(defined_in, names, readers, tmp_path, monkeypatch):
    copy = shutil.copytree(SOURCES, tmp_path / "dermiq", ignore=shutil.ignore_patterns("__pycache__"))
    definition = copy / defined_in
    definition.write_text(re.sub(r"^    (\w+): ", r"    \1_renamed: ", definition.read_text(), flags=re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    files = [str(copy / name) for name in {defined_in, *map(str, readers)}]
    report, _, _ = api.run(
        ["--strict", "--follow-imports=skip", "--ignore-missing-imports", f"--cache-dir={tmp_path}", *files]
    )
    # Of a missing column `get` returns None, for which the test of names that exist is there.
    keys = {name: literal_keys(copy / name, names).items() for name in map(str, readers)}
    read = {(name, key) for name, found in keys.items() for key, how in found if how == "[]"}
    lines = report.splitlines()
    missed = [each for each in read if not any(each[0] in line and f'"{each[1]}"' in line for line in lines)]
    assert len(read) > 10 and not missed, f"{missed}\n{report}"
