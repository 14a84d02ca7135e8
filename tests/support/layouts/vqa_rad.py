"""VQA-RAD in small: images shared by both parts, a repeated triplet, an answer that is a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dermiq.datamodules.sources.vqa_rad import FOLDER, METADATA, VQARAD, VQARADParquet
from support.small_data import write_jpeg, write_questions

QUESTIONS = (
    ("synpic54610.jpg", "Are regions of the brain infarcted?", "Yes", "CLOSED", "freeform"),
    ("synpic54610.jpg", "Are there regions of the brain with infarcts?", "Yes", "CLOSED", "para"),
    ("synpic54610.jpg", "What type of image is this?", "Diffusion-weighted MRI.", "OPEN ", "test_freeform"),
    ("synpic29265.jpg", "Are the lungs normal appearing?", "No", "CLOSED", "freeform"),
    ("synpic29265.jpg", "Are the lungs normal appearing?", "no", "CLOSED", "test_freeform"),
    ("synpic29265.jpg", "How many lesions are there?\t", 2, "OPEN", "test_para"),
    ("synpic100132.jpg", "Which side is larger?", "The right side/hemithorax; slightly", "OPEN", "freeform"),
)

TRAIN = ((0, "are regions of the brain infarcted?", "yes"), (1, "are the lungs normal appearing?", "no"))
TEST = ((0, "what type of image is this?", "diffusion weighted mri"), (2, "which side is larger?", "right"))


def write(root: Path, **options: Any) -> VQARAD:
    """Seven questions about three images, one of them twice."""
    rows = [
        {
            "qid": number,
            "phrase_type": phrase,
            "qid_linked_id": f"03f451ca-de62-4617-9679-e836026a{number:04d}",
            "image_case_url": f"https://medpix.nlm.nih.gov/case?id={number}",
            "image_name": image,
            "image_organ": "HEAD" if image.startswith("synpic5") else "CHEST",
            "evaluation": "not evaluated",
            "question": question,
            "question_rephrase": "NULL",
            "question_relation": "NULL",
            "question_frame": "NULL",
            "question_type": "PRES",
            "answer": answer,
            "answer_type": kind,
        }
        for number, (image, question, answer, kind, phrase) in enumerate(QUESTIONS)
    ]
    (root / METADATA).write_text(json.dumps(rows), encoding="utf-8")
    for seed, (image, *_) in enumerate(QUESTIONS):
        write_jpeg(root / FOLDER / image, seed)
    return VQARAD(str(root), **options)


def write_parquet(root: Path, **options: Any) -> VQARADParquet:
    """As the Hugging Face Hub has it: two nameless images in each part, one of them in both."""
    write_questions(root / "data" / "train-00000-of-00001-eb8844602202be60.parquet", TRAIN)
    write_questions(root / "data" / "test-00000-of-00001-e5bc3d208bb4deeb.parquet", TEST)
    return VQARADParquet(str(root), **options)
