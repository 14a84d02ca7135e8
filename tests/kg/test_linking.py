"""Linking: which stretches of a text name something, whatever their number, spelling and punctuation."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.linking import Linker, normal, spans, words
from support.kg import small_graph

FORMS = (
    "plaque", "silvery scale", "scale", "basal cell carcinoma", "basal cell", "carcinoma", "squamous cell carcinoma",
    "tumour", "haemorrhage", "naevus", "oedema", "bowen's disease", "wood's lamp", "flat-topped", "herald patch",
    "keratosis", "axilla", "child", "colour", "localised", "biopsy", "grey", "abscess", "louse", "foot", "crust",
    "fungus", "diabetes", "scabies", "scar", "x-ray", "paediatric", "diarrhoea", "anaesthetic",
)  # fmt: skip
LINKER = Linker((form, form) for form in FORMS)
READER = ClaimReader(small_graph())


def linked(text: str) -> list[str]:
    return [meaning for _, _, meaning in LINKER.link(words(text))]


def surfaces(text: str) -> list[str]:
    """The stretches of the text that were linked, as they stand there."""
    places = spans(text)
    return [text[places[first][0] : places[last - 1][1]] for first, last, _ in LINKER.link(words(text))]


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("a basal cell carcinoma", ["basal cell carcinoma"]),
        ("basal cell and carcinoma", ["basal cell", "carcinoma"]),
        ("basal basal cell carcinoma", ["basal cell carcinoma"]),
        ("squamous cell", []),
        ("silvery", []),
        ("silvery scale scale", ["silvery scale", "scale"]),
        ("silvery, scale", ["scale"]),
        ("basal cell. Carcinoma", ["basal cell", "carcinoma"]),
        ("carcinoma basal cell carcinoma basal", ["carcinoma", "basal cell carcinoma"]),
    ],
)
def test_the_longest_form_is_taken_and_none_overlaps_another(text, meanings):
    assert linked(text) == meanings


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("plaque", "plaques"),
        ("scale", "scales"),
        ("keratosis", "keratoses"),
        ("carcinoma", "carcinomas"),
        ("carcinoma", "carcinomata"),
        ("naevus", "naevi"),
        ("naevus", "nevi"),
        ("axilla", "axillae"),
        ("biopsy", "biopsies"),
        ("abscess", "abscesses"),
        ("louse", "lice"),
        ("foot", "feet"),
        ("child", "children"),
        ("fungus", "fungi"),
        ("silvery scale", "silvery scales"),
        ("scar", "scars"),
    ],
)
def test_plurals(one, many):
    assert linked(many) == linked(one) == [one]


@pytest.mark.parametrize("word", ["scabies", "diabetes", "fungus", "keratosis", "abscess"])
def test_what_only_looks_like_a_plural_keeps_its_name(word):
    assert linked(f"it is {word} here") == [word]


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("tumour", "tumor"),
        ("tumour", "tumors"),
        ("haemorrhage", "hemorrhage"),
        ("naevus", "nevus"),
        ("oedema", "edema"),
        ("colour", "color"),
        ("localised", "localized"),
        ("grey", "gray"),
        ("paediatric", "pediatric"),
        ("diarrhoea", "diarrhea"),
        ("anaesthetic", "anesthetic"),
    ],
)
def test_british_and_american_spelling_are_one(british, american):
    assert linked(american) == linked(british) == [british]
    other = Linker([(american, american)])
    assert [meaning for *_, meaning in other.link(words(british))] == [american]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Bowen's disease", "bowen's disease"),
        ("Bowen’s disease", "bowen's disease"),
        ("Bowen disease", "bowen's disease"),
        ("Wood lamp", "wood's lamp"),
        ("the child's skin", "child"),
        ("the plaque’s edge", "plaque"),
    ],
)
def test_possessives_with_either_apostrophe_and_without(text, meaning):
    assert linked(text) == [meaning]


@pytest.mark.parametrize(
    "text",
    ["flat-topped", "flat topped", "Flat-Topped", "flat–topped", "FLAT\ttopped", "flat  topped", "flat\u00a0topped"],
)
def test_hyphens_dashes_and_blanks_join_the_words_of_a_form(text):
    assert linked(text) == ["flat-topped"]


@pytest.mark.parametrize("text", ["flat, topped", "flat. Topped", "flat (topped)", "flat; topped"])
def test_punctuation_parts_the_words_of_a_form(text):
    assert linked(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("isn't", ["is", "not"]),
        ("isn’t", ["is", "not"]),
        ("ISN'T", ["is", "not"]),
        ("can't", ["can", "not"]),
        ("won't", ["will", "not"]),
        ("shan't", ["shall", "not"]),
        ("doesn't itch", ["does", "not", "itch"]),
        ("paint", ["paint"]),
        ("patient", ["patient"]),
    ],
)
def test_contractions_are_two_words(text, expected):
    assert words(text) == expected
    assert len(spans(text)) == len(expected)


def test_spans_of_a_contraction_part_it():
    text = "It isn't red"
    assert [text[start:end] for start, end in spans(text)] == ["It", "is", "n't", "red"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The PLAQUES, and (often) silvery \t Scales!", ["PLAQUES", "silvery \t Scales"]),
        ("It isn't a scale; it can't be a crust.", ["scale", "crust"]),
        ("İİ plaque", ["plaque"]),  # its lower case is longer than itself
        ("🙂 naevi 日本 Haemorrhage", ["naevi", "Haemorrhage"]),
        ("Bowen’s disease, basal-cell carcinoma", ["Bowen’s disease", "basal-cell carcinoma"]),
    ],
)
def test_spans_point_at_the_characters_of_the_text(text, expected):
    assert surfaces(text) == expected


TEXT = st.text(
    st.one_of(st.sampled_from("ab n't’'İẞßéΣ-–—.,;:()!?\n 09\u017f\u212a🙂\u0627"), st.characters()), max_size=80
)


@given(TEXT)
@example("don't DON’T n't ain't İsn't")
@example("it's the patient's' colour—grey – or.. 3.5 mm")
def test_every_word_stands_where_its_span_says(text):
    found, places = words(text), spans(text)
    assert len(found) == len(places)
    last = 0
    for word, (start, end) in zip(found, places, strict=True):
        assert last <= start < end <= len(text)  # two words of one character, such as a fraction, share its place
        last = start
        piece = text[start:end]
        contracted = piece.lower() in ("n't", "n’t", "ca", "wo", "sha")
        assert contracted or word in words(piece)


@given(TEXT)
def test_folding_is_at_rest_after_a_first_pass_over_case(text):
    assert [normal(word) for word in words(text)] == [
        normal(word) for word in words(text.lower().lower())
    ] or "İ" in text


@given(st.lists(st.sampled_from([*FORMS, "the", "unrelated", ",", "."]), max_size=12))
def test_links_are_in_order_and_apart_and_each_is_a_form_of_its_meaning(pieces):
    tokens = words(" ".join(pieces))
    last = 0
    for start, end, meaning in LINKER.link(tokens):
        assert last <= start < end <= len(tokens)
        assert [normal(word) for word in tokens[start:end]] == [normal(word) for word in words(meaning)]
        last = end


@given(st.lists(st.sampled_from(FORMS), min_size=1, max_size=8))
def test_every_form_is_found_among_full_stops(forms):
    assert linked(". ".join(forms)) == forms


@pytest.mark.parametrize(
    "text",
    ["", " ", "psoriasiform", "zzyzx qwerty", "plaq", "replaque", "scal es", "日本語", "\x00\x01", "--- ... !!!"],
)
def test_nothing_is_linked_in_words_that_are_not_in_the_vocabulary(text):
    assert linked(text) == []
    assert READER.mentions(text) == []


def test_the_first_meaning_of_a_form_stays():
    linker = Linker([("scale", 1), ("scales", 2)])
    assert linker.link(words("scales")) == [(0, 1, 1)]


def test_mentions_of_a_graph_are_concepts_and_not_cues():
    text = "Malignant melanomas are never contagious, but ringworm infections may be."
    assert [meaning for *_, meaning in READER.mentions(text)] == ["melanoma", "contagious", "tinea"]


def test_a_word_is_remembered_as_it_was_first_read():
    text = "plaques and naevi and tumors"
    assert linked(text) == linked(text) == ["plaque", "naevus", "tumour"]
