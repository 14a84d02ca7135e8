"""Prose benchmark of the judge: statements as people and models write them, each with a verdict set by hand.

A statement is contradicted if one of its claims is, else supported if one is, else neutral; an expected neutral is
right unless it is contradicted. Each line of a file has `condition`, `answer`, `expect` and `style`. Rules were tuned
on ``statements/tuning.jsonl``.

    python benchmarks/kg/prose.py benchmarks/kg/statements/*.jsonl --out benchmarks/results/kg_prose.json
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from dermiq.kg import KGScorer

Statement = dict[str, str]


def verdict(scorer: KGScorer, statement: Statement) -> str:
    """Contradicted, supported or neutral."""
    return scorer.score(statement["answer"], statement["condition"]).verdict


def read(path: Path) -> list[Statement]:
    """The statements of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def measure(scorer: KGScorer, statements: list[Statement]) -> dict[str, Any]:
    """The figures of some statements, and the wrong ones of each style."""
    verdicts = [(one["style"], one["expect"], verdict(scorer, one)) for one in statements]
    judged = Counter((expected, got) for _, expected, got in verdicts)
    wrong = sum(count for (expected, _), count in judged.items() if expected == "contradicted")
    right = {
        style: sum(_is_right(expected, got) for one, expected, got in verdicts if one == style)
        for style in sorted({style for style, _, _ in verdicts})
    }
    return {
        "statements": len(statements),
        "right": round(sum(right.values()) / len(statements), 4),
        "right or neutral, contradicted": sum(
            count for (expected, got), count in judged.items() if got == "contradicted" != expected
        ),
        "wrong, supported": round(judged["contradicted", "supported"] / wrong, 4) if wrong else 0.0,
        "right by style": right,
    }


def _is_right(expected: str, got: str) -> bool:
    return got == expected or (expected == "neutral" and got == "supported")


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--show", action="store_true", help="print the misjudged statements")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    scorer = KGScorer()
    results = {}
    for path in options.files:
        statements = read(path)
        results[path.stem] = measure(scorer, statements)
        print(path.stem, json.dumps(results[path.stem]))
        for one in statements if options.show else ():
            if not _is_right(one["expect"], got := verdict(scorer, one)):
                print(f"  {got}, not {one['expect']} [{one['condition']}]: {one['answer']!r}")
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
