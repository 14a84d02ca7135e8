"""The phantom: synthetic skin lesions with known findings, and conversations about them."""

from dermiq.datamodules.phantom.canvas import Camera
from dermiq.datamodules.phantom.conversations import PhantomConversations
from dermiq.datamodules.phantom.source import CONDITIONS, Lesion, PhantomSource

__all__ = ["CONDITIONS", "Camera", "Lesion", "PhantomConversations", "PhantomSource"]
