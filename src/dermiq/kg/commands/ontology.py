"""Commands on the ontology itself: build, validate, list, import."""

from __future__ import annotations

import argparse
from pathlib import Path

from dermiq.kg.commands.output import CONSOLE, counted, written
from dermiq.kg.commands.parsing import WANTING, WELL, Commands, add_file, graph_of
from dermiq.kg.graph import KnowledgeGraph, merged
from dermiq.kg.ontology.importing import enrich
from dermiq.kg.ontology.loading import ONTOLOGY
from dermiq.kg.ontology.owl import read_bytes, read_graph
from dermiq.kg.ontology.tables import SOURCE, read_tables
from dermiq.kg.ontology.validation import validate
from dermiq.kg.ontology.writing import to_rdf_xml
from dermiq.schema import KnowledgeError


def add_to(commands: Commands) -> None:
    """Add these commands to the command line."""
    one = commands.add("build", build)
    one.add_argument(
        "--source", type=Path, metavar="FOLDER", default=SOURCE, help="tables in place of those that come with DermIQ"
    )
    one.add_argument(
        "--out", type=Path, metavar="FILE", default=ONTOLOGY, help="the OWL file (default: that of the package)"
    )
    one = commands.add("validate", check, commands.merge)
    one.add_argument(
        "file", type=Path, metavar="FILE", nargs="?", help="OWL as RDF/XML, plain or gzipped (default: DermIQ's own)"
    )
    commands.add("list", list_conditions, commands.graph)
    one = commands.add("import", import_, commands.graph)
    add_file(one, "--doid", "the Disease Ontology (doid.owl), plain or gzipped")
    add_file(one, "--symp", "the Symptom Ontology (symp.owl), plain or gzipped")
    add_file(one, "--out", "the enriched OWL file", required=True)


def build(options: argparse.Namespace) -> int:
    """Turn the source tables into the OWL file."""
    graph = read_tables(options.source)
    code = _report(graph, "The source tables")
    if code == WELL:
        with written(options.out) as file:
            file.write(to_rdf_xml(graph))
        print(f"Wrote {options.out}.")
    return code


def check(options: argparse.Namespace) -> int:
    """Say what is wrong with an ontology."""
    paths = [options.file or ONTOLOGY, *options.merge]
    graphs = [read_graph(read_bytes(path), str(path)) for path in paths]
    graph = merged(graphs) if len(graphs) > 1 else graphs[0]  # merging one alone would hide what is stated twice
    return _report(graph, " + ".join(map(str, paths)))


def list_conditions(options: argparse.Namespace) -> int:
    """Name every condition."""
    for label in sorted(concept.label for concept in graph_of(options).conditions):
        print(label)
    return WELL


def import_(options: argparse.Namespace) -> int:
    """Add synonyms and identifiers of other ontologies."""
    sources = [path for path in (options.doid, options.symp) if path]
    if not sources:
        raise KnowledgeError("Nothing to import: name a file with --doid or --symp.")
    with CONSOLE.status("Reading the ontologies"):
        graph, enrichment = enrich(graph_of(options), sources)
    with written(options.out) as file:
        file.write(to_rdf_xml(graph))
    print(enrichment)
    print(f"Wrote {options.out}. To use it: --ontology {options.out}")
    return WELL


def _report(graph: KnowledgeGraph, name: str) -> int:
    findings = validate(graph)
    for finding in findings:
        print(finding)
    errors = sum(finding.error for finding in findings)
    counts = f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"
    print(f"{name}: {_size(graph)}; {counts}.")
    return WANTING if errors else WELL


def _size(graph: KnowledgeGraph) -> str:
    sizes = {"condition": graph.conditions, "fact": graph.facts, "concept": graph.concepts, "work": graph.citations}
    return ", ".join(counted(len(things), noun) for noun, things in sizes.items())
