"""What every adapter promises, on a small copy of every layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermiq.datamodules import sources
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.reading.card import load_card, terminology
from dermiq.prompts import normalise
from support.layouts import LAYOUTS, write_layout
from support.source_compliance import *  # noqa: F403 (the suite)

CARDS = {path.stem: path for path in sorted((Path(sources.__file__).parent / "cards").glob("*.yaml"))}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(params=LAYOUTS)
def fresh(request, tmp_path) -> Source:
    """The source of a small data set below tmp_path / "data", not yet loaded."""
    return write_layout(request.param, tmp_path / "data")


def test_every_card_has_a_layout():
    assert CARDS.keys() <= set(LAYOUTS)


@pytest.mark.parametrize("name", CARDS)
def test_cards(name):
    card = load_card(CARDS[name])
    assert all((card.title, card.source, card.citation, card.licence, card.attribution)) and card.images > 0
    assert sum(meaning.count or 0 for meaning in card.labels.values()) <= card.images
    for label, meaning in card.labels.items():
        assert meaning.target == normalise(meaning.target) or meaning.concepts, label
        assert all(terminology().names(concept) for concept in meaning.concepts), label
