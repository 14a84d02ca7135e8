"""The stages: one LightningModule each."""

from dermiq.modules.base import StageModule
from dermiq.modules.candidates import CandidateModule
from dermiq.modules.dpo import DPOModule
from dermiq.modules.grpo import GRPOModule
from dermiq.modules.sft import SFTModule

__all__ = ["CandidateModule", "DPOModule", "GRPOModule", "SFTModule", "StageModule"]
