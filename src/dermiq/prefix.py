"""One prompt, many completions: the prompt and its images run once, every completion forks from it.

Shapes: B prompts of P tokens (padded on the left), N completions of T tokens (padded on the right),
V vocabulary. Log-probs are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dermiq.backbone import VLMBackbone
from dermiq.caches import Cache, KeyValue, fork_cache, recorded_states, recording_cache


class _SendBack(torch.autograd.Function):
    """A zero whose backward pass hands the given gradients to their sources, whatever its own gradient is.

    The gradients were made from a loss that is scaled already (mixed precision), so they are not scaled again.
    """

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor | None], *sources: Tensor) -> Tensor:
        ctx.gradients = gradients
        return sources[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Any, ...]:
        return (None, *ctx.gradients)


@dataclass(frozen=True)
class Prefix:
    """What completions need of their prompts.

    Attributes:
        states: keys and values of each layer, [B, heads, P, head_dim].
        last_logits: [B, V], they predict the first token of every completion.
        attention_mask: [B, P] int64, 0 = padding.
        next_position: [B] int64, the rotary position of a completion's first token.
        leaves: the detached tensors among `states` and `last_logits` that collect gradients.
        sources: the tensors of the graph that the leaves stand for.
    """

    states: tuple[KeyValue, ...]
    last_logits: Tensor
    attention_mask: Tensor
    next_position: Tensor
    leaves: tuple[Tensor, ...] = ()
    sources: tuple[Tensor, ...] = ()

    def detach(self) -> Prefix:
        """The same prefix cut from its graph, so that completions can run backward in parts.

        Tensors that need no gradient (keys of a first layer under frozen projections) get no leaf.
        """
        flat = [tensor for pair in self.states for tensor in pair] + [self.last_logits]
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in flat]
        kept = [(leaf, source) for leaf, source in zip(leaves, flat, strict=True) if source.requires_grad]
        return Prefix(
            states=tuple(zip(leaves[0:-1:2], leaves[1:-1:2], strict=True)),
            last_logits=leaves[-1],
            attention_mask=self.attention_mask,
            next_position=self.next_position,
            leaves=tuple(leaf for leaf, _ in kept),
            sources=tuple(source for _, source in kept),
        )

    def pullback(self) -> Tensor:
        """A scalar 0 whose backward pass sends the gradients collected in the leaves through the prompt, once."""
        zero: Tensor = _SendBack.apply([leaf.grad for leaf in self.leaves], *self.sources)
        return zero


@dataclass(frozen=True)
class TokenScores:
    """Log-probs and entropies of completion tokens, both [N, T] float32, in nats."""

    logprobs: Tensor
    entropy: Tensor


def prefill(backbone: VLMBackbone, prompt: Mapping[str, Tensor]) -> Prefix:
    """Run prompts and images once.

    Args:
        backbone: a loaded backbone.
        prompt: `input_ids`, `attention_mask` [B, P] and the vision inputs, as `encode_prompts` made them.
    """
    vlm, mask = backbone.vlm, prompt["attention_mask"]
    cache = recording_cache()
    inputs = dict(prompt)
    multimodal_rope = hasattr(vlm.model, "rope_deltas") and "pixel_values" in prompt
    _forget_rope(vlm)
    if not multimodal_rope:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    output = vlm(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    next_position = mask.sum(-1)
    if multimodal_rope and vlm.model.rope_deltas is not None:
        next_position = next_position + vlm.model.rope_deltas.flatten()
    _forget_rope(vlm)
    return Prefix(
        states=recorded_states(cache),
        last_logits=output.logits[:, -1],
        attention_mask=mask,
        next_position=next_position,
    )


def continue_from(
    backbone: VLMBackbone, prefix: Prefix, cache: Cache, rows: Tensor, ids: Tensor, mask: Tensor, done: int = 0
) -> Tensor:
    """Logits [N, t, V] after each of the tokens `ids` [N, t], which follow `done` earlier tokens of a completion.

    Args:
        backbone: a loaded backbone.
        prefix: the prompts.
        cache: keys and values of the prompts `rows` and of the `done` tokens.
        rows: [N] int64, the prompt of each completion.
        ids: [N, t] int64.
        mask: [N, done + t] bool, True = a token of the completion.
        done: tokens of the completions that the cache holds already.
    """
    steps = torch.arange(done, done + ids.shape[1], device=ids.device)
    logits: Tensor = backbone.vlm(
        input_ids=ids,
        attention_mask=torch.cat([prefix.attention_mask[rows], mask.long()], dim=1),
        position_ids=prefix.next_position[rows, None] + steps,
        past_key_values=cache,
        use_cache=True,
    ).logits
    return logits


def score(
    backbone: VLMBackbone,
    prefix: Prefix,
    rows: Tensor,
    ids: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    restricted: bool = True,
) -> TokenScores:
    """Log-probs of completions that fork from a prefix.

    Args:
        backbone: a loaded backbone.
        prefix: the prompts, detached or not.
        rows: [N] int64, the prompt of each completion.
        ids: [N, T] int64.
        mask: [N, T] bool; log-probs and entropies elsewhere are 0.
        temperature: of the policy.
        restricted: renormalise over the tokens that a policy may write, as the rollout does.
    """
    logits = prefix.last_logits[rows, None]
    if ids.shape[1] > 1:
        cache = fork_cache(prefix.states, rows)
        logits = torch.cat([logits, continue_from(backbone, prefix, cache, rows, ids[:, :-1], mask[:, :-1])], dim=1)
    distribution = log_softmax(logits, backbone.banned if restricted else None, temperature)
    logprobs = distribution.gather(-1, ids[..., None]).squeeze(-1)
    entropy = -(distribution.exp() * distribution.clamp(min=-1e4)).sum(-1)
    return TokenScores(logprobs.masked_fill(~mask, 0.0), entropy.masked_fill(~mask, 0.0))


def sequence_logprobs(backbone: VLMBackbone, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Log-probs of some tokens of whole conversations, each given all that stands before it, in one pass.

    Logits are made for the columns alone that some row of `mask` needs, over the whole vocabulary.

    Args:
        backbone: a loaded backbone.
        inputs: `input_ids`, `attention_mask` [B, L], padded on the right, and the vision inputs, as
            `encode_conversations` made them.
        mask: [B, L] bool, True = a token whose log-prob is wanted; a row's first token has none.

    Returns:
        [B, L] float32 in nats, 0 where masked.
    """
    vlm = backbone.vlm
    _forget_rope(vlm)
    columns = mask.any(0).nonzero().flatten()
    logits = vlm(**inputs, use_cache=False, logits_to_keep=columns - 1).logits
    _forget_rope(vlm)
    targets = inputs["input_ids"][:, columns]
    logprobs = -cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    wanted = logprobs.view_as(targets).masked_fill(~mask[:, columns], 0.0)
    return wanted.new_zeros(mask.shape).index_copy(1, columns, wanted)


def _forget_rope(vlm: Any) -> None:
    """Multimodal rotary offsets are model state that must not outlive a batch."""
    if hasattr(vlm.model, "rope_deltas"):
        vlm.model.rope_deltas = None


def log_softmax(logits: Tensor, banned: Tensor | None, temperature: float = 1.0) -> Tensor:
    """Log-probs [..., V] float32 of a policy that never writes the tokens `banned` [V] (bool)."""
    scaled = logits.float() / temperature
    if banned is not None:
        scaled = scaled.masked_fill(banned, -torch.inf)
    return scaled.log_softmax(-1)
