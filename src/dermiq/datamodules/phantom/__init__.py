"""Drawn skin lesions whose true findings are known."""

from dermiq.datamodules.phantom.source import PhantomSource

__all__ = ["PhantomSource"]
