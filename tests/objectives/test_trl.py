"""The stages compute what TRL's trainers compute: same loss, same gradients of the adapter (fp32, no dropout)."""

import json
from functools import partial
from importlib.resources import files

import pytest
import torch
from PIL import Image
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from dermiq.datamodules.collate import SampleDataset
from dermiq.datamodules.conversation import ConversationCollate
from dermiq.datamodules.preference import PreferenceCollate
from dermiq.datamodules.sources import Conversations, Preferences
from dermiq.modules import DPOModule, GRPOModule, SFTModule
from dermiq.modules.rollouts import Update
from dermiq.objectives.losses import (
    clipped_sequences,
    clipped_tokens,
    clipped_weights,
    constant_length,
    dpo_ipo,
    dpo_robust,
    dpo_sigmoid,
    per_sequence,
    per_token,
)
from dermiq.policy.prefix import prefill, score
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Rollout, Sampling
from dermiq.prompts import parse, to_messages
from dermiq.schema import Sample
from support.families import build_model_dir
from support.trl import attached, difference, first_step, gradients, load_policy, picture, trl_trainer

GROUP, LENGTH, TEMPERATURE, KL_COEF = 3, 7, 0.9, 0.04
ADVANTAGES = (1.2, -0.7, -0.5, 0.9, -1.4, 0.5)


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    monkeypatch.setenv("CI", "1")  # TRL reports every trainer to its makers otherwise


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A tiny Qwen2.5-VL that speaks in the released model's own chat template, which TRL knows."""
    directory = build_model_dir("qwen2_5_vl", tmp_path_factory.mktemp("policy"))
    template = files("trl") / "chat_templates" / "qwen2_5_vl.jinja"
    (directory / "chat_template.jinja").write_text(template.read_text())
    return load_policy(directory)


@pytest.fixture(scope="module")
def rollout(policy):
    """Two prompts (one image; two images) with three completions each, of different lengths, from another policy.

    TRL's policies may write every token, so this one may too: nothing is banned.
    """
    policy.banned[:] = False
    questions = ("What is it?", "Which skin condition do these two photographs of a lesion show?")
    pictures = [[picture(0)], [picture(1, 64), picture(2, 32)]]
    samples = [
        Sample(f"s{i}", tuple(f"{i}-{j}.png" for j in range(len(row))), "melanoma", "mel", f"s{i}", question=question)
        for i, (question, row) in enumerate(zip(questions, pictures, strict=True))
    ]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(300, len(policy.banned), (2 * GROUP, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < torch.tensor([7, 3, 1, 5, 7, 2])[:, None]
    prompt = encode_prompts(policy.processor, [to_messages(sample) for sample in samples], pictures)
    with policy.sampling_mode():
        rows = torch.arange(2).repeat_interleave(GROUP)
        logprobs = score(policy, prefill(policy, prompt), rows, ids, mask, TEMPERATURE).logprobs
    logprobs = (logprobs + 0.3 * torch.randn(ids.shape, generator=generator)) * mask
    answers = [[parse("")] * GROUP] * 2
    return prompt, pictures, Rollout(tuple(samples), ids, mask, logprobs, answers)


def grpo_of_trl(policy, rollout, pictures, folder, options):
    """Loss and gradients of TRL's trainer on the same completions, each with its own copy of prompt and images."""
    trainer = trl_trainer(
        policy, partial(GRPOTrainer, reward_funcs=len), GRPOConfig, [{"prompt": "unused"}], output_dir=str(folder),
        beta=KL_COEF, use_bias_correction_kl=False, epsilon=0.2, temperature=TEMPERATURE, **options,
        num_generations=GROUP, per_device_train_batch_size=2 * GROUP, max_completion_length=LENGTH,
    )  # fmt: skip
    rows = rollout.rows.tolist()
    images = [pictures[row] for row in rows]
    prompt = encode_prompts(policy.processor, [to_messages(rollout.samples[row]) for row in rows], images)
    vision = {name: prompt[name] for name in ("pixel_values", "image_grid_thw")}
    vision["mm_token_type_ids"] = torch.nn.functional.pad(prompt["mm_token_type_ids"], (0, LENGTH))
    vision["num_images"] = [len(row) for row in images]
    mask = rollout.mask.long()
    ids = torch.cat([prompt["input_ids"], rollout.ids], dim=1)
    attention_mask = torch.cat([prompt["attention_mask"], mask], dim=1)
    with torch.no_grad(), trainer.model.disable_adapter():
        ref_logprobs, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, attention_mask, LENGTH, **vision
        )
    inputs = {
        "prompt_ids": prompt["input_ids"], "prompt_mask": prompt["attention_mask"],
        "completion_ids": rollout.ids, "completion_mask": mask, "advantages": torch.tensor(ADVANTAGES),
        "old_per_token_logps": rollout.logprobs, "ref_per_token_logps": ref_logprobs, **vision,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    name = "cispo_clip_ratio" if options["loss_type"] == "cispo" else "clip_ratio/region_mean"
    return loss.item(), gradients(trainer.model), trainer._metrics["train"][name][0]


@pytest.mark.parametrize(
    ("surrogate", "weights", "bounds", "options"),
    [
        (clipped_tokens, per_sequence, (0.2, 0.2), {"loss_type": "grpo"}),
        (clipped_tokens, per_token, (0.2, 0.2), {"loss_type": "bnpo"}),
        (clipped_tokens, constant_length, (0.2, 0.2), {"loss_type": "dr_grpo"}),
        (clipped_sequences, per_sequence, (0.2, 0.05),
         {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_high": 0.05}),
        (clipped_weights, per_token, (1.0, 0.2), {"loss_type": "cispo", "epsilon_high": 1.2}),
    ],
)  # fmt: skip
def test_grpo_equals_trl(surrogate, weights, bounds, options, policy, rollout, tmp_path):
    """Each surrogate with its KL penalty, off policy so that some ratios clip; each side makes its own reference.

    TRL's default multiplies the penalty by the ratio (`use_bias_correction_kl`); the paper's loss does not. Its
    `epsilon_high` is the bound itself for CISPO.
    """
    prompt, pictures, rollout = rollout
    expected, expected_gradients, clipped = grpo_of_trl(policy, rollout, pictures, tmp_path, options)
    module = attached(
        GRPOModule(
            policy, None, group_size=GROUP, sampling=Sampling(LENGTH, TEMPERATURE), token_weights=weights,
            surrogate=surrogate, clip_low=bounds[0], clip_high=bounds[1], kl_coef=KL_COEF, tokens_per_pass=4 * LENGTH,
        )
    )  # fmt: skip
    batch = {"prompt": prompt}
    reference = module._reference_logprobs(batch, rollout)
    prefix = prefill(policy, prompt).detach()
    weights_of_tokens = weights(rollout.mask, LENGTH)
    update = Update(rollout, torch.tensor(ADVANTAGES), weights_of_tokens, reference, {}, torch.tensor(1.0))
    stats, _ = module._backward(prefix, update, rollout.logprobs, is_update_batch=True)

    assert 0.1 < clipped < 0.9 and stats["kl"] > 0.1
    assert stats["loss"] == pytest.approx(expected, abs=1e-5)
    assert difference(gradients(policy), expected_gradients) < 1e-5


def close_turns(policy, ids, counted, turns):
    """Let each turn that counts end with the token that ends it, as in DermIQ.

    TRL counts the line break that Qwen's template writes behind that token too, which no policy is asked for.
    """
    line_break, end = policy.processor.tokenizer("\n<|im_end|>")["input_ids"]
    behind = torch.nn.functional.pad(ids[:, :-1] == end, (1, 0)) & (ids == line_break) & counted
    assert behind.sum() == turns
    return counted & ~behind


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The images of the rows below."""
    path = tmp_path_factory.mktemp("rows")
    for i, size in enumerate((48, 64, 32)):
        picture(i, size).save(path / f"{i}.png")
    return path


def both(folder, rows, source, collate):
    """Rows in TRL's format as TRL's collators take them, and the batch that DermIQ makes of the same file."""
    path = folder / f"{source.__name__}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    samples = source(str(path))
    samples.load()
    dataset = SampleDataset(samples, range(len(samples)))
    opened = [row | {"images": [Image.open(folder / name) for name in row["images"]]} for row in rows]
    return opened, collate([dataset[i] for i in range(len(dataset))])


def still(parameters):
    """An optimiser that leaves the weights alone."""
    return torch.optim.SGD(parameters, lr=0.0)


CONVERSATIONS = [
    {
        "messages": [
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "A melanocytic nevus."},
            {"role": "user", "content": "Does this lesion on the trunk have to be seen by a doctor?"},
            {"role": "assistant", "content": "No, unless it changes."},
        ],
        "images": ["0.png"],
    },
    {
        "messages": [
            {"role": "system", "content": "Look."},
            {"role": "user", "content": "Which condition do these two photographs show?"},
            {"role": "assistant", "content": "Melanoma."},
        ],
        "images": ["1.png", "2.png"],
    },
]


def test_sft_equals_trl(policy, folder, tmp_path):
    """One image and two turns beside two images and one turn, through both collators."""
    rows, batch = both(folder, CONVERSATIONS, Conversations, ConversationCollate(policy.model_id, "", 0))
    trainer = trl_trainer(
        policy, SFTTrainer, SFTConfig, CONVERSATIONS, output_dir=str(tmp_path), assistant_only_loss=True,
        max_length=None,
    )  # fmt: skip
    inputs = trainer.data_collator(rows)
    counted = close_turns(policy, inputs["input_ids"], inputs["labels"] != -100, turns=3)
    inputs["labels"] = inputs["labels"].where(counted, -100)
    expected = trainer.compute_loss(trainer.model, inputs)
    expected.backward()

    loss, found = first_step(SFTModule(policy, None, still), batch)
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert difference(found, gradients(trainer.model)) < 1e-5


PAIRS = [
    {
        "prompt": [{"role": "user", "content": "What is it?"}],
        "chosen": [{"role": "assistant", "content": "A melanocytic nevus with a sharp border."}],
        "rejected": [{"role": "assistant", "content": "A melanoma."}],
        "images": ["0.png"],
    },
    {
        "prompt": [
            {"role": "user", "content": "Which condition do these two photographs show?"},
            {"role": "assistant", "content": "Melanoma."},
            {"role": "user", "content": "Is it urgent?"},
        ],
        "chosen": [{"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "assistant", "content": "No, it fades within a day."}],
        "images": ["1.png", "2.png"],
    },
]


@pytest.mark.parametrize(
    ("loss_type", "shared", "own"),
    [
        ("sigmoid", {"beta": 0.1}, {"loss": dpo_sigmoid}),
        ("sigmoid_norm", {"beta": 2.0}, {"loss": dpo_sigmoid, "length_normalised": True}),
        ("ipo", {"beta": 2.0}, {"loss": dpo_ipo, "length_normalised": True}),
        ("robust", {"beta": 0.1, "label_smoothing": 0.2}, {"loss": dpo_robust}),
    ],
)
def test_dpo_equals_trl(loss_type, shared, own, policy, folder, tmp_path):
    """Two prompts, one and two images, completions of different lengths; the policy is far from its reference."""
    rows, batch = both(folder, PAIRS, Preferences, PreferenceCollate(policy.model_id, "", 0))
    trainer = trl_trainer(
        policy, DPOTrainer, DPOConfig, PAIRS, output_dir=str(tmp_path), loss_type=[loss_type], max_length=None, **shared
    )
    inputs = trainer.data_collator(rows)
    counted = close_turns(policy, inputs["input_ids"], inputs["completion_mask"] == 1, turns=4)
    expected = trainer.compute_loss(trainer.model, inputs | {"completion_mask": counted.long()})
    expected.backward()
    assert abs(trainer._metrics["train"]["rewards/margins"][0]) > 0.1

    loss, found = first_step(DPOModule(policy, None, still, **shared, **own), batch)
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert difference(found, gradients(trainer.model)) < 1e-5
