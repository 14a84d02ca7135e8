"""Commands on answers: score them, and form preference pairs of them."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dermiq.kg.candidates import write_pairs
from dermiq.kg.commands.output import CONSOLE, counted, written
from dermiq.kg.commands.parsing import WELL, Commands, add_file
from dermiq.kg.pairs import PairMaker
from dermiq.kg.questions import QUESTION_TYPES
from dermiq.kg.records import NUMBERS, as_record, as_text, read_rows
from dermiq.kg.scorer import KGScore, KGScorer
from dermiq.schema import KnowledgeError

_STYLES = {"heading": "bold", "supported": "green", "contradicted": "red", "unknown": "yellow", "evidence": ""}


def add_to(commands: Commands) -> None:
    """Add these commands to the command line."""
    one = commands.add("score", score, commands.graph)
    one.add_argument("--condition", help="what the answer is about")
    one.add_argument("--answer", help="one answer, judged and explained")
    one.add_argument(
        "--question-type",
        choices=sorted(QUESTION_TYPES),
        metavar="TYPE",
        help=f"what was asked: {', '.join(sorted(QUESTION_TYPES))} (default: everything)",
    )
    add_file(one, "--input", "JSONL with the fields condition and answer, and question_type if you like")
    add_file(one, "--output", "JSONL: the same fields, then scores and claims (default: the terminal)")
    one = commands.add("pairs", pairs, commands.graph)
    one.add_argument("candidates", type=Path, metavar="FILE", help="candidates.jsonl, as `cli.py predict` writes it")
    add_file(one, "--out", "JSONL: the pairs, for DPO", required=True)
    defaults = PairMaker()
    for name, kind, text in (
        ("margin", float, "the least difference in score"),
        ("max_length_ratio", float, "words of the longer answer over those of the shorter, at most"),
        ("pairs_per_question", int, "the most pairs of one question"),
    ):
        option = f"--{name.replace('_', '-')}"
        shown = f"{text} (default: %(default)s)"
        one.add_argument(option, type=kind, default=getattr(defaults, name), help=shown)
    one.add_argument("--omissions", action="store_true", help="reject answers too that merely say too little")


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
    console = Console(highlight=False, markup=False, emoji=False)  # plain if piped, or under NO_COLOR
    for line, part in as_text(result, scorer.graph, options.answer):
        console.print(line, style=_STYLES[part], soft_wrap=True)
    return WELL


def _score_file(scorer: KGScorer, source: Path, target: Path | None) -> int:
    rows = read_rows(source, scorer.graph)
    results: list[KGScore] = []
    with written(target, keep=True) if target else nullcontext(sys.stdout) as output:
        for row in track(rows, "Scoring", console=CONSOLE, disable=not CONSOLE.is_terminal or target is None):
            result = scorer.score(row["answer"], row["condition"], row.get("question_type"))
            record = row | as_record(result, scorer.graph, row["answer"])
            output.write(json.dumps(record, ensure_ascii=False) + "\n")
            results.append(result)
    if target:
        means = (f"{name} {sum(getattr(one, name) for one in results) / len(results):.3f}" for name in NUMBERS)
        print(f"Wrote {target}: {counted(len(results), 'answer')}. Means: {', '.join(means).replace('_', ' ')}.")
    return WELL


def pairs(options: argparse.Namespace) -> int:
    """Form preference pairs of sampled answers, without sampling again."""
    scorer = KGScorer(options.ontology, options.merge)
    rules = (options.margin, options.max_length_ratio, options.pairs_per_question, options.omissions)
    maker = PairMaker(scorer, *rules)
    print(write_pairs(options.candidates, options.out, maker))
    print(f"Wrote {options.out}.")
    return WELL
