"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from support.browser import browser, open_page  # noqa: F401 (fixtures)
from support.families import build_model_dir
from support.pairs import pairs_config  # noqa: F401 (a fixture)
from support.runs import Lab
from support.small_data import write_ham10000

REPOSITORY = Path(__file__).parents[1]
LONGEST = "test_tutorial.py"  # first, so that no process is left with it at the end

torch.set_num_threads(1)
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with `ham10000/` and the other real data sets: DERMIQ_TEST_DATA, else ../shared/data."""
    root = Path(os.environ.get("DERMIQ_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}: set DERMIQ_TEST_DATA to the folder that holds ham10000/")
    return root


@pytest.fixture(scope="session")
def family_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`family_dir(family, layers=..., hidden=..., seed=...)`: a model directory, written once per session.

    The directories are shared: read them, never write into them.
    """

    @cache
    def build(family: str, **options: int) -> Path:
        return build_model_dir(family, tmp_path_factory.mktemp(family), **options)

    return build


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the tiny model of the quickstart; shared, so read it only."""
    from dermiq.tiny import write_tiny_vlm

    directory = tmp_path_factory.mktemp("tiny") / "vlm"
    write_tiny_vlm(directory)
    return directory


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, family_dir: Callable[..., Path]) -> Lab:
    """Small runs through the command line."""
    folder = tmp_path_factory.mktemp("lab")
    return Lab(folder, write_ham10000(folder / "photographs"), family_dir)


@pytest.fixture(params=[True, False], ids=["avx512bf16", "plain"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What bitsandbytes takes this CPU for: one that it packs 4-bit weights on, or one that it does not."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: request.param)


@pytest.fixture(scope="module")
def backbone(family_dir: Callable[..., Path]) -> VLMBackbone:
    """A small loaded policy with an adapter, of one test file."""
    torch.manual_seed(0)
    made = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=2))
    made.load()
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest."""
    items.sort(key=lambda item: item.path.name != LONGEST)
