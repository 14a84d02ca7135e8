"""Splits without leaks, by group, link and duplicate: ``python -m dermiq.datamodules.splits --help``."""

from dermiq.datamodules.splits.clusters import Numbers, cluster_names, encoded, straddling
from dermiq.datamodules.splits.file import parts_of
from dermiq.datamodules.splits.source import SplitSource
from dermiq.datamodules.splits.stratified import joined, limit_by_group, shares_in_words, split_by_group, split_table

__all__ = [
    "Numbers",
    "SplitSource",
    "cluster_names",
    "encoded",
    "joined",
    "limit_by_group",
    "parts_of",
    "shares_in_words",
    "split_by_group",
    "split_table",
    "straddling",
]
