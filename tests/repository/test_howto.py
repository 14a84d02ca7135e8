"""The how-to pages: every block of code is used, in order, in a directory like a clone.

A block with a title is a file of that name. Python blocks are run; so are shell commands, but for training and testing
itself: of those, the whole configuration is put together, and every class in it made, as far as it needs no weights.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

import dermiq.cli
from dermiq.datamodules.sources import TabularSource
from dermiq.kg.__main__ import main as knowledge_graph

REPOSITORY = Path(__file__).parents[2]
HOWTO = REPOSITORY / "docs" / "howto"
PAGES = sorted(HOWTO.glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
TRAINS = ["python", "cli.py"]
KNOWS = ["python", "-m", "dermiq.kg"]


class Block(NamedTuple):
    """A block of code: its language, the file that it is (or nothing), and what it says."""

    language: str
    title: str
    code: str


def blocks(page):
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(code):
    """The commands of a shell block, those over several lines joined, without comments."""
    return [words for line in code.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


class Used(NamedTuple):
    """What came of a page: what it printed, and the command lines that it started."""

    printed: str
    started: list[dermiq.cli.DermIQCLI]


def write_clone(root):
    """What the pages presume: a clone, a run that was stopped, and photographs."""
    for part in ("configs", "cli.py", "src"):
        (root / part).symlink_to(REPOSITORY / part)
    run = root / "runs" / "grpo"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    grpo = (REPOSITORY / "configs" / "grpo.yaml").read_text()  # a saved one names no other file
    (run / "config.yaml").write_text(re.sub(r": (\w+/\w+\.yaml)$", rf": {REPOSITORY}/configs/\1", grpo, flags=re.M))
    (root / "clinic").mkdir()
    for number in range(1, 5):
        Image.new("RGB", (32, 32), (40 * number, 90, 60)).save(root / "clinic" / f"{number:04d}.png")


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """page -> what came of it, each page used once; the command line stops before it starts to work."""

    @cache
    def use_page(page):
        root, printed, started = tmp_path_factory.mktemp(page.stem), io.StringIO(), []
        write_clone(root)
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(dermiq.cli.DermIQCLI, "_run_subcommand", lambda self, subcommand: started.append(self))
            patch.syspath_prepend(str(root))
            patch.chdir(root)
            for block in blocks(page):
                use(block)
        sys.modules.pop("my_rewards", None)
        return Used(printed.getvalue(), started)

    return use_page


def use(block):
    """Do with a block what its page tells the reader to do."""
    if block.title:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.code)
    elif block.language == "python":
        exec(block.code, {})
    elif block.language == "bash":
        for words in commands(block.code):
            shell(words)


def shell(words):
    if words[: len(TRAINS)] == TRAINS:
        dermiq.cli.run([*words[len(TRAINS) :], "--trainer.accelerator=cpu"])
    elif words[: len(KNOWS)] == KNOWS:
        assert knowledge_graph(words[len(KNOWS) :]) == 0
    else:
        subprocess.run(words, check=True)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem == "resume" else ()) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_every_block_of_the_page_works(page, used):
    lines = [words for block in blocks(page) if block.language == "bash" for words in commands(block.code)]
    assert len(used(page).started) == sum(words[: len(TRAINS)] == TRAINS for words in lines) >= 1


def test_a_table_of_your_own_is_read_as_the_page_says(used):
    printed, started = used(HOWTO / "data.md")
    source = started[0].datamodule.sources["all"]
    assert printed.startswith("4 samples, 0 of them without their image\nactinic keratosis ")
    assert isinstance(source, TabularSource) and source.labels["BCC"] == "basal cell carcinoma"
    assert started[0].datamodule.limit == {}  # and not the 700 of the experiment beneath


def test_a_reward_of_your_own_is_a_term_beside_the_others(used):
    terms = used(HOWTO / "reward.md").started[0].model.rewards.terms
    assert list(terms) == ["diagnosis", "findings", "site", "brief"]
    assert terms["brief"].fn.words == 60 and terms["site"].fn.__module__ == "my_rewards"


def test_what_the_ontology_page_adds_is_known_and_judged(used):
    printed, started = used(HOWTO / "ontology.md")
    assert "0 errors" in printed and "Paint on the skin." in printed
    assert "+ paint stain is benign" in printed and "x paint stain causes itch" in printed
    assert [path.name for path in started[0].model.retriever.merge] == ["mine.owl"]


def test_the_memory_page_sets_what_it_says(used):
    small, large = used(HOWTO / "memory.md").started[1:]
    assert (small.model.tokens_per_pass, small.model.engine.rows_per_pass) == (256, 1)
    assert "7B" in large.model.backbone.model_id and large.model.backbone.load_in_4bit


def test_the_options_in_tables_exist(used):
    """Those of the page on memory and of the reference, whatever value stands for N."""
    config = used(HOWTO / "memory.md").started[1].config["fit"].as_dict()
    for page in (HOWTO / "memory.md", HOWTO.parent / "reference" / "command_line.md"):
        rows = [line for line in page.read_text().splitlines() if line.startswith("| `--")]
        named = {option for row in rows for option in re.findall(r"--((?:model|data|trainer)\.[\w.]+)", row)}
        named = {option for option in named if not option.endswith((".help", "NAME"))}
        assert len(named) >= 5
        assert [option for option in named if not known(config, option.split("."))] == []


def known(config, keys):
    """Whether an option stands in a configuration."""
    for key in keys:
        if not isinstance(config, dict) or key not in config:
            return False
        config = config[key]
    return True
