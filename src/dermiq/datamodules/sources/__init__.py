"""Adapters of data sets: each yields `dermiq.schema.Sample` in the layout in which its set is published."""

from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.ham10000 import HAM10000
from dermiq.datamodules.sources.messages import Conversations
from dermiq.datamodules.sources.part import Part
from dermiq.datamodules.sources.preferences import Preferences
from dermiq.datamodules.sources.questions import ChoiceQuestions, FindingQuestions, ManagementQuestions
from dermiq.datamodules.sources.tabular import TabularSource
from dermiq.datamodules.sources.together import Together

__all__ = [
    "HAM10000",
    "ChoiceQuestions",
    "Conversations",
    "FindingQuestions",
    "ManagementQuestions",
    "Part",
    "Preferences",
    "Source",
    "TabularSource",
    "Together",
]
