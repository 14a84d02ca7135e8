"""An engine that samples on a running vLLM server, which loads the policy's adapter.

The server is started beside the training, on a GPU of its own or with a share of the training's, and must be able to
read the directories in which this process writes temporary files (`TMPDIR`)::

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK \
        --logprobs-mode processed_logprobs

vLLM and the trainer compute the same policy with different kernels, so their log-probs differ a little, and more if the
server quantises the base in another way. A rollout's log-probs are vLLM's, those of the distribution that its tokens
were sampled from: as the old policy's log-probs they let the clipped ratio of the policy loss correct the difference.

The interface is that of vLLM's OpenAI-compatible server and of its runtime LoRA updates, 0.10.2 or newer
(docs.vllm.ai: serving/openai_compatible_server, features/lora); written against the sources of 0.33.0.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import nn

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.prefix import Prefix
from dermiq.policy.sampling import Completions, Sampling
from dermiq.policy.special_tokens import in_plain_text
from dermiq.policy.vllm_protocol import (
    BIAS,
    REMEDY,
    Completion,
    build_request,
    first_seeds,
    read_completion,
    refuse_other_prompt,
    to_tensors,
    with_images,
)
from dermiq.ranges import SECONDS, check_numbers
from dermiq.schema import Sample, TrainingError
from dermiq.servers import call

log = logging.getLogger(__name__)


class VLLMServer:
    """Samples completions on a vLLM server, and updates the adapter there whenever it has changed.

    Each version of the adapter is loaded under a name of its own, because vLLM's prefix cache keys adapters by name
    (vLLM issue 42125); the version before is unloaded and deleted. Completions differ from those of the default engine,
    and are reproducible by seed, sample and place only as far as the server's kernels are deterministic.

    Args:
        url: of the server, without a path.
        model: what the server calls the base model; None takes the backbone's `model_id`.
        timeout: seconds to wait for a reply, which holds all completions of a prompt.
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
        batch: PromptBatch,
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        """See `dermiq.policy.sampling.Engine.complete`; of the batch, `messages` and `images` are needed.

        Raises:
            TrainingError: if the server cannot be reached, refuses a request, or samples from something other than the
                policy (another model, prompt, adapter or distribution).
        """
        policy = self._load_adapter(backbone)
        count = group_size if sampling.temperature else 1  # the server refuses more than one greedy completion
        request = build_request(backbone, sampling) | {"model": policy, "n": count}
        samples, prompt = batch["samples"], batch["prompt"]
        rows = zip(prompt["input_ids"].tolist(), prompt["attention_mask"].sum(-1).tolist(), strict=True)
        prompts = [row[-length:] for row, length in rows]

        def group(sample: Sample, ids: list[int], messages: Any, images: Any, seed: int) -> list[Completion]:
            plain = in_plain_text(backbone.processor, messages)
            where, content = f"sample {sample.id!r}", with_images(plain, images)
            theirs, completions = self._chat(request | {"messages": content, "seed": seed}, where)
            refuse_other_prompt(backbone, where, ids, theirs)
            return completions

        with ThreadPoolExecutor(len(prompts)) as pool:
            seeds = first_seeds(samples, seed)
            groups = list(pool.map(group, samples, prompts, batch["messages"], batch["images"], seeds))
        completions = [completion for group in groups for completion in group * (group_size // count)]
        return to_tensors(completions, backbone.stop_ids[0], prompt["input_ids"].device)

    def _load_adapter(self, backbone: VLMBackbone) -> str:
        """The server's name of the policy, whose present adapter it has loaded."""
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
        """Unload the server's adapter, if it has one, and delete its files."""
        policy, self._policy, self._weights = self._policy, "", b""
        try:
            if policy:
                self._call("/v1/unload_lora_adapter", {"lora_name": policy})
        except TrainingError as error:  # the server was restarted, or has evicted the adapter
            log.warning("an adapter could not be unloaded: %s", error)
        self._delete()

    def _check_server(self, backbone: VLMBackbone) -> str:
        """The server's name of the base model, once it is known that it serves it and returns the right log-probs."""
        name = self.model or backbone.model_id
        try:
            served = [card["id"] for card in json.loads(self._call("/v1/models"))["data"]]
        except (ValueError, KeyError, TypeError):
            raise TrainingError(f"{self.url} is no vLLM server. {REMEDY}") from None
        if name not in served:
            raise TrainingError(
                f"{self.url} serves {', '.join(served)}, not {name!r}. {REMEDY} If it is the same model under another "
                "name, give that to the engine as `model`."
            )
        # With this bias a token is certain: its log-prob is 0, unless the server reports it from before the bias.
        biased = {"logit_bias": {str(backbone.stop_ids[0]): BIAS}, "n": 1}
        request = build_request(backbone, Sampling(1)) | biased | {"model": name}
        _, (completion,) = self._chat(request | {"messages": [{"role": "user", "content": "?"}]}, self.url)
        if abs(completion.logprobs[0]) > 1e-3:
            raise TrainingError(
                f"{self.url} returns log-probs from before temperature and banned tokens: "
                f"{completion.logprobs[0]:.3f} for a token that was certain. {REMEDY}"
            )
        return name

    def _chat(self, request: Mapping[str, Any], where: str) -> tuple[list[int], list[Completion]]:
        """Token ids of a prompt, with placeholders of images, and its completions."""
        reply = json.loads(self._call("/v1/chat/completions", request))
        choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        completions = [read_completion(choice, request, where) for choice in choices]
        if len(completions) != request["n"] or reply.get("prompt_token_ids") is None:
            raise TrainingError(
                f"{where}: the server returned {len(completions)} of {request['n']} completions, and "
                f"{'no' if reply.get('prompt_token_ids') is None else 'the'} token ids of the prompt. {REMEDY}"
            )
        return reply["prompt_token_ids"], completions

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        return call(self.url + path, body, self.timeout, REMEDY)


def _digest(parameters: Sequence[nn.Parameter]) -> bytes:
    """A hash of weights (float32)."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().flatten().cpu().numpy().data)
    return digest.digest()


def _refuse_other_than_language(backbone: VLMBackbone, trained: Sequence[nn.Parameter]) -> None:
    """Refuse an adapter outside the language model."""
    language = {id(parameter) for parameter in backbone.vlm.get_decoder().parameters()}
    if any(id(parameter) not in language for parameter in trained):
        raise TrainingError(
            "The adapter changes more than the language model, which vLLM would leave out. Train with `lora.vision: "
            "false` and no `lora.fully_trained`, or with the default engine."
        )
