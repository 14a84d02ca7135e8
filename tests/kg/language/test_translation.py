# ruff: noqa: RUF001 (the texts are Chinese and Turkish)
"""Short statements in German, Spanish, French and Chinese are judged; other languages are reported as unread."""

from __future__ import annotations

import pytest

from dermiq.kg import KGScorer, load_graph
from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.language.translation import LANGUAGES, condition_names
from dermiq.kg.records import as_record

SCORER = KGScorer()
S, C, N = "supported", "contradicted", "neutral"


@pytest.mark.parametrize(
    ("condition", "text", "expected"),
    [
        ("psoriasis", "Schuppenflechte ist ansteckend.", C),
        ("psoriasis", "Schuppenflechte ist nicht ansteckend.", S),
        ("melanoma", "Ein Melanom ist harmlos und muss nicht behandelt werden.", C),
        ("melanoma", "Das Melanom ist bösartig und sollte rasch operiert werden.", S),
        ("scabies", "Krätze wird durch Milben verursacht und juckt vor allem nachts.", S),
        ("impetigo", "Impetigo ist eine Pilzinfektion.", C),
        ("vitiligo", "Die Diagnose lautet Schuppenflechte.", C),
        ("common wart", "Warzen werden durch Viren verursacht.", S),
        ("basal cell carcinoma", "Das Basaliom ist ein gutartiger Tumor.", C),
        ("psoriasis", "La psoriasis no es una enfermedad contagiosa.", S),
        ("psoriasis", "La psoriasis se transmite de persona a persona.", C),
        ("melanoma", "El melanoma es benigno.", C),
        ("herpes zoster", "La culebrilla es causada por una bacteria.", C),
        ("herpes zoster", "El herpes zóster es una infección viral.", S),
        ("tinea pedis", "El pie de atleta es una infección por hongos.", S),
        ("urticaria", "La urticaria es un tumor maligno.", C),
        ("impetigo", "El impétigo no es contagioso.", C),
        ("psoriasis", "Le psoriasis n'est pas contagieux.", S),
        ("psoriasis", "Le psoriasis est une maladie très contagieuse.", C),
        ("melanoma", "Le mélanome est une tumeur maligne, il faut l'enlever rapidement.", S),
        ("melanoma", "Le mélanome est bénin.", C),
        ("scabies", "La gale est due à un acarien et démange la nuit.", S),
        ("impetigo", "L'impétigo est dû à un virus.", C),
        ("chickenpox", "La varicelle est une infection virale contagieuse.", S),
        ("psoriasis", "银屑病会传染。", C),
        ("psoriasis", "银屑病不会传染，是一种慢性炎症性皮肤病。", S),
        ("melanoma", "黑色素瘤不是恶性肿瘤。", C),
        ("scabies", "疥疮由疥螨引起，夜间瘙痒明显。", S),
        ("herpes zoster", "带状疱疹是由细菌引起的。", C),
        ("basal cell carcinoma", "基底细胞癌是良性的。", C),
        ("tinea pedis", "足癣是真菌感染，具有传染性。", S),
        ("vitiligo", "Ich weiß es leider nicht.", N),
        ("vitiligo", "No lo sé, lo siento.", N),
        ("vitiligo", "我不知道。", N),
    ],
)
def test_statements_in_four_languages(condition: str, text: str, expected: str) -> None:
    assert SCORER.score(text, condition).verdict == expected


@pytest.mark.parametrize(
    "text",
    [
        "Questa è una malattia della pelle che non è contagiosa.",
        "Dit is een besmettelijke huid aandoening, maar het is niet gevaarlijk.",
        "Bu hastalık bulaşıcı değildir ve bir tümör değil.",
        "To jest choroba skóry, która nie jest zaraźliwa.",
    ],
)
def test_other_languages_are_unread_and_earn_nothing(text: str) -> None:
    score = SCORER.score(f"Psoriasis is not contagious. {text}", "psoriasis")
    (span,) = score.unread
    assert text.startswith(f"Psoriasis is not contagious. {text}"[slice(*span)].strip()[:10])
    assert score.claims == SCORER.score("Psoriasis is not contagious.", "psoriasis").claims


@pytest.mark.parametrize(
    "text",
    [
        "L leg cellulitis. Rx clobetasol bd.",
        "Note the pigment network.",
        "Violaceous flat-topped papules, Wickham striae.",
        "Son of a patient with psoriasis; on no treatment.",
        "Lupus erythematosus, acne vulgaris, pityriasis versicolor.",
    ],
)
def test_english_notes_and_latin_names_are_english(text: str) -> None:
    assert not SCORER.score(text, "psoriasis").unread


def test_words_of_claims_are_those_of_the_original() -> None:
    text = "¡Ojo! La psoriasis no es contagiosa; produce placas rojas."
    record = as_record(SCORER.score(text, "psoriasis"), SCORER.graph, text)
    quoted = {text[slice(*item["span"])] for item in record["supported"]}
    assert {"contagiosa", "placas", "rojas"} <= quoted


def test_every_condition_has_a_name_in_every_language() -> None:
    graph = load_graph()
    named = {condition for _, condition in condition_names()}
    assert named == {concept.id for concept in graph.conditions}
    assert len(LANGUAGES) == 4


def test_a_foreign_name_is_a_name_in_an_english_sentence_too() -> None:
    reader = ClaimReader(load_graph())
    (claim,) = reader.read("The diagnosis is Gürtelrose.", "psoriasis").claims
    assert (claim.relation, claim.value) == ("diagnosis", "herpes_zoster")
