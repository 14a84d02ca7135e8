"""The demo's page in a real browser, served by the real command line with a policy that has learnt two answers."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from dermiq.policy.hub import load_processor
from dermiq.policy.processing import encode_conversations
from dermiq.prompts import CONVERSATION_PROMPT, to_conversation
from dermiq.schema import Message, Sample
from support.browser import PHONE, axe_violations
from support.demo import SECRET, Server, photograph_with_a_place
from support.images import picture

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
pytestmark = pytest.mark.slow

REASONING = "a burrow on the wrist , it itches"
REPLY = "Caused by a mite <b id='evil'>{{value}}</b> ${1+1} and it is not contagious."
PATIENCE = 120_000  # ms, on a machine that does other things too
ASKED = "Is it contagious?"


def learnt(directory: Path, out: Path) -> Path:
    """A tiny model that knows two answers by heart, whatever the image shows."""
    system = (Message("system", CONVERSATION_PROMPT),)
    samples = [
        Sample("a", ("x",), "scabies", "", "a", reasoning=REASONING),
        Sample("b", ("x",), "", "", "b", question=ASKED, history=system, reply=REPLY),
    ]
    torch.manual_seed(0)
    processor, model = load_processor(str(directory)), AutoModelForImageTextToText.from_pretrained(directory)
    inputs, mask = encode_conversations(
        processor, [*map(to_conversation, samples)], [[picture(0, 64)], [picture(1, 64)]]
    )
    model.model.connector.requires_grad_(False)
    for weights in model.model.connector.parameters():  # all images look the same to it
        weights.zero_()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        logits = model(**inputs).logits[:, :-1][mask[:, 1:]]
        loss = torch.nn.functional.cross_entropy(logits, inputs["input_ids"][mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.005:
            break
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def server(family_dir, tmp_path_factory):
    model = learnt(family_dir("idefics3"), tmp_path_factory.mktemp("model") / "scabies")
    running = Server(model, tmp_path_factory.mktemp("server"), tokens=120)
    yield running
    running.stop()


@pytest.fixture
def page(server, open_page):
    """The page, which has to be silent on its console and may ask no other host for anything."""
    strangers = []

    def opened(**options):
        page = open_page("about:blank", **options)
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: strangers.append(request.url))
        page.goto(server.address)
        page.get_by_role("button", name="Ask", exact=True).wait_for()
        return page

    yield opened
    assert [url for url in strangers if not url.startswith((server.address, "data:", "blob:"))] == []


def upload(page, content: bytes) -> None:
    file = {"name": "IMG_1.jpg", "mimeType": "image/jpeg", "buffer": content}
    page.locator("#photograph input").set_input_files(files=[file])


def ask(page, question: str | None = None) -> None:
    if question is not None:
        page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def finished(page) -> None:
    page.locator("#differential table").wait_for()
    page.locator("#status p").wait_for(state="detached")


def test_a_photograph_is_asked_about_from_upload_to_differential(server, page):
    before = server.files()
    page = page()
    assert page.get_by_text("Research software, not a medical device").is_visible()
    ask(page)
    page.get_by_text("First choose a photograph").wait_for()
    upload(page, photograph_with_a_place())
    page.locator("#photograph img").wait_for()
    page.wait_for_function("document.querySelector('#photograph img').naturalWidth == 48")  # upright: what was kept
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
            const text = document.querySelector('#answer article p')?.innerText;
            if (text && text !== window.seen.at(-1)) window.seen.push(text);
        }).observe(document.querySelector('#answer'), {childList: true, subtree: true, characterData: true}); }"""
    )
    ask(page)
    finished(page)
    grew = page.evaluate("window.seen")
    assert len(grew) > 1 and grew[-1] == REASONING and all(map(grew[-1].startswith, grew))
    assert page.locator("#answer .named").inner_text() == "Scabies"
    assert page.locator("#evidence li.supported cite").first.is_visible()
    assert (
        "Scabies" in page.locator("#evidence h3").inner_text().capitalize() or page.locator("#evidence .facts").count()
    )
    assert page.locator("#differential table").inner_text().split("\t")[0].strip() == "Scabies"
    assert re.search(r"[123] of 3", page.locator("#differential table").inner_text())
    page.mouse.wheel(0, 5000)
    page.wait_for_timeout(300)
    notice = page.locator("#notice").bounding_box()
    assert 0 <= notice["y"] < 40 and page.get_by_text("Research software").is_visible()
    after = server.files()
    assert after.keys() == before.keys(), "something was stored"
    assert not any(SECRET in content for content in after.values())
    assert SECRET.decode() not in page.content() and not page.evaluate("Object.keys(localStorage).length > 2")
    assert "JFIF" not in page.evaluate("JSON.stringify(localStorage)")


def test_a_follow_up_question_and_markup_in_its_answer(page):
    page = page()
    page.get_by_role("button", name="Use a synthetic lesion").click()
    page.locator("#photograph img").wait_for()
    page.get_by_label("Question").fill(ASKED)
    page.get_by_label("Question").press("Enter")
    finished(page)
    assert page.locator("#answer .reply").inner_text() == REPLY and page.locator("#evil").count() == 0
    assert page.locator("#evidence li.contradicted").inner_text().startswith("✕ contradicted")
    assert page.locator("#answer mark.contradicted").inner_text() == "contagious"
    page.get_by_text("What does it show?").click()
    page.get_by_role("button", name="Use a synthetic lesion").click()
    page.locator("#answer article").wait_for(state="detached")  # another picture, another conversation


def test_a_file_that_is_no_photograph_is_refused_in_the_page(page):
    page = page()
    upload(page, b"no photograph")
    page.get_by_text("The file cannot be used. A photograph has at most 20 MB").wait_for()
    assert page.locator("#photograph img").count() == 0


def test_it_can_be_used_by_everyone_and_in_the_dark(page):
    for options in ({}, {"viewport": PHONE, "color_scheme": "dark"}):
        opened = page(**options)
        assert axe_violations(opened) == []
        upload(opened, photograph_with_a_place())
        opened.wait_for_function("document.querySelector('#photograph img')?.naturalWidth == 48")
        ask(opened, ASKED)
        finished(opened)
        opened.mouse.move(0, 0)
        assert axe_violations(opened) == []
        width = opened.evaluate("document.documentElement.scrollWidth")
        assert width <= opened.viewport_size["width"]


def test_nothing_reaches_the_disk_by_gradios_own_way(server):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + SECRET + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{server.address}gradio_api/upload", body, headers)
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(request)
    assert not any(SECRET in content for content in server.files().values())


def test_an_answer_can_be_stopped_and_ctrl_c_within_one_leaves_nothing(family_dir, tmp_path, open_page):
    """A model that has learnt nothing never comes to an end by itself."""
    server = Server(family_dir("idefics3"), tmp_path, tokens=6000)
    taken = subprocess.run(
        [sys.executable, "-m", "dermiq.demo", "--model", str(family_dir("idefics3")), f"--port={server.port}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert taken.returncode == 2 and "Try another --port" in taken.stderr and "Traceback" not in taken.stderr
    page = open_page(server.address)
    page.set_default_timeout(PATIENCE)
    page.get_by_role("button", name="Use a synthetic lesion").click()
    page.locator("#photograph img").wait_for()
    ask(page)
    page.locator("#answer .reply").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator("#status p").wait_for(state="detached")
    text = page.locator("#answer").inner_text()
    page.wait_for_timeout(1000)
    assert page.locator("#answer").inner_text() == text and page.locator("#differential table").count() == 0
    ask(page)
    page.locator("#answer article").nth(1).locator(".reply").wait_for()
    page.get_by_role("button", name="Use a synthetic lesion").click()
    page.locator("#answer article").first.wait_for(state="detached")
    page.wait_for_timeout(1000)
    assert page.locator("#answer article").count() == 0, "nothing of the earlier photograph's answer comes after it"
    ask(page)
    page.locator("#answer .reply").wait_for()
    page.close()
    assert server.stop() == 130
    assert "Traceback" not in server.said and "\x1b[" not in server.said
    assert not [path for path in (tmp_path / "tmp").rglob("*") if "dermiq" in path.name]
