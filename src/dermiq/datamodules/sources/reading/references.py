"""Paths and names of images, resolved from what a row gives."""

from __future__ import annotations

import os
import posixpath
import re
from functools import lru_cache
from urllib.parse import unquote

_SHOWN = 60
_ENCODED = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")
_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkqA", "TU0AK")  # of images in base64
_PLAIN = re.compile(r"(?!/|file:)[^\\]*")


def refuse_distant(given: str) -> None:
    """Check that a reference names a file on this machine.

    Raises:
        ValueError: saying what it is instead, and what to do.
    """
    scheme = given[:8].lower()
    if scheme.startswith(("http://", "https://")):
        raise ValueError(
            f"the image {given[:200]} is on the network. Images must be local: download it, and name its file"
        )
    if scheme.startswith("data:") or _is_encoded(given):
        raise ValueError(
            f"the image's content itself stands there as text ({given[:20]}..., {len(given):,} characters). Save it as "
            "a file and name that, or store the bytes in a Parquet file"
        )


def _is_encoded(given: str) -> bool:
    long = len(given) > _SHOWN and given.startswith(_BEGINNINGS) and "." not in given
    return long or bool(len(given) > 255 and _ENCODED.fullmatch(given))


def file_of(root: str, given: str) -> str:
    """The path to open: what a row gives, from the folder `root` on; a ``file://`` URL is the path in it."""
    return os.path.join(root, _path(given))


def name_of(root: str, given: str) -> str:
    """What an image is called wherever its data set lies: its path below `root`, else as the row gives it.

    ``./a.jpg``, ``b/../a.jpg``, ``file:///data/a.jpg`` and ``/data/a.jpg``, with /data as root, are all called a.jpg.
    Links are followed only to find out whether an absolute path lies below the root.
    """
    if _PLAIN.fullmatch(given) and "./" not in given and "//" not in given and not given.endswith(("/", ".")):
        return given
    path = posixpath.normpath(_path(given).replace("\\", "/"))
    if not posixpath.isabs(path):
        return path
    path = posixpath.normpath("/" + path.lstrip("/"))
    for place in _places(os.path.abspath(root)):
        for spelt in (path, posixpath.join(os.path.realpath(posixpath.dirname(path)), posixpath.basename(path))):
            if spelt.startswith(place):
                return spelt[len(place) :]
    return path


def _path(given: str) -> str:
    if given[:5].lower() != "file:":
        return given
    path = given[5:]
    if path.startswith("//"):  # the host between them and the path is this one
        path = "/" + path[2:].partition("/")[2]
    return unquote(path)


@lru_cache(maxsize=64)
def _places(root: str) -> tuple[str, ...]:
    """A folder by its absolute path, and by the one that the links in it say, with a slash at the end."""
    return tuple(dict.fromkeys(path.rstrip("/") + "/" for path in (root, os.path.realpath(root))))
