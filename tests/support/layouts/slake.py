"""SLAKE in small: two languages in one file, an image folder each, answers that name several organs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dermiq.datamodules.sources.slake import SLAKE
from support.small_data import write_jpeg

QUESTIONS = {
    "train": (
        (1, "What modality is used to take this image?", "MRI", "en", "OPEN"),
        (1, "这张图片采用了什么成像方式", "核磁共振", "zh", "OPEN"),
        (1, "Does the picture contain liver?", "Yes", "en", "CLOSED"),
    ),
    "validate": ((2, "What is the main organ in the image?", "Lung, Spinal Cord", "en", "OPEN"),),
    "test": (
        (102, "Where is/are the abnormality located?", "Left Lung, Lower Right", "en", "OPEN"),
        (102, "图中有肺吗", "有", "zh", "CLOSED"),
    ),
}


def write(root: Path, **options: Any) -> SLAKE:
    """Four questions in English and two in Chinese about three images."""
    number = 0
    for part, questions in QUESTIONS.items():
        rows = []
        for image, question, answer, language, kind in questions:
            rows.append(
                {
                    "img_id": image,
                    "img_name": f"xmlab{image}/source.jpg",
                    "question": question,
                    "answer": answer,
                    "q_lang": language,
                    "location": "Lung",
                    "modality": "CT",
                    "answer_type": kind,
                    "base_type": "vqa",
                    "content_type": "Modality",
                    "triple": ["vhead", "_", "_"],
                    "qid": number,
                }
            )
            number += 1
            write_jpeg(root / "imgs" / f"xmlab{image}" / "source.jpg", image)
        (root / f"{part}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return SLAKE(str(root), **options)
