"""Metrics of answers to visual questions, counted as the papers of VQA-RAD, SLAKE, PathVQA and LLaVA-Med count them.

Questions whose answer is yes or no are closed, all others open (He et al., "PathVQA", 2020). Closed ones have an
accuracy; open ones exact match, token recall (what LLaVA-Med reports: Li et al., 2023), token precision and F1, BLEU
and ROUGE-L. Where LLaVA-Med's script counts otherwise, the sound count is taken: a token that is repeated counts as
often as both sides have it (as in SQuAD: Rajpurkar et al., 2016), "nodule" does not say "no", an answer with the wrong
one of yes and no counts as wrong instead of being left out, and exact match is of the whole answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from torchmetrics.functional.text import bleu_score
from torchmetrics.functional.text.rouge import rouge_score

from dermiq.metrics.rows import Overlap

_ARTICLES = frozenset({"a", "an", "the"})


def tokens(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles.

    >>> tokens("The left lung.")
    ['left', 'lung']
    """
    return [word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES]


def is_closed(target: str) -> bool:
    """True if a question with this answer is one of yes or no."""
    return len(tokens(target)) == 1 and yes_or_no(target) is not None


def yes_or_no(text: str) -> str | None:
    """Which of the two words a text has; None if neither or both."""
    words = set(tokens(text)) & {"yes", "no"}
    return words.pop() if len(words) == 1 else None


def overlap(answer: str, target: str) -> Overlap:
    """The overlap of an open answer with the target."""
    given, wanted = Counter(tokens(answer)), Counter(tokens(target))
    shared = (given & wanted).total()
    rouge = rouge_score(" ".join(tokens(answer)), " ".join(tokens(target)), rouge_keys="rougeL")
    return {
        "token_precision": shared / given.total() if given else 0.0,
        "token_recall": shared / wanted.total() if wanted else 0.0,
        "token_f1": 2 * shared / (given.total() + wanted.total()) if shared else 0.0,
        "rouge_l": float(rouge["rougeL_fmeasure"]),
    }


def bleu(answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """``bleu_1`` to ``bleu_4`` of all open answers as one corpus, in [0, 1].

    Of the corpus and not a mean over answers, most of which are too short for a BLEU-4 of their own; 0 where no n-gram
    of that length is right (Papineni et al., "BLEU", 2002).
    """
    given = [" ".join(tokens(answer)) for answer in answers]
    wanted = [[" ".join(tokens(target))] for target in targets]
    if not any(given):
        return {f"bleu_{n}": 0.0 for n in range(1, 5)}
    return {f"bleu_{n}": float(bleu_score(given, wanted, n_gram=n)) for n in range(1, 5)}
