"""Frames benchmark of the judge: is a wrong diagnosis heard, and does a right one earn, however it is put?

Each frame of ``frames.yaml`` is filled with the right and with a wrong diagnosis of several cases. Rules were tuned on
its first list.

    python benchmarks/kg/frames.py --out benchmarks/results/kg_frames.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import publish

from dermiq.kg import KGScorer

PAIRS = (  # the case, and a wrong diagnosis
    ("psoriasis", "ringworm"),
    ("melanoma", "seborrheic keratosis"),
    ("scabies", "atopic dermatitis"),
    ("basal cell carcinoma", "psoriasis"),
    ("vitiligo", "pityriasis versicolor"),
    ("impetigo", "herpes simplex"),
)
FRAMES: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "frames.yaml").read_text(encoding="utf-8"))


def filled(frame: str, name: str) -> str:
    """A frame with a diagnosis in it."""
    return frame.replace("{D}", name[0].upper() + name[1:]).replace("{d}", name)


def measure(scorer: KGScorer, frames: list[str]) -> dict[str, Any]:
    """The shares of the cases where the wrong diagnosis is heard and the right one earns, and the frames that fail."""
    heard, earned = {}, {}
    for frame in frames:
        heard[frame] = mean(bool(scorer.score(filled(frame, wrong), case).contradicted) for case, wrong in PAIRS)
        right = [scorer.score(filled(frame, case), case, "diagnosis") for case, _ in PAIRS]
        earned[frame] = mean(one.named and not one.contradicted for one in right)
    return {
        "frames": len(frames),
        "wrong, heard": round(mean(heard.values()), 3),
        "right, earns": round(mean(earned.values()), 3),
        "wrong, not always heard": [frame for frame, share in heard.items() if share < 1],
        "right, does not always earn": [frame for frame, share in earned.items() if share < 1],
    }


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    scorer = KGScorer()
    publish({name: measure(scorer, frames) for name, frames in FRAMES.items()}, options.out)


if __name__ == "__main__":
    main()
