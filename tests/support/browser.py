"""A headless Chromium for tests of pages: the system's, or the one that `playwright install chromium` brings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A running browser of Playwright's synchronous interface; skips where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = str(own) if own.exists() else next(filter(None, map(shutil.which, NAMES)), None)
        if found is None:
            pytest.skip("no Chromium: install Debian's chromium, or run `playwright install chromium`")
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root needs that
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., object]]:
    """(address, **options of Playwright's `new_page`) -> a page; an error on its console fails the test at its end."""
    pages, errors = [], []

    def opened(address: str, **options: object) -> object:
        page = browser.new_page(**{"viewport": DESKTOP, **options})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        pages.append(page)
        page.goto(address)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not errors, errors


def axe_violations(page: object) -> list[str]:
    """What axe finds wrong on a page: contrast, labels, roles; one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:150]}" for each in found for node in each["nodes"]]
