"""docs/architecture.md, held against the code: the tree, the layers, the walks, and the pictures' example."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from dermiq.kg import KGScorer
from dermiq.kg.scorer import spoken
from dermiq.prompts import parse

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "dermiq"
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
STEP = re.compile(r"^(\d+)\. `([\w/]+\.py)`(.*)$", re.MULTILINE)
WALKS = ("image → gradient", "completion → verdict", "YAML → run", "test row → metrics.json")
LOSS = "The GRPO++ loss in three files"


def section(title: str) -> str:
    return re.split(rf"^#+ {re.escape(title)}$", PAGE, flags=re.MULTILINE)[1].split("\n##")[0]


def steps(title: str) -> list[tuple[int, Path, list[str]]]:
    """Number, file and names of each step of a walk."""
    found = STEP.findall(section(title))
    return [(int(number), SOURCE / path, re.findall(r"`([A-Za-z_][\w.]*)`", said)) for number, path, said in found]


def parts(title: str) -> list[list[Path]]:
    """The files of a walk, part by part."""
    found = [STEP.findall(part) for part in re.split(r"^\*\*.*\*\*$", section(title), flags=re.MULTILINE)]
    return [[SOURCE / path for _, path, _ in part] for part in found if part]


@cache
def definitions(path: Path) -> dict[str, ast.AST]:
    """Name -> what a file defines: functions, classes and their methods, constants."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}": each for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@cache
def imported(path: Path) -> frozenset[Path]:
    """Files of the package that a file takes names from, those behind an ``__init__`` included."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dermiq":
            place = SOURCE.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                found |= origin(place, alias.name)
    return frozenset(found)


def origin(place: Path, name: str) -> set[Path]:
    """The file that a name of a module or package comes from."""
    if (place / f"{name}.py").is_file():
        return {place / f"{name}.py"}
    if not place.is_dir():
        return {place.with_suffix(".py")}
    for node in ast.parse((place / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return origin(SOURCE.parent.joinpath(*(node.module or "").split(".")), name)
    return set()


@pytest.mark.parametrize("title", [*WALKS, LOSS])
def test_what_a_walk_names_is_defined_in_its_file(title):
    missing = [
        f"{path.name}: {name}" for _, path, names in steps(title) for name in names if name not in definitions(path)
    ]
    assert missing == []
    assert all(names for _, _, names in steps(title)[:-1])


@pytest.mark.parametrize("title", [*WALKS, LOSS])
def test_a_walk_opens_each_file_once(title):
    numbers, paths, _ = zip(*steps(title), strict=True)
    assert numbers == tuple(range(1, len(paths) + 1)) and len(paths) >= 3
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_never_leads_back(title):
    """Within a part, each file is used by one above it, and uses none above it."""
    for part in parts(title):
        for place, path in enumerate(part[1:], start=1):
            above = part[:place]
            assert any(path in imported(other) for other in above), f"{path.name} is used by none above it"
            assert not imported(path).intersection(above), f"{path.name} leads back"


def size(path: Path, names: list[str]) -> int:
    """Lines of the named definitions of a file, a method within a named class counted once."""
    lines: set[int] = set()
    for name in names:
        node = definitions(path)[name]
        lines |= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize("title", WALKS)
def test_the_walks_are_as_long_as_the_page_says(title):
    """Lines roughly, so that not every edit of the code is one of the page."""
    row = section("Four walks").split(f"| {title} |")[1].split("\n")[0]
    files, whole, named = map(int, re.findall(r"\d+", row.replace(",", "")))
    walk = steps(title)
    true = len(walk), sum(len(path.read_text().splitlines()) for _, path, _ in walk), sum(size(*s[1:]) for s in walk)
    assert (files, whole, named) == (true[0], pytest.approx(true[1], rel=0.1), pytest.approx(true[2], rel=0.2)), true


def test_the_tree_is_the_tree():
    tree = section("The tree").split("src/dermiq/\n")[1].split("    study/")[0]
    named = {name.rstrip("/") for name in re.findall(r"^      (\S+)", tree, re.MULTILINE)}
    assert named == {path.name for path in SOURCE.iterdir() if not path.name.startswith("__")}
    assert all((REPOSITORY / name).exists() for name in re.findall(r"(?<= )(\w+/)(?= |$)", section("The tree")[:400]))


def test_the_layers_are_those_that_are_enforced():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    written = re.findall(r"^    (\w.*)$", section("The layers"), re.MULTILINE)
    assert written == contracts[0]["layers"]


def test_the_pictured_verdict_is_the_one_that_is_given():
    picture = (REPOSITORY / "docs" / "images" / "answer_to_verdict.svg").read_text(encoding="utf-8")
    completion, prose = re.findall(r">([^<>]*It itches[^<>]*)<", picture)
    said = spoken(parse(completion.replace("&lt;", "<").replace("&gt;", ">")))
    assert " ".join(said.split()) == prose
    score = KGScorer().score(said, "scabies")
    figures = f"precision {score.precision:.2f} · coverage {score.coverage:.2f} · harm {score.harm:.2f}"
    assert f"{figures} · score {score.score:.2f}" in picture
    verdicts = re.findall(r">(supported|contradicted|unknown)<", picture)
    assert sorted(verdicts) == sorted(item.verdict.judgement for item in score.claims)
