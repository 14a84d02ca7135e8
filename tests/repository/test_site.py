"""The documentation site: built strictly, and looked at in a browser. Its links are checked by the build itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.browser import DESKTOP, PHONE, axe_violations

pytest.importorskip("mkdocs", reason="the documentation is built with the extra `docs`")
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
OF_THE_THEME = (  # Material's own markup: its search has no name, and the buttons of each code block are a landmark
    'aria-dialog-name: <div class="md-search"',
    'landmark-unique: <nav class="md-code__nav"',
)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the built site."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("page", ["", "tutorial/", "knowledge_graph/", "reference/rewards/", "reference/command_line/"])
def test_a_page_asks_no_other_host_and_has_no_errors(site, open_page, page):
    asked = []
    opened = open_page("about:blank")
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(f"{site}/{page}", wait_until="networkidle")
    assert asked and [address for address in asked if not address.startswith((site, "data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["", "tutorial/"])
def test_contrast_and_labels(site, open_page, page, scheme):
    opened = open_page(f"{site}/{page}", color_scheme=scheme)
    expected = {"light": "default", "dark": "slate"}[scheme]
    assert opened.evaluate("document.body.dataset.mdColorScheme") == expected
    assert [found for found in axe_violations(opened) if not found.startswith(OF_THE_THEME)] == []


@pytest.mark.parametrize("page", ["", "tutorial/", "howto/memory/", "grpo_plus_plus/", "speed/", "study/"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_page_is_wider_than_the_screen(site, open_page, page, viewport):
    opened = open_page(f"{site}/{page}", viewport=viewport)
    assert opened.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_search_finds(site, open_page):
    opened = open_page(site)
    opened.get_by_text("Type to start searching").wait_for(state="attached")  # what is typed before is not heard
    opened.locator("input.md-search__input").fill("preflight")
    opened.locator(".md-search-result__link").first.wait_for()
    assert opened.locator(".md-search-result__link").count() >= 1


def test_equations_are_mathml_and_help_is_the_programs_own(site, open_page):
    opened = open_page(f"{site}/knowledge_graph/")
    assert opened.locator("math").count() > 10 and "\\frac" not in opened.inner_text("article")
    shown = open_page(f"{site}/reference/command_line/").inner_text("article")
    assert "usage: python -m dermiq.kg score" in shown and "--preflight" in shown
    assert str(REPOSITORY) not in shown and "<!-- help" not in shown
