"""The shared prefix is exact: log-probs, gradients and rollouts equal the plain duplicated forward (fp32)."""

from functools import partial

import pytest
import torch
import torch.utils.checkpoint

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.policy.prefix import prefill, score
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Decoder, Sampling, sample_rollout
from dermiq.prompts import to_messages
from dermiq.schema import Sample
from support.families import FAMILIES
from support.gradients import gradients, loaded, relative_difference
from support.images import picture
from support.reference import duplicated_logprobs

GROUP, LENGTH = 3, 7
ROUNDING = (
    1e-4  # of log-probs; the plain forward itself stands 1.2e-5 from one in float64, other CPUs add in another order
)


def batch(sizes=((48,), (64, 32))):
    """Two prompts of different length: one image and a short question, two images and a long one."""
    samples = [
        Sample(
            id=f"s{i}",
            images=tuple(f"{i}-{j}.png" for j in range(len(row))),
            target="melanoma",
            label="mel",
            group=f"s{i}",
            question="What is it?" if i == 0 else "Which skin condition do these two photographs of a lesion show?",
        )
        for i, row in enumerate(sizes)
    ]
    images = [[picture(10 * i + j, size) for j, size in enumerate(row)] for i, row in enumerate(sizes)]
    return samples, [to_messages(sample) for sample in samples], images


def completions(backbone):
    generator = torch.Generator().manual_seed(1)
    allowed = (~backbone.banned).nonzero().flatten()
    ids = allowed[torch.randint(len(allowed), (2 * GROUP, LENGTH), generator=generator)]
    lengths = torch.tensor([7, 3, 1, 5, 7, 2])
    return torch.tensor([0, 0, 0, 1, 1, 1]), ids, torch.arange(LENGTH) < lengths[:, None]


@pytest.mark.parametrize("memory", [None, "gradient_checkpointing", "offload_activations"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_and_gradients_equal_the_duplicated_forward(family, memory, family_dir):
    backbone = loaded(family_dir(family), **({memory: True} if memory else {})).train()
    _, conversations, images = batch()
    rows, ids, mask = completions(backbone)
    weights = torch.randn(ids.shape, generator=torch.Generator().manual_seed(2)) * mask

    expected = duplicated_logprobs(backbone, conversations, images, rows, ids, mask)
    (expected * weights).sum().backward()
    expected_gradients = gradients(backbone)

    prompt = encode_prompts(backbone.processor, conversations, images)
    prefix = prefill(backbone, prompt).detach()
    found = torch.zeros_like(expected)
    for part in torch.arange(len(ids)).split(2):
        part_scores = score(backbone, prefix, rows[part], ids[part], mask[part]).logprobs
        (part_scores * weights[part]).sum().backward()
        found[part] = part_scores.detach()
    prefix.backward_through_prompt().backward()

    assert (found - expected).abs().max() < 1e-5
    assert relative_difference(gradients(backbone), expected_gradients) < 1e-5


def test_completions_may_come_in_any_order(family_dir):
    backbone = loaded(family_dir("idefics3"))
    _, conversations, images = batch()
    rows, ids, mask = completions(backbone)
    with torch.no_grad():
        prefix = prefill(backbone, encode_prompts(backbone.processor, conversations, images))
        expected = score(backbone, prefix, rows, ids, mask).logprobs
        for order in (torch.tensor([4, 0, 5, 2, 1, 3]), torch.tensor([3, 1, 0, 4])):  # groups whole, and in part
            found = score(backbone, prefix, rows[order], ids[order], mask[order]).logprobs
            assert (found - expected[order]).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_undetached_prefix_gives_the_same_gradients(family, family_dir):
    backbone = loaded(family_dir(family)).train()
    _, conversations, images = batch()
    rows, ids, mask = completions(backbone)
    prompt = encode_prompts(backbone.processor, conversations, images)
    score(backbone, prefill(backbone, prompt), rows, ids, mask).logprobs.sum().backward()
    direct = gradients(backbone)
    prefix = prefill(backbone, prompt).detach()
    score(backbone, prefix, rows, ids, mask).logprobs.sum().backward()
    prefix.backward_through_prompt().backward()
    assert relative_difference(gradients(backbone), direct) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_rollout_equals_generate(family, family_dir):
    backbone = loaded(family_dir(family))
    samples, conversations, images = batch()
    prompt = encode_prompts(backbone.processor, conversations, images)
    rollout = sample_rollout(
        backbone, {"prompt": prompt, "samples": samples}, Sampling(12, temperature=0.0), group_size=2
    )
    assert torch.equal(rollout.ids[0], rollout.ids[1])
    for i in range(2):
        single = encode_prompts(backbone.processor, [conversations[i]], [images[i]])
        banned = [[token] for token in backbone.banned.nonzero().flatten().tolist()]
        expected = backbone.vlm.eval().generate(
            **single,
            max_new_tokens=12,
            do_sample=False,
            repetition_penalty=1.0,
            bad_words_ids=banned,
            eos_token_id=list(backbone.stop_ids),
            pad_token_id=backbone.stop_ids[0],
        )[0, single["input_ids"].shape[1] :]
        assert rollout.ids[2 * i][rollout.mask[2 * i]].tolist() == expected.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_logprobs_are_those_of_the_update(family, family_dir):
    backbone = loaded(family_dir(family))
    samples, conversations, images = batch()
    prompt = encode_prompts(backbone.processor, conversations, images)
    rollout = sample_rollout(backbone, {"prompt": prompt, "samples": samples}, Sampling(9), group_size=GROUP)
    expected = duplicated_logprobs(backbone, conversations, images, rollout.rows, rollout.ids, rollout.mask)
    assert (rollout.logprobs - expected).abs().max() < ROUNDING
    scores = score(backbone, prefill(backbone, prompt), rollout.rows, rollout.ids, rollout.mask)
    assert (rollout.logprobs - scores.logprobs).abs().max() < ROUNDING


def test_the_trap_of_transformers_own_checkpointing_is_real(family_dir):
    """Its switch drops the cache, so nothing of a prompt is cached. Hence `recompute_layers`."""
    backbone = loaded(family_dir("qwen2_5_vl")).train()
    _, conversations, images = batch()
    prompt = encode_prompts(backbone.processor, conversations, images)
    assert len(prefill(backbone, prompt).states) == len(backbone.vlm.get_decoder().layers)
    for layer in backbone.vlm.get_decoder().layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    assert not prefill(backbone, prompt).states


def test_sampling_does_not_depend_on_the_batch(family_dir):
    backbone = loaded(family_dir("idefics3"))
    samples, conversations, images = batch()
    both = sample_rollout(
        backbone,
        {"prompt": encode_prompts(backbone.processor, conversations, images), "samples": samples},
        Sampling(9),
        group_size=2,
        seed="a",
    )
    for i in range(2):
        prompt = encode_prompts(backbone.processor, [conversations[i]], [images[i]])
        alone = sample_rollout(
            backbone, {"prompt": prompt, "samples": samples[i : i + 1]}, Sampling(9), group_size=2, seed="a"
        )
        width = alone.ids.shape[1]
        assert torch.equal(both.ids[2 * i : 2 * i + 2, :width][alone.mask], alone.ids[alone.mask])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_tower_sees_a_batch_once(family, family_dir):
    backbone = loaded(family_dir(family)).train()
    samples, conversations, images = batch()
    calls = []
    compute = backbone.vlm.model.get_image_features.compute
    backbone.vlm.model.get_image_features.compute = lambda *a, **k: calls.append(1) or compute(*a, **k)
    prompt = encode_prompts(backbone.processor, conversations, images)
    rollout = sample_rollout(backbone, {"prompt": prompt, "samples": samples}, Sampling(5), group_size=2)
    with torch.no_grad():
        again = score(backbone, prefill(backbone, prompt), rollout.rows, rollout.ids, rollout.mask)
    assert len(calls) == 1 and (again.logprobs - rollout.logprobs).abs().max() < ROUNDING
    prompt["pixel_values"].mul_(0.5)
    prefill(backbone, prompt)
    prefill(backbone, encode_prompts(backbone.processor, conversations, images))
    assert len(calls) == 3


def test_features_of_a_trained_tower_are_not_remembered(family_dir):
    backbone = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=4, vision=True))
    backbone.load()
    assert not backbone.vlm.model.get_image_features.frozen


def test_decoding_in_parts_changes_nothing(family_dir):
    backbone = loaded(family_dir("qwen2_5_vl"))
    samples, conversations, images = batch()
    prompt = encode_prompts(backbone.processor, conversations, images)
    whole = sample_rollout(backbone, {"prompt": prompt, "samples": samples}, Sampling(20), group_size=5)
    parts = sample_rollout(
        backbone, {"prompt": prompt, "samples": samples}, Sampling(20), group_size=5, engine=Decoder(rows_per_pass=3)
    )
    assert torch.equal(whole.mask, parts.mask)
    assert torch.equal(whole.ids[whole.mask], parts.ids[parts.mask])
    assert (whole.logprobs - parts.logprobs).abs().max() < ROUNDING


def test_sampled_frequencies_follow_the_policy(family_dir):
    backbone = loaded(family_dir("idefics3"))
    samples, conversations, images = batch()
    prompt = encode_prompts(backbone.processor, conversations[:1], images[:1])
    rollout = sample_rollout(backbone, {"prompt": prompt, "samples": samples[:1]}, Sampling(1), group_size=4000)
    with torch.no_grad():
        logits = backbone.eval().vlm(**prompt).logits[0, -1]
    expected = logits.masked_fill(backbone.banned, -torch.inf).softmax(-1)
    found = torch.bincount(rollout.ids[:, 0], minlength=len(expected)) / 4000
    assert (found - expected).abs().max() < 0.03
    assert not backbone.banned[rollout.ids].any()


def test_sampling_restores_the_mode_and_the_rope_state(family_dir):
    backbone = loaded(family_dir("qwen2_5_vl")).train()
    samples, conversations, images = batch()
    prompt = encode_prompts(backbone.processor, conversations, images)
    sample_rollout(backbone, {"prompt": prompt, "samples": samples}, Sampling(3))
    assert backbone.training and backbone.vlm.model.rope_deltas is None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_tower_stays_out_of_autograd(family, family_dir):
    backbone = loaded(family_dir(family), gradient_checkpointing=True).train()
    _, conversations, images = batch()
    seen = []
    tower = [
        m for n, m in backbone.vlm.named_modules() if n.split(".")[-1] in ("visual", "vision_model", "vision_tower")
    ]
    assert tower
    for module in tower:
        module.register_forward_hook(lambda m, i, o: seen.append(o[0] if isinstance(o, tuple) else o.last_hidden_state))
    prefill(backbone, encode_prompts(backbone.processor, conversations, images))
    assert seen and not any(output.requires_grad for output in seen)
