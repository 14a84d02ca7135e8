"""Rejection-sampled fine-tuning: which answers are kept, how a run resumes, and what is learned of them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from lightning.pytorch.callbacks import Callback

import dermiq.cli
from dermiq.datamodules.phantom import PhantomSource
from dermiq.datamodules.sources import Accepted, LabelsOnly
from dermiq.kg import Retriever
from dermiq.modules import CandidateModule, SFTModule
from dermiq.policy.rollout import Sampling
from dermiq.prompts import gold_completion, parse
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis, unhedged
from dermiq.schema import DataError, TrainingError
from dermiq.trainer.accepted_answers import WriteAccepted
from support.runs import checkpoint

ACCEPTED = "accepted.jsonl"
PAIR = ["psoriasis", "melanoma"]
LESIONS = PhantomSource(4, seed=4, conditions=PAIR)
FIRST, SECOND, *_ = LESIONS


def said(think, answer):
    return f"<think> {think} </think> <answer> {answer} </answer>"


def module_of(backbone, **options):
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)}, {"hedging": unhedged})
    return CandidateModule(backbone, mixture, **{"candidates": 4, "sampling": Sampling(6)} | options)


def keep(module, root, *batches, limit=None, end=True, world_size=1):
    """A run of predict without the trainer around it: batches of (sample, completions) pairs."""
    trainer = SimpleNamespace(default_root_dir=str(root), world_size=world_size)
    writer = WriteAccepted(limit)
    writer.on_predict_start(trainer, module)
    for batch in batches:
        drawn = [
            (one.id, [{"completion": text} for text in texts]) for one, texts in batch if one.id not in module.done
        ]
        outputs = {"rows": [], "records": [{"id": name, "candidates": texts} for name, texts in drawn]}
        writer.on_predict_batch_end(trainer, module, outputs, {"samples": [one for one, _ in batch]}, 0)
    if end:
        writer.on_predict_end(trainer, module)
    return root / ACCEPTED


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


ANSWERS = [
    said("red and scaly", FIRST.target),
    said("brown", FIRST.target.upper()),  # right, as capitals do not matter
    said("brown", "vitiligo"),  # wrong
    said("red  and\nscaly", FIRST.target),  # the first one's reasoning again
    f"red, so {FIRST.target}",  # no structure
    said("red", f"{FIRST.target} or vitiligo"),  # hedged
    said("plaque", FIRST.synonyms[0]),
]


def test_the_distinct_right_answers_are_kept_in_order(backbone, tmp_path):
    module = module_of(backbone)
    path = keep(module, tmp_path, [(FIRST, ANSWERS), (SECOND, [said("", "vitiligo")])])
    header, first, second = rows(path)
    sampling = {"max_new_tokens": 6, "temperature": 1.0, "stop": []}
    settings = {"sampling": sampling, "candidates": 4, "seed": 0, "retriever": None, "limit": None}
    assert header == {"model_id": backbone.model_id, "weights": module.policy["weights"], **settings}
    kept = [ANSWERS[0], ANSWERS[1], ANSWERS[6]]
    assert first == {"id": FIRST.id, "target": FIRST.target, "sampled": 7, "right": 4, "accepted": kept}
    assert second == {"id": SECOND.id, "target": SECOND.target, "sampled": 1, "right": 0, "accepted": []}


def test_a_limit_keeps_the_first_ones(backbone, tmp_path):
    _, row = rows(keep(module_of(backbone), tmp_path, [(FIRST, ANSWERS)], limit=2))
    assert row["accepted"] == ANSWERS[:2] and row["right"] == 4


BATCHES = [[(one, [said(f"look {i}", one.target), said("no", "vitiligo")])] for i, one in enumerate(LESIONS)]


@pytest.mark.parametrize(("lines", "characters"), [(0, 20), (1, 0), (3, 30), (5, 0)])
def test_a_run_that_died_goes_on_and_ends_the_same(lines, characters, backbone, tmp_path):
    """Between two lines, or within one that a kill tore."""
    whole = keep(module_of(backbone), tmp_path / "whole", *BATCHES).read_bytes()
    before = whole.splitlines(keepends=True)
    (tmp_path / ACCEPTED).write_bytes(b"".join(before[:lines]) + b"".join(before[lines : lines + 1])[:characters])
    module = module_of(backbone)
    assert keep(module, tmp_path, *BATCHES).read_bytes() == whole
    assert set(module.done) == {sample.id for sample in LESIONS}


@pytest.mark.parametrize(
    ("options", "limit", "message"),
    [
        ({"candidates": 3}, None, "candidates was 4, is 3"),
        ({"seed": 1}, 2, "seed was 0, is 1; limit was None, is 2"),
    ],
)
def test_a_file_of_other_settings_is_refused(options, limit, message, backbone, tmp_path):
    path = keep(module_of(backbone), tmp_path, *BATCHES)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=rf"{message}\. Go back.*default_root_dir"):
        keep(module_of(backbone, **options), tmp_path, limit=limit)
    assert path.read_bytes() == before


def test_other_data_under_the_same_id_are_refused(backbone, tmp_path):
    keep(module_of(backbone), tmp_path, BATCHES[0])
    other = replace(FIRST, target="vitiligo")
    with pytest.raises(TrainingError, match=f"sample '{FIRST.id}' for the target '{FIRST.target}', not 'vitiligo'"):
        keep(module_of(backbone), tmp_path, [(other, [])])


def test_what_cannot_be_run(backbone, tmp_path):
    with pytest.raises(TrainingError, match=r"--trainer\.devices=1"):
        keep(module_of(backbone), tmp_path, world_size=2)
    with pytest.raises(TrainingError, match=r"leave out --model\.retriever"):
        keep(module_of(backbone, retriever=Retriever()), tmp_path)
    with pytest.raises(TrainingError, match=r"dermiq\.modules\.CandidateModule"):
        keep(SFTModule(backbone, None), tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        WriteAccepted(0)
    with pytest.raises(TrainingError, match="None of 1 answers to 1 questions was right"):
        keep(module_of(backbone), tmp_path, [(FIRST, [said("", "vitiligo")])])


@pytest.mark.parametrize("line", [1, 3])
def test_a_damaged_file_is_named(line, backbone, tmp_path):
    path = keep(module_of(backbone), tmp_path, *BATCHES)
    lines = path.read_text().splitlines()
    lines[line - 1] = "{}]"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TrainingError, match=f"line {line} is damaged"):
        keep(module_of(backbone), tmp_path)


# What is learned of them


def write(path, *lines):
    header = {"model_id": "m"}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (header, *lines)))
    return str(path)


def row(sample, *completions, **more):
    return {"id": sample.id, "target": sample.target, "accepted": list(completions)} | more


def test_each_answer_is_a_sample_with_its_reasoning(tmp_path):
    lines = (
        row(SECOND, said("b", SECOND.target), said("c", SECOND.synonyms[0])),
        row(LESIONS[2]),
        row(FIRST, ANSWERS[0]),
    )
    source = Accepted(LESIONS, write(tmp_path / ACCEPTED, *lines))
    source.load()
    assert list(source) == [
        replace(SECOND, id=f"{SECOND.id}/0", reasoning="b"),
        replace(SECOND, id=f"{SECOND.id}/1", reasoning="c"),
        replace(FIRST, id=f"{FIRST.id}/0", reasoning="red and scaly"),
    ]
    assert gold_completion(source[1]) == said("c", SECOND.target)
    assert source.image(SECOND.images[0]) == LESIONS.image(SECOND.images[0]) and source.missing() == []
    again = pickle.loads(pickle.dumps(source))
    again.load()
    assert list(again) == list(source)


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / ACCEPTED
    write(path, row(FIRST, ANSWERS[0]))
    with path.open("a") as file:
        file.write('{"id": "phan')
    source = Accepted(LESIONS, str(path))
    source.load()
    assert len(source) == 1


class Absent(PhantomSource):
    """Lesions of which the second has no picture."""

    def missing(self):
        return [1]


def test_missing_images_are_told(tmp_path):
    lines = row(FIRST, ANSWERS[0]), row(SECOND, said("b", SECOND.target), said("c", SECOND.target))
    source = Accepted(Absent(4, seed=4, conditions=PAIR), write(tmp_path / ACCEPTED, *lines))
    source.load()
    assert source.missing() == [1, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no right answer"),
        ([row(FIRST)], "holds no right answer"),
        ([row(FIRST, ANSWERS[0], id="phantom-9-9")], "line 2: the source has no sample 'phantom-9-9'"),
        ([row(FIRST), row(SECOND, target="vitiligo")], "line 3: .* answered for the target 'vitiligo', and the source"),
        ([row(FIRST, "no structure")], "line 2: 'no structure' has not the structure"),
        ([row(FIRST, 3)], "line 2: .* a list of texts.*Delete the line"),
        (["text"], "line 2: no object with `id`.*Delete the line"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(lines, message, tmp_path):
    with pytest.raises(DataError, match=message):
        Accepted(LESIONS, write(tmp_path / ACCEPTED, *lines)).load()


def test_a_missing_file_tells_how_to_write_it(tmp_path):
    with pytest.raises(DataError, match=r"no file .*accepted\.jsonl.*dermiq\.trainer\.accepted_answers\.WriteAccepted"):
        Accepted(LESIONS, str(tmp_path / ACCEPTED)).load()


# The command line


class Guess(Callback):
    """Makes an untrained model answer in structure: one of two conditions, and something of its own as reasoning."""

    def on_predict_start(self, trainer, pl_module):
        def decode(ids, mask):
            numbers = [int(row[kept].sum()) for row, kept in zip(ids, mask, strict=True)]
            return [said(f"look {number}", PAIR[number % 2]) for number in numbers]

        pl_module.backbone.decode = decode


def experiment(family_dir, stage, sources, datamodule, **model):
    backbone = {"model_id": str(family_dir("idefics3")), "lora": {"rank": 2}}
    own = {
        "backbone": {"class_path": "dermiq.policy.backbone.VLMBackbone", "init_args": backbone},
        "rewards": {
            "class_path": "dermiq.rewards.RewardMixture",
            "init_args": {"terms": {"diagnosis": {"fn": "dermiq.rewards.diagnosis"}}},
        },
    }
    data = {"sources": sources, "system_prompt": "Look.", "batch_size": 4, "eval_batch_size": 2}
    return {
        "trainer": {"accelerator": "cpu", "limit_val_batches": 0, "enable_model_summary": False},
        "model": {"class_path": f"dermiq.modules.{stage}", "init_args": own | model},
        "data": {"class_path": f"dermiq.datamodules.{datamodule}", "init_args": data},
    }


KNOBS = {"count": 4, "seed": 4, "conditions": PAIR, "camera": {"cast": [1.1, 1.0, 0.8], "softness": 0.01}}
BARE = {
    "class_path": "dermiq.datamodules.sources.LabelsOnly",
    "init_args": {"source": {"class_path": "dermiq.datamodules.phantom.PhantomSource", "init_args": KNOBS}},
}


def test_predict_keeps_right_guesses(family_dir, tmp_path):
    """About lesions with bare labels, seen by another camera."""
    options = {"candidates": 4, "sampling": {"max_new_tokens": 4, "temperature": 1.0}}
    content = experiment(family_dir, "CandidateModule", {"test": BARE}, "PromptDataModule", **options)
    content["trainer"]["callbacks"] = [
        {"class_path": "dermiq.trainer.callbacks.WritePredictions"},  # as in base.yaml
        {"class_path": "dermiq.trainer.accepted_answers.WriteAccepted", "init_args": {"limit": 2}},
        {"class_path": "test_accepted.Guess"},
    ]
    config = tmp_path / "accept.yaml"
    config.write_text(yaml.safe_dump(content))
    dermiq.cli.run(["predict", f"--config={config}", f"--trainer.default_root_dir={tmp_path}"])
    header, *kept = rows(tmp_path / ACCEPTED)
    assert header["candidates"] == 4 and [line["id"] for line in kept] == [f"{one.id}/diagnosis" for one in LESIONS]
    answers = [(line["target"], parse(text)) for line in kept for text in line["accepted"]]
    assert answers and all(answer.diagnosis == target for target, answer in answers)
    assert all(line["sampled"] == 4 and len(line["accepted"]) <= 2 for line in kept)


@pytest.mark.slow
def test_fit_learns_them(family_dir, tmp_path):
    bare = LabelsOnly(LESIONS)
    bare.load()
    lines = [row(sample, said("a", sample.target), said("b", sample.target)) for sample in bare]
    accepted = {"source": BARE, "path": write(tmp_path / ACCEPTED, *lines)}
    train = {"class_path": "dermiq.datamodules.sources.Accepted", "init_args": accepted}
    config = tmp_path / "learn.yaml"
    config.write_text(yaml.safe_dump(experiment(family_dir, "SFTModule", {"train": train}, "ConversationDataModule")))
    cli = dermiq.cli.run(["fit", f"--config={config}", f"--trainer.default_root_dir={tmp_path}"])
    learned = [gold_completion(sample) for sample in cli.datamodule.sources["train"]]
    assert learned == [said(letter, sample.target) for sample in bare for letter in "ab"]
    assert checkpoint(tmp_path)["global_step"] == len(learned) // 4


def test_answers_to_bare_labels_are_found_under_their_ids(tmp_path):
    bare = LabelsOnly(LESIONS)
    bare.load()
    source = Accepted(bare, write(tmp_path / ACCEPTED, row(bare[0], ANSWERS[0])))
    source.load()
    assert source[0].id == f"{FIRST.id}/diagnosis/0" and source[0].findings == {}
