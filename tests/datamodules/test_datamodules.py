"""Data modules: the batches that stages rely on, and what setup refuses."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from dermiq.datamodules import ConversationDataModule, DermDataModule, PromptDataModule
from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sources import HAM10000, Source, TabularSource
from dermiq.policy.batches import Samples
from dermiq.policy.hub import load_processor
from dermiq.prompts import gold_completion, to_messages
from dermiq.schema import DataError, Sample
from support.small_data import write_csv, write_ham10000, write_jpeg

HALVES = {"train": 0.5, "test": 0.5}


class Questions(Source):
    """Samples with questions and numbers of images to choose; images are drawn on access."""

    def __init__(self, questions: list[str], images: list[int], name: str = "q") -> None:
        self.questions, self.images, self.name = questions, images, name

    def load(self) -> None:
        pass

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            id=f"{self.name}-{index}",
            images=("secret/melanoma.png",) * self.images[index],
            target="melanoma",
            label="secret-label",
            group=f"{self.name}-{index}",
            question=self.questions[index],
        )

    def image(self, reference: str) -> Image.Image:
        return Image.new("RGB", (56, 56), "pink")


@pytest.fixture(scope="module")
def model_id(family_dir) -> str:
    return str(family_dir("qwen2_5_vl"))


@pytest.fixture
def root(tmp_path) -> Path:
    return write_ham10000(tmp_path / "ham", lesions_per_diagnosis=3)


def rows_of(batches) -> list[str]:
    return [sample.id for batch in batches for sample in batch["samples"]]


def test_prompt_batches(model_id, root):
    data = PromptDataModule(model_id, {"all": HAM10000(str(root))}, batch_size=4, eval_batch_size=3)
    data.setup("fit")
    data.setup("test")
    assert set(data.splits) == {"train", "val", "test"}
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"prompt", "messages", "images", "samples", "skipped"}
    ids, mask = batch["prompt"]["input_ids"], batch["prompt"]["attention_mask"]
    assert ids.shape == mask.shape and ids.shape[0] == 4 and ids.dtype == torch.int64
    assert mask[:, -1].all() and "pixel_values" in batch["prompt"]
    assert len(batch["samples"]) == 4 and batch["skipped"] == ()
    for loader, split in (
        (data.val_dataloader(), "val"),
        (data.test_dataloader(), "test"),
        (data.predict_dataloader(), "test"),
    ):
        assert rows_of(loader) == [data.splits[split][i].sample.id for i in range(len(data.splits[split]))]


def test_prompts_of_different_length_are_padded_on_the_left(model_id):
    data = PromptDataModule(model_id, {"test": Questions(["Short?", "A much longer question, is it not?"], [1, 2])})
    data.setup("test")
    (batch,) = data.test_dataloader()
    mask = batch["prompt"]["attention_mask"]
    assert mask[0].sum() < mask[1].sum() == mask.shape[1]
    assert mask[0].tolist() == sorted(mask[0].tolist())


def test_conversation_batches(model_id, root):
    data = ConversationDataModule(model_id, {"all": HAM10000(str(root))}, batch_size=6)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"conversation", "loss_mask", "messages", "images", "samples", "skipped"}
    ids, mask = batch["conversation"]["input_ids"], batch["loss_mask"]
    assert ids.shape == mask.shape and ids.dtype == torch.int64 and mask.dtype == torch.bool
    tokenizer = load_processor(model_id).tokenizer
    for sample, row, counts in zip(batch["samples"], ids, mask, strict=True):
        assert tokenizer.decode(row[counts][:-1]) == gold_completion(sample)
        assert tokenizer.decode(row[counts][-1:]) == "<|im_end|>"
    assert "loss_mask" not in next(iter(data.val_dataloader()))  # none of them has a reply


def test_nothing_of_the_sample_but_the_question_reaches_the_model(model_id):
    sample = Questions(["What is it?"], [2])[0]
    messages = to_messages(sample)
    assert messages[1]["content"] == [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is it?"}]
    other = replace(sample, id="other", images=("x", "y"), label="nv", target="psoriasis", group="g", attribution="a")
    assert to_messages(other) == messages
    images = [Image.new("RGB", (56, 56), "pink")] * 2
    batch = PromptCollate(model_id, "Be brief.", 8)([Item(sample, images), Item(other, images)])
    assert batch is not None
    first, second = batch["prompt"]["input_ids"]
    assert torch.equal(first, second)
    text = load_processor(model_id).tokenizer.decode(first)
    assert "What is it?" in text and "Be brief." in text
    for secret in ("secret", "q-0", "melanoma"):
        assert secret not in text


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_make_the_same_batches(workers, model_id, root):
    def batches(count: int) -> list:
        data = ConversationDataModule(model_id, {"all": HAM10000(str(root))}, batch_size=4, num_workers=count)
        data.setup("fit")
        return list(data.train_dataloader())

    for here, there in zip(batches(0), batches(workers), strict=True):
        assert list(here["samples"]) == list(there["samples"])
        for name, value in here["conversation"].items():
            assert torch.equal(value, there["conversation"][name])
        assert torch.equal(here["loss_mask"], there["loss_mask"])


def test_collate_pickles(model_id):
    data = ConversationDataModule(model_id, {"test": Questions(["?"], [1])})
    data.setup("test")
    (item,) = list(data.splits["test"])
    collate = pickle.loads(pickle.dumps(data.train_collate()))
    first, second = (collate([item])["conversation"]["input_ids"] for collate in (collate, data.train_collate()))
    assert torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_lightning_moves_and_casts_batches(precision, model_id, root):
    class Look(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.kinds = set()

        def _look(self, batch):
            assert isinstance(batch["samples"], Samples) and isinstance(batch["samples"][0], Sample)
            self.kinds.add(batch["prompt"]["input_ids"].dtype)

        def training_step(self, batch, batch_idx):
            self._look(batch)
            return self.layer.weight.sum()

        def validation_step(self, batch, batch_idx):
            self._look(batch)

        def predict_step(self, batch, batch_idx):
            self._look(batch)
            return [sample.id for sample in batch["samples"]]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    data = PromptDataModule(model_id, {"all": HAM10000(str(root))}, batch_size=4)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False, limit_train_batches=2,
    )  # fmt: skip
    module = Look()
    trainer.fit(module, datamodule=data)
    predicted = [name for names in trainer.predict(module, datamodule=data) for name in names]
    assert predicted == rows_of(data.test_dataloader())
    assert module.kinds == {torch.int64}


def test_processes_share_the_batches(model_id, root):
    def loaders(rank: int, world_size: int, batch_size: int) -> tuple[list, list]:
        data = PromptDataModule(model_id, {"all": HAM10000(str(root))}, batch_size=batch_size, seed=4)
        data.setup("fit")
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        return list(data.train_dataloader()), rows_of(data.val_dataloader())

    (first, val_first), (second, val_second) = loaders(0, 2, 2), loaders(1, 2, 2)
    whole, val = loaders(0, 1, 4)
    assert [rows_of([a]) + rows_of([b]) for a, b in zip(first, second, strict=True)] == [rows_of([b]) for b in whole]
    assert sorted(val_first + val_second) == sorted(val)


def test_balanced_training_batches(model_id, tmp_path):
    rows = [(f"{i}.jpg", "melanoma" if i < 6 else "nevus") for i in range(60)]
    for name, _ in rows:
        write_jpeg(tmp_path / name)
    path = write_csv(tmp_path / "table.csv", ("file", "dx"), rows)
    source = TabularSource(str(path), "file", "dx")
    data = PromptDataModule(model_id, {"train": source}, batch_size=10, balance=True)
    data.setup("fit")
    loader = data.train_dataloader()
    drawn = Counter()
    for epoch in range(10):
        loader.sampler.set_epoch(epoch)
        drawn.update(data.splits["train"].source[i].target for i in loader.sampler)
    assert abs(drawn["melanoma"] - 300) < 4 * (600 * 0.25) ** 0.5  # four standard deviations


def test_limit_keeps_lesions_whole(model_id, root):
    source = HAM10000(str(root))
    whole = PromptDataModule(model_id, {"all": source})
    small = PromptDataModule(model_id, {"all": source}, limit={"train": 6})
    for data in (whole, small):
        data.setup("fit")
    chosen, everything = small.splits["train"], whole.splits["train"]
    assert len(chosen) == 6 and set(chosen.indices) < set(everything.indices)
    assert set(Counter(source[i].group for i in chosen.indices).values()) == {2}
    assert small.splits["test"].indices == whole.splits["test"].indices


def test_separate_sources(model_id):
    sources = {"train": PhantomSource(8, seed=1), "val": PhantomSource(4, seed=2), "test": PhantomSource(4, seed=3)}
    data = PromptDataModule(model_id, sources, batch_size=4)
    data.setup("fit")
    assert {split: len(dataset) for split, dataset in data.splits.items()} == {"train": 8, "val": 4, "test": 4}


# What setup refuses


def refusal(data: DermDataModule, stage: str = "fit") -> str:
    with pytest.raises(DataError) as caught:
        data.setup(stage)
    return str(caught.value)


def test_construction_reads_nothing():
    PromptDataModule("no/model", {"all": HAM10000("no/folder")})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sources": {"all": None, "test": None}}, "`sources` has 'test'; it may have all, or 'all' alone"),
        ({"sources": {"training": None}}, "`sources` has 'training'; it may have train, val, test, or 'all' alone"),
        ({"sources": {}}, "`sources` has no entries"),
        ({"fractions": {"train": 0.9, "dev": 0.1}}, "`fractions` has 'dev'; it may have train, val, test."),
        ({"limit": {"all": 3}}, "`limit` has 'all'; it may have train, val, test."),
        ({"balance": ["age"]}, "`balance` has 'age'; it may have label, skin_type, dataset."),
        ({"split_file": "s.parquet", "fractions": HALVES}, "give it alone, without `fractions`"),
        ({"split_file": "s.parquet", "sources": {"train": None}}, "`split_file` says how the source `all` is split"),
    ],
)
def test_unknown_splits_are_refused_at_construction(options, expected):
    with pytest.raises(DataError) as caught:
        PromptDataModule("m", **{"sources": {"all": None}} | options)
    assert expected in str(caught.value)


def test_the_same_group_in_two_sources(model_id):
    sources = {"train": Questions(["?"] * 3, [1] * 3), "test": Questions(["?"], [1])}
    message = refusal(PromptDataModule(model_id, sources))
    assert "the group 'q-0' stands in the sources of train and test" in message and "give one source `all`" in message


def test_empty_splits(model_id):
    assert "the train split is empty: its source has no samples" in refusal(
        PromptDataModule(model_id, {"train": Questions([], [])})
    )
    assert "the val split is empty: 1 group(s)" in refusal(PromptDataModule(model_id, {"all": Questions(["?"], [1])}))


def test_a_split_that_was_not_asked_for(model_id):
    data = PromptDataModule(model_id, {"all": Questions(["?"] * 4, [1] * 4)}, fractions=HALVES)
    data.setup("fit")
    with pytest.raises(DataError, match=r"there is no val split: the data have train, test.*limit_val_batches=0"):
        data.val_dataloader()


@pytest.mark.parametrize(("longest", "images"), [("word " * 300, 1), ("Which one?", 12)])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_prompt_longer_than_the_context_is_refused_at_setup(split, longest, images, model_id, tmp_path):
    short = shutil.copytree(model_id, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 300
    (short / "config.json").write_text(json.dumps(config))
    sources = {name: Questions(["?"] * 4, [1] * 4, name) for name in ("train", "val", "test")}
    options = {"system_prompt": "Name it.", "max_new_tokens_reserve": 100}
    PromptDataModule(str(short), sources, **options).setup("fit")
    sources[split] = Questions(["?"] * 3 + [longest], [1] * 3 + [images], split)
    message = refusal(PromptDataModule(str(short), sources, **options), "test" if split == "test" else "fit")
    assert message.startswith(f"sample '{split}-3': its prompt of ") and f"({images} image(s))" in message
    assert "100 tokens of completion do not fit into the 300 tokens of context" in message
    assert "Nothing is truncated" in message


def test_a_completion_longer_than_the_context_is_refused_in_training(model_id, tmp_path):
    short = shutil.copytree(model_id, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 150
    (short / "config.json").write_text(json.dumps(config))
    source = Questions(["?"] * 2, [1] * 2)
    item = Item(replace(source[0], reasoning="brown " * 200), [source.image("")])
    data = ConversationDataModule(str(short), {"all": source}, system_prompt="Name it.", max_new_tokens_reserve=8)
    with pytest.raises(DataError, match=r"sample 'q-0': its prompt of \d+ tokens .* do not fit into the 150 tokens"):
        data.train_collate()([item])
