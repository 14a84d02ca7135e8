"""OWL files: written and read, by others too; bad ones refused; frozen graphs cached and carried to other processes."""

import gzip
import multiprocessing
import pickle
import socket
import time

import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st

from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph
from dermiq.kg.ontology import loading
from dermiq.kg.ontology import owl as ontology
from dermiq.kg.ontology.loading import cache_directory, load_graph
from dermiq.kg.ontology.owl import read_bytes, read_graph, read_nodes
from dermiq.kg.ontology.writing import to_rdf_xml
from dermiq.kg.relations import CONDITION
from dermiq.schema import KnowledgeError

SMALL = KnowledgeGraph(
    {
        "arm": Concept("arm", "site", "arm", ("upper limb", "<arm> & \"hand\""), ("body",)),
        "body": Concept("body", "site", "body"),
        "itch": Concept("itch", "symptom", "itch", xrefs=("SYMP:0000432",)),
        "rash": Concept("rash", CONDITION, "rash", definition="Éruption, red."),
        "red_rash": Concept("red_rash", CONDITION, "red rash", broader=("rash",)),
    },
    (
        Fact("red_rash", "subtype_of", "rash", "typical", closed=False, citation="work"),
        Fact("rash", "site", "arm", "always", closed=True, citation="work", note="not the <hand>"),
        Fact("rash", "symptom", "itch", "never", closed=False, citation="work", review="reviewed"),
    ),
    {"work": Citation("work", "A & B", "Publisher", 2020, "CC0 1.0")},
)  # fmt: skip
SMALL_OWL = to_rdf_xml(SMALL).encode()
RDF = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:owl="http://www.w3.org/2002/07/owl#">'


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# --- writing and reading ----------------------------------------------------------------------------------------


def test_a_graph_survives_being_written():
    assert read_graph(SMALL_OWL) == SMALL
    assert to_rdf_xml(read_graph(SMALL_OWL)).encode() == SMALL_OWL


def same(one: KnowledgeGraph, other: KnowledgeGraph) -> bool:
    """Equal but for the order of facts and of names, which RDF does not keep."""

    def sets(graph):
        concepts = {(c.id, c.kind, c.label, *map(frozenset, (c.synonyms, c.broader, c.xrefs)), c.definition)
                    for c in graph.concepts.values()}  # fmt: skip
        return concepts, frozenset(graph.facts), frozenset(graph.citations.values())

    return sets(one) == sets(other)


@pytest.mark.parametrize("style", ["xml", "pretty-xml"])
def test_another_tool_may_rewrite_it(style):
    rewritten = rdflib.Graph().parse(data=SMALL_OWL, format="xml").serialize(format=style)
    assert same(read_graph(rewritten.encode()), SMALL)


# --- files that are not read -------------------------------------------------------------------------------------

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><x>&j;</x>"
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "holds a DOCTYPE"),
        (b"<!DOCTYPE html><html></html>", "holds a DOCTYPE"),
        (b"@prefix owl: <http://www.w3.org/2002/07/owl#> .", "is Turtle"),
        (b"\xef\xbb\xbf\n  # made by hand\n\n@prefix : <urn:x> .", "is Turtle"),
        (b"PREFIX owl: <http://www.w3.org/2002/07/owl#>", "is Turtle"),
        (b"format-version: 1.2\nontology: doid\n", "is OBO"),
        (b"Prefix(:=<urn:x>)\nOntology(<urn:x>)", "is OWL functional syntax"),
        (b"Prefix: : <urn:x>\nOntology: <urn:x>", "is Manchester syntax"),
        (b"<http://a.org/x> <http://a.org/y> <http://a.org/z> .", "is N-Triples"),
        (b"_:b0 <http://a.org/y> <http://a.org/z> .", "is N-Triples"),
        (b'<?xml version="1.0"?>\n<Ontology xmlns="http://www.w3.org/2002/07/owl#"/>', "is OWL/XML"),
        (b'{"graphs": []}', "is JSON"),
        (b"<html><body/></html>", r"XML of another kind \(<html>\)"),
        (b"", "no well-formed XML"),
        (b" \n\n", "no well-formed XML"),
        (bytes(range(256)), "no well-formed XML"),
        (b'<?xml version="1.0" encoding="no-such"?><x/>', "unknown encoding"),
        (b'<?xml version="1.0" encoding="shift_jis"?><x/>', "encodings are not supported"),
        (SMALL_OWL.decode().replace("UTF-8", "UTF-16").encode("utf-16"), "is encoded as UTF-16.* Save it as UTF-8"),
        (f"{RDF}</rdf:RDF>".encode(), "no concept of DermIQ's vocabulary"),
        (SMALL_OWL.replace(b">2020<", b">soon<"), "'work' has the year 'soon'"),
        (SMALL_OWL.replace(b">always<", b">often<"), "rash site arm is 'often', none of"),
    ],
)
def test_a_bad_file_is_called_by_its_name(data, message, capsys):
    with pytest.raises(KnowledgeError, match=message) as caught:
        read_graph(data, "my.owl")
    assert str(caught.value).startswith("my.owl")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1", "US-ASCII"])
def test_declared_encodings_are_read(encoding):
    data = SMALL_OWL.decode().replace("UTF-8", encoding).encode(encoding, "xmlcharrefreplace")
    assert read_graph(data) == SMALL


@settings(deadline=None)
@given(st.integers(0, len(SMALL_OWL) - len("</rdf:RDF>\n")))
def test_a_truncated_file_is_refused(length):
    with pytest.raises(KnowledgeError, match="no well-formed XML"):
        read_nodes(SMALL_OWL[:length])


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400) | st.binary(max_size=50).map(lambda data: RDF.encode() + data + b"</rdf:RDF>"))
def test_no_bytes_bring_another_error(data):
    with pytest.raises(KnowledgeError):
        read_graph(data)


@pytest.mark.parametrize(
    "token", ["<!--%s-->", "<!--> %s-->", "<?x %s?>", '<owl:Class rdf:about="%s"/>', "<owl:Class %s/>"]
)
def test_a_token_that_would_take_for_ever_is_refused(token):
    start = time.perf_counter()
    with pytest.raises(KnowledgeError, match="a comment or a tag of more than 1 MiB"):
        read_nodes((RDF + token % (" " * 20_000_000) + "</rdf:RDF>").encode())
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "statement",
    [
        '<owl:Ontology rdf:about="urn:x"><owl:imports rdf:resource="http://127.0.0.1:9/x.owl"/></owl:Ontology>',
        '<rdf:Description rdf:about="urn:x"><o:imports xmlns:o="http://www.w3.org/2002/07/owl#" '
        'rdf:resource="http://127.0.0.1:9/x.owl"/></rdf:Description>',
    ],
)
def test_a_remote_import_is_refused_and_not_fetched(statement, no_network):
    with pytest.raises(KnowledgeError, match="imports another ontology, and nothing is fetched"):
        read_nodes(f"{RDF}{statement}</rdf:RDF>".encode())


def test_nothing_is_fetched_for_a_good_file(no_network):
    attribute = f'{RDF}<owl:Ontology rdf:about="urn:x" owl:imports="http://127.0.0.1:9/x.owl"/></rdf:RDF>'
    assert "http://127.0.0.1:9/x.owl" not in read_nodes(attribute.encode())
    assert read_graph(SMALL_OWL) == SMALL


def test_the_disease_ontology_in_place_of_ours_is_explained():
    doid = f'{RDF}<owl:Class rdf:about="http://purl.obolibrary.org/obo/DOID_8893"/></rdf:RDF>'
    with pytest.raises(KnowledgeError, match=r"no concept of DermIQ's.*use `python -m dermiq\.kg import`"):
        read_graph(doid.encode(), "doid.owl")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_an_oversized_file_is_refused(pack, tmp_path, monkeypatch):
    path = tmp_path / "large.owl"
    path.write_bytes(pack(b" " * 2_000_001))
    monkeypatch.setattr(ontology, "MAX_BYTES", 2_000_000)
    with pytest.raises(KnowledgeError, match="holds more than 1 MiB"):
        read_bytes(path)
    path.write_bytes(pack(b" " * 2_000_000))
    assert len(read_bytes(path)) == 2_000_000


@pytest.mark.parametrize("position", [12, -12, -4])
def test_a_damaged_gzip_is_refused(position, tmp_path):
    packed = bytearray(gzip.compress(SMALL_OWL))
    packed[position] ^= 0xFF
    path = tmp_path / "damaged.owl.gz"
    path.write_bytes(packed)
    with pytest.raises(KnowledgeError, match=r"damaged\.owl\.gz cannot be read"):
        read_bytes(path)
    path.write_bytes(gzip.compress(SMALL_OWL)[:-20])
    with pytest.raises(KnowledgeError, match="cannot be read"):
        read_bytes(path)


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.owl"):
        with pytest.raises(KnowledgeError, match="cannot be read"):
            load_graph(path)


# --- processes and cache -----------------------------------------------------------------------------------------


def _read_in_child(queue, data: bytes) -> None:
    queue.put(read_graph(data))


def test_a_large_file_loads_in_a_daemonic_process():
    data = SMALL_OWL.replace(b"</rdf:RDF>", b"<!-- -->" * 1_000_000 + b"</rdf:RDF>")  # owlready2 would fork
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(queue, data), daemon=True)
    child.start()
    try:
        assert queue.get(timeout=60) == SMALL
    finally:
        child.join(60)
    assert child.exitcode == 0


def test_a_graph_can_be_pickled():
    graph = load_graph()
    again = pickle.loads(pickle.dumps(graph))
    assert again == graph
    assert again.find("melanoma") == graph.find("melanoma")
    assert again.about("melanoma", "dermoscopy") == graph.about("melanoma", "dermoscopy")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A small ontology with an empty cache; returns its path and the reads that were not saved."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "small.owl"
    path.write_bytes(SMALL_OWL)
    reads = []
    monkeypatch.setattr(loading, "read_graph", lambda *given: reads.append(given) or read_graph(*given))
    return path, reads


def test_the_second_load_uses_the_cache(cached):
    path, reads = cached
    assert load_graph(path) == load_graph(path) == SMALL
    assert len(reads) == 1


def test_a_changed_file_is_read_anew(cached):
    path, reads = cached
    load_graph(path)
    path.write_bytes(SMALL_OWL.replace(b">rash<", b">eruption<"))
    assert load_graph(path).label("rash") == "eruption"
    assert len(reads) == 2


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps("no graph"), pickle.dumps(SMALL)[:-10]])
def test_a_damaged_cache_is_rebuilt(cached, content):
    path, reads = cached
    load_graph(path)
    (file,) = cache_directory().iterdir()
    file.write_bytes(content)
    assert load_graph(path) == load_graph(path) == SMALL
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_is_done_without(cached):
    path, reads = cached
    cache_directory().parent.write_text("a file where the folder should be")  # refused even to the superuser
    assert load_graph(path) == load_graph(path) == SMALL
    assert len(reads) == 2


def test_the_cache_is_fast():
    load_graph()
    elapsed = []
    for _ in range(3):
        start = time.process_time()
        load_graph()
        elapsed.append(time.process_time() - start)
    assert min(elapsed) < 0.2


def test_gzipped_and_merged_files_load(cached, tmp_path):
    path, _ = cached
    extra = KnowledgeGraph(
        {"rash": Concept("rash", CONDITION, "rash", ("exanthem",))},
        (Fact("rash", "site", "body", "possible", closed=False, citation="work"),),
    )
    packed = tmp_path / "extra.owl.gz"
    packed.write_bytes(gzip.compress(to_rdf_xml(extra).encode()))
    merged = load_graph(path, [packed])
    assert merged.find("exanthem").definition == SMALL.concepts["rash"].definition
    assert [fact.value for fact in merged.about("rash", "site")] == ["arm", "body"]
