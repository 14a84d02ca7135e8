"""How fast does the judge read? Answers of 100 words made of the mutation benchmark's true and corrupted sentences.

    python benchmarks/kg_speed.py --out benchmarks/results/kg_speed.json

`first reading` reads every answer once with an empty memory, `again` reads the same answers once more: in training,
the answers of a group share many sentences, so the truth lies between.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from pathlib import Path

from kg_mutations import Corruptor, Phrasings

from dermiq.kg import KGScorer, load_graph

WORDS = 100


def answers(scorer: KGScorer, count: int) -> list[tuple[str, str]]:
    """(answer of 100 words, condition), drawn from the sentences about the condition."""
    sentences: dict[str, list[str]] = {}
    for case in Corruptor(scorer.graph, Phrasings("tuning", scorer.graph, 0), 0).cases():
        sentences.setdefault(case.condition, []).append(case.sentence)
    chance = random.Random(0)
    made = []
    for condition in chance.choices(list(sentences), k=count):
        words: list[str] = []
        while len(words) < WORDS:
            words += chance.choice(sentences[condition]).split()
        made.append((" ".join(words[:WORDS]), scorer.graph.label(condition)))
    return made


def per_second(scorer: KGScorer, texts: list[tuple[str, str]]) -> float:
    """Answers scored in a second."""
    start = time.perf_counter()
    for text, condition in texts:
        scorer.score(text, condition)
    return round(len(texts) / (time.perf_counter() - start))


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scorer = KGScorer()
    texts = answers(scorer, options.answers)
    first = per_second(scorer, texts)
    again = max(per_second(scorer, texts) for _ in range(3))
    start = time.perf_counter()
    load_graph()
    loading = time.perf_counter() - start
    result = {
        "answers": len(texts),
        "first_reading_per_s": first,
        "again_per_s": again,
        "load_from_cache_s": round(loading, 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
