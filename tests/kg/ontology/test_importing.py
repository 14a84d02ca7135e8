"""Import of the Disease and the Symptom Ontology: matched by identifier, on the real files and on small ones."""

import gzip
import time
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from dermiq.kg.graph import Concept, KnowledgeGraph
from dermiq.kg.ontology.importing import enrich
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.ontology.owl import read_bytes, read_graph, read_nodes
from dermiq.kg.ontology.tables import read_tables
from dermiq.kg.ontology.validation import validate
from dermiq.kg.ontology.writing import OBO, to_rdf_xml
from dermiq.schema import KnowledgeError

HEAD = (
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:owl="http://www.w3.org/2002/07/owl#" '
    'xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#" xmlns:obo="http://purl.obolibrary.org/obo/" '
    'xmlns:oio="http://www.geneontology.org/formats/oboInOwl#">'
)


def owl_class(
    name: str,
    label: str,
    synonyms: tuple[str, ...] = (),
    xrefs: tuple[str, ...] = (),
    definition: str = "",
    replaced_by: str | None = None,
) -> str:
    """A class as OBO ontologies write it; deprecated if `replaced_by` is given, by nothing if it is empty."""
    parts = [f"<rdfs:label>{escape(label)}</rdfs:label>"]
    parts += [f"<oio:hasExactSynonym>{escape(one)}</oio:hasExactSynonym>" for one in synonyms]
    parts += [f"<oio:hasDbXref>{escape(one)}</oio:hasDbXref>" for one in xrefs]
    parts += [f"<obo:IAO_0000115>{escape(definition)}</obo:IAO_0000115>"] if definition else []
    if replaced_by is not None:
        boolean = "http://www.w3.org/2001/XMLSchema#boolean"
        parts.append(f'<owl:deprecated rdf:datatype="{boolean}">true</owl:deprecated>')
    if replaced_by:
        parts.append(f'<obo:IAO_0100001 rdf:resource="{OBO}{replaced_by}"/>')
    return f'<owl:Class rdf:about="{OBO}{name}">{"".join(parts)}</owl:Class>'


def ours(*concepts: Concept) -> KnowledgeGraph:
    return KnowledgeGraph({one.id: one for one in concepts}, ())


def psoriasis(**more) -> Concept:
    return Concept("psoriasis", "condition", "psoriasis", xrefs=("DOID:1",), **more)


@pytest.fixture
def source(tmp_path):
    def write(*classes: str) -> list[Path]:
        path = tmp_path / "source.owl"
        path.write_text(HEAD + "".join(classes) + "</rdf:RDF>", encoding="utf-8")
        return [path]

    return write


def real_file(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is absent: it is the real ontology this test reads")
    return path


@pytest.fixture(scope="module")
def doid(data_root) -> Path:
    return real_file(data_root / "doid" / "doid_2026-07-31_asserted.owl.gz")


@pytest.fixture(scope="module")
def symp(data_root) -> Path:
    return real_file(data_root / "symp" / "symp.owl")


@pytest.fixture(scope="module")
def enriched(doid, symp):
    graph = load_graph()
    return graph, *enrich(graph, [doid, symp])


def test_twelve_thousand_classes_load_in_three_seconds(doid):
    start = time.process_time()  # of this process, whatever else the machine has to do
    nodes = read_nodes(read_bytes(doid), str(doid))
    elapsed = time.process_time() - start
    assert sum(f"{OBO}DOID_" in iri for iri in nodes) >= 12_000
    assert elapsed < 3


def test_the_real_files_enrich(enriched):
    before, after, what = enriched
    assert what.matched >= 80
    assert min(what.synonyms, what.definitions, what.xrefs) > 0
    added = {
        name: sum(
            len(getattr(after.concepts[one], name)) - len(getattr(old, name)) for one, old in before.concepts.items()
        )
        for name in ("synonyms", "xrefs")
    }
    assert added == {"synonyms": what.synonyms, "xrefs": what.xrefs}
    assert "UMLS_CUI:C0033860" in after.find("psoriasis").xrefs


def test_only_what_has_an_xref_is_touched(enriched):
    before, after, _ = enriched
    touched = [one for one in before.concepts if before.concepts[one] != after.concepts[one]]
    assert touched and all(before.concepts[one].xrefs for one in touched)
    assert after.facts == before.facts and after.citations == before.citations


def test_what_we_say_ourselves_is_kept(enriched):
    before, after, _ = enriched
    for name, old in before.concepts.items():
        new = after.concepts[name]
        assert (new.label, new.kind, new.broader) == (old.label, old.kind, old.broader)
        assert new.synonyms[: len(old.synonyms)] == old.synonyms and new.xrefs[: len(old.xrefs)] == old.xrefs
        assert new.definition == old.definition or not old.definition


def test_the_enriched_file_loads_again_without_errors(enriched, tmp_path):
    _, after, _ = enriched
    path = tmp_path / "enriched.owl"
    path.write_text(to_rdf_xml(after), encoding="utf-8")
    again = read_graph(read_bytes(path), str(path))
    assert again == after
    assert [finding for finding in validate(again) if finding.error] == []


def test_every_xref_of_the_tables_is_a_current_class(doid, symp):
    _, what = enrich(read_tables(), [doid, symp])
    assert what.unknown == ()
    assert [one for one in what.skipped if "deprecated" in one.why] == []


def test_a_condition_with_a_name_of_theirs_but_no_xref_stays(doid):
    twin = Concept("psoriasis", "condition", "psoriasis")
    after, what = enrich(ours(twin), [doid])
    assert after.concepts == {"psoriasis": twin}
    assert what.matched == 0


def test_a_real_class_that_was_replaced(symp):
    heartburn = Concept("burning", "symptom", "burning behind the breastbone", xrefs=("SYMP:0000439",))
    after, _ = enrich(ours(heartburn), [symp])
    assert "pyrosis" in after.concepts["burning"].synonyms
    assert "SYMP:0000423" in after.concepts["burning"].xrefs


def test_synonyms_definition_and_xrefs_come_along(source):
    theirs = owl_class("DOID_1", "psoriasis", ("psoriatic  disease", "Psoriasis"), ("MESH:D1",), "A disease.")
    after, what = enrich(ours(psoriasis()), source(theirs))
    assert after.concepts["psoriasis"] == Concept(
        "psoriasis", "condition", "psoriasis", ("psoriatic disease",), (), ("DOID:1", "MESH:D1"), "A disease."
    )
    assert (what.matched, what.synonyms, what.definitions, what.xrefs) == (1, 1, 1, 1)
    assert what.skipped == what.unknown == ()


def test_our_definition_stays(source):
    mine = psoriasis(definition="Ours.")
    after, what = enrich(ours(mine), source(owl_class("DOID_1", "psoriasis", definition="Theirs.")))
    assert after.concepts["psoriasis"].definition == "Ours." and what.definitions == 0


def test_gzipped_sources_are_read(source):
    (path,) = source(owl_class("DOID_1", "psoriatic disease"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    after, _ = enrich(ours(psoriasis()), [path])
    assert after.concepts["psoriasis"].synonyms == ("psoriatic disease",)


def test_short_synonyms_are_left(source):
    _, what = enrich(ours(psoriasis()), source(owl_class("DOID_1", "psoriasis", ("PSO", "pso 4", "psors"))))
    assert [(one.what, one.why) for one in what.skipped] == [
        ("PSO", "has 4 letters or fewer"),
        ("pso 4", "has 4 letters or fewer"),
    ]
    assert what.synonyms == 1


def test_names_of_other_concepts_are_left(source):
    other = Concept("scale", "surface", "scale", ("scaly tumour",))
    after, what = enrich(ours(psoriasis(), other), source(owl_class("DOID_1", "psoriasis", ("Scaly tumors",))))
    assert after.concepts["psoriasis"].synonyms == ()
    assert str(what.skipped[0]) == "psoriasis: 'Scaly tumors' already means 'scale'"


def test_a_name_that_two_classes_offer_goes_to_the_first(source):
    second = Concept("eczema", "condition", "eczema", xrefs=("DOID:2",))
    classes = owl_class("DOID_1", "psoriasis", ("red disease",)), owl_class("DOID_2", "eczema", ("red diseases",))
    after, what = enrich(ours(psoriasis(), second), source(*classes))
    assert after.concepts["psoriasis"].synonyms == ("red disease",)
    assert after.concepts["eczema"].synonyms == ()
    assert [one.concept for one in what.skipped] == ["eczema"]


def test_an_identifier_of_another_concept_is_left(source):
    other = Concept("eczema", "condition", "eczema", xrefs=("MESH:D1",))
    after, what = enrich(ours(psoriasis(), other), source(owl_class("DOID_1", "psoriasis", xrefs=("MESH:D1",))))
    assert after.concepts["psoriasis"].xrefs == ("DOID:1",)
    assert what.skipped[0].why == "already identifies 'eczema'"


def test_replacement_is_followed_through_several_classes(source):
    classes = (
        owl_class("DOID_1", "obsolete psoriasis", ("wrong disease",), replaced_by="DOID_2"),
        owl_class("DOID_2", "obsolete, too", replaced_by="DOID_3"),
        owl_class("DOID_3", "psoriatic disease"),
    )
    after, what = enrich(ours(psoriasis()), source(*classes))
    assert after.concepts["psoriasis"].synonyms == ("psoriatic disease",)
    assert after.concepts["psoriasis"].xrefs == ("DOID:1", "DOID:3")
    assert what.matched == 1


@pytest.mark.parametrize("replaced_by", ["", "DOID_9", "DOID_1"], ids=["by nothing", "by what is absent", "by itself"])
def test_deprecated_without_a_replacement_is_left(source, replaced_by):
    before = ours(psoriasis())
    after, what = enrich(
        before, source(owl_class("DOID_1", "obsolete psoriasis", ("x disease",), replaced_by=replaced_by))
    )
    assert after == before
    assert (what.matched, what.skipped[0].why) == (0, "is deprecated and has no replacement there")


def test_an_xref_that_the_source_should_know_is_told(source):
    other = Concept("itch", "symptom", "itch", xrefs=("SYMP:7", "DOID:7"))
    _, what = enrich(ours(psoriasis(), other), source(owl_class("DOID_1", "psoriasis")))
    assert what.unknown == (("itch", "DOID:7"),)
    assert "not in the source: itch: DOID:7" in str(what)


def test_a_class_that_is_only_mentioned_is_not_known(source):
    classes = owl_class("DOID_2", "other"), f'<owl:Class rdf:about="{OBO}DOID_1"/>'
    _, what = enrich(ours(psoriasis()), source(*classes))
    assert what.unknown == (("psoriasis", "DOID:1"),)


def test_a_file_of_another_kind_is_refused(source, tmp_path):
    with pytest.raises(KnowledgeError, match=r"has no class such as .*Take doid\.owl"):
        enrich(ours(psoriasis()), source())
    with pytest.raises(KnowledgeError, match="cannot be read"):
        enrich(ours(psoriasis()), [tmp_path / "absent.owl"])
