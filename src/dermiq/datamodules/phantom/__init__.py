"""Drawn skin lesions whose findings are known, and conversations about them."""

from dermiq.datamodules.phantom.canvas import Camera
from dermiq.datamodules.phantom.conversations import PhantomConversations
from dermiq.datamodules.phantom.source import CONDITIONS, Drawn, PhantomSource

__all__ = ["CONDITIONS", "Camera", "Drawn", "PhantomConversations", "PhantomSource"]
