"""Candidates kept and paired: what a run writes, how it resumes, what it refuses; and the command line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

import dermiq.cli
from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.datamodules.preference import PreferenceCollate
from dermiq.datamodules.sources import Preferences
from dermiq.kg import PairMaker, Retriever
from dermiq.modules import CandidateModule, SFTModule
from dermiq.policy.rollout import Sampling
from dermiq.prompts import to_messages
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis
from dermiq.schema import KnowledgeError, TrainingError
from dermiq.trainer.preferences import WritePreferences
from support.images import picture
from support.pairs import LESIONS, STOPS, speak

CANDIDATES, PREFERENCES = "candidates.jsonl", "preferences.jsonl"


class Run:
    """A run of predict without the trainer around it: questions about five drawn lesions, in batches of two."""

    def __init__(self, backbone, **options):
        settings = {"candidates": 6, "sampling": Sampling(6), "retriever": Retriever(budget=40)}
        mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)})
        self.module = CandidateModule(backbone, mixture, **settings | options)
        self.collate = PromptCollate(backbone.model_id, "Look.", 6)
        self.samples = list(LESIONS)
        self.image = LESIONS.image

    def __call__(self, root, stop=None, ratio=1.5, world_size=1):
        trainer = SimpleNamespace(default_root_dir=str(root), world_size=world_size)
        writer = WritePreferences(PairMaker(max_length_ratio=ratio))
        writer.on_predict_start(trainer, self.module)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.module.backbone, "decode", speak)
            patch.setattr(self.module.backbone, "stop_ids", STOPS)
            for start in range(0, len(self.samples), 2)[:stop]:
                samples = self.samples[start : start + 2]
                batch = self.collate([Item(one, [self.image(path) for path in one.images]) for one in samples])
                writer.on_predict_batch_end(trainer, self.module, self.module.predict_step(batch, 0), batch, 0)
        if stop is None:
            writer.on_predict_end(trainer, self.module)


@pytest.fixture(scope="module")
def whole(backbone, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    Run(backbone)(root)
    return root


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_a_run_leaves_behind(whole, backbone):
    header, *records = rows(whole / CANDIDATES)
    policy = {"model_id": backbone.model_id, "adapter": None, "weights": header["policy"]["weights"]}
    retriever = {"class": "dermiq.kg.retrieval.Retriever"} | Retriever(budget=40).__getstate__()
    sampling = {"max_new_tokens": 6, "temperature": 1.0, "stop": []}
    assert header == {"policy": policy, "sampling": sampling, "candidates": 6, "seed": 0, "retriever": retriever}
    assert [record["id"] for record in records] == [lesion.id for lesion in LESIONS]
    for record, lesion in zip(records, LESIONS, strict=True):
        (path,) = record["images"]
        assert path == f"images/{lesion.images[0]}"
        with Image.open(whole / path) as image:
            assert image.tobytes() == LESIONS.image(lesion.images[0]).tobytes()
    assert files(whole).keys() == {CANDIDATES, PREFERENCES} | {path for record in records for path in record["images"]}


def test_the_pairs_are_of_the_candidates(whole):
    records = {record["id"]: record for record in rows(whole / CANDIDATES)[1:]}
    pairs = rows(whole / PREFERENCES)
    assert pairs and len({pair["id"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        record = records[pair["id"]]
        said = {one["completion"]: one for one in record["candidates"]}
        for name in ("chosen", "rejected"):
            (message,) = pair[name]
            provenance, candidate = pair["provenance"][name], said[message["content"]]
            assert all(provenance[key] == candidate[key] for key in ("grounded", "facts")) and candidate["finished"]
        assert pair["prompt"] == record["messages"] and "Facts:" not in json.dumps(pair["prompt"])
        assert 0 < pair["margin"] <= 1 and pair["evidence"]["contradicted"][0]["evidence"][0]["citation"]
        assert all((whole / image).is_file() for image in pair["images"])


def test_the_pairs_load_for_dpo(whole, backbone):
    """As prompts without facts, each with both answers and its drawing."""
    source = Preferences(str(whole / PREFERENCES))
    source.load()
    pairs = rows(whole / PREFERENCES)
    assert len(source) == len(pairs) and source.missing() == []
    for sample, pair in zip(source, pairs, strict=True):
        assert (sample.chosen, sample.rejected) == tuple(pair[name][0]["content"] for name in ("chosen", "rejected"))
        assert to_messages(sample) == pair["prompt"]
        assert (sample.id, sample.group, sample.target, sample.margin) == tuple(
            pair[name] for name in ("id", "group", "target", "margin")
        )
    items = [Item(sample, [source.image(path) for path in sample.images]) for sample in source]
    batch = PreferenceCollate(backbone.model_id, "Look.", 6)(items)
    assert len(batch["completion_ids"]) == 2 * len(pairs)


@pytest.mark.slow
def test_trl_loads_the_pairs(whole, family_dir, monkeypatch, tmp_path):
    """In the run's directory, with its image column cast as TRL's own examples do."""
    from datasets import Image as ImageColumn
    from datasets import List, load_dataset
    from transformers import AutoProcessor
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    monkeypatch.chdir(whole)
    monkeypatch.setenv("CI", "1")  # TRL reports to its makers otherwise
    data = load_dataset("json", data_files=PREFERENCES, split="train", cache_dir=str(tmp_path))
    data = data.cast_column("images", List(ImageColumn()))
    processor = AutoProcessor.from_pretrained(family_dir("qwen2_5_vl"))
    batch = DataCollatorForVisionPreference(processor)([data[i] for i in range(len(data))])
    texts = processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
    for text, pair, name in [
        (text, pair, name)
        for name, part in (("chosen", texts[: len(data)]), ("rejected", texts[len(data) :]))
        for text, pair in zip(part, rows(whole / PREFERENCES), strict=True)
    ]:
        assert pair[name][0]["content"] in text and pair["question"] in text and "Facts" not in text


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_run_that_died_goes_on_and_ends_the_same(batches, backbone, whole, tmp_path):
    Run(backbone)(tmp_path, stop=batches)
    assert not (tmp_path / PREFERENCES).exists()
    Run(backbone)(tmp_path)
    assert files(tmp_path) == files(whole)


@pytest.mark.parametrize(("lines", "characters"), [(0, 20), (2, 50), (4, 0)])
def test_a_batch_may_be_there_in_part_and_a_line_be_torn(lines, characters, backbone, whole, tmp_path):
    before = (whole / CANDIDATES).read_bytes().splitlines(keepends=True)
    (tmp_path / CANDIDATES).write_bytes(b"".join(before[:lines]) + before[lines][:characters])
    Run(backbone)(tmp_path)
    assert all((tmp_path / name).read_bytes() == (whole / name).read_bytes() for name in (CANDIDATES, PREFERENCES))


def test_a_run_that_is_done_draws_nothing(backbone, whole, monkeypatch):
    before = files(whole)
    monkeypatch.delattr("dermiq.modules.candidates.sample_rollout")
    Run(backbone)(whole)
    assert files(whole) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": Sampling(6, 0.9)}, r"sampling\.temperature was 1\.0, is 0\.9"),
        ({"retriever": None}, r"retriever\.budget was 40, is None"),
        ({"candidates": 3, "seed": 1}, r"candidates was 6, is 3; seed was 0, is 1\. Go back"),
    ],
)
def test_a_file_of_other_settings_is_refused(options, message, backbone, whole):
    before = files(whole)
    with pytest.raises(TrainingError, match=rf"{message}.*default_root_dir"):
        Run(backbone, **options)(whole)
    assert files(whole) == before


def test_a_file_of_other_weights_is_refused_and_that_of_a_moved_adapter_is_not(backbone, whole, monkeypatch):
    monkeypatch.setattr(backbone, "adapter_path", "elsewhere/adapter")
    Run(backbone)(whole, stop=0)
    monkeypatch.setattr("dermiq.modules.candidates.policy_digest", lambda backbone: "other")
    with pytest.raises(TrainingError, match=r"another policy.*policy\.weights was \w+, is other"):
        Run(backbone)(whole)


@pytest.mark.parametrize("change", [{"target": "scabies"}, {"question": "Why?"}])
def test_other_data_under_the_same_id_are_refused(change, backbone, whole):
    run = Run(backbone)
    run.samples = [replace(run.samples[0], **change)]
    with pytest.raises(TrainingError, match="'phantom-4-0-contagion' for another question or target"):
        run(whole)


def test_no_pair_is_an_error_that_loses_nothing(backbone, whole):
    before = files(whole)
    with pytest.raises(KnowledgeError, match=r"30 candidates of 5 questions.* other length"):
        Run(backbone)(whole, ratio=1.0)
    assert files(whole) == before


def test_a_damaged_line_is_named(backbone, whole, tmp_path):
    lines = (whole / CANDIDATES).read_text(encoding="utf-8").splitlines()
    (tmp_path / CANDIDATES).write_text("\n".join([*lines[:2], "{", *lines[3:]]) + "\n", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="line 3: not JSON"):
        Run(backbone)(tmp_path)


def test_images_that_are_files_stay_where_they_are(backbone, tmp_path):
    run = Run(backbone)
    photograph = tmp_path / "photographs" / "a.jpg"
    photograph.parent.mkdir()
    picture(0, 40).save(photograph)
    strange = "phantom://4/../0"
    run.samples = [replace(run.samples[0], images=(str(photograph),)), replace(run.samples[1], images=(strange,))]
    run.image = lambda path: picture(0, 40)
    run(tmp_path / "run", stop=1)
    first, second = (record["images"][0] for record in rows(tmp_path / "run" / CANDIDATES)[1:])
    assert first == "../photographs/a.jpg"
    assert Path(second).parent == Path("images") and (tmp_path / "run" / second).is_file()


def test_what_cannot_be_run(backbone, tmp_path):
    with pytest.raises(TrainingError, match=r"--trainer\.devices=1"):
        Run(backbone)(tmp_path, world_size=2)
    run = Run(backbone)
    run.module = SFTModule(backbone, None)
    with pytest.raises(TrainingError, match=r"dermiq\.modules\.CandidateModule"):
        run(tmp_path)


# The command line


def test_the_command_line(pairs_config, whole, tmp_path):
    """It writes the same questions and images, and one pair for each of some."""
    dermiq.cli.run(["predict", f"--config={pairs_config}", f"--trainer.default_root_dir={tmp_path}"])
    made, expected = rows(tmp_path / CANDIDATES), rows(whole / CANDIDATES)
    for record in (*made[1:], *expected[1:]):
        assert len(record.pop("candidates")) == 6
    assert made[1:] == expected[1:]
    pairs = rows(tmp_path / PREFERENCES)
    assert pairs and {pair["id"] for pair in pairs} <= {record["id"] for record in made[1:]}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1])
def test_a_killed_command_goes_on_and_ends_the_same(batch, pairs_config, tmp_path):
    here = Path(__file__).parent
    known = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": known, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).parents[2] / "cli.py"), "predict", f"--config={pairs_config}"]
    kill = f"--trainer.callbacks+={{class_path: support.pairs.KillAt, init_args: {{batch: {batch}}}}}"
    for folder, options, code in (("a", [kill], -9), ("a", [], 0), ("b", [], 0)):
        command = [*program, f"--trainer.default_root_dir={tmp_path / folder}", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.slow
def test_fit_is_refused(pairs_config, tmp_path):
    train = yaml.safe_load(pairs_config.read_text())["data"]["init_args"]["sources"]["test"]
    options = [f"--data.sources={json.dumps({'train': train})}", "--trainer.limit_val_batches=0"]
    with pytest.raises(TrainingError, match="run it with `predict`"):
        dermiq.cli.run(["fit", f"--config={pairs_config}", f"--trainer.default_root_dir={tmp_path}", *options])
