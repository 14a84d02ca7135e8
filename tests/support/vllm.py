"""A stand-in for `vllm serve`: the documented HTTP interface over a real model with real adapters.

It loads adapters with peft onto its own copy of the base model, and really samples: the whole sequence runs forward
for every token, so that nothing is shared with the code under test. What a request leaves out comes from
the model's generation_config, as in vLLM. vLLM itself, its kernels and its errors' exact words are not in here.
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dermiq.policy.hub import load_processor
from dermiq.policy.processing import encode_prompts

DEFAULTS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}


class Refusal(Exception):
    """An answer that is an error: status code and body."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.body = code, {"error": {"message": message, "type": "BadRequestError", "code": code}}


class StubServer(ThreadingHTTPServer):
    """Serves the model in `directory` under that name; a thread runs it between `start` and `stop`.

    Attributes:
        calls: (path, body) of each request.
        adapters: the loaded ones by name.
        spoil: called with replies to messages in parts (not in one string) before they are sent.
        updating, max_lora_rank, logprobs_mode, max_model_len: what the launch line sets.
        delay: seconds before a chat reply.
    """

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = str(directory)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.base = AutoModelForImageTextToText.from_pretrained(directory).eval()
        self.processor = load_processor(self.name)
        self.turn = Lock()
        self.adapters: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """As freshly launched."""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.adapters.clear()
        self.spoil: Callable[[dict[str, Any]], object] = lambda reply: None
        self.updating, self.max_lora_rank, self.logprobs_mode = True, 16, "processed_logprobs"
        self.max_model_len, self.delay = 8192, 0.0

    def start(self) -> StubServer:
        self.thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def bodies(self, end: str) -> list[dict[str, Any]]:
        """Bodies of the requests whose path ends so."""
        return [body for path, body in self.calls if path.endswith(end)]

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """What one request gets.

        Raises:
            Refusal: where vLLM answers with an error.
        """
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": name} for name in (self.name, *self.adapters)]}
        if path == "/v1/load_lora_adapter" and self.updating:
            return self.load(body["lora_name"], Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter" and self.updating:
            if body["lora_name"] not in self.adapters:
                raise Refusal(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
            del self.adapters[body["lora_name"]]
            return "Success"
        if path == "/v1/chat/completions":
            time.sleep(self.delay)
            reply = self.chat(body)
            if not isinstance(body["messages"][0]["content"], str):
                self.spoil(reply)
            return reply
        refusal = Refusal(404, "")
        refusal.body = {"detail": "Not Found"}
        raise refusal

    def load(self, name: str, path: Path) -> str:
        if name in self.adapters:
            raise Refusal(400, f"The lora adapter '{name}' has already been loaded.")
        rank = json.loads((path / "adapter_config.json").read_text())["r"]
        if rank > self.max_lora_rank:
            raise Refusal(500, f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}.")
        self.adapters[name] = PeftModel.from_pretrained(copy.deepcopy(self.base), str(path)).eval()
        return "Success"

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] not in (self.name, *self.adapters):
            raise Refusal(404, f"The model `{body['model']}` does not exist.")
        messages, images = _hugging_face(body["messages"])
        n = body.get("n", 1)
        inputs = encode_prompts(self.processor, [messages] * n, [images] * n)
        prompt = inputs["input_ids"]
        steps = min(body["max_completion_tokens"], self.max_model_len - prompt.shape[1])
        configured = self.base.generation_config
        options = {k: body.get(k, getattr(configured, k, None) or default) for k, default in DEFAULTS.items()}
        if n > 1 and options["temperature"] == 0:
            raise Refusal(400, f"n must be 1 when using greedy sampling, got {n}.")
        ids, logprobs = self.sample(self.adapters.get(body["model"], self.base), inputs, steps, options, body)
        eos = configured.eos_token_id
        stops = {*body["stop_token_ids"], *(eos if isinstance(eos, list) else [eos])}
        choices = []
        for index in range(n):
            length = self.length(ids[index].tolist(), stops, body["stop"])
            content = [{"logprob": max(value, -9999.0)} for value in logprobs[index, : length or steps].tolist()]
            choices.append({
                "index": index, "finish_reason": "stop" if length else "length", "logprobs": {"content": content},
                "token_ids": ids[index, : length or steps].tolist(),
            })  # fmt: skip
        return {"choices": choices[::-1], "prompt_token_ids": prompt[0].tolist()}

    def length(self, ids: list[int], stops: set[int], texts: list[str]) -> int:
        """Tokens up to the first that ends the completion; 0 if none does."""
        for i, token in enumerate(ids):
            text = self.processor.tokenizer.decode(ids[: i + 1], skip_special_tokens=True)
            if token in stops or any(stop in text for stop in texts):
                return i + 1
        return 0

    @torch.no_grad()
    def sample(
        self, model: Any, inputs: dict[str, Tensor], steps: int, options: dict[str, Any], body: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Token ids and log-probs [n, steps]."""
        bias = torch.zeros(self.base.config.get_text_config().vocab_size)
        for token, value in body.get("logit_bias", {}).items():
            bias[int(token)] = max(-100.0, min(100.0, value))
        generators = [torch.Generator().manual_seed(body.get("seed", 0) + i) for i in range(len(inputs["input_ids"]))]
        prompt, ids, logprobs = inputs["input_ids"].shape[1], [], []
        inner = model.get_base_model().model if isinstance(model, PeftModel) else model.model
        for _ in range(steps):
            if hasattr(inner, "rope_deltas"):
                inner.rope_deltas = None
            raw = model(**inputs, use_cache=False).logits[:, -1].float()
            bent = _bent(inputs["input_ids"], raw + bias, options) / (options["temperature"] or 1.0)
            probabilities = bent.softmax(-1)
            tokens = probabilities.argmax(-1, keepdim=True)
            if options["temperature"]:
                pairs = zip(probabilities, generators, strict=True)
                tokens = torch.stack([row.multinomial(1, generator=generator) for row, generator in pairs])
            known = (bent if self.logprobs_mode == "processed_logprobs" else raw).log_softmax(-1)
            logprobs.append(known.gather(-1, tokens))
            inputs = _longer(inputs, tokens)
            ids = inputs["input_ids"][:, prompt:]
        return ids, torch.cat(logprobs, dim=1)


class _Handler(BaseHTTPRequestHandler):
    server: StubServer

    def do_GET(self) -> None:
        self.reply({})

    def do_POST(self) -> None:
        self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def reply(self, body: dict[str, Any]) -> None:
        with self.server.turn:
            self.server.calls.append((self.path, body))
            try:
                code, answer = 200, self.server.answer(self.path, body)
            except Refusal as refusal:
                code, answer = refusal.code, refusal.body
            except RuntimeError as error:  # of torch, which cannot sample from probabilities that are not finite
                code, answer = 500, {"error": {"message": str(error), "type": "InternalServerError", "code": 500}}
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        with suppress(BrokenPipeError):  # of a client that waits no longer
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def _hugging_face(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """Messages as chat templates of transformers take them, and the images in them."""
    converted, images = [], []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else []
        for part in content if isinstance(content, list) else []:
            if part["type"] == "image_url":
                head, data = part["image_url"]["url"].split(",", 1)
                assert head == "data:image/png;base64"
                images.append(Image.open(BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))
            parts.append({"type": "image"} if part["type"] == "image_url" else part)
        converted.append({"role": message["role"], "content": parts})
    return converted, images


def _bent(ids: Tensor, logits: Tensor, options: dict[str, Any]) -> Tensor:
    """Logits after everything that sampling parameters other than the temperature do to them."""
    if options["repetition_penalty"] != 1.0:
        logits = RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])(ids, logits)
    if options["top_k"]:
        logits = TopKLogitsWarper(options["top_k"])(ids, logits)
    if options["top_p"] < 1.0:
        logits = TopPLogitsWarper(options["top_p"])(ids, logits)
    return logits


def _longer(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """The inputs of a model with one more token [n, 1] of text."""
    longer = inputs | {"input_ids": torch.cat([inputs["input_ids"], tokens], dim=1)}
    for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            fill = torch.full_like(inputs[name][:, :1], int(name == "attention_mask"))
            longer[name] = torch.cat([inputs[name], fill], dim=1)
    return longer
