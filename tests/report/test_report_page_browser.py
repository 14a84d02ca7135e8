"""The page about tested runs in a real browser: filters, keyboard, address, contrast, labels, and how fast it opens."""

import numpy as np
import pytest

from dermiq.report.writing import write_report
from support.browser import DESKTOP, PHONE, axe_violations
from support.reports import EVIL, TARGETS, TITLES, diagnosis, picture, talk, write_run, write_story


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("story")
    return write_report(write_story(root), TITLES, root / "page")


def counts(view, words):
    """The number of cases says so, at once or when the filters have been reset."""
    from playwright.sync_api import expect

    expect(view.locator("#count")).to_have_text(words)


def field(view, name):
    return view.locator(f"#filters [name={name}]")


def test_filters_narrow_the_cases(page, open_page):
    view = open_page(page.as_uri())
    counts(view, "27 of 27 cases")
    field(view, "condition").select_option("psoriasis")
    counts(view, "7 of 27 cases")
    field(view, "skin").select_option("IV")
    counts(view, "3 of 27 cases")
    view.get_by_role("button", name="Clear").click()
    counts(view, "27 of 27 cases")
    for outcome, stage, count in (("wrong", "1", 16), ("right", "1", 8), ("mended", "2", 16), ("broken", "2", 0)):
        field(view, "stage").select_option(stage)
        field(view, "outcome").select_option(outcome)
        counts(view, f"{count} of 27 cases")
    assert view.get_by_text("No case fits these filters.").is_visible()
    view.get_by_role("button", name="Clear").click()
    field(view, "kind").select_option("conversation")
    field(view, "contradicted").check()
    counts(view, "1 of 27 cases")
    field(view, "stage").select_option("3")
    counts(view, "0 of 27 cases")
    view.get_by_role("button", name="Clear").click()
    field(view, "q").fill("ONERROR")
    counts(view, "1 of 27 cases")
    assert view.get_by_text(EVIL).count() == 3


def test_the_keyboard_goes_through_cases_and_claims(page, open_page):
    view = open_page(page.as_uri())
    place = view.locator(".steps")
    for key, expected in (("j", 2), ("ArrowRight", 3), ("k", 2), ("ArrowLeft", 1), ("k", 1)):
        view.keyboard.press(key)
        assert f"{expected} of 27" in place.inner_text()
    view.keyboard.press("/")
    view.keyboard.type("talk-1")
    counts(view, "1 of 27 cases")
    view.locator("#list").focus()
    for _ in range(6):  # the buttons of a single case are out of use
        view.keyboard.press("Tab")
        if view.locator("#note").is_visible():
            break
    note = view.locator("#note")
    assert "contradicted" in note.inner_text() and note.locator("cite").inner_text()
    assert view.evaluate("document.activeElement.getAttribute('aria-describedby')") == "note"
    view.keyboard.press("Escape")
    assert not note.is_visible()
    view.keyboard.press("Enter")
    assert note.is_visible()


def test_the_list_draws_what_is_seen_and_follows_its_keys(page, open_page):
    view = open_page(page.as_uri())
    view.locator("#list").focus()
    view.keyboard.press("End")
    assert "27 of 27" in view.locator(".steps").inner_text()
    assert view.locator('[role=option][aria-selected="true"]').get_attribute("aria-posinset") == "27"
    assert view.locator("[role=option]").count() < 27
    view.locator("[role=option]").first.click()
    assert "27 of 27" not in view.locator(".steps").inner_text()


def test_an_address_leads_back_to_the_case(page, open_page):
    view = open_page(page.as_uri())
    field(view, "condition").select_option("vitiligo")
    view.keyboard.press("Tab")
    view.locator("#list").focus()
    view.keyboard.press("ArrowDown")
    shared = view.url
    other = open_page(shared)
    counts(other, "7 of 27 cases")
    assert "2 of 7" in other.locator(".steps").inner_text()
    assert other.locator("#case dl").inner_text() == view.locator("#case dl").inner_text()
    open_page(page.as_uri() + "#case=nowhere:nothing&condition=nonsense")  # of another report: no error


def test_the_confusion_of_a_chosen_stage(page, open_page):
    view = open_page(page.as_uri())
    assert view.locator(".matrix:visible caption").inner_text() == "GRPO++: 24 diagnoses"
    view.locator("#matrix-stage").select_option("1")
    assert view.locator(".matrix:visible caption").inner_text() == "warm start: 24 diagnoses"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_everybody_can_read_it(page, open_page, scheme, viewport):
    view = open_page(page.as_uri() + "#case=drawn:talk-1", color_scheme=scheme, viewport=viewport)
    assert view.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    view.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    view.locator(".claim[tabindex]").first.focus()
    assert view.locator("#note").is_visible() and axe_violations(view) == []
    assert view.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.slow
def test_two_thousand_cases_open_in_two_seconds(tmp_path, browser):
    """Of four stages and a thousand pictures; in processor time, which other work on the machine does not lengthen."""
    rng = np.random.default_rng(0)
    rows = [diagnosis(i, TARGETS[rng.integers(4)]) for i in range(1000)]
    rows += [talk(i, "psoriasis is contagious . it itches and is caused by a mite .") for i in range(1000)]
    pictures = [picture(seed) for seed in range(1000)]
    directories = [write_run(tmp_path / f"stage{number}", rows, pictures) for number in range(4)]
    page = write_report(directories, ["one", "two", "three", "four"], tmp_path / "out")
    view = browser.new_page(viewport=DESKTOP)
    measures = view.context.new_cdp_session(view)
    measures.send("Performance.enable")
    view.goto(page.as_uri())
    view.locator("#case .answer").last.wait_for()
    spent = {each["name"]: each["value"] for each in measures.send("Performance.getMetrics")["metrics"]}
    counts(view, "2000 of 2000 cases")
    assert 0 < spent["ProcessTime"] < 2
    view.close()
