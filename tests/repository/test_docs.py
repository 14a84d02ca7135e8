"""What the documents say: of the data sets, held against their cards; of results, with the commit they are of."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from PIL import Image

from dermiq.datamodules.sources.reading.card import load_card

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RESULTS_PAGE = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
RESULTS = re.findall(r"<!-- results: (\w+) -->(.*?)<!-- end -->", RESULTS_PAGE, re.DOTALL)
CARDS = sorted((REPOSITORY / "src/dermiq/datamodules/sources/cards").glob("*.yaml"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
CONFIGS = [path for root in ("configs", "study") for path in sorted((REPOSITORY / root).rglob("*.yaml"))]
DOCUMENTS = [*PAGES, REPOSITORY / "SECURITY.md", REPOSITORY / "benchmarks" / "README.md"]
NO_NAMES = {"dermiq.owl", "dermiq.splits"}  # a file, and a key of a file's metadata
NO_FILES = {  # what guides have the reader write, and a pattern
    "tests/support/layouts/skin_clinic.py",
    "src/dermiq/kg/source/conditions/steatocystoma_multiplex.yaml",
    "benchmarks/results/NAME.json",
}
LONG_OPTION = re.compile(r"\binit_args\.|\.init_args\b")


def test_every_data_set_has_a_row_with_its_terms():
    table = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8").split("<!-- data sets -->")[1]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table.split("<!-- end -->")[0].splitlines()[3:] if line]
    documented = {title: (images, licence) for title, _, images, _, licence, *_ in rows}
    cards = [load_card(path) for path in CARDS]
    assert documented == {card.title: (f"{card.images:,}", card.licence) for card in cards}


@pytest.mark.parametrize(("name", "text"), RESULTS, ids=[name for name, _ in RESULTS])
def test_every_table_of_results_names_its_commit(name, text):
    assert re.search(r"[Cc]ommit `[0-9a-f]{7}`", text), f"the results {name!r} do not say which commit they are of"


def test_the_readme_is_short_and_its_picture_small():
    assert len(README.splitlines()) <= 150
    [(alternative, path)] = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", README)
    assert len(alternative) > 40 and (REPOSITORY / path).stat().st_size < 200_000
    with Image.open(REPOSITORY / path) as picture:
        assert picture.width >= 800


def test_the_rows_of_the_readme_are_those_of_the_results():
    """To the digits that the README shows."""
    rows = re.findall(r"^\| ([\w: ()-]+?) \| ([\d. |]+)\|$", README, re.MULTILINE)
    assert len(rows) == 4
    of_seed_0 = RESULTS_PAGE.split("`make quickstart` runs seed 0 alone")[1]
    for name, values in rows:
        name = name.replace("replies:", "conversation:")
        [whole] = re.findall(rf"^\| {re.escape(name)} \| ([\d. |]+)\|$", of_seed_0, re.MULTILINE)
        shown, true = ([value.strip() for value in each.split("|")] for each in (values, whole))
        assert shown == [
            f"{float(t):.{len(s.partition('.')[2])}f}" if t else t for s, t in zip(shown, true, strict=True)
        ]


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_names_and_files_of_ours_are_there(path):
    """Dotted names, and paths of tests, benchmarks and sources."""
    text = path.read_text(encoding="utf-8")
    names = set(re.findall(r"(?<![\w/.])dermiq(?:\.[A-Za-z_]\w*)+", text)) - NO_NAMES
    files = set(re.findall(r"(?<![\w/.])(?:tests|benchmarks|src/dermiq)/[\w/]+\.\w+", text)) - NO_FILES
    assert [name for name in sorted(names) if not is_there(name)] == []
    assert [name for name in sorted(files) if not (REPOSITORY / name).exists()] == []


def test_a_name_that_is_gone_is_found():
    assert is_there("dermiq.rewards.diagnosis") and is_there("dermiq.kg.KGScorer")
    assert not is_there("dermiq.rewards.nothing") and not is_there("dermiq.nothing.KGScorer")


@pytest.mark.parametrize("path", [*PAGES, *CONFIGS], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_options_are_written_in_their_short_form(path):
    """``--model.optimizer.lr``, without ``init_args``, which stands only where YAML needs it as a key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    said = [line.partition("#")[2] if path.suffix == ".yaml" else line for line in lines]
    assert [line for line in said if LONG_OPTION.search(line)] == []


@pytest.mark.parametrize("option", ["--model.init_args.lr=1", "`rewards.init_args.terms`", "…init_args.root=R"])
def test_a_long_option_is_found(option):
    assert LONG_OPTION.search(option) and not LONG_OPTION.search("        init_args: {root: data}")
