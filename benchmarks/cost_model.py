"""Cost model of a GRPO step with a shared and with a duplicated prompt: tokens, images, FLOPs and bytes.

One prompt of P tokens with its pictures, G completions of T tokens each. Counted are multiplications with additions (2
FLOPs) of linear layers, LoRA and attention, in float32; norms, activations and rotary embeddings are not.

* A linear layer of n weights costs 2 n per token forward, and as much backward: its weights are frozen, so only the
  gradient of its input is made. LoRA's two factors cost three times their forward pass in all.
* Causal attention of n tokens has n (n + 1) / 2 pairs, and a pair costs 4 FLOPs per query channel and layer forward
  (scores, and values), twice as much backward. Sliding windows count in full, as transformers computes them.
* The output layer runs for the completions alone, forward and backward; making log-probs in tiles costs both sides a
  second forward pass.
* The frozen vision tower runs forward alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True)
class LanguageModel:
    """Sizes of a decoder with gated feed-forward layers and LoRA on its four attention projections.

    Attributes:
        layers: how many.
        hidden: width.
        inner: width of the feed-forward layers.
        query: channels of all query heads of a layer.
        key: channels of all key heads; as many of the values.
        vocabulary: words.
        rank: of the adapters.
    """

    layers: int
    hidden: int
    inner: int
    query: int
    key: int
    vocabulary: int
    rank: int

    @property
    def weights(self) -> int:
        """Frozen weights of all layers' matrices."""
        return self.layers * self.hidden * (2 * self.query + 2 * self.key + 3 * self.inner)

    @property
    def adapters(self) -> int:
        """Weights of all adapters."""
        return self.layers * self.rank * (4 * self.hidden + 2 * self.query + 2 * self.key)

    def forward(self, tokens: float, pairs: float) -> float:
        """FLOPs of `tokens` through all layers, that attend `pairs` times."""
        return 2 * (self.weights + self.adapters) * tokens + 4 * self.layers * self.query * pairs

    def backward(self, tokens: float, pairs: float) -> float:
        """FLOPs of the gradients of the same."""
        return 2 * (self.weights + 2 * self.adapters) * tokens + 8 * self.layers * self.query * pairs

    def output(self, tokens: float) -> float:
        """FLOPs of the logits of `tokens`."""
        return 2 * self.hidden * self.vocabulary * tokens

    @property
    def cached(self) -> int:
        """Bytes of keys and values per token."""
        return 2 * self.layers * self.key * FLOAT

    @property
    def saved(self) -> int:
        """Bytes that the backward pass keeps per token.

        Per layer the input of each of the two norms and their outputs (4 widths), queries and attention output before
        and after rotation or projection (3 times), keys and values (3 times), three of the feed-forward layer.
        """
        return self.layers * FLOAT * (4 * self.hidden + 3 * self.query + 3 * self.key + 3 * self.inner)


@dataclass(frozen=True)
class Tower:
    """A frozen vision tower, and what it reads: all pictures of a prompt.

    Attributes:
        blocks: how many.
        hidden: width.
        inner: width of the feed-forward layers.
        gated: the feed-forward layers have three matrices in place of two.
        patches: of all pictures of the prompt.
        pairs: pairs of patches that attend to each other, of all blocks together.
        patch: values of a patch.
        projection: weights of what maps patches to the language model, per patch.
    """

    blocks: int
    hidden: int
    inner: int
    gated: bool
    patches: int
    pairs: int
    patch: int
    projection: float

    @property
    def flops(self) -> float:
        """FLOPs of encoding the prompt's pictures once."""
        block = 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.inner
        linear = self.patch * self.hidden + self.blocks * block + self.projection
        return 2 * linear * self.patches + 4 * self.hidden * self.pairs


@dataclass(frozen=True)
class Step:
    """One prompt and its completions.

    Attributes:
        prompt: tokens of the prompt, pictures included.
        images: pictures of the prompt.
        new: tokens of each completion.
        group: completions.
    """

    prompt: int
    images: int
    new: int
    group: int

    @property
    def completions(self) -> int:
        """Tokens of all completions."""
        return self.group * self.new

    @property
    def completion_pairs(self) -> float:
        """How often the fed tokens of all completions attend: the last token of each is never fed."""
        fed = self.new - 1
        return self.group * (fed * self.prompt + causal(fed))


@dataclass(frozen=True)
class Cost:
    """What a phase costs.

    Attributes:
        tokens: that run forward through the language model.
        images: that are encoded.
        flops: forward and backward.
        cache_bytes: keys and values that are held at the end.
        saved_bytes: activations kept for the backward pass, at most.
        read_bytes: weights, keys and values that all steps of decoding read, before the last.
    """

    tokens: float = 0
    images: float = 0
    flops: float = 0
    cache_bytes: float = 0
    saved_bytes: float = 0
    read_bytes: float = 0

    def __add__(self, other: Cost) -> Cost:
        """Work adds up; of what is held at a time the larger counts."""
        return Cost(
            self.tokens + other.tokens,
            self.images + other.images,
            self.flops + other.flops,
            max(self.cache_bytes, other.cache_bytes),
            max(self.saved_bytes, other.saved_bytes),
            self.read_bytes + other.read_bytes,
        )


def causal(tokens: float) -> float:
    """Pairs of a causal pass over `tokens`."""
    return tokens * (tokens + 1) / 2


def shared(model: LanguageModel, tower: Tower, step: Step, tokens_per_pass: int) -> dict[str, Cost]:
    """DermIQ: the prompt and its pictures run forward once, with gradient, in the rollout, and backward once.

    Args:
        model: the language model.
        tower: its eyes.
        step: the prompt and its completions.
        tokens_per_pass: tokens of completions in a micro-batch.

    Returns:
        Costs of `prefill`, `rollout` (prefill included), `update`, `update_alone` (with the prefill), and `step`.
    """
    pairs = causal(step.prompt)
    fed = step.completions - step.group
    held = step.prompt + step.completions
    prefill = Cost(
        step.prompt,
        step.images,
        model.forward(step.prompt, pairs) + tower.flops,
        step.prompt * model.cached,
        step.prompt * model.saved,
    )
    decode = Cost(
        fed,
        0,
        model.forward(fed, step.completion_pairs) + model.output(step.completions),
        held * model.cached,
        prefill.saved_bytes,
        _reads(model, step, prompts=1),
    )
    update = Cost(
        fed,
        0,
        model.forward(fed, step.completion_pairs)
        + model.backward(fed, step.completion_pairs)
        + model.backward(step.prompt, pairs)
        + 3 * model.output(step.completions),
        step.prompt * model.cached,
        (step.prompt + min(tokens_per_pass, step.completions)) * model.saved,
    )
    return _phases(prefill, decode, update) | {"update_alone": prefill + update}


def duplicated(model: LanguageModel, tower: Tower, step: Step, micro_batch: int) -> dict[str, Cost]:
    """TRL 1.16: every completion brings its own copy of prompt and pictures, to the rollout and to the update.

    Args:
        model: the language model.
        tower: its eyes.
        step: the prompt and its completions.
        micro_batch: completions that run forward and backward together.

    Returns:
        Costs of `prefill`, `rollout` (prefill included), `update`, and `step`.
    """
    pairs, whole = causal(step.prompt), step.prompt + step.new
    fed = step.completions - step.group
    prefill = Cost(
        step.group * step.prompt,
        step.group * step.images,
        step.group * (model.forward(step.prompt, pairs) + tower.flops),
        step.group * step.prompt * model.cached,
    )
    decode = Cost(
        fed,
        0,
        model.forward(fed, step.completion_pairs) + model.output(step.completions),
        step.group * whole * model.cached,
        0,
        _reads(model, step, prompts=step.group),
    )
    update = Cost(
        step.group * whole,
        step.group * step.images,
        step.group * (model.forward(whole, causal(whole)) + model.backward(whole, causal(whole)) + tower.flops)
        + 3 * model.output(step.completions),
        0,
        micro_batch * whole * model.saved,
    )
    return _phases(prefill, decode, update)


def ratios(slow: dict[str, Cost], fast: dict[str, Cost]) -> dict[str, dict[str, float]]:
    """By phase and quantity, what `slow` costs over what `fast` costs, where both cost something."""
    slow = slow | {"update_alone": slow["update"]}
    return {
        phase: {
            name: value / asdict(fast[phase])[name]
            for name, value in asdict(slow[phase]).items()
            if value and asdict(fast[phase])[name]
        }
        for phase in fast
    }


def _phases(prefill: Cost, decode: Cost, update: Cost) -> dict[str, Cost]:
    return {
        "prefill": prefill,
        "rollout": prefill + decode,
        "update": update,
        "step": prefill + decode + update,
    }


def _reads(model: LanguageModel, step: Step, prompts: int) -> float:
    """Bytes that decoding reads: all weights in each step, and what is cached of `prompts` prompts and completions."""
    steps = step.new - 1
    weights = (model.weights + model.adapters + model.hidden * model.vocabulary) * FLOAT * steps
    return weights + model.cached * (prompts * step.prompt * steps + step.group * causal(steps))
