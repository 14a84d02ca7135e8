"""The source tables: what a table says, and what is said of a table that cannot be read."""

import pytest

from dermiq.kg.graph import Citation, Concept, Fact
from dermiq.kg.ontology.tables import read_tables
from dermiq.schema import KnowledgeError

RASH = """\
name: red rash
synonyms: [redness]
xrefs: [DOID:1]
definition: A rash.
cite: work
facts:
  subtype_of: {typical: [rash]}
  site: {typical: [{lower arm: only there}], never: [body], closed: true, cite: other}
"""


@pytest.fixture
def source(tmp_path):
    """`source(file=text, ...)`: a folder of small tables, some of them replaced."""
    tables = {
        "bibliography": "work: {title: A work, publisher: A publisher, year: 2020, licence: CC0 1.0}\n"
        "other: {title: Another, publisher: A publisher, year: 2021, licence: CC0 1.0}\n",
        "vocabulary/site": "body: {}\nlower arm: {synonyms: [forearm], part_of: body}\n",
        "conditions/rash": "name: rash\ncite: work\nfacts: {}\n",
        "conditions/red_rash": RASH,
    }

    def write(**changes: str):
        for name, text in (tables | {key.replace("__", "/"): text for key, text in changes.items()}).items():
            path = tmp_path / f"{name}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_tables_become_concepts_facts_and_citations(source):
    graph = read_tables(source())
    assert graph.citations["work"] == Citation("work", "A work", "A publisher", 2020, "CC0 1.0")
    assert graph.concepts == {
        "body": Concept("body", "site", "body"),
        "lower_arm": Concept("lower_arm", "site", "lower arm", ("forearm",), ("body",)),
        "rash": Concept("rash", "condition", "rash"),
        "red_rash": Concept("red_rash", "condition", "red rash", ("redness",), ("rash",), ("DOID:1",), "A rash."),
    }
    assert graph.facts == (
        Fact("red_rash", "subtype_of", "rash", "typical", closed=False, citation="work"),
        Fact("red_rash", "site", "lower_arm", "typical", closed=True, citation="other", note="only there"),
        Fact("red_rash", "site", "body", "never", closed=True, citation="other"),
    )


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("bibliography", "work: {title: A work}", "KeyError 'publisher'"),
        ("bibliography", "work: {title: a, publisher: b, year: soon, licence: c}", "ValueError .*'soon'"),
        ("vocabulary__site", "[body]", "not a mapping"),
        ("vocabulary__site", "body: [torso]", "AttributeError"),
        ("vocabulary__site", "body: {}\nbody: {}", "'body'} stands twice"),
        ("vocabulary__site", "body: {}\nBody: {}", "'Body' is already a site"),
        ("vocabulary__site", "body: {synonyms: torso}", "synonyms must be a list of texts, not 'torso'"),
        ("vocabulary__site", "body: {synonyms: [no]}", r"synonyms must be a list of texts, not \[False\]"),
        ("conditions__rash", "name: rash\nfacts: {}\nxrefs: DOID:1\ncite: work", "xrefs must be a list of texts"),
        ("conditions__rash", "name: rash\ncite: work", "KeyError 'facts'"),
        ("conditions__rash", "name: rash\nfacts: {site: {typical: [body]}}", "KeyError 'cite'"),
        ("conditions__rash", "cite: work\nfacts: {}", "KeyError 'name'"),
        ("conditions__rash", "name: body\ncite: work\nfacts: {}", "'body' is already a site"),
        ("conditions__rash", "name: rash\ncite: work\nfacts: {site: {often: [body]}}", r"unknown keys \['often'\]"),
        ("conditions__rash", "name: rash\ncite: work\nfacts: {site: {typical: body}}", "'typical' must be a list"),
        ("conditions__rash", "name: rash\ncite: work\nfacts: {site: {typical: [1]}}", "AttributeError"),
        ("conditions__rash", "name: rash\ncite: work\nfacts: {site: [body]}", "AttributeError"),
        ("conditions__rash", "name: [rash", "while parsing"),
        ("conditions__rash", "!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_a_bad_table_is_named_with_what_is_wrong(source, table, text, message):
    with pytest.raises(KnowledgeError, match=message) as caught:
        read_tables(source(**{table: text}))
    assert f"{table.replace('__', '/')}.yaml" in str(caught.value)


def test_a_table_that_is_not_utf8_is_named(source):
    folder = source()
    (folder / "conditions" / "rash.yaml").write_bytes(b"name: na\xefve\n")
    with pytest.raises(KnowledgeError, match=r"rash\.yaml"):
        read_tables(folder)


def test_absent_tables_are_named(tmp_path):
    with pytest.raises(KnowledgeError, match=r"bibliography\.yaml"):
        read_tables(tmp_path)
