"""Every relative link of the documents points at something that exists, and every anchor at a heading.

Addresses on the network are checked for their form alone: tests do not use the network, and a page that is gone there
is not noticed here.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[2]
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "DECISIONS.md")
DOCUMENTS = [REPOSITORY / name for name in AT_THE_ROOT] + sorted((REPOSITORY / "docs").rglob("*.md"))
GENERATED = re.compile(
    r"^::: ", re.MULTILINE
)  # a page whose anchors come from docstrings: the site's build checks them


def name(path):
    return str(path.relative_to(REPOSITORY))


def tokens(path):
    """Block and inline tokens of a document, flat."""
    for block in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        yield block
        yield from block.children or ()


def links(path):
    """Targets of links and pictures."""
    for token in tokens(path):
        target = token.attrGet("href") or token.attrGet("src")
        if target is not None:
            yield str(target)


def anchors(path):
    """What a heading is called in an address, as GitHub does it and the site too."""
    blocks = MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8"))
    seen = Counter()
    for opening, inline in pairwise(blocks):
        if opening.type == "heading_open":
            text = "".join(part.content for part in inline.children)
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            yield f"{slug}-{seen[slug]}" if seen[slug] else slug
            seen[slug] += 1


def broken(path, target):
    """What is wrong with a link; nothing if it is right."""
    address = urlsplit(target)
    if address.scheme:
        well_formed = address.scheme in ("http", "https") and "." in address.netloc and " " not in target
        return "" if well_formed else "is no address"
    if target.startswith("/"):
        return "starts at the root of a host"
    file = (path.parent / address.path).resolve() if address.path else path
    if not file.is_relative_to(REPOSITORY):
        return "leads out of the repository"
    if not file.exists():
        return "leads to no file"
    if address.fragment and not GENERATED.search(file.read_text(encoding="utf-8")):
        return "" if address.fragment in anchors(file) else "leads to no heading"
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    assert [f"{target} {wrong}" for target in links(path) if (wrong := broken(path, target))] == []


def test_there_are_documents_and_links():
    assert len(DOCUMENTS) > 30
    assert sum(len([*links(path)]) for path in DOCUMENTS) > 100


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("docs/nothing.md", "leads to no file"),
        ("docs/speed.md#nothing", "leads to no heading"),
        ("#nothing", "leads to no heading"),
        ("../elsewhere.md", "leads out of the repository"),
        ("/docs/speed.md", "starts at the root of a host"),
        ("https://nowhere", "is no address"),
        ("docs/speed.md#does-it-fit", ""),
    ],
)
def test_a_broken_link_is_found(target, wrong):
    assert broken(REPOSITORY / "README.md", target) == wrong
