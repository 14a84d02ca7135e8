"""A reply is what the chat template and the policy write together, in every place that writes or reads one."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
from transformers import AddedToken

from dermiq.objectives.alignment import SemanticAlignmentLoss
from dermiq.objectives.correction import corrections
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.chat_template import frame, text_message
from dermiq.policy.hub import load_processor
from dermiq.policy.lora import LoRA
from dermiq.policy.processing import (
    banned_ids,
    encode_completions,
    encode_conversations,
    encode_prompts,
    texts_of,
)
from dermiq.policy.rollout import Rollout, Sampling, sample_rollout
from dermiq.policy.sampling import Completions
from dermiq.prompts import in_words, parse
from dermiq.schema import ModelError, Sample
from support.families import THINKING
from support.runs import logged

GOLD = "<think> colour : brown . </think> <answer> melanoma </answer>"
BARE = "<think>  </think> <answer> nevus </answer>"
# What generation prompts end with in public models (Qwen3-VL, DeepSeek-R1 and V3.1, GLM, and hand-made ones).
OPENINGS = {
    "nothing": ("", ""),
    "newline": ("<think>\n", "<think>\n"),
    "bare": ("<think>", "<think>"),
    "capitals": ("<THINK>\n", "<THINK>\n"),
    "empty block": ("<think>\n\n</think>\n\n", ""),
    "tight block": ("<think></think>", ""),
    "closed": ("</think>\n\n", ""),
    "first words": ("<think>\nOkay.\n", "<think>\nOkay.\n"),
    "another tag": ("<|thought|>", ""),
}


def opening(template: str, text: str) -> str:
    """A family's template whose generation prompt goes on with `text`, whatever it makes of replies."""
    header = (
        "assistant\n" if "<|im_start|>assistant\n" in template else template.split("{% endif %}")[-2].split("%}")[-1]
    )
    assert template.endswith(f"{header}{{% endif %}}")
    return template.removesuffix("{% endif %}") + f"{{{{ {json.dumps(text)} }}}}{{% endif %}}"


ASKED = (text_message("user", "What is it?"),)


def learned(processor, reply: str, asked=ASKED) -> list[int]:
    inputs, mask = encode_conversations(processor, [[*asked, text_message("assistant", reply)]], [[]])
    return inputs["input_ids"][0][mask[0]].tolist()


def told(processor, reply: str) -> tuple[list[int], str]:
    ids, mask = encode_completions(processor, [reply])
    return ids[0][mask[0]].tolist(), texts_of(processor, ids, mask)[0]


@pytest.fixture(params=["qwen3_vl", "gemma3", "idefics3", "llava"])
def plain(request, family_dir):
    return load_processor(str(family_dir(request.param)))


@pytest.mark.parametrize("name", OPENINGS)
def test_what_is_learned_of_a_reply_is_read_as_the_reply(name, plain):
    begins, opened = OPENINGS[name]
    plain.chat_template = opening(plain.chat_template, begins)
    assert frame(plain).opened == opened
    for reply in (GOLD, BARE, "It is benign."):
        ids, text = told(plain, reply)
        assert ids == learned(plain, reply)  # DPO and SFT alike
        assert text.startswith(opened)
        found, wanted = parse(text), parse(reply)
        assert found.diagnosis == wanted.diagnosis
        assert found.think.removeprefix("Okay.").strip() == wanted.think
        assert in_words(text).strip() == reply or wanted.well_formed or "Okay" in begins


@pytest.mark.parametrize("family", [*THINKING, "qwen3_vl"])
@pytest.mark.parametrize(
    "reply",
    [
        GOLD,
        BARE,
        "It is benign.",
        "<think>\n r \n</think>\n\n<answer> a </answer>",
        "<think>r</think><answer>a</answer>",
        "<think>\nnever closed",
        "No tags, but a < b.",
    ],
)
def test_templates_that_write_the_reasoning_anew(family, reply, family_dir):
    processor = load_processor(str(family_dir(family)))
    ids, text = told(processor, reply)
    assert ids == learned(processor, reply)
    assert (parse(text).diagnosis, parse(text).think) == (parse(reply).diagnosis, parse(reply).think)
    again, same = told(processor, text)  # an answer that was sampled, as a candidate of a pair
    assert (again, same) == (ids, text)


def test_a_tokenizer_that_joins_what_is_opened_with_what_follows(family_dir):
    """Two line breaks are one token to most: the reply then begins behind the white space."""
    processor = load_processor(str(family_dir("qwen3_vl_thinking")))
    processor.tokenizer.add_tokens(["\n\n", "\n  \n"])
    for reply in ("It is benign.", BARE, GOLD):
        ids, text = told(processor, reply)
        assert ids == learned(processor, reply) and parse(text).diagnosis == parse(reply).diagnosis
        assert in_words(text) == reply or parse(reply).well_formed


def test_a_reply_follows_the_prompt_that_the_policy_is_asked_with(family_dir):
    """Also behind earlier turns, of which such a template drops the reasoning."""
    asked = [text_message("user", "What is it?"), text_message("assistant", "A mole."), text_message("user", "Sure?")]
    for family in THINKING:
        processor = load_processor(str(family_dir(family)))
        prompt = encode_prompts(processor, [asked[:1]], [[]])["input_ids"][0].tolist()
        inputs, mask = encode_conversations(processor, [[asked[0], text_message("assistant", GOLD)]], [[]])
        assert inputs["input_ids"][0].tolist() == prompt + inputs["input_ids"][0][mask[0]].tolist()
        with pytest.raises(ModelError, match=r"renders turn 2 otherwise.*split the conversation"):
            learned(processor, GOLD, asked)


def test_a_template_that_drops_all_reasoning(family_dir):
    """As DeepSeek-R1's does: the reply's own words are learned, behind what it opens."""
    processor = load_processor(str(family_dir("qwen3_vl")))
    template = processor.chat_template.replace("{{ part['text'] }}", "{{ part['text'].split('</think>')[-1] }}")
    for begins in ("", "<think>\n"):
        processor.chat_template = opening(template, begins)
        ids, text = told(processor, GOLD)
        assert ids == learned(processor, GOLD) and parse(text).think == "colour : brown ."


@pytest.mark.parametrize("begins", ["<answer>", "<think>\n\n</think>\n\n<answer>", "<think>\n</think><ANSWER> "])
def test_a_template_that_opens_the_answer_is_refused_at_load(begins, family_dir, tmp_path):
    processor = load_processor(str(family_dir("idefics3")))
    processor.chat_template = opening(processor.chat_template, begins)
    processor.save_pretrained(tmp_path)
    shutil.copy(family_dir("idefics3") / "config.json", tmp_path)
    with pytest.raises(ModelError, match=r"begins a reply with '<(answer|ANSWER)> ?'.*generation prompt"):
        load_processor(str(tmp_path))


def test_a_model_without_a_template_is_refused_at_load(family_dir, tmp_path):
    directory = shutil.copytree(family_dir("idefics3"), tmp_path / "base")
    (directory / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"renders no conversation.*chat_template.jinja"):
        load_processor(str(directory))


def test_tags_that_are_special_tokens_are_text(family_dir):
    processor = load_processor(str(family_dir("qwen3_vl")))
    tokens = [AddedToken(tag, special=True) for tag in ("<think>", "</think>")]
    processor.tokenizer.add_special_tokens({"additional_special_tokens": tokens}, replace_extra_special_tokens=False)
    ids, text = told(processor, GOLD)
    tag = processor.tokenizer.convert_tokens_to_ids("</think>")
    assert tag in ids and parse(text).diagnosis == "melanoma"


# Rollouts


@pytest.fixture(scope="module")
def thinking(family_dir):
    torch.manual_seed(0)
    backbone = VLMBackbone(str(family_dir("qwen3_vl_thinking")), LoRA(rank=2))
    backbone.load()
    return backbone


class Said:
    """An engine that answers what it is given."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def complete(self, backbone, batch, sampling, group_size, seed, prefix=None) -> Completions:
        ids, mask = encode_completions(backbone.processor, self.texts)
        return Completions(ids, mask, torch.zeros(mask.shape))


SAMPLES = (
    Sample("s", (), "wart", "wart", "g", reasoning="a brown patch"),
    Sample("t", (), "", "", "g", question="Is it dangerous?", reply="No."),
)


@pytest.fixture(scope="module")
def rollout(thinking) -> Rollout:
    engine = Said(GOLD, "<think> black", "It is benign.", "<think> hm </think> It is benign.")
    return sample_rollout(thinking, {"samples": SAMPLES}, Sampling(9), 2, engine=engine)


def test_answers_are_read_with_what_was_opened(rollout):
    (right, cut), (said, thought) = rollout.answers
    assert (right.think, right.diagnosis) == ("colour : brown .", "melanoma") and right.text.startswith("<think>\n")
    assert (not cut.well_formed and cut.text == "<think>\n black") or cut.text == "<think> black"
    assert said.text == "It is benign."  # a reply in plain words, without the template's empty block
    assert "hm" in thought.text and thought.text.endswith("It is benign.")


def test_a_correction_keeps_the_reasoning_behind_what_was_opened(thinking, rollout):
    found = corrections(thinking, rollout, torch.zeros(2, 2, dtype=torch.bool))
    assert found.rows.tolist() == [0]
    (text,) = thinking.decode(found.ids, found.mask)
    assert (parse(text).think, parse(text).diagnosis) == ("colour : brown .", "wart")
    kept = found.mask & ~found.loss_mask
    assert torch.equal(found.ids[kept], rollout.ids[0][: int(kept.sum())])  # the very tokens that were sampled
    assert thinking.decode(found.ids, kept)[0].rstrip().endswith("brown . \n</think>")


def test_the_alignment_loss_is_of_the_reasoning(thinking, rollout):
    objective = SemanticAlignmentLoss(lambda texts: torch.ones(len(texts), 3))
    targets = objective.targets(thinking.decode, rollout)
    (text,) = thinking.processor.tokenizer.batch_decode([rollout.ids[0][targets.reasoning[0]]])
    assert text.strip() == "colour : brown ." and not targets.reasoning[1:].any()


def test_what_stops_a_completion_is_looked_for_in_the_completion(thinking):
    """Not in what the template opened, or nothing would be written."""
    prompt = encode_prompts(thinking.processor, [[text_message("user", "What is it?")]], [[]])
    batch = {"samples": SAMPLES[:1], "prompt": prompt}
    free, stopped = (sample_rollout(thinking, batch, Sampling(6, 0.0, stop)) for stop in ((), ("<think>",)))
    assert free.answers[0][0].text == stopped.answers[0][0].text and free.ids.shape[1] > 1


def test_a_policy_may_write_tags(thinking):
    banned = banned_ids(thinking.processor, thinking.vlm.config, thinking.stop_ids)
    ids, mask = encode_completions(thinking.processor, [GOLD, "It is benign."])
    assert not banned[ids[mask]].any()


# Through the command line


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", *THINKING])
def test_every_stage_reads_the_whole_reply(family, lab, tmp_path):
    """Warm start, test, GRPO++ and DPO, with marks of images in the questions: all alike under every template."""
    table = tmp_path / "questions.csv"
    photographs = sorted(map(str, lab.photographs.rglob("*.jpg")))[:9]
    rows = [["image", "label", "question"], *([path, "melanoma", "<image>\nWhich condition?"] for path in photographs)]
    with table.open("w") as file:
        csv.writer(file).writerows(rows)
    columns = {"image_column": "image", "label_column": "label", "question_column": "question"}
    source = {"class_path": "dermiq.datamodules.sources.TabularSource", "init_args": {"path": str(table), **columns}}
    data = f"--data.sources.all={json.dumps(source)}"
    warm = f"--model.backbone.adapter_path={tmp_path / 'sft' / 'adapter'}"
    steps = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1"]
    lab.run(
        "fit", "SFTModule", tmp_path / "sft", data, *steps, "--trainer.max_steps=150", "--model.backbone.lora.rank=8",
        family=family,
    )  # fmt: skip
    lab.run(
        "test", "SFTModule", tmp_path / "test", data, warm, "--model.eval_sampling.max_new_tokens=90", family=family
    )
    judged = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert judged["test/accuracy"] == 1.0 and judged["test/reasoning_length"] > 10
    sampling = [
        "--model.sampling.max_new_tokens=90",
        "--model.sampling.temperature=0.1",
        "--model.tokens_per_pass=null",
    ]
    steps.append("--trainer.max_steps=2")
    lab.run("fit", "GRPOModule", tmp_path / "grpo", data, warm, *steps, *sampling, family=family)
    for row in logged(tmp_path / "grpo"):
        assert float(row["train/accuracy"]) >= 0.5 and float(row["train/all_wrong_groups"]) == 0
    lab.run("fit", "DPOModule", tmp_path / "dpo", warm, *steps, "--trainer.max_steps=3", family=family)
    losses = [float(row["train/loss"]) for row in logged(tmp_path / "dpo")]
    assert losses[0] == pytest.approx(0.693147, abs=1e-4) and losses[1] < losses[0]
