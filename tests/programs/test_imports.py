"""Every module imports, all in one process: a name that does not exist fails here and not at a user's desk."""

import importlib
import inspect
import pkgutil
import re

import pytest
from bitsandbytes.backends.cpu import ops

import dermiq


def test_every_module_imports() -> None:
    def fail(name: str) -> None:
        raise ImportError(f"the package {name} does not import")

    names = [info.name for info in pkgutil.walk_packages(dermiq.__path__, "dermiq.", onerror=fail)]
    assert "dermiq.schema" in names
    for name in names:
        importlib.import_module(name)


def test_a_missing_kernel_that_nothing_needs_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    """bitsandbytes reports it at its import, on CPUs with AVX512-BF16: the first line of every program."""
    (report,) = re.findall(r'"(Failed to load CPU [^"]*)"', inspect.getsource(ops))
    ops.logger.warning(report, "no module")
    ops.logger.warning("a broken library: %s", "libgomp")
    ops.logger.warning(ValueError("an object"))
    assert caplog.messages == ["a broken library: libgomp", "an object"]
