"""What the site adds to MkDocs: pages from the repository's root, links out of `docs/`, programs' help, equations."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import runpy
import shlex
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
AT_THE_ROOT = {"CONTRIBUTING.md": "contributing.md", "DECISIONS.md": "decisions.md", "CHANGELOG.md": "changelog.md"}
HELP = re.compile(r"^( *)<!-- help: (.+) -->$", re.MULTILINE)
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
EXTERNAL = re.compile(r"[a-z][a-z+.-]*:|/|#")
WIDTH = "100"  # of help texts, in columns


class RepositoryLinks(Treeprocessor):
    """Makes links of pages that are read in the repository too work on the site.

    A link is resolved from the page's place in the repository. What the site has becomes a link within the site, what
    it has not (a source file, a configuration) the path itself, as code.
    """

    page = ""

    def run(self, root: Element) -> None:
        """Rewrite every link of the page at `page`, a path in the repository."""
        here = site_uri(self.page) or ""
        for link in [*root.iter("a")]:
            path, hash_, anchor = link.get("href", "#").partition("#")
            if not path or EXTERNAL.match(path):
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(self.page), path))
            uri = site_uri(target)
            if uri is not None:
                link.set("href", posixpath.relpath(uri, posixpath.dirname(here) or ".") + hash_ + anchor)
            elif (REPOSITORY / target).exists():
                _name(link, target)
            # else it is left as it is, for MkDocs to complain of


def site_uri(path: str) -> str | None:
    """Where a file of the repository stands on the site, from its root; None if it does not."""
    return path.removeprefix("docs/") if path.startswith("docs/") else AT_THE_ROOT.get(path)


def _name(link: Element, target: str) -> None:
    """In place of a link, its text with the file's path."""
    said = "".join(link.itertext())
    tail = link.tail
    link.clear()
    link.tag, link.tail = "span", tail
    if said not in (target, posixpath.basename(target)):
        link.text = f"{said} "
    code = Element("code")
    code.text = target
    link.append(code)


class _Links(Extension):
    def __init__(self, processor: RepositoryLinks) -> None:
        super().__init__()
        self.processor = processor

    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(self.processor, "repository_links", priority=5)  # before MkDocs resolves links


_links = RepositoryLinks()


def on_config(config: MkDocsConfig) -> None:
    """Add the treatment of links."""
    config.markdown_extensions.append(_Links(_links))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that lie at the repository's root."""
    for name, uri in AT_THE_ROOT.items():
        files.append(File.generated(config, uri, content=(REPOSITORY / name).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put a program's help where a page has ``<!-- help: COMMAND -->``."""
    at_the_root = {uri: name for name, uri in AT_THE_ROOT.items()}
    _links.page = at_the_root.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return HELP.sub(lambda found: indent(f"```text\n{help_of(found[2])}\n```", found[1]), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write equations as MathML, which browsers show without a script."""
    return MATHS.sub(_mathml, html)


def help_of(command: str) -> str:
    """What a program prints with ``--help``, 100 columns wide, without colours and without this machine's paths.

    It runs in this process, so that all programs together load their libraries once.

    Args:
        command: ``python FILE`` or ``python -m MODULE``, with arguments.

    Raises:
        PluginError: if the program fails.
    """
    words = shlex.split(command)[1:]
    modules = words[0] == "-m"
    printed, sys.argv = io.StringIO(), [*words[modules:], "--help"]
    os.environ |= {"NO_COLOR": "1", "COLUMNS": WIDTH}
    with contextlib.redirect_stdout(printed):
        try:
            if modules:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(REPOSITORY / words[0]), run_name="__main__")
        except SystemExit as stopped:
            if stopped.code:
                raise PluginError(f"`{command} --help` failed with {stopped.code}.") from stopped
    return printed.getvalue().strip().replace(f"{REPOSITORY}{os.sep}", "")


def _mathml(found: re.Match[str]) -> str:
    tag, equation = found.groups()
    latex = equation.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()
    return f"<{tag}>{convert(latex, display='block' if tag == 'div' else 'inline')}</{tag}>"
