"""Tested runs for tests of the report: rows as `test` on synthetic lesions writes them, for three stages."""

import json
from base64 import b64encode

import numpy as np
from PIL import Image

from dermiq.metrics import summarise
from dermiq.run_directory import RunDirectory
from dermiq.trainer.callbacks import predictions_table
from dermiq.trainer.thumbnails import thumbnail, thumbnails_table

TARGETS = ("melanoma", "psoriasis", "common wart", "vitiligo")
EVIL = "</script><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp; <b>bold</b>"
TITLES = ["warm start", "GRPO++", "talk"]


def diagnosis(place, named, **more):
    """A `PredictionRow` about the diagnosis of a synthetic lesion, eight answers voted on."""
    target = TARGETS[place % 4]
    right = named == target
    return {
        "id": f"lesion-{place}", "dataset": "drawn", "group": f"patient-{place // 2}", "kind": "diagnosis",
        "question": "What is the diagnosis?", "options": [], "target": target, "concepts": [target.replace(" ", "_")],
        "skin_type": ("I", "IV", "VI")[place % 3], "site": "trunk", "named": named, "named_lineage": [],
        "correct": right,
        "completion": f"<think> morphology : papule . colour : red . </think> <answer> {named} </answer>",
        "reward": float(right), "scores": {}, "completion_length": 9, "reasoning_length": 6,
        "findings_true": 1, "findings_stated": 2, "sampled": {"accuracy": 0.75}, "majority": named,
        "majority_lineage": [], "confidence": 0.75, "ranking": [named, "scabies"], "votes": [6, 2],
        "target_rank": 1 if right else None,
    } | more  # fmt: skip


def talk(place, reply, **more):
    """A row about a reply in conversation."""
    row = diagnosis(place, TARGETS[place % 4]) | {"id": f"talk-{place}", "kind": "conversation", "completion": reply}
    gone = ("majority", "majority_lineage", "confidence", "ranking", "votes", "target_rank")
    row |= {"question": "Is it contagious?", "named": None, "correct": None, "concepts": []} | more
    return {name: value for name, value in row.items() if name not in gone}


def picture(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    return b64encode(thumbnail(Image.fromarray(noise), 192)).decode()


PICTURES = [picture(seed) for seed in range(12)]


def write_run(directory, rows, pictures=PICTURES):
    """What a test leaves: predictions, metrics, and thumbnails by the numbers in the rows' ids."""
    run = RunDirectory(directory)
    directory.mkdir(parents=True)
    run.predictions.write_bytes(predictions_table(rows))
    metrics = {f"test/{name}": value for name, value in summarise(rows, detailed=True).items()}
    run.metrics_file.write_text(json.dumps(metrics))
    if pictures:
        lines = []
        for row in rows:
            number = int(row["id"].rpartition("-")[2]) % len(pictures)
            key = {"dataset": row["dataset"], "id": row["id"], "place": 0}
            lines.append({"digest": str(number), "shown": key, "image": pictures[number]})
        run.thumbnails.write_bytes(thumbnails_table(lines))
    return directory


def write_story(root):
    """Three stages: the first is right about each third lesion, the second about all; the last only talks."""
    first = [diagnosis(i, TARGETS[i % 4] if i % 3 == 0 else "scabies") for i in range(24)]
    second = [diagnosis(i, TARGETS[i % 4]) for i in range(24)]
    replies = [talk(1, "psoriasis is contagious ."), talk(2, "a common wart is contagious ."), talk(3, EVIL)]
    calmer = [talk(1, "psoriasis is not contagious ."), *replies[1:]]
    directories = [
        write_run(root / "first", first + replies), write_run(root / "second", second + replies),
        write_run(root / "third", calmer),
    ]  # fmt: skip
    curves = root / "second" / "metrics" / "version_0" / "metrics.csv"
    curves.parent.mkdir(parents=True)
    lines = [f"{step // 50},{step},{1 / (1 + step)},{step / 100}" for step in range(100)]
    curves.write_text("\n".join(["epoch,step,train/loss,train/reward", *lines]) + "\n")
    (root / "second" / "config.yaml").write_text("model: {class_path: dermiq.modules.GRPOModule}\n")
    return directories


def data_of(page):
    """The cases in a page."""
    return json.loads(page.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])
