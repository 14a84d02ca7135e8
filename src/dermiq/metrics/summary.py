"""Metrics by name, of the rows of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torchmetrics.functional.classification import binary_calibration_error

from dermiq.metrics.judging import CONVERSATION, NO_ANSWER
from dermiq.metrics.measures import Measure, by_group, classification, estimates, mean, share, worst_group_gap
from dermiq.metrics.rows import PredictionRow
from dermiq.metrics.text import bleu

DIAGNOSIS = "diagnosis"
TOP = (3, 5)
BINS = 15  # of calibration, equally wide
Named = Literal["named", "majority"]  # the judged answer, or the vote
_Slice = Literal["skin_type", "site", "position"]
_Fraction = Literal["hierarchical_f1", "token_precision", "token_recall", "token_f1", "rouge_l"]
_Mean = Literal["reward", "completion_length", "reasoning_length"]
_SLICES: tuple[_Slice, ...] = get_args(_Slice)
_FRACTIONS: tuple[_Fraction, ...] = get_args(_Fraction)
_MEANS: tuple[_Mean, ...] = get_args(_Mean)
_OF_CLASSES = (DIAGNOSIS, "finding", "management")


def summarise(rows: Sequence[PredictionRow], detailed: bool = False) -> dict[str, float]:
    """Metrics by name; what does not apply to any row is left out.

    Those of diagnoses have plain names, those of other kinds of question the kind before them (``choice/accuracy``).

    Args:
        rows: of any number of batches.
        detailed: add 95 % intervals (``NAME/low``, ``NAME/high``, over resampled groups), the number of cases that a
            share is of (``NAME/n``), and the accuracy of slices (``accuracy/skin_type/V``) with the worst-group gap
            (``accuracy_gap/skin_type``).
    """
    found: dict[str, float] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        measures = measures_of(kind, of_kind)
        if detailed:
            measures |= {} if kind == CONVERSATION else _slices(of_kind)
            values = estimates(measures, [row["group"] for row in of_kind])
        else:
            values = {name: measure.value for name, measure in measures.items()}
        values |= _means(of_kind) | _positions(of_kind) | _calibration(of_kind) | _bleu(of_kind)
        found |= {(name if kind == DIAGNOSIS else f"{kind}/{name}"): value for name, value in values.items()}
    return found


def named_classes(rows: Sequence[PredictionRow], named: Named = "named") -> list[str]:
    """The class that each answer to a diagnosis names, as far as it names one that occurs in its data set as a target.

    A class is named by any of its concepts, and by any form of one, so that "solar lentigo" names the class "benign
    keratosis" of HAM10000 whatever the image shows; the nearest class if several lie above what is named.

    Args:
        rows: of diagnoses.
        named: ``named``, or ``majority`` for the vote.
    """
    owners: dict[tuple[str, str], tuple[int, str]] = {}
    for row in rows:
        for place, concept in enumerate(row["concepts"]):
            key, owner = (row["dataset"], concept), (place, row["target"])
            owners[key] = min(owners.get(key, owner), owner)
    return [_class(row, named, owners) for row in rows]


def _class(row: PredictionRow, named: Named, owners: dict[tuple[str, str], tuple[int, str]]) -> str:
    name, lineage = row[named] or NO_ANSWER, row["named_lineage" if named == "named" else "majority_lineage"]
    if name == row["target"]:
        return name
    keys = ((row["dataset"], concept) for concept in lineage)
    nearest = next((owners[key][1] for key in keys if key in owners), name)
    return name if nearest == row["target"] else nearest  # judged wrong, it stays wrong


def measures_of(kind: str, rows: Sequence[PredictionRow]) -> dict[str, Measure]:
    """What has an interval, of rows of one kind, by name without the kind; what applies to no row is left out."""
    measures: dict[str, Measure] = {}
    if kind != CONVERSATION:
        measures = _accuracies(kind, rows, "named")
        if all("majority" in row for row in rows):
            measures |= {f"majority_{name}": measure for name, measure in _accuracies(kind, rows, "majority").items()}
            ranks = [row["target_rank"] for row in rows]
            for k in TOP:
                measures[f"top_{k}_accuracy"] = mean([float(rank is not None and rank <= k) for rank in ranks])
    if kind == "vqa":
        closed = [row["closed"] for row in rows]
        right = [bool(row["correct"]) for row in rows]
        measures["closed_accuracy"] = mean([float(r) if c else None for r, c in zip(right, closed, strict=True)])
        measures["open_accuracy"] = mean([None if c else float(r) for r, c in zip(right, closed, strict=True)])
    measures |= _malignancy(rows) | _faithfulness(rows)
    measures |= {name: mean([row.get(name) for row in rows]) for name in _FRACTIONS}
    return {name: measure for name, measure in measures.items() if measure.n != 0}


def _accuracies(kind: str, rows: Sequence[PredictionRow], named: Named) -> dict[str, Measure]:
    if kind not in _OF_CLASSES:
        return {"accuracy": mean([float(row[named] == row["target"]) for row in rows])}
    names = named_classes(rows, named) if kind == DIAGNOSIS else [row[named] or NO_ANSWER for row in rows]
    return classification([row["target"] for row in rows], names)


def _malignancy(rows: Iterable[PredictionRow]) -> dict[str, Measure]:
    """Sensitivity and specificity for malignancy at the model's own operating point: what it names is its call.

    An answer that names no known condition is an error on both sides: it neither finds a cancer nor rules one out.
    """
    calls = [(row.get("malignant"), row.get("named_malignant")) for row in rows]
    return {
        "sensitivity": mean([float(called is True) if malignant is True else None for malignant, called in calls]),
        "specificity": mean([float(called is False) if malignant is False else None for malignant, called in calls]),
    }


def _faithfulness(rows: Iterable[PredictionRow]) -> dict[str, Measure]:
    """Share of the findings stated that are true of the image (a phantom), and how many are stated per answer."""
    counts = [(row.get("findings_true"), row.get("findings_stated")) for row in rows]
    return {
        "faithfulness": share([true or 0 for true, _ in counts], [stated or 0 for _, stated in counts]),
        "findings_stated": mean([stated for _, stated in counts]),
    }


def _slices(rows: Sequence[PredictionRow]) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for attribute in _SLICES:
        groups = by_group([bool(row["correct"]) for row in rows], [row.get(attribute) for row in rows])
        found |= {f"accuracy/{attribute}/{group}": measure for group, measure in groups.items()}
        gap = worst_group_gap(groups)
        if gap is not None:
            found[f"accuracy_gap/{attribute}"] = gap
    return found


def _means(rows: Sequence[PredictionRow]) -> dict[str, float]:
    """Means of rewards and lengths over the rows to which they apply."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        values: dict[str, float] = {name: row[name] for name in _MEANS}
        values |= {f"reward/{name}": value for name, value in row["scores"].items()}
        values |= {f"sampled_{name}": value for name, value in row.get("sampled", {}).items()}
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return {name: sum(column) / len(column) for name, column in columns.items()}


def _positions(rows: Sequence[PredictionRow]) -> dict[str, float]:
    """How often each position of a choice is chosen, and how far that is from how often it is right, at most.

    Positions that are favoured for their place show here, and in the accuracy by the right option's position (Zheng,
    Zhou, Meng, Zhou and Huang, "Large language models are not robust multiple choice selectors", 2024).
    """
    choices = [row for row in rows if "position" in row]
    if not choices:
        return {}
    right = Counter(row["position"] for row in choices)
    chosen = Counter(row["position_chosen"] for row in choices if row["position_chosen"] is not None)
    letters = sorted(right | chosen)
    n, answered = len(choices), chosen.total()
    found = {f"chosen/{letter}": chosen[letter] / n for letter in letters}
    if answered:
        found["position_bias"] = max(abs(chosen[letter] / answered - right[letter] / n) for letter in letters)
    return found


def _calibration(rows: Sequence[PredictionRow]) -> dict[str, float]:
    """Expected calibration error in `BINS` bins of the share of votes as the probability that the majority is right.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017.
    """
    voted = [row for row in rows if "majority" in row]
    if not voted:
        return {}
    confidence = torch.tensor([row["confidence"] for row in voted], dtype=torch.float64)
    right = torch.tensor([row["target_rank"] == 1 for row in voted]).long()
    return {"majority_ece": float(binary_calibration_error(confidence, right, n_bins=BINS))}


def _bleu(rows: Sequence[PredictionRow]) -> dict[str, float]:
    opened = [row for row in rows if row.get("closed") is False]
    if not opened:
        return {}
    return bleu([row["answer"] or "" for row in opened], [row["target"] for row in opened])
