"""The page in Gradio; no other module imports Gradio."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from dermiq.demo import photograph
from dermiq.demo.answers import Answers
from dermiq.demo.guard import Guard
from dermiq.demo.reading import MAX_QUESTION, Reader, Reading
from dermiq.demo.view import HEAD, NOTICE, problem, view
from dermiq.prompts import QUESTION
from dermiq.schema import DataError, DermIQError

log = logging.getLogger(__name__)

QUEUE = 16  # questions that may wait; later ones are refused, the page being busy
_FORGET = 1800.0  # seconds after which an unused photograph is forgotten
_VISITORS = 100  # whose photographs are remembered at a time
_UNANSWERED = "That could not be answered. Load the page anew, and ask there."
_STYLE = Path(__file__).with_name("style.css")
_SUGGESTIONS = (QUESTION, "Is it dangerous?", "How is it treated?", "Is it contagious?")
# A file never becomes one on the server: the browser hands its bytes over, and the page shows what was kept of them.
_DROP = """
<label class="drop">
  <input type="file" accept="image/*">
  {{#if value}}<img src="{{value}}" alt="The chosen photograph">{{/if}}
  <span>{{#if value}}Choose another one{{else}}<b>Choose a photograph</b>, or drop it here{{/if}}</span>
  <small>It is not stored. Where and when it was taken is removed.</small>
</label>
"""
_READ = """
const read = (file) => {
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => { props.value = reader.result; trigger("upload"); };
  reader.readAsDataURL(file.slice(0, LIMIT, file.type));
};
element.addEventListener("change", (event) => { read(event.target.files[0]); event.target.value = ""; });
element.addEventListener("dragover", (event) => event.preventDefault());
element.addEventListener("drop", (event) => { event.preventDefault(); read(event.dataTransfer.files[0]); });
document.addEventListener("paste", (event) => read(event.clipboardData.files[0]));
""".replace("LIMIT", str(photograph.MAX_BYTES + 1))  # one byte too many is enough to be refused


class _Page(gr.Blocks):
    """Blocks whose server refuses in words what it cannot answer."""

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Answer a request of the page, or of whoever calls its interface by hand."""
        try:
            answer: dict[str, Any] = await super().process_api(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            log.warning("a question could not be answered: %s", " ".join(str(error).split())[:200])
            raise gr.Error(_UNANSWERED, print_exception=False) from error
        return answer


def make_page(reader: Reader) -> gr.Blocks:
    """The page, ready to be served.

    Args:
        reader: answers the questions.
    """
    empty, answers = view(Reading()), Answers()
    page: gr.Blocks = _Page(title="DermIQ", analytics_enabled=False)
    with page:
        kept, reading = gr.State(None, time_to_live=_FORGET), gr.State(Reading(), time_to_live=_FORGET)
        gr.HTML(NOTICE, elem_id="notice", js_on_load=None)
        gr.HTML(HEAD, elem_id="head", js_on_load=None)
        with gr.Row(elem_id="columns"):
            with gr.Column(min_width=320, scale=2):
                shown = gr.HTML("", html_template=_DROP, js_on_load=_READ, elem_id="photograph")
                caption = gr.HTML("", js_on_load=None, elem_id="caption")
                lesion = gr.Button("Use a synthetic lesion", size="sm")
                question = gr.Textbox(QUESTION, label="Question", max_length=MAX_QUESTION, elem_id="question")
                with gr.Row(elem_id="suggestions"):
                    for text in _SUGGESTIONS:
                        gr.Button(text, size="sm").click(None, None, question, js=f"() => {json.dumps(text)}", **_QUIET)
                with gr.Row():
                    ask, stop = gr.Button("Ask", variant="primary", min_width=80), gr.Button("Stop", min_width=80)
            with gr.Column(min_width=320, scale=3, elem_id="results"):
                parts = [gr.HTML(html, js_on_load=None, elem_id=name) for name, html in empty._asdict().items()]
        answering = gr.on(
            [ask.click, question.submit], _ask(reader, answers), [kept, question, reading], [reading, *parts],
            concurrency_limit=1, **_QUIET,
        )  # fmt: skip
        photo, instead = [shown, kept, caption, reading, *parts], {"cancels": [answering], **_QUIET}
        shown.upload(_take(answers), shown, photo, **instead)
        lesion.click(_render(answers), None, photo, **instead)
        stop.click(_stop(answers), reading, [reading, *parts], **instead)
    page.queue(max_size=QUEUE, api_open=False)
    return page


@contextmanager
def served(page: gr.Blocks, host: str, port: int) -> Iterator[str]:
    """Serve the page while the context lasts; yields its address.

    Raises:
        DataError: if the port is taken.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            theme=_theme(),
            css_paths=_STYLE,
            footer_links=[],
            run_history=False,  # else the browser would keep every question and answer
            enable_monitoring=False,
            state_session_capacity=_VISITORS,
            app_kwargs={"middleware": [Middleware(Guard, host=host)]},
        )
    except OSError as error:
        raise DataError(f"The page cannot be served at {host}:{port} ({error}). Try another --port.") from error
    try:
        yield address
    finally:
        page.close(verbose=False)


def _theme() -> gr.themes.Base:
    """Fonts of the reader's own machine, and buttons whose text can be read."""
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    return gr.themes.Base(primary_hue="teal", neutral_hue="slate", **fonts).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _take(answers: Answers) -> Callable[..., tuple[Any, ...]]:
    def take(data_url: object, request: gr.Request) -> tuple[Any, ...]:
        """A new photograph, or why it is refused; nothing of an earlier one stays."""
        answers.end(request.session_hash)
        try:
            image = photograph.from_data_url(data_url)
        except DataError as error:
            return "", None, problem(str(error)), *_fresh()
        return photograph.to_data_url(image), image, "", *_fresh()

    return take


def _render(answers: Answers) -> Callable[..., tuple[Any, ...]]:
    def render(request: gr.Request) -> tuple[Any, ...]:
        answers.end(request.session_hash)
        image, condition = photograph.synthetic_lesion()
        summary = "<summary>A synthetic lesion. What does it show?</summary>"
        caption = f"<details>{summary}<p>{condition.capitalize()}</p></details>"
        return photograph.to_data_url(image), image, caption, *_fresh()

    return render


def _fresh() -> tuple[Any, ...]:
    return Reading(), *view(Reading())


def _ask(reader: Reader, answers: Answers) -> Callable[..., Iterator[tuple[Any, ...]]]:
    def ask(
        image: Image.Image | None, question: object, before: Reading, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        if image is None:
            yield before, *view(before)._replace(status=problem("First choose a photograph or a synthetic lesion."))
            return
        try:
            for reading in answers.follow(request.session_hash, reader.read(image, question, before)):
                yield reading, *view(reading)
        except DermIQError as error:
            yield before, *view(before)._replace(status=problem(str(error)))

    return ask


def _stop(answers: Answers) -> Callable[..., tuple[Any, ...]]:
    def stop(reading: Reading, request: gr.Request) -> tuple[Any, ...]:
        stopped = (answers.end(request.session_hash) or reading).stopped()
        return stopped, *view(stopped)

    return stop
