"""Small conversations in a JSON lines file, with drawn JPEG files."""

from __future__ import annotations

import json
from pathlib import Path

from support.small_data import write_jpeg


def write_talks(folder: Path, count: int = 16, name: str = "talks.jsonl") -> Path:
    """Conversations of one to four turns about one photograph each."""
    rows = []
    for i in range(count):
        write_jpeg(folder / f"{i}.jpg", i)
        messages = []
        for turn in range(1 + i % 4):
            messages.append({"role": "user", "content": f"{'<image>' * (turn == 0)}Question {turn} about the mole?"})
            messages.append({"role": "assistant", "content": "It is a brown mole. " * (1 + 2 * (i % 3))})
        rows.append({"messages": messages, "images": [f"{i}.jpg"]})
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
