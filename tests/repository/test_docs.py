"""What the documents say: of the data sets, held against their cards; of results, with the commit they are of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dermiq.datamodules.sources.reading.card import load_card

REPOSITORY = Path(__file__).parents[2]
RESULTS_PAGE = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
RESULTS = re.findall(r"<!-- results: (\w+) -->(.*?)<!-- end -->", RESULTS_PAGE, re.DOTALL)
CARDS = sorted((REPOSITORY / "src/dermiq/datamodules/sources/cards").glob("*.yaml"))


def test_every_data_set_has_a_row_with_its_terms():
    table = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8").split("<!-- data sets -->")[1]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table.split("<!-- end -->")[0].splitlines()[3:] if line]
    documented = {title: (images, licence) for title, _, images, _, licence, *_ in rows}
    cards = [load_card(path) for path in CARDS]
    assert documented == {card.title: (f"{card.images:,}", card.licence) for card in cards}


@pytest.mark.parametrize(("name", "text"), RESULTS, ids=[name for name, _ in RESULTS])
def test_every_table_of_results_names_its_commit(name, text):
    assert re.search(r"[Cc]ommit `[0-9a-f]{7}`", text), f"the results {name!r} do not say which commit they are of"
