"""Packing: log-probs of a batch of conversations that runs as one row, without its padding.

What works token by token (projections, MLPs, norms, the vocabulary) needs no padding: the batch runs as one row of its
real tokens, in their order, and so do its images. Attention alone looks beyond a token. It puts queries, keys and
values back into the padded batch, so that a conversation attends to itself alone, under the model's own mask.

Shapes: B conversations, padded on the right to W tokens; S tokens of them in all, without padding; K True places of a
mask; `heads` of d channels (kv of them for keys and values); H channels of a hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_masks_for_generate

from dermiq.policy.attention import implementation
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.logprobs import token_logprobs
from dermiq.policy.prefix import scatter_masked, sequence_logprobs
from dermiq.schema import ModelError

IMPLEMENTATION = "dermiq_packed"
TOLERANCE = 0.05  # nats a token: more than rounding in bfloat16, less than a wrong mask makes
_PER_TOKEN = ("input_ids", "token_type_ids", "mm_token_type_ids")


def can_pack(backbone: VLMBackbone) -> bool:
    """True if a loaded backbone can pack: tokens interact in attention alone, by ``sdpa`` or a flash kernel.

    Eager attention cannot, nor can layers that carry a state from token to token.
    """
    kind, layers = _kind(backbone), getattr(backbone.vlm.get_decoder().config, "layer_types", None)
    return (kind == "sdpa" or "flash" in kind) and {*(layers or ())} <= {"full_attention", "sliding_attention"}


def check_packing(backbone: VLMBackbone, inputs: Mapping[str, Tensor], mask: Tensor) -> None:
    """Compare packed log-probs with those of the padded batch, for models never tried; see `packed_logprobs`.

    Raises:
        ModelError: if they differ.
    """
    # One more column of padding, so that every batch is packed; new tensors, so that no features stay remembered.
    columns = (*_PER_TOKEN, "attention_mask")
    inputs = {name: pad(value, (0, 1)) if name in columns else value.clone() for name, value in inputs.items()}
    mask = pad(mask, (0, 1))
    with backbone.sampling_mode():
        error = packed_logprobs(backbone, inputs, mask) - sequence_logprobs(backbone, inputs, mask)
    difference = float(error.abs().sum() / mask.sum().clamp(min=1))
    if difference > TOLERANCE:
        raise ModelError(
            f"Without their padding, conversations get other log-probs from {backbone.model_id!r} (by {difference:.3f} "
            "nats a token): it lets tokens see each other in a way that is not known here. Set "
            "--model.packing=false."
        )


def packed_logprobs(backbone: VLMBackbone, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Log-probs as of `dermiq.policy.prefix.sequence_logprobs`, without computing anything for padding.

    A batch without padding runs as it is. Flash kernels get no mask: they tell conversations apart by positions that
    start again at 0.

    Args:
        backbone: a loaded backbone that can pack.
        inputs: `input_ids`, `attention_mask` [B, W], padded on the right, and the vision inputs; see
            `encode_conversations`.
        mask: [B, W] bool, True = a token whose log-prob is wanted; a row's first token has none.

    Returns:
        [B, W] float32 in nats, 0 where masked.
    """
    keep = inputs["attention_mask"].bool()
    if keep.all():
        return sequence_logprobs(backbone, inputs, mask)
    vlm, decoder, kind = backbone.vlm, backbone.vlm.get_decoder(), _kind(backbone)
    tokens = {name: inputs[name][keep][None] for name in _PER_TOKEN if name in inputs}  # each [1, S]
    vision = {name: value for name, value in inputs.items() if name not in (*_PER_TOKEN, "attention_mask")}
    packed: dict[str, Any] = {"attention_mask": None, "position_ids": _positions(vlm, inputs, keep)}
    if kind == "sdpa":
        packed["attention_mask"], kind = _masks(vlm, inputs), IMPLEMENTATION
    with implementation(decoder.config, kind):
        states = vlm.model(**tokens, **vision, **packed, use_cache=False).last_hidden_state[0]  # [S, H]
    wanted = mask[keep].nonzero()[:, 0]  # [K], places in the row
    output = backbone.output_layer(restricted=False)
    logprobs, _ = token_logprobs(states[wanted - 1], tokens["input_ids"][0, wanted], output)  # [K]
    return scatter_masked(logprobs, mask)  # [B, W]


def _kind(backbone: VLMBackbone) -> str:
    return str(backbone.vlm.get_decoder().config._attn_implementation)


def _positions(vlm: Any, inputs: Mapping[str, Tensor], keep: Tensor) -> Tensor:
    """Positions that start again at 0 in each conversation: [1, S], or [4, 1, S] with three multimodal ones below."""
    positions = (keep.cumsum(-1) - 1)[None]  # [1, B, W]
    if not hasattr(vlm.model, "get_rope_index"):
        return positions[:, keep]
    rope = positions.expand(3, -1, -1)  # [3, B, W]
    if "pixel_values" in inputs:
        rope, _ = vlm.model.get_rope_index(
            inputs["input_ids"],
            inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
    return torch.cat([positions, rope])[:, None, keep]  # [4, B, W] -> [4, 1, S]


def _masks(vlm: Any, inputs: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """The model's own masks of the padded batch, [B, 1, W, W] bool, by kind of layer if there are several.

    Padding comes last, so that a causal mask hides it already. A mask that is causal and nothing else is not made: a
    tensor without rows, [B, 1, 0, W], stands in its place and tells `attend` the shape.
    """
    ids = inputs["input_ids"]
    make: Any = getattr(vlm, "create_masks_for_generate", create_masks_for_generate)
    made = make(
        config=vlm.config,
        inputs_embeds=torch.empty(*ids.shape, 0, device=ids.device),
        attention_mask=None,
        past_key_values=None,
        position_ids=None,
        **{name: inputs[name] for name in _PER_TOKEN[1:] if name in inputs},
    )
    causal = torch.empty(len(ids), 1, 0, ids.shape[1], dtype=torch.bool, device=ids.device)
    if not isinstance(made, dict):
        return causal if made is None else made
    if all(mask is None for mask in made.values()):
        return causal
    return {kind: causal if mask is None else mask for kind, mask in made.items()}


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    position_ids: Tensor,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention output, query [1, heads, S, d], key and value [1, kv, S, d] -> [1, S, heads, d].

    All that it knows of a batch comes with the call, so that a layer recomputed in the backward pass does the same.

    Args:
        module: the layer.
        query: of the packed row; see `packed_logprobs`.
        key: of the packed row.
        value: of the packed row.
        attention_mask: of the padded batch, [B, 1, W, W] bool, or [B, 1, 0, W] for a causal one.
        position_ids: [1, S] int64, each token's place in its conversation.
        options: what transformers' `sdpa` takes.
    """
    (rows, _, mask_rows, width), place = attention_mask.shape, position_ids[0]
    index = ((place == 0).cumsum(0) - 1) * width + place  # [S] into B*W: a conversation begins at each position 0
    query, key, value = (_padded(states, index, rows, width) for states in (query, key, value))  # [B, heads, W, d]
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask if mask_rows else None, **options)
    return output.flatten(0, 1)[None, index], None  # [B, W, heads, d] -> [1, S, heads, d]


def _padded(states: Tensor, index: Tensor, rows: int, width: int) -> Tensor:
    """The padded batch [B, heads, W, d] of packed states [1, heads, S, d], 0 at padding."""
    _, heads, _, size = states.shape
    padded = states.new_zeros(rows * width, heads, size).index_copy(
        0, index, states[0].transpose(0, 1)
    )  # [B*W, heads, d]
    return padded.view(rows, width, heads, size).transpose(1, 2)


AttentionInterface.register(IMPLEMENTATION, attend)
