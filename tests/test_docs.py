"""What the documents say of the data sets, held against their cards."""

from __future__ import annotations

import re
from pathlib import Path

from dermiq.datamodules.sources.card import load_card

REPOSITORY = Path(__file__).parents[1]
CARDS = sorted((REPOSITORY / "src/dermiq/datamodules/sources/cards").glob("*.yaml"))


def test_every_data_set_has_a_row_with_its_terms():
    table = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8").split("<!-- data sets -->")[1]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table.split("<!-- end -->")[0].splitlines()[3:] if line]
    documented = {title: (images, licence) for title, _, images, _, licence, *_ in rows}
    cards = [load_card(path) for path in CARDS]
    assert documented == {card.title: (f"{card.images:,}", card.licence) for card in cards}
