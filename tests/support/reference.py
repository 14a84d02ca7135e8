"""The duplicated forward: every completion carries its own prompt and image. The oracle of the shared prefix."""

from __future__ import annotations

import torch
from torch import Tensor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.processing import encode_prompts


def duplicated_logprobs(
    backbone: VLMBackbone, conversations: list, images: list, rows: Tensor, ids: Tensor, mask: Tensor
) -> Tensor:
    """Log-probs [N, T] of completions by one plain forward per row: unpadded prompt + completion, no cache."""
    outputs = []
    for row, completion, keep in zip(rows.tolist(), ids, mask, strict=True):
        prompt = encode_prompts(backbone.processor, [conversations[row]], [images[row]])
        length = prompt["input_ids"].shape[1]
        tokens = completion[keep]
        inputs = dict(prompt)
        inputs["input_ids"] = torch.cat([prompt["input_ids"], tokens[None]], dim=1)
        for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in prompt:
                fill = torch.full((1, len(tokens)), int(name == "attention_mask"))
                inputs[name] = torch.cat([prompt[name], fill.to(prompt[name].dtype)], dim=1)
        if hasattr(backbone.vlm.model, "rope_deltas"):
            backbone.vlm.model.rope_deltas = None
        logits = backbone.vlm(**inputs, use_cache=False).logits[:, length - 1 : -1]
        logprobs = (
            logits.float()
            .masked_fill(backbone.banned, -torch.inf)
            .log_softmax(-1)
            .gather(-1, tokens[None, :, None])[0, :, 0]
        )
        outputs.append(torch.nn.functional.pad(logprobs, (0, ids.shape[1] - len(tokens))))
    return torch.stack(outputs)
