"""The parts of a score, each as a function of (answer, sample)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dermiq.kg import KGContradiction, KGCoverage, KGHarm, KGPrecision, KGScorer
from dermiq.kg.ontology.writing import to_rdf_xml
from dermiq.prompts import parse
from dermiq.schema import Sample
from support.kg import small_graph

SAMPLE = Sample(id="1", images=(), target="psoriasis", label="", group="", question="What does it look like?", reply="")
MIXED = parse("Psoriasis shows plaques. It is red. It is blue. It is found on the moon.")  # blue is contradicted


@pytest.fixture(scope="module")
def ontology(tmp_path_factory):
    path = tmp_path_factory.mktemp("kg") / "small.owl"
    path.write_text(to_rdf_xml(small_graph()), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("part", "expected"),
    [(KGPrecision, 2 / 3), (KGCoverage, 1.0), (KGContradiction, 1 / 3)],  # its name, plaques and red: 2.41 of 1.8
)
def test_parts_by_hand(part, expected, ontology):
    assert part(ontology)(MIXED, SAMPLE) == pytest.approx(expected)


def test_harm_is_that_of_the_score(ontology):
    harm = KGHarm(ontology)(MIXED, SAMPLE)
    assert harm == KGScorer(ontology).judge(MIXED, SAMPLE).harm > 0
    assert KGHarm(ontology)(parse("Psoriasis shows plaques."), SAMPLE) == 0


@pytest.mark.parametrize("part", [KGPrecision, KGCoverage, KGContradiction, KGHarm])
def test_a_condition_that_the_graph_does_not_know(part, ontology):
    assert part(ontology)(MIXED, replace(SAMPLE, target="werewolf bite")) is None
