"""Requests to a vLLM server, and completions from its replies."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import torch
from PIL import Image

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.sampling import Completions, Sampling, seed_digests
from dermiq.schema import Sample, TrainingError

REMEDY = (
    "Start the server with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK "
    "--logprobs-mode processed_logprobs`: vLLM 0.10.2 or newer, MODEL the backbone's model_id, RANK at least the "
    "adapter's, on a machine that can read this one's temporary files (TMPDIR)."
)
BIAS = 100.0  # the largest bias of a logit that the server accepts
_MOST_BIASES = 1024  # biases that its sampler takes, per request
_MISSING = -9999.0  # the server's value for an unknown log-prob
# What a request leaves out the server takes from the model's generation_config: another distribution.
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
_PLAIN |= {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_SHOWN = 12  # tokens of a prompt that a message shows


class Completion(NamedTuple):
    """A completion's token ids, with the end of the turn, and their log-probs."""

    ids: list[int]
    logprobs: list[float]


def build_request(backbone: VLMBackbone, sampling: Sampling) -> dict[str, Any]:
    """The part of a request that is the same for all prompts of a batch.

    Raises:
        TrainingError: if more tokens are banned than a request can bias.
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
        "logit_bias": {str(token): -BIAS for token in banned},
        "logprobs": True,
        "return_token_ids": True,
    }


def first_seeds(samples: Sequence[Sample], seed: str) -> list[int]:
    """The seed of each sample's first completion, 48 bits; the server adds 1 for each further one."""
    return [int.from_bytes(digest[:6], "little") for digest in seed_digests(samples, seed)]


def with_images(messages: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Chat messages with the images in place of their placeholders."""
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
    """The data URL of an image, as PNG, which is lossless."""
    with BytesIO() as file:
        image.save(file, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def refuse_other_prompt(backbone: VLMBackbone, where: str, ours: list[int], theirs: list[int]) -> None:
    """Refuse a prompt whose token ids, with placeholders of images, are not the trainer's."""
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


def read_completion(choice: Mapping[str, Any], request: Mapping[str, Any], where: str) -> Completion:
    """A completion from one choice of the server's reply.

    Raises:
        TrainingError: if it lacks token ids or log-probs, is truncated, or holds banned tokens.
    """
    ids: list[int] = choice.get("token_ids") or []
    logprobs = [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or []]
    if not ids or len(ids) != len(logprobs):
        raise TrainingError(f"{where}: the server returned {len(ids)} token ids, {len(logprobs)} log-probs. {REMEDY}")
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
        raise TrainingError(f"{where}: the server wrote token {banned[0]}, which a policy may not write. {REMEDY}")
    return Completion(ids, logprobs)


def to_tensors(completions: Sequence[Completion], end: int, device: torch.device) -> Completions:
    """Completions [N, T], the ids padded with `end`."""
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
