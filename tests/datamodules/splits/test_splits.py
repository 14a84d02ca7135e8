"""Splits: no group on two sides, every label on every side, the same for everyone."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermiq.datamodules.sources import HAM10000, ConcatSource, Source
from dermiq.datamodules.splits import limit_by_group, parts_of, split_by_group
from dermiq.datamodules.splits.__main__ import main, make_split, parser
from dermiq.datamodules.splits.clusters import group_tie
from dermiq.datamodules.splits.leaks import leaks_by_cause, random_leak
from dermiq.programs.exits import exit_codes
from dermiq.schema import DataError, Sample
from support.small_data import write_ham10000

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}

# Groups of one to four samples, all of one label, at least three groups of each label.
tables = st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=25), min_size=1, max_size=4).map(
    lambda labels: [
        (f"group-{label}-{group}", f"label-{label}")
        for label, sizes in enumerate(labels)
        for group, size in enumerate(sizes)
        for _ in range(size)
    ]
)


@given(tables, st.integers(0, 5))
def test_split_is_a_partition_that_keeps_groups_whole_and_every_label_everywhere(table, seed):
    groups, labels = zip(*table, strict=True)
    splits = split_by_group(groups, labels, FRACTIONS, seed)
    assert sorted(index for chosen in splits.values() for index in chosen) == list(range(len(table)))
    held = {name: {groups[i] for i in chosen} for name, chosen in splits.items()}
    assert not held["train"] & held["val"] and not held["train"] & held["test"] and not held["val"] & held["test"]
    for chosen in splits.values():
        assert {labels[i] for i in chosen} == set(labels)


@given(tables, st.randoms(use_true_random=False))
def test_split_does_not_depend_on_the_order_of_the_samples(table, shuffler: random.Random):
    shuffled = shuffler.sample(table, len(table))

    def held(rows):
        groups, labels = zip(*rows, strict=True)
        splits = split_by_group(groups, labels, FRACTIONS, 3)
        return {name: {groups[i] for i in chosen} for name, chosen in splits.items()}

    assert held(table) == held(shuffled)


@given(tables)
def test_every_label_is_shared_out_as_closely_as_its_groups_can_be_cut(table):
    groups, labels = zip(*table, strict=True)
    splits = split_by_group(groups, labels, FRACTIONS, 0)
    largest = max(Counter(groups).values())
    for name, chosen in splits.items():
        for label, count in Counter(labels).items():
            # Besides one group too many or too few, each of the other splits may hold one group that it got
            # only so as not to be empty.
            share = sum(labels[i] == label for i in chosen)
            assert abs(share - FRACTIONS[name] * count) <= 3 * largest


def test_another_seed_gives_another_split():
    groups = [f"lesion-{i}" for i in range(100)]
    splits = [split_by_group(groups, ["nv"] * 100, FRACTIONS, seed)["test"] for seed in (0, 1)]
    assert len(splits[0]) == len(splits[1]) == 10
    assert not np.array_equal(splits[0], splits[1])


def test_a_group_with_two_labels_counts_under_the_rarer():
    groups = ["a", "a", "b", "c"] + [f"n{i}" for i in range(40)]
    labels = ["nv", "mel", "mel", "mel"] + ["nv"] * 40
    splits = split_by_group(groups, labels, FRACTIONS, 0)
    for chosen in splits.values():
        assert sum(groups[i] in ("a", "b", "c") and labels[i] == "mel" for i in chosen) == 1


def test_an_empty_split_says_which_and_what_to_do():
    with pytest.raises(
        DataError, match=r"the test split is empty: 2 group\(s\) of 3 sample\(s\) are too few for 3 splits"
    ):
        split_by_group(["a", "a", "b"], ["nv"] * 3, FRACTIONS, 0)


@pytest.mark.parametrize("fractions", [{"train": 0.8, "test": 0.1}, {"train": 1.1, "test": -0.1}, {}])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(DataError, match=r"positive and add up to 1"):
        split_by_group(["a", "b"], ["nv", "nv"], fractions, 0)


@given(tables, st.integers(4, 60))
def test_limit_keeps_whole_groups_up_to_the_limit(table, limit):
    groups, labels = zip(*table, strict=True)
    chosen = limit_by_group(groups, labels, limit, 0)
    assert 0 < len(chosen) <= limit
    kept = {groups[i] for i in chosen}
    assert len(chosen) == sum(group in kept for group in groups)
    if limit >= len(table):
        assert chosen.tolist() == list(range(len(table)))


def test_limit_keeps_the_proportions():
    groups = [str(i) for i in range(100)]
    labels = ["nv"] * 80 + ["mel"] * 20
    chosen = limit_by_group(groups, labels, 10, 0)
    assert Counter(labels[i] for i in chosen) == {"nv": 8, "mel": 2}
    assert set(chosen) < set(limit_by_group(groups, labels, 30, 0))


def test_a_limit_that_nothing_fits_is_refused():
    with pytest.raises(DataError, match=r"a limit of 1 sample\(s\) leaves nothing"):
        limit_by_group(["a", "a"], ["nv", "nv"], 1, 0)


@settings(max_examples=40)
@given(tables)
def test_what_stands_within_a_label_is_shared_out_too(table):
    groups, labels = zip(*table, strict=True)
    within = [f"tone-{int(group.rsplit('-', 1)[1]) % 3}" for group in groups]
    splits = split_by_group(groups, labels, FRACTIONS, 1, within)
    assert {labels[i] for i in splits["test"]} == {labels[i] for i in splits["val"]} == set(labels)
    kinds = list(zip(labels, within, strict=True))
    largest = max(Counter(groups).values())
    for name, chosen in splits.items():
        for kind, count in Counter(kinds).items():
            assert abs(sum(kinds[i] == kind for i in chosen) - FRACTIONS[name] * count) <= 4 * largest


def test_skin_types_reach_every_split_where_chance_would_miss_them():
    labels, within = ["nv"] * 400, ["VI"] * 20 + ["II"] * 380
    splits = split_by_group([str(i) for i in range(400)], labels, FRACTIONS, 0, within)
    assert {name: sum(i < 20 for i in chosen) for name, chosen in splits.items()} == {"train": 16, "val": 2, "test": 2}


# Data sets that links tie together


class Rows(Source):
    """Samples of which groups and links are given; images are drawn from a seed."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows

    def load(self) -> None:
        pass

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return Sample(images=("a.png",), label="nv", **{"target": "nevus", "dataset": "one"} | self.rows[index])

    def image(self, reference: str) -> Image.Image:
        raise DataError("a.png: the image is missing.")


def rows(count: int, dataset: str, links=lambda i: ()) -> list[dict]:
    targets = ("nevus", "melanoma")
    return [
        {"id": f"{i}", "group": f"{dataset}:{i}", "target": targets[i % 2], "dataset": dataset, "links": links(i)}
        for i in range(count)
    ]


def both(reverse: bool = False) -> ConcatSource:
    """Two data sets: samples 2i and 2i + 1 of the first are one lesion by links, and sample i of the second, too."""
    first = rows(60, "one", lambda i: (f"lesion:{i // 2}", f"isic:{i}"))
    second = rows(30, "two", lambda i: (f"isic:{2 * i}",))
    return ConcatSource([Rows(second[::-1]), Rows(first[::-1])] if reverse else [Rows(first), Rows(second)])


def split_file(path, reverse=False, **options):
    make_split(both(reverse).sources, path, **options)
    return path


def test_links_tie_samples_across_data_sets_whatever_their_order(tmp_path):
    path = split_file(tmp_path / "split.parquet")
    table = pq.read_table(path)
    assert table.column_names == ["dataset", "id", "group", "split"] and table.num_rows == 90
    clusters: dict[str, set] = {}
    for row in table.to_pylist():
        lesion = int(row["id"]) // (2 if row["dataset"] == "one" else 1)
        assert row["group"] == min(f"one:{2 * lesion}", f"one:{2 * lesion + 1}")
        clusters.setdefault(row["group"], set()).add(row["split"])
    assert len(clusters) == 30 and all(len(splits) == 1 for splits in clusters.values())
    assert pq.read_table(split_file(tmp_path / "other.parquet", reverse=True)).equals(table)
    assert split_file(tmp_path / "again.parquet").read_bytes() == path.read_bytes()
    leaks = {
        cause: leak["mean"] for cause, leak in json.loads(table.schema.metadata[b"dermiq.splits"])["leaks"].items()
    }
    assert leaks["group"] == 0 < leaks["links"] == leaks["all"]


def test_a_random_split_leaks_what_theory_says():
    # Of pairs, a test sample's companion is in train with probability 800 / 999.
    leak = random_leak(np.repeat(np.arange(500), 2), 0.8, 0.2)
    assert abs(leak.mean - 800 / 999) < 4 * leak.sd / 20**0.5 and 0 < leak.sd < 0.05
    assert random_leak(np.arange(1000), 0.8, 0.2) == (0.0, 0.0)


# The command and its file


def test_the_command(tmp_path, capsys):
    root = write_ham10000(tmp_path / "ham", lesions_per_diagnosis=4)
    config = tmp_path / "splits.yaml"
    source = {"class_path": "dermiq.datamodules.sources.HAM10000", "init_args": {"root": str(root)}}
    config.write_text(json.dumps({"sources": [source], "fractions": {"train": 0.5, "test": 0.5}, "seed": 3}))
    path = tmp_path / "made" / "split.parquet"
    main(["--config", str(config), "--out", str(path), "--seed=4", "--perceptual_distance=8"])
    said = capsys.readouterr().out
    assert "56 samples in 28 clusters" in said and "perceptual hash" in said and f"Wrote {path}." in said
    settings = json.loads(pq.read_schema(path).metadata[b"dermiq.splits"])
    assert settings["seed"] == 4 and settings["sources"][0]["init_args"]["root"] == str(root)
    with pytest.raises(SystemExit) as ended, exit_codes():
        main(["--config", str(config), "--out", str(path), '--fractions={"train": 1.0}'])
    assert ended.value.code == 2 and "at least two shares" in capsys.readouterr().err


def test_the_example_can_be_read():
    example = Path(__file__).parents[3] / "configs" / "data" / "splits_example.yaml"
    options = parser().parse_args(["--config", str(example), "--out", "split.parquet"])
    ready = parser().instantiate(options)
    assert all(isinstance(source, Source) for source in ready.sources) and ready.perceptual_distance == 32


def test_samples_that_a_split_file_does_not_name_are_an_error(tmp_path):
    path = split_file(tmp_path / "split.parquet")
    with pytest.raises(DataError) as caught:
        parts_of(path, Rows(rows(63, "one")).table())
    assert "does not name 3 of 63 samples: '60' of one, '61' of one, '62' of one." in str(caught.value)
    assert f"python -m dermiq.datamodules.splits --config splits.yaml --out {path}" in str(caught.value)


def test_a_split_file_older_than_its_sources_is_an_error(tmp_path):
    make_split([Rows(rows(60, "one"))], tmp_path / "split.parquet")
    tied = Rows(rows(60, "one", lambda i: (f"lesion:{i // 30}",))).table()
    with pytest.raises(DataError, match="puts samples of the link 'lesion:0' into both"):
        parts_of(tmp_path / "split.parquet", tied)


def test_what_is_no_split_file_is_refused(tmp_path):
    table = Rows(rows(3, "one")).table()
    with pytest.raises(DataError, match=r"absent.parquet: the split file is missing. Make it: python -m"):
        parts_of(tmp_path / "absent.parquet", table)
    (tmp_path / "text.parquet").write_text("train")
    with pytest.raises(DataError, match=r"text.parquet: the split file cannot be read"):
        parts_of(tmp_path / "text.parquet", table)
    pq.write_table(table.arrow, tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other.parquet: no split file, it lacks the column\(s\) split"):
        parts_of(tmp_path / "other.parquet", table)


def test_ids_that_stand_twice_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"3 id\(s\) stand twice in the data set 'one', '0' among them"):
        make_split([Rows(rows(30, "one")), Rows(rows(3, "one"))], tmp_path / "split.parquet")
    assert not list(tmp_path.iterdir())


# Real data


@pytest.fixture
def metadata(data_root, tmp_path) -> HAM10000:
    """HAM10000 whole, without its photographs."""
    (tmp_path / "HAM10000_images_part_1").mkdir()
    shutil.copy(data_root / "ham10000_metadata_full" / "HAM10000_metadata.csv", tmp_path)
    return HAM10000(str(tmp_path))


def test_a_random_split_of_the_real_metadata_leaks_as_published(metadata):
    metadata.load()
    table = metadata.table()
    leaks = leaks_by_cause(len(table), {"group": group_tie(table)}, {"train": 0.8, "test": 0.2})
    assert len(table) == 10_015
    assert abs(leaks["group"].mean - 0.384) < 4 * 0.010 / 20**0.5  # the reference: 38.4 %, sd 1.0 of 20 seeds
    assert 0.005 < leaks["group"].sd < 0.02
