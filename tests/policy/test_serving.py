"""docs/serving.md: its Python as it stands, on the tiny VLM that a run has trained and the exports hold."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel

from dermiq.export.__main__ import main
from dermiq.prompts import QUESTION, SYSTEM_PROMPT

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
BASE = "Qwen/Qwen2.5-VL-3B-Instruct"
MODEL = "--model"

pytestmark = pytest.mark.slow


def section(title: str) -> str:
    """A section of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def follow(code: str, names: dict) -> str:
    """Run a block of the page as it stands; what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, names)
    return output.getvalue().removesuffix("\n")


@pytest.fixture(scope="module")
def served(lab, tiny_dir, tmp_path_factory):
    """A folder with what the page names: the base, the exports of a run and a photograph; and its evaluated answer."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_dir, folder / BASE)
    asks = json.loads((folder / BASE / "generation_config.json").read_text())
    asks |= {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05}  # as Qwen2.5-VL does
    (folder / BASE / "generation_config.json").write_text(json.dumps(asks))
    with contextlib.chdir(folder):
        options = (f"{MODEL}.backbone.init_args.model_id={BASE}", "--data.system_prompt=null")
        lab.run("fit", "SFTModule", Path("runs/grpo"), *options, "--trainer.max_steps=3")
        judged = (*options, f"{MODEL}.backbone.init_args.adapter_path=runs/grpo/adapter")
        length = (f"{MODEL}.eval_sampling.max_new_tokens=250", "--trainer.limit_test_batches=1")
        lab.run("test", "SFTModule", Path("runs/tested"), *judged, *length)
        row = pq.read_table("runs/tested/predictions.parquet").to_pylist()[0]
        (photograph,) = lab.photographs.rglob(f"{row['id']}.jpg")
        Path("lesion.jpg").symlink_to(photograph)
        for line in blocks(PAGE, "bash")[0].splitlines():
            _, _, module, *arguments = shlex.split(line)
            assert module == "dermiq.export"
            main(arguments)
        yield row


@pytest.fixture(scope="module")
def answers(served):
    """What each way of the page prints, and the names that its code leaves."""
    names: dict = {}
    printed = {}
    for title in (
        "What to ask",
        "The adapter, with transformers and peft",
        "The merged model, with transformers alone",
    ):
        for number, code in enumerate(blocks(section(title))):
            torch.manual_seed(0)
            printed[title, number] = follow(code, names)
            if "PeftModel" in code:
                names |= {"policy": names["model"], "greedy": names["tokens"]}
    return printed, names


def test_the_page_asks_as_the_evaluation_does(answers):
    _, names = answers
    assert names["system"] == SYSTEM_PROMPT and names["asked"][1]["text"] == QUESTION


def test_the_adapter_answers_as_in_the_evaluation(served, answers):
    printed, names = answers
    assert isinstance(names["policy"], PeftModel)
    answer = printed["The adapter, with transformers and peft", 0]
    assert answer == served["completion"] and len(answer) > 20


def test_merged_and_unmerged_agree(answers):
    printed, names = answers
    assert not isinstance(names["model"], PeftModel)
    merged = printed["The merged model, with transformers alone", 0]
    assert merged == printed["The adapter, with transformers and peft", 0]


def test_it_is_the_adapter_that_answers(answers):
    """Without it the answer is another one."""
    _, names = answers
    with names["policy"].disable_adapter():
        tokens = names["policy"].generate(
            **names["inputs"], max_new_tokens=250, do_sample=False, repetition_penalty=1.0
        )
    assert not torch.equal(tokens, names["greedy"])


def test_answers_are_sampled(answers):
    _, names = answers
    assert len(names["answers"]) == 8 and len(set(names["answers"])) > 1


def test_ten_lines_are_enough():
    code = blocks(section("The adapter, with transformers and peft"))[0]
    assert sum(bool(line) for line in code.splitlines()) <= 10
