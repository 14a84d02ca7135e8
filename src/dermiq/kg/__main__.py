"""Build, check, ask and draw the knowledge graph."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import track

from dermiq.kg.candidates import write_pairs
from dermiq.kg.card import describe
from dermiq.kg.drawing import neighbourhood_svg
from dermiq.kg.graph import KnowledgeGraph, merged
from dermiq.kg.ontology.importing import enrich
from dermiq.kg.ontology.loading import ONTOLOGY, load_graph
from dermiq.kg.ontology.owl import read_bytes, read_graph
from dermiq.kg.ontology.tables import SOURCE, read_tables
from dermiq.kg.ontology.validation import validate
from dermiq.kg.ontology.writing import to_rdf_xml
from dermiq.kg.pairs import PairMaker
from dermiq.kg.questions import QUESTION_TYPES
from dermiq.kg.records import NUMBERS, as_record, as_text, read_rows
from dermiq.kg.retrieval import Retriever, as_context
from dermiq.kg.scorer import KGScore, KGScorer
from dermiq.programs.arguments import Program
from dermiq.programs.exits import PREFIX, begin
from dermiq.schema import DermIQError, KnowledgeError

WELL, WANTING, FAILED, INTERRUPTED = 0, 1, 2, 130
CONSOLE = Console(stderr=True)
_STYLES = {"heading": "bold", "supported": "green", "contradicted": "red", "unknown": "yellow", "evidence": ""}
_EXAMPLES = """\
examples:
  python -m dermiq.kg describe scabies
  python -m dermiq.kg score --condition scabies --answer "Scabies is caused by a mite. It is not contagious."
  python -m dermiq.kg score --input answers.jsonl --output scores.jsonl
  python -m dermiq.kg retrieve "How is scabies treated?"

exit code: 0 if all is well, 1 if something was found wanting, 2 if it could not be done.
No clinician has reviewed the knowledge graph. It is for research and gives no medical advice.
"""


def build(options: argparse.Namespace) -> int:
    """Turn the source tables into the OWL file."""
    graph = read_tables(options.source)
    code = _report(graph, "The source tables")
    if code == WELL:
        with _written(options.out) as file:
            file.write(to_rdf_xml(graph))
        print(f"Wrote {options.out}.")
    return code


def check(options: argparse.Namespace) -> int:
    """Say what is wrong with an ontology."""
    paths = [options.file or ONTOLOGY, *options.merge]
    graphs = [read_graph(read_bytes(path), str(path)) for path in paths]
    graph = merged(graphs) if len(graphs) > 1 else graphs[0]  # laying on top would hide what is stated twice
    return _report(graph, " + ".join(map(str, paths)))


def _report(graph: KnowledgeGraph, name: str) -> int:
    findings = validate(graph)
    for finding in findings:
        print(finding)
    errors = sum(finding.error for finding in findings)
    counts = f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"
    print(f"{name}: {_size(graph)}; {counts}.")
    return WANTING if errors else WELL


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(graph: KnowledgeGraph) -> str:
    sizes = {"condition": graph.conditions, "fact": graph.facts, "concept": graph.concepts, "work": graph.citations}
    return ", ".join(_count(len(things), noun) for noun, things in sizes.items())


def list_conditions(options: argparse.Namespace) -> int:
    """Name every condition."""
    for label in sorted(concept.label for concept in _graph(options).conditions):
        print(label)
    return WELL


def import_(options: argparse.Namespace) -> int:
    """Add synonyms and identifiers of other ontologies."""
    sources = [path for path in (options.doid, options.symp) if path]
    if not sources:
        raise KnowledgeError("Nothing to import: name a file with --doid or --symp.")
    with CONSOLE.status("Reading the ontologies"):
        graph, enrichment = enrich(_graph(options), sources)
    with _written(options.out) as file:
        file.write(to_rdf_xml(graph))
    print(enrichment)
    print(f"Wrote {options.out}. To use it: --ontology {options.out}")
    return WELL


def score(options: argparse.Namespace) -> int:
    """Judge one answer, or the answers of a file."""
    single = [options.condition, options.answer, options.question_type]
    if options.input is None and (options.condition is None or options.answer is None):
        raise KnowledgeError("Nothing to score: give --condition and --answer, or --input answers.jsonl.")
    if options.input is not None and single != [None] * 3:
        raise KnowledgeError("--condition, --answer and --question-type are for one answer; --input brings its own.")
    if options.input is None and options.output is not None:
        raise KnowledgeError("--output is for the scores of --input; one answer is shown in the terminal.")
    scorer = KGScorer(options.ontology, options.merge)
    if options.input is not None:
        return _score_file(scorer, options.input, options.output)
    result = scorer.score(options.answer, options.condition, options.question_type)
    console = Console(highlight=False, markup=False, emoji=False)  # plain unless it is a terminal; heeds NO_COLOR
    for line, part in as_text(result, scorer.graph, options.answer):
        console.print(line, style=_STYLES[part], soft_wrap=True)
    return WELL


def _score_file(scorer: KGScorer, source: Path, target: Path | None) -> int:
    rows = read_rows(source, scorer.graph)
    results: list[KGScore] = []
    with _written(target) if target else _stdout() as output:
        for row in track(rows, "Scoring", console=CONSOLE, disable=not CONSOLE.is_terminal or target is None):
            result = scorer.score(row["answer"], row["condition"], row.get("question_type"))
            record = row | as_record(result, scorer.graph, row["answer"])
            output.write(json.dumps(record, ensure_ascii=False) + "\n")
            results.append(result)
    if target:
        means = (f"{name} {sum(getattr(one, name) for one in results) / len(results):.3f}" for name in NUMBERS)
        print(f"Wrote {target}: {_count(len(results), 'answer')}. Means: {', '.join(means).replace('_', ' ')}.")
    return WELL


def retrieve(options: argparse.Namespace) -> int:
    """Find the facts that answer a question."""
    retriever = Retriever(options.ontology, options.merge, options.budget)
    if passages := retriever.retrieve(options.question, options.condition):
        print(as_context(passages))
        return WELL
    if retriever.retrieve(options.question, options.condition, budget=sys.maxsize):
        raise KnowledgeError(f"--budget {options.budget} is too small for a single fact and its source.")
    print("Nothing found: name a condition in the question, or with --condition.", file=sys.stderr)
    return WANTING


def pairs(options: argparse.Namespace) -> int:
    """Form preference pairs of sampled answers, without sampling again."""
    scorer = KGScorer(options.ontology, options.merge)
    rules = (options.margin, options.max_length_ratio, options.pairs_per_question, options.omissions)
    maker = PairMaker(scorer, *rules)
    print(write_pairs(options.candidates, options.out, maker))
    print(f"Wrote {options.out}.")
    return WELL


def card(options: argparse.Namespace) -> int:
    """Show all that is known of a condition."""
    print(describe(_graph(options), options.condition))
    return WELL


def draw(options: argparse.Namespace) -> int:
    """Draw a condition and its facts as an SVG picture."""
    picture = neighbourhood_svg(_graph(options), options.condition)
    with _written(options.out) as file:
        file.write(picture)
    print(f"Wrote {options.out}.")
    return WELL


def _graph(options: argparse.Namespace) -> KnowledgeGraph:
    return load_graph(options.ontology, options.merge)


@contextmanager
def _stdout() -> Iterator[TextIO]:
    """The terminal or pipe, which is left open."""
    yield sys.stdout


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """A file that takes its name when it is complete; what a crash leaves lies beside it, as ``NAME.part``."""
    special = path.exists() and not path.is_file()  # such as /dev/null, which must not be replaced
    target = path if special else path.resolve()
    part = path if special else target.with_name(target.name + ".part")
    try:
        # A lone surrogate, which is no UTF-8, becomes its escape in JSON.
        with part.open("w", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
            yield file
        if not special:
            part.replace(target)
    except BaseException as error:
        if not special and part.is_file():
            _keep_or_delete(part)
        if isinstance(error, OSError):
            reason = error.strerror if path.parent.is_dir() else f"there is no folder {path.parent}"
            raise KnowledgeError(f"{path} cannot be written: {reason}.") from error
        raise


def _keep_or_delete(part: Path) -> None:
    if part.stat().st_size:
        print(f"What was done so far is in {part}.", file=sys.stderr)
    else:
        part.unlink()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


Run = Callable[[argparse.Namespace], int]


class _Commands:
    """The commands of a parser."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._subparsers = top.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(self, name: str, run: Run, parents: Sequence[argparse.ArgumentParser] = ()) -> argparse.ArgumentParser:
        """A command that calls `run`, whose first line of documentation is its help."""
        one = self._subparsers.add_parser(name, help=run.__doc__, description=run.__doc__, parents=list(parents))
        one.set_defaults(run=run)
        return one


def _file(parser: argparse.ArgumentParser, name: str, text: str, required: bool = False) -> None:
    parser.add_argument(name, type=Path, metavar="FILE", required=required, help=text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Program(
        prog="python -m dermiq.kg",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = _Commands(top)
    merge = Program(add_help=False)
    merge.add_argument(
        "--merge", type=Path, metavar="FILE", action="append", default=[], help="an OWL file to lay on top; repeatable"
    )
    graph = Program(add_help=False, parents=[merge])
    _file(graph, "--ontology", "an OWL file in place of the one that comes with DermIQ")
    condition = Program(add_help=False)
    condition.add_argument("condition", help="a name, a synonym or an identifier, such as DOID:8295")
    _add_builders(commands, merge, graph)
    _add_askers(commands, graph)
    _add_pairs(commands, graph)
    commands.add("describe", card, [graph, condition])
    _file(commands.add("graph", draw, [graph, condition]), "--out", "the SVG file", required=True)
    return top


def _add_builders(commands: _Commands, merge: argparse.ArgumentParser, graph: argparse.ArgumentParser) -> None:
    one = commands.add("build", build)
    one.add_argument(
        "--source", type=Path, metavar="FOLDER", default=SOURCE, help="tables in place of those that come with DermIQ"
    )
    one.add_argument(
        "--out", type=Path, metavar="FILE", default=ONTOLOGY, help="the OWL file (default: that of the package)"
    )
    one = commands.add("validate", check, [merge])
    one.add_argument(
        "file", type=Path, metavar="FILE", nargs="?", help="OWL as RDF/XML, plain or gzipped (default: DermIQ's own)"
    )
    commands.add("list", list_conditions, [graph])
    one = commands.add("import", import_, [graph])
    _file(one, "--doid", "the Disease Ontology (doid.owl), plain or gzipped")
    _file(one, "--symp", "the Symptom Ontology (symp.owl), plain or gzipped")
    _file(one, "--out", "the enriched OWL file", required=True)


def _add_askers(commands: _Commands, graph: argparse.ArgumentParser) -> None:
    one = commands.add("score", score, [graph])
    one.add_argument("--condition", help="what the answer is about")
    one.add_argument("--answer", help="one answer, judged and explained")
    one.add_argument(
        "--question-type",
        choices=sorted(QUESTION_TYPES),
        metavar="TYPE",
        help=f"what was asked: {', '.join(sorted(QUESTION_TYPES))} (default: everything)",
    )
    _file(one, "--input", "JSONL with the fields condition and answer, and question_type if you like")
    _file(one, "--output", "JSONL: the same fields, then scores and claims (default: the terminal)")
    one = commands.add("retrieve", retrieve, [graph])
    one.add_argument("question", help='such as "How is scabies treated?"')
    one.add_argument("--condition", action="append", default=[], help="a condition in view; repeatable")
    one.add_argument("--budget", type=_positive, default=200, help="tokens at most (default: %(default)s)")


def _add_pairs(commands: _Commands, graph: argparse.ArgumentParser) -> None:
    defaults = PairMaker()
    one = commands.add("pairs", pairs, [graph])
    one.add_argument("candidates", type=Path, metavar="FILE", help="candidates.jsonl, as `cli.py predict` writes it")
    _file(one, "--out", "JSONL: the pairs, for DPO", required=True)
    for name, kind, text in (
        ("margin", float, "the least difference in score"),
        ("max_length_ratio", float, "words of the longer answer over those of the shorter, at most"),
        ("pairs_per_question", int, "the most pairs of one question"),
    ):
        option = f"--{name.replace('_', '-')}"
        shown = f"{text} (default: %(default)s)"
        one.add_argument(option, type=kind, default=getattr(defaults, name), help=shown)
    one.add_argument("--omissions", action="store_true", help="reject answers too that merely say too little")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 if something was found wanting, 2 if it could not be done."""
    begin()
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal cannot show must not stop the work
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # such as `… | head`
        sys.stdout = open(os.devnull, "w")
        return WELL
    except (DermIQError, OSError) as error:
        print(f"{PREFIX}{error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
