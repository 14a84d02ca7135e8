"""Rollouts by a running vLLM server: it is handed the adapter, and returns token ids and log-probs.

The server is started beside the training, on a GPU of its own or with a share of the training's, and must be able to
read the directories in which this process writes temporary files (`TMPDIR`)::

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK \
        --logprobs-mode processed_logprobs

vLLM and the trainer compute the same policy with different kernels, so their log-probs differ a little, and more if the
server quantises the base in another way. A rollout's log-probs are vLLM's, those of the distribution that its tokens
were drawn from: as the old policy's log-probs they let the clipped ratio of the policy loss correct the difference.

The interface is that of vLLM's OpenAI-compatible server and of its runtime LoRA updates, 0.10.2 or newer
(docs.vllm.ai: serving/openai_compatible_server, features/lora); written against the sources of 0.33.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.prefix import Prefix
from dermiq.policy.sampling import Completions, Sampling, seed_digests
from dermiq.policy.special_tokens import in_plain_text
from dermiq.ranges import SECONDS, check_numbers
from dermiq.schema import Sample, TrainingError
from dermiq.servers import call

log = logging.getLogger(__name__)

_REMEDY = (
    "Start the server with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK "
    "--logprobs-mode processed_logprobs`: vLLM 0.10.2 or newer, MODEL the backbone's model_id, RANK at least the "
    "adapter's, on a machine that can read this one's temporary files (TMPDIR)."
)
_BIAS = 100.0  # the most that the server lets a logit be biased by
_MOST_BIASES = 1024  # that its sampler has room for, per request
_MISSING = -9999.0  # what it writes for a log-prob that it does not know
# A server takes what is left open from the model's generation_config, and draws from another distribution.
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
_PLAIN |= {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_SHOWN = 12  # tokens of a prompt that a message shows


class _Completion(NamedTuple):
    """A completion's token ids, the end of the turn among them, and their log-probs."""

    ids: list[int]
    logprobs: list[float]


class VLLMServer:
    """Samples completions on a vLLM server, which gets the policy's adapter whenever that has changed.

    Each version of the adapter is loaded under a name of its own, because vLLM's prefix cache knows an adapter by its
    name (vLLM issue 42125); the version before is unloaded and deleted. Completions are not those of the default
    engine, and depend on seed, sample and place alone only as far as the server's kernels repeat themselves.

    Args:
        url: of the server, without a path.
        model: what the server calls the base model; None takes the backbone's `model_id`.
        timeout: seconds to wait for an answer, which holds all completions of a prompt.
    """

    def __init__(self, url: str = "http://localhost:8000", model: str | None = None, timeout: float = 600.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a server needs a url such as http://localhost:8000; got {url!r}")
        self.url = url.rstrip("/")
        self.model = model
        self.timeout = timeout
        check_numbers(self, timeout=SECONDS)
        self._base = ""
        self._policy = ""
        self._weights = b""
        self._delete: Callable[[], object] = lambda: None

    def complete(
        self,
        backbone: VLMBackbone,
        batch: Mapping[str, Any],
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        """See `dermiq.policy.sampling.Engine.complete`; of the batch, `messages` and `images` are needed.

        Raises:
            TrainingError: if the server cannot be reached, refuses what it is asked, or draws from something other than
                the policy (another model, prompt, adapter or distribution).
        """
        policy = self._hand_over(backbone)
        count = group_size if sampling.temperature else 1  # the server refuses more than one greedy completion
        request = _request(backbone, sampling) | {"model": policy, "n": count}
        samples, prompt = batch["samples"], batch["prompt"]
        rows = zip(prompt["input_ids"].tolist(), prompt["attention_mask"].sum(-1).tolist(), strict=True)
        prompts = [row[-length:] for row, length in rows]

        def group(sample: Sample, ids: list[int], messages: Any, images: Any, seed: int) -> list[_Completion]:
            plain = in_plain_text(backbone.processor, messages)
            where, content = f"sample {sample.id!r}", _with_images(plain, images)
            theirs, completions = self._chat(request | {"messages": content, "seed": seed}, where)
            _refuse_other_prompt(backbone, where, ids, theirs)
            return completions

        with ThreadPoolExecutor(len(prompts)) as pool:
            groups = list(pool.map(group, samples, prompts, batch["messages"], batch["images"], _seeds(samples, seed)))
        completions = [completion for group in groups for completion in group * (group_size // count)]
        return _padded(completions, backbone.stop_ids[0], prompt["input_ids"].device)

    def _hand_over(self, backbone: VLMBackbone) -> str:
        """What the server calls the policy as it is now, once it has its adapter."""
        if not self._base:
            self._base = self._check_server(backbone)
        trained = backbone.trainable_parameters()
        if not trained:
            return self._base
        weights = _digest(trained)
        if weights != self._weights:
            _refuse_other_than_language(backbone, trained)
            self._unload()
            directory = Path(tempfile.mkdtemp(prefix="dermiq-adapter-"))
            self._delete = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
            backbone.save_adapter(directory)
            self._call("/v1/load_lora_adapter", {"lora_name": directory.name, "lora_path": str(directory)})
            self._policy, self._weights = directory.name, weights
        return self._policy

    def _unload(self) -> None:
        """Let the server forget the adapter that it has, if any, and delete that."""
        policy, self._policy, self._weights = self._policy, "", b""
        try:
            if policy:
                self._call("/v1/unload_lora_adapter", {"lora_name": policy})
        except TrainingError as error:  # it was started anew, or has dropped the adapter for another one
            log.warning("an adapter could not be unloaded: %s", error)
        self._delete()

    def _check_server(self, backbone: VLMBackbone) -> str:
        """What the server calls the base model, after a look at what it serves and which log-probs it returns."""
        name = self.model or backbone.model_id
        try:
            served = [card["id"] for card in json.loads(self._call("/v1/models"))["data"]]
        except (ValueError, KeyError, TypeError):
            raise TrainingError(f"{self.url} is no vLLM server. {_REMEDY}") from None
        if name not in served:
            raise TrainingError(
                f"{self.url} serves {', '.join(served)}, not {name!r}. {_REMEDY} If it is the same model under another "
                "name, give that to the engine as `model`."
            )
        # Pushed up this much, a token is certain; its log-prob before the push is not 0.
        pushed = {"logit_bias": {str(backbone.stop_ids[0]): _BIAS}, "n": 1}
        request = _request(backbone, Sampling(1)) | pushed | {"model": name}
        _, (completion,) = self._chat(request | {"messages": [{"role": "user", "content": "?"}]}, self.url)
        if abs(completion.logprobs[0]) > 1e-3:
            raise TrainingError(
                f"{self.url} returns log-probs from before temperature and banned tokens: "
                f"{completion.logprobs[0]:.3f} for a token that was certain. {_REMEDY}"
            )
        return name

    def _chat(self, request: Mapping[str, Any], where: str) -> tuple[list[int], list[_Completion]]:
        """Token ids of a prompt, images' placeholders among them, and its completions."""
        reply = json.loads(self._call("/v1/chat/completions", request))
        choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        completions = [_read(choice, request, where) for choice in choices]
        if len(completions) != request["n"] or reply.get("prompt_token_ids") is None:
            raise TrainingError(
                f"{where}: the server returned {len(completions)} of {request['n']} completions, and "
                f"{'no' if reply.get('prompt_token_ids') is None else 'the'} token ids of the prompt. {_REMEDY}"
            )
        return reply["prompt_token_ids"], completions

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        return call(self.url + path, body, self.timeout, _REMEDY)


def _digest(parameters: Sequence[nn.Parameter]) -> bytes:
    """A hash of weights (float32)."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().flatten().cpu().numpy().data)
    return digest.digest()


def _refuse_other_than_language(backbone: VLMBackbone, trained: Sequence[nn.Parameter]) -> None:
    language = {id(parameter) for parameter in backbone.vlm.get_decoder().parameters()}
    if any(id(parameter) not in language for parameter in trained):
        raise TrainingError(
            "The adapter changes more than the language model, which vLLM would leave out. Train with `lora.vision: "
            "false` and no `lora.fully_trained`, or with the default engine."
        )


def _request(backbone: VLMBackbone, sampling: Sampling) -> dict[str, Any]:
    """What all requests of a batch have in common.

    Raises:
        TrainingError: if more tokens are banned than the server can hold down.
    """
    banned = backbone.banned.nonzero().flatten().tolist()
    if len(banned) > _MOST_BIASES:
        raise TrainingError(
            f"{backbone.model_id!r} has {len(banned)} tokens that a policy may not write, and vLLM can hold down "
            f"{_MOST_BIASES}: use the default engine."
        )
    return {
        **_PLAIN,
        "temperature": sampling.temperature,
        "max_completion_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
        "stop_token_ids": list(backbone.stop_ids),
        "logit_bias": {str(token): -_BIAS for token in banned},
        "logprobs": True,
        "return_token_ids": True,
    }


def _seeds(samples: Sequence[Sample], seed: str) -> list[int]:
    """The seed of each sample's first completion; the server counts on from it (48 bits leave room for that)."""
    return [int.from_bytes(digest[:6], "little") for digest in seed_digests(samples, seed)]


def _with_images(messages: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Chat messages with the images in the places that are kept for them."""
    urls = map(_data_url, images)
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image_url", "image_url": {"url": next(urls)}} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def _data_url(image: Image.Image) -> str:
    """An image as a PNG, which loses nothing."""
    with BytesIO() as file:
        image.save(file, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _refuse_other_prompt(backbone: VLMBackbone, where: str, ours: list[int], theirs: list[int]) -> None:
    """Compare the token ids of a prompt, which hold as many placeholders of an image as the model sees parts of it."""
    if ours == theirs:
        return
    place = next(i for i in range(len(ours) + 1) if ours[: i + 1] != theirs[: i + 1])
    tokenizer = backbone.processor.tokenizer
    here, there = (tokenizer.decode(ids[max(place - _SHOWN, 0) : place + _SHOWN]) for ids in (ours, theirs))
    raise TrainingError(
        f"{where}: the server makes another prompt of it than the trainer, {len(theirs)} tokens in place of "
        f"{len(ours)}. They part at token {place}: {there!r} in place of {here!r}. Both need the same model directory "
        "(chat template, processor, image size), and the server no --chat-template or --mm-processor-kwargs of its own."
    )


def _read(choice: Mapping[str, Any], request: Mapping[str, Any], where: str) -> _Completion:
    """A completion from the server's answer.

    Raises:
        TrainingError: if it lacks token ids or log-probs, is cut short, or holds tokens that are banned.
    """
    ids: list[int] = choice.get("token_ids") or []
    logprobs = [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or []]
    if not ids or len(ids) != len(logprobs):
        raise TrainingError(f"{where}: the server returned {len(ids)} token ids, {len(logprobs)} log-probs. {_REMEDY}")
    if not all(value is not None and math.isfinite(value) and value > _MISSING for value in logprobs):
        raise TrainingError(
            f"{where}: the server's log-probs are not finite. The policy's weights or this image are broken. If this "
            "came up in training, lower the learning rate and go on from the last adapter that works."
        )
    finish, most = choice.get("finish_reason"), request["max_completion_tokens"]
    if finish != "stop" and not (finish == "length" and len(ids) == most):
        raise TrainingError(
            f"{where}: the server ended a completion after {len(ids)} of {most} tokens ({finish!r}). Give it room for "
            "prompt and completion: raise --max-model-len, or lower sampling.max_new_tokens."
        )
    if banned := [token for token in ids if request["logit_bias"].get(str(token), 0.0) < 0]:
        raise TrainingError(f"{where}: the server wrote token {banned[0]}, which a policy may not write. {_REMEDY}")
    return _Completion(ids, logprobs)


def _padded(completions: Sequence[_Completion], end: int, device: torch.device) -> Completions:
    """Rows of different length as tensors [N, T], filled up with `end`."""
    width = max(len(completion.ids) for completion in completions)
    ids = torch.full((len(completions), width), end)
    logprobs = torch.zeros(len(completions), width, dtype=torch.float32)
    mask = torch.zeros(len(completions), width, dtype=torch.bool)
    for row, completion in enumerate(completions):
        length = len(completion.ids)
        ids[row, :length] = torch.tensor(completion.ids)
        logprobs[row, :length] = torch.tensor(completion.logprobs, dtype=torch.float32)
        mask[row, :length] = True
    return Completions(ids.to(device), mask.to(device), logprobs.to(device))
