"""Answers judged per second: of 100 words, made of the mutation benchmark's true and corrupted sentences.

    python benchmarks/kg/speed.py --out benchmarks/results/kg_speed.json

`first` reads answers with nothing remembered; `new` reads others afterwards, when the verdicts on most claims are known
but their sentences are new; `again` reads the same ones once more. In training the answers of a group share many
sentences, so the truth lies between the last two.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from kg.mutations import Corruptor, Phrasings
from measuring import publish

from dermiq.kg import KGScorer, load_graph

WORDS = 100


def answers(scorer: KGScorer, count: int, seed: int) -> list[tuple[str, str]]:
    """(answer of 100 words, condition), sampled from the sentences about the condition."""
    sentences: dict[str, list[str]] = {}
    for case in Corruptor(scorer.graph, Phrasings("tuning", scorer.graph, 0), 0).cases():
        sentences.setdefault(case.condition, []).append(case.sentence)
    chance = random.Random(seed)
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
    assert scorer.graph.facts  # the cache is filled
    start = time.perf_counter()
    load_graph()
    loading = time.perf_counter() - start
    first = per_second(scorer, answers(scorer, options.answers, 0))
    texts = answers(scorer, options.answers, 1)
    new = per_second(scorer, texts)
    again = max(per_second(scorer, texts) for _ in range(3))
    result = {
        "answers": len(texts),
        "first_per_s": first,
        "new_per_s": new,
        "again_per_s": again,
        "load_from_cache_s": round(loading, 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    publish(result, options.out)


if __name__ == "__main__":
    main()
