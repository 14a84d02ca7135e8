"""The ontology that comes with DermIQ: source and OWL agree, every fact can be traced, the data sets are covered."""

import csv
from collections import Counter

import pytest
import rdflib

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.ontology.loading import ONTOLOGY, load_graph
from dermiq.kg.ontology.owl import read_bytes, read_graph
from dermiq.kg.ontology.tables import read_tables
from dermiq.kg.ontology.writing import BASE, CONCEPTS, to_rdf_xml
from dermiq.kg.relations import CONDITION, REVIEW_STATUS, STRENGTHS


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return load_graph()


# --- source and file ---------------------------------------------------------------------------------------------


def test_source_tables_and_owl_agree():
    assert read_graph(read_bytes(ONTOLOGY)) == read_tables()


def test_the_owl_is_what_the_tables_are_written_as():
    assert ONTOLOGY.read_text(encoding="utf-8") == to_rdf_xml(read_tables())


@pytest.mark.slow
def test_rdflib_reads_every_fact(graph):
    rdf = rdflib.Graph().parse(ONTOLOGY, format="xml")
    name = rdflib.Namespace(BASE)
    axioms = set(rdf.subjects(rdflib.RDF.type, rdflib.OWL.Axiom))
    denials = set(rdf.subjects(rdflib.RDF.type, rdflib.OWL.NegativePropertyAssertion))
    assert Counter(fact.positive for fact in graph.facts) == {True: len(axioms), False: len(denials)}
    assert len(set(rdf.subjects(name.citation, None))) == len(graph.facts)
    assert len(set(rdf.subjects(rdflib.RDF.type, name.condition))) == len(graph.conditions)
    for axiom in axioms:
        triple = tuple(rdf.value(axiom, rdflib.OWL[f"annotated{end}"]) for end in ("Source", "Property", "Target"))
        assert triple in rdf and triple[0].startswith(CONCEPTS)


# --- what it holds -----------------------------------------------------------------------------------------------


def test_every_fact_can_be_traced(graph):
    for fact in graph.facts:
        assert fact.citation in graph.citations, fact
        assert fact.strength in STRENGTHS, fact
        assert fact.review == REVIEW_STATUS, fact
    for work in graph.citations.values():
        assert work.title and work.publisher and 1900 < work.year <= 2026 and work.licence, work


def test_it_is_as_large_as_promised(graph):
    assert len(graph.conditions) >= 80
    assert len(graph.facts) / len(graph.conditions) >= 12


@pytest.mark.parametrize("relation", ["category", "malignancy", "urgency", "contagious", "differential"])
def test_every_condition_says_the_essentials(graph, relation):
    assert [one.id for one in graph.conditions if not graph.about(one.id, relation)] == []


DATA_SETS = {
    "HAM10000": (
        "melanocytic nevus", "melanoma", "benign keratosis", "basal cell carcinoma", "actinic keratosis",
        "Bowen's disease", "vascular lesion", "dermatofibroma", "solar lentigo", "seborrheic keratosis",
        "lichen planus-like keratosis", "angiokeratoma", "pyogenic granuloma", "cherry angioma",
    ),
    "ISIC 2019": (
        "melanoma", "melanocytic nevus", "basal cell carcinoma", "actinic keratosis", "benign keratosis",
        "dermatofibroma", "vascular lesion", "squamous cell carcinoma",
    ),
    "PAD-UFES-20": (
        "basal cell carcinoma", "squamous cell carcinoma", "actinic keratosis", "seborrheic keratosis",
        "Bowen's disease", "melanoma", "melanocytic nevus",
    ),
    "DermNet": (
        "actinic keratosis", "basal cell carcinoma", "dermatitis", "lichen planus", "melanoma", "psoriasis",
        "rosacea", "seborrheic keratosis",
    ),
    "SCIN": (
        "eczema", "allergic contact dermatitis", "insect bite reaction", "urticaria", "psoriasis", "folliculitis",
        "irritant contact dermatitis", "tinea corporis", "herpes zoster", "drug rash", "herpes simplex", "acne",
        "impetigo", "viral exanthem", "pityriasis rosea", "tinea versicolor", "lichen planus", "keratosis pilaris",
        "leukocytoclastic vasculitis", "abscess", "cellulitis", "stasis dermatitis", "molluscum contagiosum",
        "verruca vulgaris", "granuloma annulare", "scabies", "lichen simplex chronicus", "miliaria",
        "seborrheic dermatitis", "actinic keratosis", "prurigo nodularis", "intertrigo", "cutaneous candidiasis",
        "keloid", "vitiligo", "erythema multiforme", "cutaneous lupus", "post-inflammatory hyperpigmentation",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data_set", "name"), [(key, name) for key, names in DATA_SETS.items() for name in names])
def test_the_classes_of_the_data_sets_are_there(graph, data_set, name):
    assert graph.find(name).kind == CONDITION


# Labels of Fitzpatrick17k that name a condition in words of their own, or a group by whose commonest member it stands.
FITZPATRICK = {
    "neutrophilic dermatoses": "sweet syndrome",
    "photodermatoses": "polymorphous light eruption",
    "nematode infection": "cutaneous larva migrans",
    "neurofibromatosis": "neurofibromatosis type 1",
    "porokeratosis actinic": "actinic porokeratosis",
    "hailey hailey disease": "Hailey-Hailey disease",
    "dariers disease": "darier disease",
    "papilomatosis confluentes and reticulate": "confluent and reticulated papillomatosis",
    "porphyria": "porphyria cutanea tarda",
    "fixed eruptions": "fixed drug eruption",
    "superficial spreading melanoma ssm": "superficial spreading melanoma",
    "stevens johnson syndrome": "stevens-johnson syndrome",
    "urticaria pigmentosa": "cutaneous mastocytosis",
    "lupus subacute": "subacute cutaneous lupus",
    "lymphangioma": "cutaneous lymphangioma",
}
NOT_COVERED = {"ehlers danlos syndrome", "telangiectases", "pediculosis lids"}


def test_the_frequent_labels_of_fitzpatrick17k_are_there(graph, data_root):
    table = data_root / "fitzpatrick17k" / "fitzpatrick17k.csv"
    if not table.exists():
        pytest.skip(f"{table} is absent: its labels are what this test counts")
    with table.open(encoding="utf-8", newline="") as file:
        labels = Counter(row["label"] for row in csv.DictReader(file))
    frequent = {label for label, count in labels.items() if count >= 100}
    assert len(frequent) >= 50 and FITZPATRICK.keys() | NOT_COVERED <= frequent
    for label in frequent - NOT_COVERED:
        assert graph.find(FITZPATRICK.get(label, label)).kind == CONDITION
