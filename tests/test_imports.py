"""Every module imports, all in one process: a name that does not exist fails here and not at a user's desk."""

import importlib
import pkgutil

import dermiq


def test_every_module_imports() -> None:
    def fail(name: str) -> None:
        raise ImportError(f"the package {name} does not import")

    names = [info.name for info in pkgutil.walk_packages(dermiq.__path__, "dermiq.", onerror=fail)]
    assert "dermiq.schema" in names
    for name in names:
        importlib.import_module(name)
