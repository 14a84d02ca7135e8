"""Within an epoch a run goes on over the same rows: their ids, order, questions, answers and files are remembered."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermiq.datamodules import PromptDataModule
from dermiq.datamodules.curriculum import Curriculum
from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sources import ConcatSource, Conversations, Preferences, TabularSource
from dermiq.schema import TrainingError

ROWS = [
    {
        "image": f"{i:02d}.jpg",
        "label": ("melanoma", "psoriasis")[i % 2],
        "question": f"What is number {i:02d}?",
        "id": f"c{i}",
    }
    for i in range(16)
]


def exchanged(rows, i, j):
    other = list(rows)
    other[i], other[j] = rows[j], rows[i]
    return other


def changed(rows, i, **values):
    return [row | values if place == i else row for place, row in enumerate(rows)]


TABLES = {
    "reordered": exchanged(ROWS, 3, 9),
    "reordered, same label": exchanged(ROWS, 3, 5),
    "reversed": ROWS[::-1],
    "relabelled": changed(ROWS, 4, label="psoriasis"),
    "labels exchanged": changed(changed(ROWS, 4, label="psoriasis"), 5, label="melanoma"),
    "another image": changed(ROWS, 4, image="99.jpg"),
    "another question of the same length": changed(ROWS, 4, question="What is Number 04?"),
    "another id": changed(ROWS, 4, id="c99"),
    "one less": ROWS[:15],
    "one more": [*ROWS, ROWS[0] | {"id": "c16"}],
    "replaced": changed(ROWS, 15, image="98.jpg", label="melanoma", id="c98", question=""),
}
NO_ID = {"another id"}


def tabular(folder, rows, suffix="csv", **options):
    folder.mkdir(exist_ok=True)
    path = folder / f"table.{suffix}"
    if suffix == "csv":
        path.write_text("\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in rows)]))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    source = TabularSource(str(path), "image", "label", question_column="question", **options)
    source.load()
    return source


@pytest.mark.parametrize("id_column", ["id", None])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_change_of_a_table_is_seen_and_its_place_is_not(kind, id_column, tmp_path):
    before = tabular(tmp_path / "a", ROWS, kind, id_column=id_column).table().fingerprint()
    moved = tabular(tmp_path / "b", ROWS, kind, id_column=id_column, image_root=str(tmp_path / "elsewhere"))
    assert moved.table().fingerprint() == before
    for number, (name, rows) in enumerate(TABLES.items()):
        other = tabular(tmp_path / f"c{number}", rows, kind, id_column=id_column).table()
        assert (other.fingerprint() != before) == (id_column is not None or name not in NO_ID), name


def test_options_and_images_in_the_table_count(tmp_path):
    def choices(folder, options, content=b"1", label="A"):
        rows = [{"image": {"bytes": content, "path": None}, "label": label, "options": options, "question": "Which?"}]
        return tabular(tmp_path / folder, rows, "parquet", kind="choice", options_column="options")

    two = ["eczema", "vitiligo"]
    tables = [(two,), (["eczema", "lipomaaa"],), (two, b"2"), (two, b"1", "B")]
    sources = [choices(f"d{number}", *arguments) for number, arguments in enumerate(tables)]
    assert len({source.table().fingerprint() for source in sources}) == 4


def talk(folder, rows, kind=Conversations):
    folder.mkdir(exist_ok=True)
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = kind(str(folder / "talk.jsonl"))
    source.load()
    return source


def said(question, reply, **more):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}], **more}


TALK = [said(f"What is {i}?", f"It is {i}.", images=[f"{i}.jpg"], id=f"t{i}") for i in range(8)]
PAIRS = [
    {"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": f"It is {i + 1}.", "margin": 0.5, "id": f"p{i}"}
    for i in range(8)
]


@pytest.mark.parametrize(
    ("kind", "rows", "other"),
    [
        (Conversations, TALK, exchanged(TALK, 1, 6)),
        (Conversations, TALK, changed(TALK, 1, **said("What is 1?", "It is 7."))),
        (Conversations, TALK, changed(TALK, 1, **said("What is 7?", "It is 1."))),
        (Conversations, TALK, changed(TALK, 1, images=["7.jpg"])),
        (Conversations, TALK, changed(TALK, 1, target="melanoma")),
        (Preferences, PAIRS, exchanged(PAIRS, 1, 6)),
        (Preferences, PAIRS, changed(PAIRS, 1, chosen="It is 9.")),
        (Preferences, PAIRS, changed(PAIRS, 1, rejected="It is 9.")),
        (Preferences, PAIRS, changed(PAIRS, 1, chosen="It is 2.", rejected="It is 1.")),
        (Preferences, PAIRS, changed(PAIRS, 1, margin=0.25)),
    ],
)
def test_every_change_of_conversations_and_pairs_is_seen(kind, rows, other, tmp_path):
    before, again, now = (
        talk(tmp_path / name, each, kind).table().fingerprint()
        for name, each in (("a", rows), ("b", rows), ("c", other))
    )
    assert before == again != now


def test_two_sources_in_another_order_are_other_rows(tmp_path):
    first, second = talk(tmp_path / "a", TALK[:4]), talk(tmp_path / "b", TALK[4:])
    one, other = ConcatSource([first, second]).table(), ConcatSource([second, first]).table()
    assert one.fingerprint() != other.fingerprint()
    assert other.take(np.array([4, 5, 6, 7, 0, 1, 2, 3])).fingerprint() == one.fingerprint()


def test_a_million_rows_take_seconds():
    ids = np.arange(1_000_000).astype(str)
    table = SampleTable.from_columns(
        id=ids, group=ids, target="nevus", question_length=0, images=1, length=9, content=np.arange(1_000_000)
    )
    fingerprint = table.fingerprint()
    assert table.take(np.roll(np.arange(1_000_000), 1)).fingerprint() != fingerprint


def module(family_dir, source, **options):
    made = PromptDataModule(str(family_dir("idefics3")), {"train": source}, batch_size=2, **options)
    made._split()
    return made.train_dataloader()


OPTIONS = [{}, {"balance": True}, {"limit": {"train": 12}}, {"curriculum": Curriculum()}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_within_an_epoch_other_rows_are_refused_and_between_epochs_they_are_taken(options, family_dir):
    def phantom(seed):
        return module(family_dir, PhantomSource(16, size=16, seed=seed), **options)

    loader = phantom(4)
    for _ in itertools.islice(loader, 2):
        pass
    position = loader.state_dict()
    phantom(4).load_state_dict(position)
    with pytest.raises(
        TrainingError, match=r"after 2 batches of epoch 0.*the rows are others, in another order, or have"
    ):
        phantom(77).load_state_dict(position)
    for _ in loader:
        pass
    if "curriculum" not in options:
        phantom(77).load_state_dict(loader.state_dict())
    else:
        with pytest.raises(TrainingError, match=r"counts the successes of other training samples"):
            phantom(77).load_state_dict(loader.state_dict())


def test_less_rows_than_were_served_are_refused_too(family_dir, tmp_path):
    loader = module(family_dir, PhantomSource(16, size=16))
    for _ in itertools.islice(loader, 5):
        pass
    with pytest.raises(TrainingError, match=r"samples 16 -> 8"):
        module(family_dir, PhantomSource(8, size=16)).load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    "state", [{}, None, 5, [], {"epoch": 0, "served": 1}, {"epoch": "0", "served": 1, "order": {}}]
)
def test_a_place_that_is_none(state, family_dir):
    with pytest.raises(TrainingError, match=r"The checkpoint's place in the training data is incomplete"):
        module(family_dir, PhantomSource(8, size=16)).load_state_dict(state)


def test_a_place_of_an_earlier_version_is_taken_as_far_as_can_be_told(family_dir):
    loader = module(family_dir, PhantomSource(16, size=16, seed=4))
    next(iter(loader))
    position = loader.state_dict()
    del position["order"]["rows"]
    module(family_dir, PhantomSource(16, size=16, seed=5)).load_state_dict(position)
    with pytest.raises(TrainingError, match=r"samples 16 -> 8"):
        module(family_dir, PhantomSource(8, size=16)).load_state_dict(position)


def test_a_run_is_not_resumed_over_reordered_rows(lab, tmp_path):
    """Stopped within its epoch; rows that lie elsewhere are the same rows."""
    names = sorted(path.relative_to(lab.photographs) for path in lab.photographs.glob("*/*.jpg"))
    rows = changed(ROWS, 0)
    for row, name in zip(rows, names, strict=False):
        row["image"] = str(name)

    def fit(steps, folder, rows, *more):
        path = tabular(tmp_path / folder, rows).path
        options = {"path": path, "image_column": "image", "label_column": "label", "image_root": str(lab.photographs)}
        source = {"train": {"class_path": "dermiq.datamodules.sources.TabularSource", "init_args": options}}
        data = ["--data.fractions=null", f"--data.sources={json.dumps(source)}"]
        lab.run("fit", "SFTModule", tmp_path / "run", *data, f"--trainer.max_steps={steps}", *more)

    fit(2, "here", rows)
    with pytest.raises(TrainingError, match=r"after 2 batches of epoch 0.*the rows are others"):
        fit(3, "other", exchanged(rows, 2, 4), "--ckpt_path=last")
    fit(3, "moved", rows, "--ckpt_path=last")
