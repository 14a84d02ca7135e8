"""What belongs together: clusters of ties, lists of duplicates, images that look alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sources import HAM10000
from dermiq.datamodules.splits.clusters import Tie, union
from dermiq.datamodules.splits.duplicates import listed_tie
from dermiq.datamodules.splits.perceptual import close_pairs, near_duplicates
from dermiq.schema import DataError
from support.small_data import write_csv, write_ham10000


def naive_clusters(length, ties):
    """Clusters by walking from sample to sample."""
    owners = [{key: {s for s, k in tie if k == key} for _, key in tie} for tie in ties]
    found = list(range(length))
    for start in range(length):
        reached, edge = {start}, [start]
        while edge:
            sample = edge.pop()
            for tie, holders in zip(ties, owners, strict=True):
                for s, key in tie:
                    edge += [other for other in holders[key] - reached if s == sample]
                    reached |= holders[key] if s == sample else set()
        found[start] = min(reached)
    return found


ties = st.lists(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 9)), max_size=12), max_size=3)


@settings(max_examples=40)
@given(ties)
def test_union_reaches_all_that_is_tied(entries):
    made = union(15, [Tie(*(np.array([entry[i] for entry in tie], np.int64) for i in (0, 1))) for tie in entries])
    assert made.tolist() == naive_clusters(15, entries)


def test_union_of_a_long_chain():
    order = np.random.default_rng(0).permutation(5000)
    chain = Tie(np.repeat(order, 2)[1:-1], np.repeat(np.arange(4999), 2))
    assert set(union(5000, [chain]).tolist()) == {0}


# Lists of duplicates


@pytest.fixture
def table() -> SampleTable:
    """Twenty samples, each with an id of the ISIC archive."""
    names = [str(i) for i in range(20)]
    links = [[f"isic:{name}"] for name in names]
    return SampleTable.from_columns(
        id=names, group=names, target="nevus", question_length=0, images=1, length=0, dataset="one", links=links
    )


@pytest.mark.parametrize(
    ("header", "listed"),
    [
        (
            ("similarity", "from_img", "to_img"),
            [(0.98, "3.jpg", "5.JPG"), (0.98, "7.jpg", "no.jpg"), (0.9, "no.jpg", "9.jpg")],
        ),
        (("image", "cluster"), [("one:3", "a"), ("7", "b"), ("5", "a"), ("9", "b")]),
        (("first", "second", "third"), [("isic:3", "5", ""), ("isic:7", "", "one:9")]),
    ],
)
def test_lists_of_duplicates(header, listed, tmp_path, table):
    path = str(write_csv(tmp_path / "list.csv", header, listed))
    clusters = union(20, [listed_tie([path], table)])
    assert clusters[5] == clusters[3] == 3 and clusters[9] == clusters[7] == 7
    assert len(set(clusters.tolist())) == 18


def test_a_list_that_names_nothing_is_refused(tmp_path, table):
    path = str(write_csv(tmp_path / "list.csv", ("a", "b"), [("3", "x"), ("y", "z")]))
    with pytest.raises(DataError, match=r"list.csv: no row names two samples of these sources"):
        listed_tie([path], table)


# Images that look alike


@pytest.mark.parametrize("distance", [0, 5, 32, 64])
def test_close_pairs_are_those_of_a_comparison_of_all(distance):
    chance = np.random.default_rng(distance)
    bits = chance.integers(0, 2, (300, 256), dtype=np.uint8)
    for copy in range(150, 300):  # near ones, up to twice as far
        flipped = chance.choice(256, chance.integers(0, 2 * distance + 2), replace=False)
        bits[copy] = bits[copy - 150]
        bits[copy, flipped] ^= 1
    hashes = np.unique(np.packbits(bits, axis=1).view(np.uint64), axis=0)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    expected = np.argwhere(np.triu(apart <= distance, 1))
    assert len(expected) or distance == 0
    assert close_pairs(hashes, distance).tolist() == expected.tolist()


def test_a_photograph_is_found_again_smaller_and_compressed(tmp_path):
    root = write_ham10000(tmp_path, lesions_per_diagnosis=1)
    photographs = sorted(root.glob("*/*.jpg"))
    with Image.open(photographs[0]) as image:
        image.resize((80, 60)).save(photographs[9], quality=60)
    photographs[12].write_bytes(b"no image")
    source = HAM10000(str(root))
    source.load()
    tie, images, unreadable = near_duplicates([source], 32, processes=2)
    clusters = union(14, [tie])
    ids = [sample.id for sample in source]
    copy, original = (ids.index(path.stem) for path in (photographs[9], photographs[0]))
    assert clusters[copy] == clusters[original] and len(set(clusters.tolist())) == 13
    assert images == 14 and len(unreadable) == 1 and str(photographs[12]) in unreadable[0]
    with pytest.raises(DataError, match="`perceptual_distance` is 65, of 256 bits"):
        near_duplicates([source], 65)


@pytest.mark.slow
def test_what_looks_alike_among_real_photographs_is_one_lesion(data_root):
    source = HAM10000(str(data_root / "ham10000"))
    source.load()
    clusters = union(len(source), [near_duplicates([source], 32).tie])
    lesions: dict[int, set[str]] = {}
    names: dict[int, set[str]] = {}
    for cluster, sample in zip(clusters.tolist(), source, strict=True):
        lesions.setdefault(cluster, set()).add(sample.group)
        names.setdefault(cluster, set()).add(sample.id)
    wrong = [names[cluster] for cluster, groups in lesions.items() if len(groups) > 1]
    # A pair that Abhishek et al., Scientific Data 12 (2025), list as one lesion under two names.
    assert wrong == [{"ISIC_0025226", "ISIC_0030074"}]
    assert sum(len(held) > 1 for held in names.values()) > 50
