"""The stages: one LightningModule each."""

from dermiq.modules.base import StageModule
from dermiq.modules.grpo import GRPOModule
from dermiq.modules.sft import SFTModule

__all__ = ["GRPOModule", "SFTModule", "StageModule"]
