"""Commands on answers: score and explain them, review the verdicts, and form preference pairs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dermiq.kg.answer_files import AnswerRow, read_rows
from dermiq.kg.candidates import write_pairs
from dermiq.kg.commands.output import CONSOLE, counted, written
from dermiq.kg.commands.parsing import WANTING, WELL, Commands, add_file, scorer_of
from dermiq.kg.explanation import explain as explanation
from dermiq.kg.pairs import PairMaker
from dermiq.kg.questions import QUESTION_TYPES
from dermiq.kg.records import NUMBERS, as_record, as_text
from dermiq.kg.review import MARKS, read_sheet, write_sheet
from dermiq.kg.scorer import KGScore, KGScorer
from dermiq.schema import KnowledgeError

_STYLES = {
    "heading": "bold",
    "supported": "green",
    "contradicted": "red",
    "unknown": "yellow",
    "evidence": "",
    "link": "dim",
}
_SHOWN_ERRORS = 10


def add_to(commands: Commands) -> None:
    """Add these commands to the command line."""
    one = commands.add("score", score, commands.scorer)
    one.add_argument("--condition", help="what the answer is about")
    one.add_argument("--answer", help="one answer, judged")
    _add_question_type(one)
    add_file(one, "--input", "JSONL with the fields condition and answer, and question_type if you like")
    add_file(one, "--output", "JSONL: the same fields, then scores and claims (default: the terminal)")
    one = commands.add("explain", explain, commands.scorer)
    one.add_argument("--condition", help="what the answer is about", required=True)
    one.add_argument("answer", help="any text")
    _add_question_type(one)
    one = commands.add("review", review, commands.scorer)
    add_file(one, "--input", "JSONL with the fields condition and answer, as for score")
    add_file(one, "--out", "CSV: a row for each claim, to be marked in the column 'mark'")
    add_file(one, "--marked", "CSV: the sheet with its marks; prints precision and recall")
    one = commands.add("pairs", pairs, commands.scorer)
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


def _add_question_type(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--question-type",
        choices=sorted(QUESTION_TYPES),
        metavar="TYPE",
        help=f"what was asked: {', '.join(sorted(QUESTION_TYPES))} (default: everything)",
    )


def score(options: argparse.Namespace) -> int:
    """Judge one answer, or the answers of a file."""
    single = [options.condition, options.answer, options.question_type]
    if options.input is None and (options.condition is None or options.answer is None):
        raise KnowledgeError("Nothing to score: give --condition and --answer, or --input answers.jsonl.")
    if options.input is not None and single != [None] * 3:
        raise KnowledgeError("--condition, --answer and --question-type are for one answer; --input brings its own.")
    if options.input is None and options.output is not None:
        raise KnowledgeError("--output is for the scores of --input; one answer is shown in the terminal.")
    scorer = scorer_of(options)
    if options.input is not None:
        return _score_file(scorer, options.input, options.output)
    result = scorer.score(options.answer, options.condition, options.question_type)
    _show(as_text(result, scorer.graph, options.answer))
    return WELL


def _show(lines: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)  # plain if piped, or under NO_COLOR
    for line, part in lines:
        console.print(line, style=_STYLES[part], soft_wrap=True)


def _score_file(scorer: KGScorer, source: Path, target: Path | None) -> int:
    rows = read_rows(source, scorer.graph)
    results: list[KGScore] = []
    with written(target, keep=True) if target else nullcontext(sys.stdout) as output:
        for row in track(rows, "Scoring", console=CONSOLE, disable=not CONSOLE.is_terminal or target is None):
            if row.error:
                record = row.fields | {"error": row.error}
            else:
                answer = row.fields["answer"]
                result = scorer.score(answer, row.fields["condition"], row.fields.get("question_type"))
                record = row.fields | as_record(result, scorer.graph, answer)
                results.append(result)
            output.write(json.dumps(record, ensure_ascii=False) + "\n")
    if target:
        means = (f"{name} {sum(getattr(one, name) for one in results) / len(results):.3f}" for name in NUMBERS)
        print(f"Wrote {target}: {counted(len(results), 'answer')}. Means: {', '.join(means).replace('_', ' ')}.")
    return _report_errors(rows)


def _report_errors(rows: Sequence[AnswerRow]) -> int:
    """Say which lines could not be scored, and return the exit code."""
    errors = [row.error for row in rows if row.error]
    for error in errors[:_SHOWN_ERRORS]:
        print(f"dermiq: {error}", file=sys.stderr)
    if (more := len(errors) - _SHOWN_ERRORS) > 0:
        print(f"dermiq: … and {counted(more, 'other line')} that cannot be scored.", file=sys.stderr)
    return WANTING if errors else WELL


def explain(options: argparse.Namespace) -> int:
    """Show each sentence's way to its verdicts: words, links, claims, rules, facts."""
    scorer = scorer_of(options)
    result = scorer.score(options.answer, options.condition, options.question_type)
    _show(explanation(result, scorer.graph, options.answer))
    return WELL


def review(options: argparse.Namespace) -> int:
    """Write the verdicts on answers as a sheet for a clinician to mark, or read it back."""
    if options.marked is not None and options.input is None and options.out is None:
        print(read_sheet(options.marked))
        return WELL
    if options.input is None or options.out is None or options.marked is not None:
        raise KnowledgeError("Give --input answers.jsonl and --out sheet.csv, or --marked sheet.csv.")
    scorer = scorer_of(options)
    rows = read_rows(options.input, scorer.graph)
    answers = [
        (row.fields["answer"], row.fields["condition"], row.fields.get("question_type"))
        for row in rows
        if not row.error
    ]
    with written(options.out) as file:
        file.write("\ufeff")  # by which spreadsheets know UTF-8
        number = write_sheet(file, scorer, answers)
    print(f"Wrote {options.out}: {counted(number, 'row')}. Mark each with one of: {', '.join(MARKS)}.")
    return _report_errors(rows)


def pairs(options: argparse.Namespace) -> int:
    """Form preference pairs of sampled answers, without sampling again."""
    scorer = scorer_of(options)
    rules = (options.margin, options.max_length_ratio, options.pairs_per_question, options.omissions)
    maker = PairMaker(scorer, *rules)
    print(write_pairs(options.candidates, options.out, maker))
    print(f"Wrote {options.out}.")
    return WELL
