"""One prompt, many completions: the prompt and its images run once, every completion forks from it.

Shapes: B prompts of P tokens (padded on the left), N completions of T tokens (padded on the right),
H channels of a hidden state. Log-probs are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dermiq.policy.attention import SharedPrefix, implementation
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.caches import KeyValue, OwnCache, recorded_states, recording_cache
from dermiq.policy.logprobs import token_logprobs
from dermiq.schema import ModelError


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
        last_state: [B, H], the hidden state that predicts the first token of every completion.
        visible: [B, P] bool, False = padding; None if there is none.
        next_position: [B] int64, the rotary position of a completion's first token.
        leaves: the detached tensors among `states` and `last_state` that collect gradients.
        sources: the tensors of the graph that the leaves stand for.
    """

    states: tuple[KeyValue, ...]
    last_state: Tensor
    visible: Tensor | None
    next_position: Tensor
    leaves: tuple[Tensor, ...] = ()
    sources: tuple[Tensor, ...] = ()

    def detach(self) -> Prefix:
        """The same prefix cut from its graph, so that completions can run backward in parts.

        Tensors that need no gradient (keys of a first layer under frozen projections) get no leaf.
        """
        flat = [tensor for pair in self.states for tensor in pair] + [self.last_state]
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

    def only(self, prompts: Tensor) -> Prefix:
        """The prompts [b] int64 alone, their states copied, without gradients."""
        return Prefix(
            states=tuple((keys.detach()[prompts], values.detach()[prompts]) for keys, values in self.states),
            last_state=self.last_state.detach()[prompts],
            visible=None if self.visible is None else self.visible[prompts],
            next_position=self.next_position[prompts],
        )

    def pullback(self) -> Tensor:
        """A scalar 0 whose backward pass sends the gradients collected in the leaves through the prompt, once."""
        zero: Tensor = _SendBack.apply([leaf.grad for leaf in self.leaves], *self.sources)
        return zero

    def shared(self, prompts: Tensor, first: int | Tensor = 0) -> SharedPrefix:
        """The `prompts` [b] for attention; all of them in their order are not copied."""
        everyone = len(prompts) == len(self.last_state) and bool((prompts[1:] > prompts[:-1]).all())
        states = self.states if everyone else [(keys[prompts], values[prompts]) for keys, values in self.states]
        visible = self.visible if everyone or self.visible is None else self.visible[prompts]
        return SharedPrefix(states, visible, first)


@dataclass(frozen=True)
class TokenScores:
    """What the policy makes of completion tokens.

    Attributes:
        logprobs: [N, T] float32 in nats.
        entropy: [N, T] float32 in nats.
        states: [N, T, H] last hidden states, each the one that predicts its token; None if not asked for.
    """

    logprobs: Tensor
    entropy: Tensor
    states: Tensor | None = None


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
    output = vlm.model(**inputs, past_key_values=cache, use_cache=True)
    next_position = mask.sum(-1)
    if multimodal_rope and vlm.model.rope_deltas is not None:
        next_position = next_position + vlm.model.rope_deltas.flatten()
    _forget_rope(vlm)
    return Prefix(
        states=recorded_states(cache),
        last_state=output.last_hidden_state[:, -1],
        visible=None if mask.all() else mask.bool(),
        next_position=next_position,
    )


def continue_from(
    backbone: VLMBackbone, shared: SharedPrefix, ids: Tensor, positions: Tensor, cache: OwnCache | None = None
) -> Tensor:
    """Hidden states [N, t, H] of completions' next tokens, N / B of them side by side for each shared prompt.

    Args:
        backbone: a loaded backbone.
        shared: the prompts.
        ids: [N, t] int64.
        positions: [N, t] int64, rotary.
        cache: keys and values of the completions' earlier tokens, which takes those of `ids` too; None if these are
            the first.

    Raises:
        ModelError: if the model goes round transformers' attention functions.
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
    """Log-probs of completions that fork from a prefix.

    Nothing of the prompts is copied where each of them has as many of the completions as the others or none.

    Args:
        backbone: a loaded backbone.
        prefix: the prompts, detached or not.
        rows: [N] int64, the prompt of each completion.
        ids: [N, T] int64.
        mask: [N, T] bool; log-probs and entropies elsewhere are 0.
        temperature: of the policy.
        restricted: renormalise over the tokens that a policy may write, as the rollout does.
        with_states: return the hidden states too, which the masked places have as well.
    """
    states = prefix.last_state[rows, None]
    if ids.shape[1] > 1:
        order = rows.argsort(stable=True)
        prompts, counts = rows.unique(return_counts=True)
        prompts = prompts if (counts == counts[0]).all() else rows[order]
        positions = prefix.next_position[rows, None] + torch.arange(ids.shape[1] - 1, device=ids.device)
        after = continue_from(backbone, prefix.shared(prompts), ids[order, :-1], positions[order])
        states = torch.cat([states, after[order.argsort()]], dim=1)
    output = backbone.output_layer(restricted)
    logprobs, entropy = token_logprobs(states[mask], ids[mask], output, temperature)
    return TokenScores(placed(logprobs, mask), placed(entropy, mask), states if with_states else None)


def sequence_logprobs(backbone: VLMBackbone, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Log-probs of some tokens of whole conversations, each given all that stands before it, in one pass.

    Logits are made for the tokens alone that `mask` names, over the whole vocabulary.

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
    states = vlm.model(**inputs, use_cache=False).last_hidden_state
    _forget_rope(vlm)
    output = backbone.output_layer(restricted=False)
    logprobs, _ = token_logprobs(states[:, :-1][mask[:, 1:]], inputs["input_ids"][mask], output)
    return placed(logprobs, mask)


def placed(values: Tensor, mask: Tensor) -> Tensor:
    """Values of the True places of a mask in its shape, 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _forget_rope(vlm: Any) -> None:
    """Multimodal rotary offsets are model state that must not outlive a batch."""
    if hasattr(vlm.model, "rope_deltas"):
        vlm.model.rope_deltas = None
