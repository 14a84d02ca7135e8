"""Conversations without their padding: the same log-probs and gradients as those of the padded batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

import dermiq.policy.packing
from datamodules.test_conversations import LONGER, SINGLE, TEXT, TEXTS, TURNS, encoded, loaded
from dermiq.datamodules.collate import Samples
from dermiq.modules import SFTModule
from dermiq.objectives.losses import sft_loss
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.packing import can_pack, check_packing, packed_logprobs
from dermiq.policy.prefix import sequence_logprobs
from dermiq.schema import ModelError
from support.families import FAMILIES
from support.trl import difference, first_step, gradients

BATCHES = {
    "mixed": (TEXT, TURNS, SINGLE, TEXTS, LONGER),  # 0, 3, 1, 0 and 2 images
    "text": (TEXT, TEXTS),
    "equal": (SINGLE, SINGLE),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(family, family_dir) -> VLMBackbone:
    return loaded(family_dir(family))


def learned(logprobs, backbone, inputs, mask) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and the adapter's gradients of a weighted sum of them."""
    found = logprobs(backbone, inputs, mask)
    (found * torch.linspace(-1, 1, mask.numel()).view(mask.shape)).sum().backward()
    return found.detach(), gradients(backbone)


def assert_same(backbone, inputs, mask, reference=None) -> None:
    found, found_gradients = learned(packed_logprobs, backbone, inputs, mask)
    expected, wanted = learned(sequence_logprobs, reference or backbone, inputs, mask)
    assert found.shape == mask.shape and found.dtype == torch.float32 and (found[~mask] == 0).all()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert difference(found_gradients, wanted) < 1e-6


@pytest.mark.parametrize("batch", BATCHES)
def test_packed_equals_padded(batch, backbone):
    inputs, mask = encoded(backbone.processor, *BATCHES[batch])
    assert can_pack(backbone)
    assert_same(backbone, inputs, mask)
    check_packing(backbone, inputs, mask)


def test_recomputed_layers_pack_too(family, family_dir, backbone):
    """The backward pass runs the layers again long after the forward pass is over."""
    recomputed = loaded(family_dir(family), checkpointing=True)
    inputs, mask = encoded(backbone.processor, *BATCHES["mixed"])
    assert_same(recomputed, inputs, mask, reference=backbone)


def test_a_conversation_sees_itself_alone(backbone):
    """Its log-probs are the same bit for bit beside other words, and beside other pictures."""
    inputs, mask = encoded(backbone.processor, *BATCHES["mixed"])
    with backbone.sampling_mode():
        before = packed_logprobs(backbone, inputs, mask)
        said = inputs["input_ids"].clone()
        said[2][mask[2]] = said[2][mask[2]].flip(0)
        words = packed_logprobs(backbone, inputs | {"input_ids": said}, mask)
        pictures = packed_logprobs(backbone, inputs | {"pixel_values": -inputs["pixel_values"]}, mask)
    others = torch.arange(len(mask)) != 2
    assert torch.equal(words[others], before[others]) and not torch.equal(words[2], before[2])
    assert torch.equal(pictures[[0, 3]], before[[0, 3]])
    assert all(not torch.equal(pictures[row], before[row]) for row in (1, 2, 4))


def test_nothing_is_computed_for_padding(backbone, monkeypatch):
    """Layers see real tokens alone; the frozen tower runs once for packed and padded."""
    inputs, mask = encoded(backbone.processor, *BATCHES["mixed"])
    seen, towers = [], []
    layer = backbone.vlm.get_decoder().layers[-1]
    hook = layer.mlp.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[:2])))
    features = backbone.vlm.model.get_image_features
    monkeypatch.setattr(features, "compute", lambda *args, f=features.compute, **kw: towers.append(1) or f(*args, **kw))
    with backbone.sampling_mode():
        packed_logprobs(backbone, inputs, mask)
        sequence_logprobs(backbone, inputs, mask)
    hook.remove()
    assert seen == [(1, int(inputs["attention_mask"].sum())), tuple(mask.shape)] and len(towers) == 1


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "gemma3"], indirect=True)
def test_positions_that_flash_kernels_go_by(backbone, monkeypatch):
    """Without a mask, transformers tells conversations apart by positions that start again, as flash kernels do.

    They cannot look ahead within an image as Gemma 3 does, and its own masks of packed rows are wrong.
    """
    inputs, mask = encoded(backbone.processor, *BATCHES["mixed"])
    monkeypatch.setattr(dermiq.policy.packing, "_masks", lambda *_: None)
    monkeypatch.setattr(dermiq.policy.packing, "IMPLEMENTATION", "sdpa")
    with backbone.sampling_mode():
        found, expected = packed_logprobs(backbone, inputs, mask), sequence_logprobs(backbone, inputs, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_packed(family_dir, monkeypatch):
    backbone = loaded(family_dir("qwen2_5_vl"))
    config = backbone.vlm.get_decoder().config
    assert config.layer_types and can_pack(backbone)
    monkeypatch.setattr(config, "layer_types", ["linear_attention", "full_attention"])
    assert not can_pack(backbone)
    monkeypatch.undo()
    monkeypatch.setattr(config, "_attn_implementation_internal", "eager")
    assert not can_pack(backbone)


def test_a_model_that_looks_further_is_refused(family_dir, monkeypatch):
    """Gemma 3, if it were not known that its images are seen both ways."""
    backbone = loaded(family_dir("gemma3", seed=1))  # the images of this one matter most
    inputs, mask = encoded(backbone.processor, *BATCHES["mixed"])
    masks = dermiq.policy.packing._masks
    monkeypatch.setattr(
        dermiq.policy.packing, "_masks", lambda vlm, inputs: masks(vlm, {"input_ids": inputs["input_ids"]})
    )
    with pytest.raises(ModelError, match=r"packing=false"):
        check_packing(backbone, inputs, mask)


@pytest.mark.parametrize("packing", [True, False])
def test_training_packs_and_says_what_that_saves(packing, family_dir):
    """The first step of `fit` has the loss and the gradients of the padded batch either way."""
    backbone = loaded(family_dir("idefics3"))
    inputs, mask = encoded(backbone.processor, *BATCHES["mixed"])
    batch = {"samples": Samples(["a", "b", "c", "d", "e"]), "conversation": inputs, "loss_mask": mask}
    expected, _ = sft_loss(sequence_logprobs(backbone, inputs, mask), mask)
    expected.backward()
    wanted = gradients(backbone)

    widths = []
    hook = backbone.vlm.get_decoder().norm.register_forward_hook(lambda *args: widths.append(tuple(args[2].shape[:2])))
    module = SFTModule(backbone, None, partial(torch.optim.SGD, lr=0.0), packing=packing)
    loss, found = first_step(module, batch)
    hook.remove()
    rows, width = mask.shape
    packed, checked = (1, int(inputs["attention_mask"].sum())), (rows, width + 1)
    assert widths == ([packed, checked, packed] if packing else [(rows, width)])
    assert loss == pytest.approx(expected.item(), abs=1e-6) and difference(found, wanted) < 1e-6
    assert module.trainer.callback_metrics["train/padding"].item() == pytest.approx(1 - packed[1] / mask.numel())
