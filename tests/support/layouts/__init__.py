"""Small data sets in the true layouts, quirks included: one module each, named after its data card."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from dermiq.datamodules.sources.base import Source

LAYOUTS = tuple(sorted(module.name for module in iter_modules(__path__)))


def write_layout(name: str, root: Path) -> Source:
    """Write a small data set below `root`; its source, not yet loaded."""
    root.mkdir(parents=True, exist_ok=True)
    source: Source = import_module(f"support.layouts.{name}").write(root)
    return source
