"""Adapters of data sets: each yields `dermiq.schema.Sample` in the layout in which its set is published."""

from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.bcn20000 import BCN20000
from dermiq.datamodules.sources.ddi import DDI
from dermiq.datamodules.sources.derived.concat import ConcatSource
from dermiq.datamodules.sources.derived.labels_only import LabelsOnly
from dermiq.datamodules.sources.derived.questions import ChoiceQuestions, FindingQuestions, ManagementQuestions
from dermiq.datamodules.sources.derived.reasoning import FormatOnly, NoisyReasoning, TypicalReasoning
from dermiq.datamodules.sources.derm7pt import Derm7pt
from dermiq.datamodules.sources.dermnet import DermNet
from dermiq.datamodules.sources.fitzpatrick17k import Fitzpatrick17k
from dermiq.datamodules.sources.general.accepted import Accepted
from dermiq.datamodules.sources.general.hub import HubDataset
from dermiq.datamodules.sources.general.messages import Conversations
from dermiq.datamodules.sources.general.preferences import Preferences
from dermiq.datamodules.sources.general.tabular import TabularSource
from dermiq.datamodules.sources.ham10000 import HAM10000
from dermiq.datamodules.sources.isic2019 import ISIC2019
from dermiq.datamodules.sources.isic2020 import ISIC2020
from dermiq.datamodules.sources.pad_ufes_20 import PADUFES20
from dermiq.datamodules.sources.path_vqa import PathVQA
from dermiq.datamodules.sources.pmc_vqa import PMCVQA
from dermiq.datamodules.sources.scin import SCIN
from dermiq.datamodules.sources.skincap import SkinCAP
from dermiq.datamodules.sources.skincon import SkinCon
from dermiq.datamodules.sources.slake import SLAKE
from dermiq.datamodules.sources.vqa_rad import VQARAD, VQARADParquet

__all__ = [
    "BCN20000",
    "DDI",
    "HAM10000",
    "ISIC2019",
    "ISIC2020",
    "PADUFES20",
    "PMCVQA",
    "SCIN",
    "SLAKE",
    "VQARAD",
    "Accepted",
    "ChoiceQuestions",
    "ConcatSource",
    "Conversations",
    "Derm7pt",
    "DermNet",
    "FindingQuestions",
    "Fitzpatrick17k",
    "FormatOnly",
    "HubDataset",
    "LabelsOnly",
    "ManagementQuestions",
    "NoisyReasoning",
    "PathVQA",
    "Preferences",
    "SkinCAP",
    "SkinCon",
    "Source",
    "TabularSource",
    "TypicalReasoning",
    "VQARADParquet",
]
