"""The policy behind the page: questions about a photograph, and answers streamed while they are generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import Any, NamedTuple

import torch
from PIL import Image

from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.decoding import Decoder
from dermiq.policy.prefix import Prefix, prefill
from dermiq.policy.rollout import sample_rollout
from dermiq.policy.sampling import Completions, Sampling
from dermiq.prompts import CONVERSATION_PROMPT, in_words, unmarked
from dermiq.schema import Message, Sample

_CUT = "�"  # in place of a character whose bytes are not all generated yet
_PACE = 0.04  # seconds between updates: a browser keeps up with that


class Prompted(NamedTuple):
    """A question with its photograph, read by the policy.

    Attributes:
        batch: of one sample.
        prefix: keys and values of question and photograph, shared by all answers.
    """

    batch: PromptBatch
    prefix: Prefix


class _Broken(Exception):
    """The listener is gone."""


class _StreamingDecoder(Decoder):
    """The default engine, which also streams the texts so far."""

    def __init__(self, policy: Policy, texts: SimpleQueue[Any], broken: Event) -> None:
        super().__init__()
        self.policy, self.texts, self.broken = policy, texts, broken
        self._due = 0.0

    def on_tokens(self, completions: Completions) -> None:
        """Put the completions so far into the queue, every now and then.

        Raises:
            _Broken: if nobody listens any more.
        """
        if self.broken.is_set():
            raise _Broken
        if monotonic() < self._due:
            return
        self._due = monotonic() + _PACE
        texts = self.policy.backbone.decode(completions.ids, completions.mask)
        self.texts.put([in_words(text.rstrip(_CUT)) for text in texts])


class Policy:
    """A loaded policy, which answers one question at a time.

    Args:
        backbone: loaded, on its device.
        max_new_tokens: of an answer.
    """

    def __init__(self, backbone: VLMBackbone, max_new_tokens: int) -> None:
        self.backbone, self.max_new_tokens = backbone, max_new_tokens
        self._collate = PromptCollate(backbone.model_id, None, max_new_tokens)

    def diagnose(self, photograph: Image.Image) -> Prompted:
        """Ask for the diagnosis in the structure of `dermiq.prompts`."""
        return self._ask(photograph, Sample(id="photograph", images=("photograph",), target="", label="", group=""))

    def converse(self, photograph: Image.Image, question: str, before: Sequence[Message] = ()) -> Prompted:
        """Ask a question in conversation.

        Raises:
            DataError: if the conversation does not fit into the model's context.
        """
        said = (replace(message, text=unmarked(message.text)) for message in before)
        history = (Message("system", CONVERSATION_PROMPT), *said)
        return self._ask(
            photograph,
            Sample("photograph", ("photograph",), "", "", "", question=unmarked(question), history=history, reply=""),
        )

    def answers(self, prompted: Prompted, count: int = 1, temperature: float = 0.0) -> Iterator[list[str]]:
        """Sample `count` answers in parallel; sampling stops when the caller stops iterating.

        Yields:
            The texts so far, again and again; the last ones are complete.

        Raises:
            TrainingError: if the policy's probabilities are not finite.
        """
        texts: SimpleQueue[list[str] | Exception | None] = SimpleQueue()
        broken = Event()
        sampling = Sampling(self.max_new_tokens, temperature)

        def write() -> None:
            try:
                engine = _StreamingDecoder(self, texts, broken)
                batch, prefix = prompted
                rollout = sample_rollout(self.backbone, batch, sampling, count, engine=engine, prefix=prefix)
                texts.put([answer.text for answer in rollout.answers[0]])
                texts.put(None)
            except Exception as error:  # raised again in the caller's thread
                texts.put(error)

        writer = Thread(target=write, daemon=True)
        writer.start()
        try:
            while (so_far := texts.get()) is not None:
                if isinstance(so_far, Exception):
                    raise so_far
                yield so_far
        finally:
            broken.set()
            writer.join()

    def _ask(self, photograph: Image.Image, sample: Sample) -> Prompted:
        batch = self._collate([Item(sample, [photograph])])
        device = self.backbone.vlm.device
        batch["prompt"] = {name: value.to(device) for name, value in batch["prompt"].items()}
        with self.backbone.sampling_mode():
            return Prompted(batch, prefill(self.backbone, batch["prompt"]))


def load(model_id: str, adapter: str | None, load_in_4bit: bool) -> VLMBackbone:
    """A policy with its adapter (None: without), on the GPU if there is one.

    Raises:
        ModelError: if the model or its adapter cannot be loaded.
    """
    backbone = VLMBackbone(model_id, None, adapter, load_in_4bit)
    backbone.load()
    return backbone.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu").eval()
