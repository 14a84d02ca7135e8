"""The graph's own sentences with their notes, which answers given beside retrieved facts repeat."""

import pytest

from dermiq.kg import KGScorer
from dermiq.kg.relations import CONDITION
from dermiq.kg.verbalising import sentences

SCORER = KGScorer()
GRAPH = SCORER.graph
FEW = 0.03  # notes are prose, and the judge misreads some prose


def test_facts_with_their_notes_are_hardly_ever_contradicted():
    noted = [fact for fact in GRAPH.facts if fact.note and GRAPH.concepts[fact.subject].kind == CONDITION]
    wrong = [text for fact in noted if SCORER.score(text := sentences(GRAPH, [fact])[0], fact.subject).contradicted]
    assert len(noted) > 1500
    assert len(wrong) <= FEW * len(noted), "\n".join(wrong)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("scabies", "Scabies is told apart from eczema (no burrows, and others at home do not itch)."),
        ("acne vulgaris", "It must be told apart from rosacea (no comedones, flushing and visible vessels)."),
        ("folliculitis", "Folliculitis is never found on the palm (no hair grows there)."),
        ("tinea corporis", "It is never found on the scalp (there it is tinea capitis)."),
        (
            "cutaneous larva migrans",
            "It needs no skin biopsy (the larva lies ahead of the track) or blood tests.",
        ),
        ("acanthosis nigricans", "It is benign (though in rare cases it points to an internal cancer)."),
        ("basal cell carcinoma", "It calls for routine care (urgent only where a delay would do harm)."),
        ("lipoma", "It never shows a punctum (that would speak for an epidermoid cyst)."),
    ],
)
def test_a_parenthesis_is_read_as_an_aside(condition, text):
    score = SCORER.score(text, condition)
    assert not score.contradicted
    assert score.supported


def test_a_wrong_claim_in_a_parenthesis_is_heard():
    for text in ("Psoriasis (a contagious disease) is chronic.", "The plaques are red (psoriasis is malignant)."):
        assert SCORER.score(text, "psoriasis").contradicted
