"""Splits that keep what belongs together on one side: ``python -m dermiq.datamodules.splits --help``."""

from dermiq.datamodules.splits.clusters import Numbers, cluster_names, encoded, straddling
from dermiq.datamodules.splits.file import parts_of
from dermiq.datamodules.splits.sharing import joined, limit_by_group, shares_in_words, split_by_group, split_table
from dermiq.datamodules.splits.source import SplitSource

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
