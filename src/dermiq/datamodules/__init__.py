"""Lightning data modules and the sources of samples that feed them."""

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.conversation import ConversationDataModule
from dermiq.datamodules.preference import PreferenceDataModule
from dermiq.datamodules.prompt import PromptDataModule

__all__ = ["ConversationDataModule", "DermDataModule", "PreferenceDataModule", "PromptDataModule"]
