"""Make ``src/dermiq/kg/common_words.txt``: the English words that a misspelt word of the vocabulary could be taken for.

    python benchmarks/kg/common_words.py WORDS

WORDS is any list of English words, one a line, such as the vocabulary of a word-piece tokenizer. Make it again when the
vocabulary grows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dermiq.kg import load_graph
from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.linking import normal
from dermiq.kg.typos import ONE_FROM, common_words

OUT = Path(__file__).parents[2] / "src" / "dermiq" / "kg" / "common_words.txt"


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", type=Path)
    options = parser.parse_args()
    OUT.write_text("")
    common_words.cache_clear()
    reader = ClaimReader(load_graph())
    listed = {word for word in options.words.read_text(encoding="utf-8").split() if len(word) >= ONE_FROM}
    plain = {normal(word) for word in listed if word.isascii() and word.isalpha() and word.islower()}
    near = sorted(word for word in plain if reader.corrects(word))
    OUT.write_text("\n".join(near) + "\n")
    print(f"Wrote {OUT}: {len(near)} words.")


if __name__ == "__main__":
    main()
