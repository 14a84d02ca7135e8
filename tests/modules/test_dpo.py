"""DPO: exact against the duplicated forward, what its keywords do, and the cache of the reference."""

import json
import math
from dataclasses import replace

import pytest
import torch

from dermiq.cli import main
from dermiq.datamodules.collate import Item
from dermiq.datamodules.preference import PreferenceCollate
from dermiq.modules import DPOModule
from dermiq.modules.reference_cache import ReferenceCache, fingerprint, pair_keys
from dermiq.objectives.losses import dpo_ipo, dpo_sigmoid
from dermiq.prompts import to_messages
from dermiq.schema import Message, PreferencePair, TrainingError
from support.families import FAMILIES
from support.gradients import gradients, loaded, relative_difference
from support.images import picture
from support.reference import duplicated_logprobs
from support.runs import adapter, checkpoint, different, logged

STILL = "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.0"
PAIR = PreferencePair(
    "short", ("a.png",), "melanoma", "mel", "g", question="What is it?", chosen="A melanoma.",
    rejected="A nevus, or so.", margin=0.4,
)  # fmt: skip
LONG = PreferencePair(
    "long", ("b.png", "c.png"), "", "", "h", question="Which condition do these two photographs show?",
    history=(Message("user", "Good morning."), Message("assistant", "How can I help?")),
    chosen="An annular scaly plaque with central clearing.", rejected="Vitiligo.", margin=2.0,
)  # fmt: skip
PICTURES = [[picture(0, 48)], [picture(1, 64), picture(2, 32)]]


def batch_of(backbone, pairs=(PAIR, LONG)):
    """What the data module makes of two pairs: one image and a short prompt, two images and a long one."""
    collate = PreferenceCollate(backbone.model_id, "", 8)
    return collate([Item(pair, shown) for pair, shown in zip(pairs, PICTURES, strict=False)])


def stage(backbone, **options):
    return DPOModule(backbone, None, **options)


@pytest.fixture(scope="module")
def backbone(family_dir):
    return loaded(family_dir("idefics3")).train()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_the_duplicated_forward(family, checkpointing, family_dir):
    """Each reply with its own copy of prompt and images, under the policy and under the base without adapter."""
    backbone = loaded(family_dir(family), gradient_checkpointing=checkpointing).train()
    backbone.banned[:] = False  # the oracle's policy, like TRL's, may write every token
    batch = batch_of(backbone)
    arguments = (
        [to_messages(pair) for pair in (PAIR, LONG)], PICTURES, torch.tensor([0, 1, 0, 1]), batch["completion_ids"],
        batch["completion_mask"],
    )  # fmt: skip
    with torch.no_grad(), backbone.reference():
        reference = duplicated_logprobs(backbone, *arguments).sum(-1)
    ratios = (duplicated_logprobs(backbone, *arguments).sum(-1) - reference).view(2, 2)
    expected = -torch.nn.functional.logsigmoid(0.1 * (ratios[0] - ratios[1])).mean()
    expected.backward()
    expected_gradients = gradients(backbone)

    loss, stats = stage(backbone)._loss(batch)
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5) and abs(expected.item() - math.log(2)) > 1e-3
    assert stats["chosen_reward"].item() == pytest.approx(0.1 * ratios[0].mean().item(), abs=1e-5)
    assert relative_difference(gradients(backbone), expected_gradients) < 1e-5


def test_images_are_seen_once_and_prompts_run_once_for_both_replies(backbone, monkeypatch):
    """The tower once for reference and policy; each model pass takes 2 prompts, then 4 replies."""
    features = backbone.vlm.model.get_image_features
    seen, rows = [], []
    compute = features.compute
    monkeypatch.setattr(features, "compute", lambda *a, **k: seen.append(1) or compute(*a, **k))
    hook = backbone.vlm.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["position_ids"].shape[-2]), with_kwargs=True
    )
    stage(backbone)._loss(batch_of(backbone))
    hook.remove()
    assert len(seen) == 1 and rows == [2, 4, 2, 4]


# Keywords


def sums(backbone, batch):
    """Log-probs [2, B] of policy and reference."""
    module = stage(backbone)
    return module._logprobs(batch).detach(), module._reference_logprobs(batch)


def test_length_normalisation(backbone):
    """As TRL's `ipo`: mean log-probs per token, the end of the turn among them."""
    batch = batch_of(backbone)
    policy, reference = (value / batch["completion_mask"].sum(-1).view(2, -1) for value in sums(backbone, batch))
    (chosen, rejected) = policy - reference
    expected = ((chosen - rejected - 1.0) ** 2).mean()
    loss, stats = stage(backbone, loss=dpo_ipo, beta=0.5, length_normalised=True)._loss(batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert stats["chosen_logprob"].item() == pytest.approx(policy[0].mean().item(), rel=1e-5)


def test_margins_weigh_the_pairs(backbone):
    """full_margin 0.8: weights 0.4 / 0.8 and min(1, 2 / 0.8), over two pairs, whatever the weights add up to."""
    batch = batch_of(backbone)
    expected, _ = dpo_sigmoid(*sums(backbone, batch), torch.tensor([0.25, 0.5]), beta=0.1)
    loss, _ = stage(backbone, full_margin=0.8)._loss(batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_pair_without_margin_cannot_be_weighed(backbone):
    pairs = (replace(PAIR, margin=None),)
    with pytest.raises(TrainingError, match=r"Pair 'short' has no margin, which full_margin asks for\. Add a `margin`"):
        stage(backbone, full_margin=0.8)._loss(batch_of(backbone, pairs))


def test_the_likelihood_of_the_chosen_can_be_held_up(backbone):
    batch = batch_of(backbone)
    loss, stats = stage(backbone)._loss(batch)
    held, _ = stage(backbone, sft_coef=0.5)._loss(batch)
    assert (held - loss).item() == pytest.approx(-0.5 * stats["chosen_logprob"].item(), rel=1e-4)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"sft_coef": -1.0}, {"full_margin": 0.0}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DPOModule(None, None, **options)


# Runs


def test_dpo_learns_what_was_preferred(lab, tmp_path):
    lab.run("fit", "DPOModule", tmp_path, "--trainer.max_epochs=2")
    rows = logged(tmp_path)
    assert rows[0].keys() >= {
        "train/loss", "train/accuracy", "train/reward_margin", "train/chosen_reward", "train/rejected_reward",
        "train/chosen_logprob", "train/rejected_logprob", "train/grad_norm",
    }  # fmt: skip
    assert float(rows[0]["train/loss"]) == pytest.approx(math.log(2)) and float(rows[0]["train/accuracy"]) == 0
    last = [float(row["train/reward_margin"]) for row in rows[-3:]]
    assert min(last) > 1 and float(rows[-1]["train/loss"]) < 0.3


def test_losses_and_options_from_the_command_line(lab, tmp_path):
    options = ["--model.loss=dermiq.objectives.losses.dpo_robust", "--model.label_smoothing=0.1"]
    lab.run("fit", "DPOModule", tmp_path, *options, *STILL, "--trainer.max_steps=1")
    assert float(logged(tmp_path)[0]["train/loss"]) == pytest.approx(math.log(2))


def test_the_reference_is_the_incoming_adapter(lab, tmp_path):
    """At a rate of 0 the policy stays the reference: rewards 0. Against the base they would not be."""
    loaded(lab.family_dir("idefics3")).save_adapter(tmp_path / "adapter")
    handed_over = f"--model.backbone.adapter_path={tmp_path / 'adapter'}"
    lab.run("fit", "DPOModule", tmp_path / "dpo", handed_over, *STILL, "--trainer.max_steps=1")
    assert float(logged(tmp_path / "dpo")[0]["train/chosen_reward"]) == pytest.approx(0, abs=1e-6)


def test_an_adapter_of_another_base_is_refused(lab, tmp_path, capsys):
    loaded(lab.family_dir("idefics3")).save_adapter(tmp_path / "adapter")
    handed_over = f"--model.backbone.adapter_path={tmp_path / 'adapter'}"
    with pytest.raises(SystemExit):
        main(lab.arguments("fit", "DPOModule", tmp_path / "dpo", handed_over, family="qwen2_5_vl"))
    message = capsys.readouterr().err
    assert "The adapter in" in message and "Use the base model and the LoRA targets" in message


# The cache


def cached(folder):
    return f"--model.reference_cache={folder / 'cache.jsonl'}"


def passes(monkeypatch):
    """Counts passes of the reference."""
    counted = []
    original = DPOModule._computed_reference
    monkeypatch.setattr(DPOModule, "_computed_reference", lambda *a: counted.append(1) or original(*a))
    return counted


def test_the_reference_runs_once_per_pair(lab, tmp_path, monkeypatch):
    """In the first epoch of the first run alone; a second run computes nothing, and comes out the same."""
    counted = passes(monkeypatch)
    lab.run("fit", "DPOModule", tmp_path / "first", cached(tmp_path), "--trainer.max_epochs=2")
    header, *rows = [json.loads(line) for line in (tmp_path / "cache.jsonl").read_text().splitlines()]
    assert header.keys() == {"reference"} and len({row["pair"] for row in rows}) == len(rows) == 14
    assert len(counted) == 7
    lab.run("fit", "DPOModule", tmp_path / "second", cached(tmp_path), "--trainer.max_epochs=2")
    assert len(counted) == 7
    assert different(adapter(tmp_path / "first"), adapter(tmp_path / "second")) == []


@pytest.mark.slow
def test_resumed_with_a_cache_equals_uninterrupted(lab, tmp_path):
    """The killed run wrote more pairs than its checkpoint knows of, the last line only in part."""
    options = ["--trainer.max_epochs=2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    lab.run("fit", "DPOModule", whole, cached(whole), *options)
    lab.run("fit", "DPOModule", parts, cached(parts), *options, "--trainer.max_steps=3")
    lines = (whole / "cache.jsonl").read_bytes().splitlines(keepends=True)
    (parts / "cache.jsonl").write_bytes(b"".join(lines[:11]) + lines[11][:40])
    lab.run("fit", "DPOModule", parts, cached(parts), *options, "--ckpt_path=last")
    for part in ("state_dict", "optimizer_states", "dermiq", "global_step"):
        assert different(checkpoint(whole)[part], checkpoint(parts)[part]) == [], part
    assert (whole / "cache.jsonl").read_bytes() == (parts / "cache.jsonl").read_bytes()


def test_the_cache_of_another_reference_is_refused(tmp_path):
    path = tmp_path / "cache.jsonl"
    ReferenceCache(path, {"model": "m", "adapter": "a"}).add(["pair"], torch.zeros(2, 1))
    before = path.read_bytes()
    with pytest.raises(TrainingError) as caught:
        ReferenceCache(path, {"model": "m", "adapter": "b", "precision": "32"})
    message = str(caught.value)
    assert message.startswith(f"The log-probs in {path} are of another reference than this run's: adapter a -> b; ")
    assert "precision None -> 32. Delete or rename the file, or give " in message
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "aspect"),
    [
        ("--model.backbone.dtype=bfloat16", "base weights"),
        ("--trainer.precision=bf16-mixed", "precision torch.float32 under 32-true -> torch.float32 under bf16-mixed"),
    ],
)
def test_a_run_refuses_the_cache_of_another_reference(option, aspect, lab, tmp_path, capsys):
    lab.run("fit", "DPOModule", tmp_path / "first", cached(tmp_path), "--trainer.max_steps=1")
    with pytest.raises(SystemExit) as stopped:
        main(lab.arguments("fit", "DPOModule", tmp_path / "second", cached(tmp_path), option))
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and "are of another reference than this run's: " in message and aspect in message


def test_the_fingerprint_tells_references_apart(family_dir, tmp_path):
    """Another seed of the base, an incoming adapter, another one: each differs where it should and nowhere else."""
    first = loaded(family_dir("idefics3"))
    found = fingerprint(first, "32-true")
    assert fingerprint(loaded(family_dir("idefics3")), "32-true") == found
    other = fingerprint(loaded(family_dir("idefics3", seed=1)), "32-true")
    assert {name for name in found if found[name] != other[name]} == {"model", "base weights"}
    assert found["adapter"] == "none"
    for name in ("one", "two"):
        with torch.no_grad():
            for parameter in first.trainable_parameters():
                parameter.mul_(1.01)
        first.save_adapter(tmp_path / name)
    one, two = (
        fingerprint(loaded(family_dir("idefics3"), adapter_path=str(tmp_path / name)), "32-true")
        for name in ("one", "two")
    )
    assert {name for name in found if found[name] != one[name]} == {"adapter"}
    assert {name for name in one if one[name] != two[name]} == {"adapter"}


def test_what_a_pair_is_known_by(backbone):
    """Messages, pixels and both replies; neither its id nor the name of its image file."""
    (key,) = pair_keys(batch_of(backbone, (PAIR,)))
    assert pair_keys(batch_of(backbone))[0] == key
    assert pair_keys(batch_of(backbone, (replace(PAIR, id="x", images=("y.png",), margin=None),))) == [key]
    for change in ({"chosen": "A naevus."}, {"rejected": "Scale."}, {"question": "Why?"}):
        assert pair_keys(batch_of(backbone, (replace(PAIR, **change),))) != [key]
    batch = batch_of(backbone, (PAIR,))
    batch["images"] = [[picture(5, 48)]]
    assert pair_keys(batch) != [key]


def test_float32_comes_back_exactly(tmp_path):
    values = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)) * 100
    keys = [str(i) for i in range(50)]
    ReferenceCache(tmp_path / "c.jsonl", {"model": "m"}).add(keys, values)
    assert torch.equal(ReferenceCache(tmp_path / "c.jsonl", {"model": "m"}).logprobs(keys), values)


@pytest.mark.parametrize("content", [b"pairs of mine", b'{"prompt": "x"}\n', b"[1]\nx\n", b"\xff\xfe\n"])
def test_a_file_that_is_no_cache_is_left_alone(content, tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"c\.jsonl is no cache of reference log-probs .* another path"):
        ReferenceCache(path, {"model": "m"})
    assert path.read_bytes() == content


def test_a_torn_header_is_written_again(tmp_path):
    path = tmp_path / "c.jsonl"
    ReferenceCache(path, {"model": "m"})
    whole = path.read_bytes()
    path.write_bytes(whole[:7])
    ReferenceCache(path, {"model": "m"})
    assert path.read_bytes() == whole


def test_a_broken_reference_is_not_kept(family_dir, tmp_path):
    broken = loaded(family_dir("idefics3")).train()
    with torch.no_grad():
        broken.vlm.get_input_embeddings().weight.fill_(torch.nan)
    module = stage(broken)
    module._cache = ReferenceCache(tmp_path / "c.jsonl", {})
    with pytest.raises(TrainingError, match="reference's log-probs are not finite on the samples short, long"):
        module._loss(batch_of(broken))
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 1
