"""Data modules and parts of sources: one split file for all, links that are never split, balanced combinations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.sources import ConcatSource, Source
from dermiq.datamodules.splits import SplitSource
from dermiq.datamodules.splits.__main__ import make_split
from dermiq.schema import DataError, Sample, SkinType, TrainingError


class Toned(Source):
    """Melanoma in four samples, one of them on skin of type VI, nevus in 36, all on type II; pairs are linked."""

    def __init__(self, name: str = "q", tied: bool = True) -> None:
        self.name, self.tied = name, tied

    def load(self) -> None:
        pass

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Sample:
        name = f"{self.name}-{index}"
        return Sample(
            id=name,
            images=("a.png",),
            label="",
            group=name,
            target="melanoma" if index < 4 else "nevus",
            skin_type=SkinType("fitzpatrick", "VI" if index == 0 else "II", "rated"),
            dataset="toned",
            links=(f"case:{index // 2}",) if self.tied else (),
        )

    def image(self, reference: str) -> Image.Image:
        return Image.new("RGB", (56, 56), "pink")


@pytest.fixture(scope="module")
def model_id(family_dir) -> str:
    return str(family_dir("qwen2_5_vl"))


def test_balanced_combinations(model_id):
    def drawn(balance) -> Counter:
        data = PromptDataModule(model_id, {"train": Toned()}, batch_size=10, balance=balance)
        data.setup("fit")
        sampler = data.train_dataloader().sampler
        counts: Counter = Counter()
        for epoch in range(30):
            sampler.set_epoch(epoch)
            counts.update((data.splits["train"].source[i].target, i == 0) for i in sampler)
        return counts

    kinds = drawn(["label", "skin_type"])
    assert len(kinds) == 3 and all(abs(count - 400) < 4 * (1200 * 2 / 9) ** 0.5 for count in kinds.values())
    assert drawn(["label"]) == drawn(True) != drawn(["skin_type"]) != drawn(False)


def test_another_balance_is_another_order(model_id):
    def state(balance) -> dict:
        data = PromptDataModule(model_id, {"train": Toned()}, batch_size=10, balance=balance)
        data.setup("fit")
        return data.train_dataloader()

    loader = state(["label"])
    next(iter(loader))
    state(["label"]).load_state_dict(loader.state_dict())
    with pytest.raises(TrainingError, match=r"the data have changed since \(balance "):
        state(["label", "skin_type"]).load_state_dict(loader.state_dict())


def test_one_split_file_for_data_module_and_parts(model_id, tmp_path):
    path = str(tmp_path / "split.parquet")
    both = ConcatSource([Toned("a"), Toned("b", tied=False)])
    make_split(both.sources, Path(path), seed=5)
    data = PromptDataModule(model_id, {"all": both}, split_file=path)
    data.setup("fit")
    held = {split: [both[i].id for i in dataset.indices] for split, dataset in data.splits.items()}
    assert list(held) == ["train", "val", "test"] and sum(map(len, held.values())) == 80
    for name, ids in held.items():
        parts = ConcatSource([SplitSource(source, name, split_file=path) for source in both.sources])
        parts.load()
        assert [sample.id for sample in parts] == ids and [entry.id for entry in parts.table()] == ids
        tied = {int(id.split("-")[1]) for id in ids if id.startswith("a")}
        assert tied == {i ^ 1 for i in tied}
    alone = PromptDataModule(model_id, {"all": Toned("a")}, split_file=path)
    alone.setup("fit")
    assert {both[i].id for i in alone.splits["train"].indices} == {id for id in held["train"] if id.startswith("a")}
    with pytest.raises(DataError, match=r"split.parquet does not name 40 of 40 samples: 'c-0' of toned"):
        PromptDataModule(model_id, {"all": Toned("c")}, split_file=path).setup("fit")


def test_links_are_never_split_without_a_file_either(model_id):
    data = PromptDataModule(model_id, {"all": Toned()}, fractions={"train": 0.5, "test": 0.5}, limit={"train": 7})
    data.setup("fit")
    for dataset in data.splits.values():
        assert {i ^ 1 for i in dataset.indices} == set(dataset.indices)
    assert len(data.splits["train"]) == 6


def test_the_same_link_in_two_sources(model_id):
    sources = {"train": Toned("a"), "val": Toned("b", tied=False), "test": Toned("c")}
    with pytest.raises(DataError, match="the link 'case:0' stands in the sources of train and test"):
        PromptDataModule(model_id, sources).setup("fit")
