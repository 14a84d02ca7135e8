"""Shared-prefix forward pass: a prompt and its images run once, and all of its completions continue from there.

Shapes: B prompts of P tokens, padded on the left; N completions of T tokens, padded on the right; t new tokens of each;
L tokens of whole conversations; K True places of a mask; kv heads of d channels; H channels of a hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dermiq.policy.attention import SharedPrefix, implementation
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.caches import CompletionCache, KeyValue, recorded_states, recording_cache
from dermiq.policy.logprobs import token_logprobs
from dermiq.schema import ModelError


class _InjectGradients(torch.autograd.Function):
    """A scalar 0 whose backward pass gives each source the gradient listed for it, whatever its own gradient is.

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
    """The state of prompts after their forward pass, from which completions continue.

    Attributes:
        states: keys and values of each layer, [B, kv, P, d].
        last_state: [B, H], the hidden state that predicts the first token of every completion.
        visible: [B, P] bool, False = padding; None if there is none.
        next_position: [B] int64, the rotary position of a completion's first token.
        leaves: the detached tensors among `states` and `last_state` that collect gradients.
        sources: the tensors of the prompts' graph that the leaves were detached from.
    """

    states: tuple[KeyValue, ...]
    last_state: Tensor
    visible: Tensor | None
    next_position: Tensor
    leaves: tuple[Tensor, ...] = ()
    sources: tuple[Tensor, ...] = ()

    def detach(self) -> Prefix:
        """The prefix cut from its graph, so that completions can run backward in parts.

        Tensors that need no gradient (keys of a first layer under frozen projections) get no leaf.
        """
        flat = [tensor for pair in self.states for tensor in pair] + [self.last_state]  # k, v, k, v, ..., last
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in flat]
        kept = [(leaf, source) for leaf, source in zip(leaves, flat, strict=True) if source.requires_grad]
        return Prefix(
            states=tuple(zip(leaves[0:-1:2], leaves[1:-1:2], strict=True)),
            last_state=leaves[-1],
            visible=self.visible,
            next_position=self.next_position,
            leaves=tuple(leaf for leaf, _ in kept),
            sources=tuple(source for _, source in kept),
        )

    def select(self, prompts: Tensor) -> Prefix:
        """The prefix of the prompts [b] int64, copied, without gradients."""
        return Prefix(
            states=tuple((keys.detach()[prompts], values.detach()[prompts]) for keys, values in self.states),
            last_state=self.last_state.detach()[prompts],
            visible=None if self.visible is None else self.visible[prompts],
            next_position=self.next_position[prompts],
        )

    def backward_through_prompt(self) -> Tensor:
        """A scalar 0 whose backward pass sends the gradients collected in the leaves through the prompt, once."""
        zero: Tensor = _InjectGradients.apply([leaf.grad for leaf in self.leaves], *self.sources)
        return zero

    def shared(self, prompts: Tensor, first: int | Tensor = 0) -> SharedPrefix:
        """Keys, values and masks of the `prompts` [b] for attention; not copied if these are all in their order."""
        everyone = len(prompts) == len(self.last_state) and bool((prompts[1:] > prompts[:-1]).all())
        states = self.states if everyone else [(keys[prompts], values[prompts]) for keys, values in self.states]
        visible = self.visible if everyone or self.visible is None else self.visible[prompts]
        return SharedPrefix(states, visible, first)


@dataclass(frozen=True)
class TokenScores:
    """Log-probs and entropies of completion tokens under the policy.

    Attributes:
        logprobs: [N, T] float32 in nats.
        entropy: [N, T] float32 in nats.
        states: [N, T, H] last hidden states, each the one that predicts its token; None unless requested.
    """

    logprobs: Tensor
    entropy: Tensor
    states: Tensor | None = None


def prefill(backbone: VLMBackbone, prompt: Mapping[str, Tensor]) -> Prefix:
    """The prefix of prompts and their images, by one forward pass.

    Args:
        backbone: a loaded backbone.
        prompt: `input_ids`, `attention_mask` [B, P] and the vision inputs; see `encode_prompts`.
    """
    vlm, mask = backbone.vlm, prompt["attention_mask"]
    cache = recording_cache()
    inputs = dict(prompt)
    multimodal_rope = hasattr(vlm.model, "rope_deltas") and "pixel_values" in prompt
    _forget_rope(vlm)
    if not multimodal_rope:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # [B, P], padding not counted
    output = vlm.model(**inputs, past_key_values=cache, use_cache=True)
    next_position = mask.sum(-1)
    if multimodal_rope and vlm.model.rope_deltas is not None:
        # An image takes fewer positions than tokens: the difference, [B, 1].
        next_position = next_position + vlm.model.rope_deltas.flatten()
    _forget_rope(vlm)
    return Prefix(
        states=recorded_states(cache),
        last_state=output.last_hidden_state[:, -1],  # [B, H]: the last column is never padding
        visible=None if mask.all() else mask.bool(),
        next_position=next_position,
    )


def continue_from(
    backbone: VLMBackbone, shared: SharedPrefix, ids: Tensor, positions: Tensor, cache: CompletionCache | None = None
) -> Tensor:
    """Hidden states [N, t, H] of completions' next tokens, N / B completions side by side for each shared prompt.

    Args:
        backbone: a loaded backbone.
        shared: the prompts.
        ids: [N, t] int64.
        positions: [N, t] int64, rotary.
        cache: keys and values of the completions' earlier tokens, to which those of `ids` are added; None if these are
            all.

    Raises:
        ModelError: if the model does not use transformers' attention functions.
    """
    decoder = backbone.vlm.get_decoder()
    with implementation(decoder.config):
        output = decoder(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            shared_prefix=shared,
        )
    if not shared.used:
        raise ModelError(f"{type(decoder).__name__} does not attend through transformers' attention functions.")
    states: Tensor = output.last_hidden_state
    return states


def score(
    backbone: VLMBackbone,
    prefix: Prefix,
    rows: Tensor,
    ids: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    restricted: bool = True,
    with_states: bool = False,
) -> TokenScores:
    """Log-probs and entropies of completions that continue a prefix.

    The prompts are not copied if each has as many of the completions as the others, or none.

    Args:
        backbone: a loaded backbone.
        prefix: the prompts, detached or not.
        rows: [N] int64, the prompt of each completion.
        ids: [N, T] int64.
        mask: [N, T] bool; log-probs and entropies elsewhere are 0.
        temperature: of the policy.
        restricted: renormalise over the tokens that a policy may sample, as the rollout does.
        with_states: return the hidden states too, also where `mask` is False.
    """
    states = prefix.last_state[rows, None]  # [N, 1, H], which predict the first tokens
    if ids.shape[1] > 1:
        order = rows.argsort(stable=True)  # [N]: attention wants a prompt's completions side by side
        prompts, counts = rows.unique(return_counts=True)
        # And as many of each prompt: else each completion gets a copy of its own.
        prompts = prompts if (counts == counts[0]).all() else rows[order]
        positions = prefix.next_position[rows, None] + torch.arange(ids.shape[1] - 1, device=ids.device)  # [N, T-1]
        after = continue_from(backbone, prefix.shared(prompts), ids[order, :-1], positions[order])  # [N, T-1, H]
        states = torch.cat([states, after[order.argsort()]], dim=1)  # [N, T, H], in the order of `rows` again
    output = backbone.output_layer(restricted)
    logprobs, entropy = token_logprobs(states[mask], ids[mask], output, temperature)  # [K]
    logprobs, entropy = scatter_masked(logprobs, mask), scatter_masked(entropy, mask)  # [N, T]
    return TokenScores(logprobs, entropy, states if with_states else None)


def sequence_logprobs(backbone: VLMBackbone, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Log-probs of some tokens of whole conversations, each given all tokens before it, in one forward pass.

    Over the whole vocabulary; logits are computed only for the tokens of `mask`.

    Args:
        backbone: a loaded backbone.
        inputs: `input_ids`, `attention_mask` [B, L], padded on the right, and the vision inputs; see
            `encode_conversations`.
        mask: [B, L] bool, True = a token whose log-prob is wanted; a row's first token has none.

    Returns:
        [B, L] float32 in nats, 0 where masked.
    """
    vlm = backbone.vlm
    _forget_rope(vlm)
    states = vlm.model(**inputs, use_cache=False).last_hidden_state  # [B, L, H]
    _forget_rope(vlm)
    output = backbone.output_layer(restricted=False)
    before = states[:, :-1][mask[:, 1:]]  # [K, H], each one token before its target
    logprobs, _ = token_logprobs(before, inputs["input_ids"][mask], output)
    return scatter_masked(logprobs, mask)


def scatter_masked(values: Tensor, mask: Tensor) -> Tensor:
    """A tensor of the mask's shape with `values` at its True places, in their order, and 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _forget_rope(vlm: Any) -> None:
    """Clear multimodal rotary offsets, which a model keeps from one batch to the next."""
    if hasattr(vlm.model, "rope_deltas"):
        vlm.model.rope_deltas = None
