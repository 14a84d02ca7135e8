"""Checkpoint files that are damaged, foreign or junk: each ends in one sentence, none in other weights."""

from __future__ import annotations

import pickle
import random
import zipfile

import numpy as np
import pytest
import torch

from dermiq.policy.checkpoint_files import read_checkpoint, refuse_misfit
from dermiq.schema import DermIQError, TrainingError
from dermiq.trainer.checkpointing import AtomicCheckpointIO
from support.runs import different

SHARE = 400  # of random bits


def content():
    """A small checkpoint with every kind of value that one holds."""
    weights = {f"layer.{i}.lora_A.weight": torch.randn(3, 4 + i) for i in range(4)}
    state = {i: {"step": torch.tensor(3.0), "exp_avg": torch.randn(3, 4 + i)} for i in range(4)}
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1, 2, 3]}]
    numbers = (3, tuple(range(40)), None)
    return {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 3,
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": state, "param_groups": groups}],
        "lr_schedulers": [],
        "dermiq": {
            "stage": "SFTModule",
            "random": {
                "torch": torch.get_rng_state(),
                "python": numbers,
                "numpy": ("MT19937", torch.arange(9), 1, 0, 0.0),
            },
            "gradients": {},
        },
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whole") / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(), path)
    return path, read_checkpoint(path)


def refused_or_equal(path, expected):
    """True if a file is refused in one sentence, False if it loads with equal content."""
    try:
        found = read_checkpoint(path)
    except TrainingError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    assert different(found, expected) == []
    return False


def test_no_flipped_bit_loads_other_content(whole, tmp_path):
    path, expected = whole
    data, bits = path.read_bytes(), random.Random(0)
    refused = 0
    for place in bits.sample(range(len(data) * 8), SHARE):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / "last.ckpt").write_bytes(damaged)
        refused += refused_or_equal(tmp_path / "last.ckpt", expected)
    assert refused > SHARE / 2


def test_an_entry_that_becomes_a_folder_is_refused(whole, tmp_path):
    """A bit outside of what checksums cover, for which torch returns memory as it is."""
    path, expected = whole
    damaged = bytearray(path.read_bytes())
    name = damaged.rindex(b"/data/3")
    entry = damaged.rindex(b"PK\x01\x02", 0, name)
    damaged[entry + 38] ^= 0x10
    (tmp_path / "last.ckpt").write_bytes(damaged)
    assert refused_or_equal(tmp_path / "last.ckpt", expected)


def test_no_zeroed_page_or_torn_file_loads_other_content(whole, tmp_path):
    path, expected = whole
    data = path.read_bytes()
    torn = [data[: len(data) * i // 40] for i in range(40)]
    pages = [data[:i] + bytes(512) + data[i + 512 :] for i in range(0, len(data) - 512, 509)]
    swapped = [
        data[:i] + data[i + 512 : i + 1024] + data[i : i + 512] + data[i + 1024 :] for i in range(512, 4096, 512)
    ]
    for damaged in (*torn, *pages, *swapped, data[1:], data + data, data[::-1]):
        (tmp_path / "last.ckpt").write_bytes(damaged)
        refused_or_equal(tmp_path / "last.ckpt", expected)
    for damaged in torn:
        (tmp_path / "last.ckpt").write_bytes(damaged)
        assert refused_or_equal(tmp_path / "last.ckpt", expected)


def archived(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)


JUNK = {
    "empty": b"",
    "one byte": b"P",
    "text": b"hello",
    "lines": b"hello\nworld\n" * 100,
    "german": "Prüfstand".encode("latin-1"),
    "numbers": b"12345",
    "JSON": b'{"state_dict": {}}',
    "YAML": b"model: {class_path: dermiq.modules.SFTModule}\n",
    "HTML": b"<!doctype html><title>404</title>",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "zeros": bytes(4096),
    "random": random.Random(1).randbytes(4096),
    "a pickle": pickle.dumps({"state_dict": {}}),
    "a pickle of a class": pickle.dumps(np.ones(3)),
    "a number's pickle": pickle.dumps(5),
    "a torn pickle": pickle.dumps(list(range(100)))[:-40],
    "a pickle that pops nothing": b"\x80\x020000.",
    "a deep pickle": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "a NumPy file": b"\x93NUMPY\x01\x00",
    "an image": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "half a zip": b"PK\x03\x04 and no more",
    "the end of a zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_one_sentence(name, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(JUNK[name])
    with pytest.raises(TrainingError, match=r"last.ckpt cannot be read \(.+\). Pass another one, or start a new run"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


ARCHIVES = {
    "without a pickle": {"a.txt": b"hello"},
    "with an empty pickle": {"archive/data.pkl": b"", "archive/version": b"3"},
    "with text for a pickle": {"archive/data.pkl": b"hello", "archive/version": b"3"},
    "of a document": {"[Content_Types].xml": b"<xml/>", "word/document.xml": b"<xml/>"},
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_another_archive_is_one_sentence(name, tmp_path):
    archived(tmp_path / "last.ckpt", ARCHIVES[name])
    with pytest.raises(TrainingError, match=r"cannot be read"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_directory_and_nothing_at_all(tmp_path):
    (tmp_path / "last.ckpt").mkdir()
    for path in (tmp_path / "last.ckpt", tmp_path / "none.ckpt", tmp_path / "last.ckpt" / "a"):
        with pytest.raises(TrainingError, match=r"cannot be read"):
            read_checkpoint(path)


def without(*path):
    made = content()
    part = made
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return made


def with_value(value, *path):
    made = content()
    part = made
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return made


FOREIGN = {
    "a list": ([1, 2], "not written by DermIQ"),
    "a text": ("last", "not written by DermIQ"),
    "nothing": (None, "not written by DermIQ"),
    "a number": (5, "not written by DermIQ"),
    "a tensor": (torch.ones(3), "not written by DermIQ"),
    "weights alone": ({"layer.weight": torch.ones(3)}, "not written by DermIQ"),
    "another Lightning program's": (without("dermiq"), "not written by DermIQ"),
    "an older transformers trainer's": ({"model": {}, "optimizer": {}, "epoch": 3}, "not written by DermIQ"),
    **{
        "no " + " ".join(path): (without(*path), f"it lacks {'/'.join(path)}")
        for path in (
            ("state_dict",),
            ("loops",),
            ("pytorch-lightning_version",),
            ("dermiq", "stage"),
            ("dermiq", "random"),
            ("dermiq", "random", "torch"),
            ("dermiq", "random", "numpy"),
            ("dermiq", "gradients"),
        )
    },
    **{
        f"{value!r} for {' '.join(path)}": (with_value(value, *path), "/".join(path))
        for value, *path in (
            (None, "state_dict"),
            ([], "state_dict"),
            ({"layer.weight": 5}, "state_dict"),
            ({5: torch.ones(1)}, "state_dict"),
            (7, "pytorch-lightning_version"),
            ("fit", "loops"),
            ([], "dermiq"),
            (None, "dermiq", "stage"),
            ({}, "dermiq", "random"),
            (5, "dermiq", "random", "torch"),
            ([], "dermiq", "gradients"),
        )
    },
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_or_incomplete_checkpoint_is_one_sentence(name, tmp_path):
    made, words = FOREIGN[name]
    torch.save(made, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError) as refused:
        read_checkpoint(tmp_path / "last.ckpt")
    assert words in str(refused.value) or "it lacks" in str(refused.value)


def test_the_form_of_nested_entries():
    form = {"a": {"b": int, "c": 5, "d": None}}
    refuse_misfit(form, {"a": {"b": 1, "c": 0, "d": [], "e": 2}}, "This")
    with pytest.raises(DermIQError, match=r"This is incomplete: it lacks a/d\."):
        refuse_misfit(form, {"a": {"b": 1, "c": 0}}, "This")
    with pytest.raises(DermIQError, match=r"This is incomplete: a/c is a str and no int\."):
        refuse_misfit(form, {"a": {"b": 1, "c": "x", "d": 0}}, "This")


# Writing


def unwritable(error):
    def save(*_):
        raise error

    return save


@pytest.mark.parametrize("before", [True, False], ids=["with an earlier one", "the first one"])
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "Free space on this disk"),
        (OSError(122, "Disk quota exceeded"), "Free space on this disk"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3"), "Free space on this disk"),
        (OSError(30, "Read-only file system"), "a directory that may be written to"),
        (PermissionError(13, "Permission denied"), "a directory that may be written to"),
        (AttributeError("Can't get local object 'f.<locals>.<lambda>'"), "has a state which cannot be saved"),
        (RuntimeError(), "Free space on this disk"),
    ],
    ids=repr,
)
def test_a_checkpoint_that_cannot_be_written(error, remedy, before, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    if before:
        AtomicCheckpointIO().save_checkpoint(content(), path)
    monkeypatch.setattr(torch, "save", unwritable(error))
    with pytest.raises(TrainingError, match=remedy) as refused:
        AtomicCheckpointIO().save_checkpoint(content(), path)
    message = str(refused.value)
    assert ("then resume with --ckpt_path last" in message) == before == ("previous checkpoint is whole" in message)
    assert ("There is no earlier one here" in message and "run the same command again" in message) == (not before)
    assert path.exists() == before


def test_a_directory_in_the_place_of_a_checkpoint(tmp_path):
    (tmp_path / "last.ckpt" / "a").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"There is no earlier one here. Move this directory away, then run"):
        AtomicCheckpointIO().save_checkpoint(content(), tmp_path / "last.ckpt")


def test_a_state_that_cannot_be_pickled(tmp_path):
    with pytest.raises(TrainingError, match=r"has a state which cannot be saved"):
        AtomicCheckpointIO().save_checkpoint({"a": lambda: 0}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []
