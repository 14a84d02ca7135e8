"""What goes wrong in a run, as the user sees it: one line on stderr, exit code 2, and nothing lost."""

import copy
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from dermiq.cli import main
from dermiq.run_directory import RunDirectory
from support.runs import REWARDS, STAGES, adapter, checkpoint, different

TESTS = Path(__file__).parents[1]


def failure(capsys, arguments):
    """The message of a run that fails."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("dermiq: ") :].removeprefix("dermiq: ").strip()


def environment():
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }


def shell(arguments):
    return [sys.executable, str(TESTS.parent / "cli.py"), *arguments]


# Rewards and losses


def rewarded_by(folder, fn):
    """A second configuration with one of the toy rewards in place of the first one's."""
    rewards = copy.deepcopy(REWARDS)
    rewards["init_args"]["terms"]["letters"]["fn"] = f"support.parts.{fn}"
    (folder / "rewards.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"rewards": rewards}}}))
    return f"--config={folder / 'rewards.yaml'}"


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        ("raising", "Reward 'letters' failed on sample 'ISIC_00000"),
        ("no_number", "Reward 'letters' gave nan for sample 'ISIC_00000"),
    ],
)
def test_a_broken_reward(fn, text, lab, tmp_path, capsys):
    message = failure(capsys, lab.arguments("fit", "GRPOModule", tmp_path, rewarded_by(tmp_path, fn)))
    assert message.startswith(text) and "ISIC_" in message


def test_a_broken_reward_in_an_evaluation(lab, tmp_path, capsys):
    message = failure(capsys, lab.arguments("test", "SFTModule", tmp_path, rewarded_by(tmp_path, "raising")))
    assert "failed on sample" in message and "KeyError: 'no such concept'" in message


def test_a_loss_that_is_not_finite(lab, tmp_path, capsys):
    message = failure(capsys, lab.arguments("fit", "GRPOModule", tmp_path, "--model.advantage=support.parts.Infinite"))
    assert re.match(r"The loss is (nan|-?inf) at step 0 on the samples ISIC_\d+, ISIC_\d+\.", message)
    assert message.count("ISIC_") == 2 and "lower the learning rate" in message


@pytest.mark.parametrize("stage", STAGES)
def test_a_learning_rate_that_destroys_the_policy(stage, lab, tmp_path, capsys):
    """The run from before is set aside whole, and can be gone on with at its rate."""
    lab.run("fit", stage, tmp_path, "--trainer.max_steps=1")
    before = checkpoint(tmp_path)["state_dict"]
    broken = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e38"]
    message = failure(capsys, lab.arguments("fit", stage, tmp_path, "--start_over", *broken))
    assert "not finite on the samples ISIC_" in message or "The loss is nan at step 1 on the samples ISIC_" in message
    kept = tmp_path / "earlier" / "1"
    assert different(checkpoint(kept)["state_dict"], before) == []
    lab.run("fit", stage, kept, "--ckpt_path=last", "--trainer.max_steps=2")


# Models and prompts


def test_a_model_that_is_no_vlm(lab, tmp_path, capsys):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).save_pretrained(tmp_path / "llama")
    model = f"--model.backbone.model_id={tmp_path / 'llama'}"
    message = failure(capsys, lab.arguments("fit", "GRPOModule", tmp_path, model))
    assert "is a llama model, which is no image-text-to-text model" in message


def test_a_model_that_is_not_there(lab, tmp_path, capsys):
    model = f"--model.backbone.model_id={tmp_path / 'none'}"
    message = failure(capsys, lab.arguments("fit", "GRPOModule", tmp_path, model))
    assert f"{str(tmp_path / 'none')!r} is neither a local directory nor" in message and "Give model_id" in message


@pytest.mark.parametrize("stage", ["SFTModule", "GRPOModule"])
def test_a_prompt_longer_than_the_context(stage, lab, tmp_path, capsys):
    question = "--data.system_prompt=" + "Look at the skin. " * 1500
    message = failure(capsys, lab.arguments("fit", stage, tmp_path, question))
    assert "its prompt of " in message and "do not fit into the 8192 tokens of context" in message
    assert "Nothing is truncated." in message and not (tmp_path / "checkpoints").exists()


def test_room_for_the_completion_is_part_of_the_context(lab, tmp_path, capsys):
    tokens = "--model.eval_sampling.max_new_tokens=8150"
    assert "8150 tokens of completion do not fit" in failure(
        capsys, lab.arguments("fit", "GRPOModule", tmp_path, tokens)
    )


def test_room_for_a_drawn_completion_is_part_of_the_context(lab, tmp_path, capsys):
    arguments = lab.arguments("fit", "GRPOModule", tmp_path, "--model.sampling.max_new_tokens=8150")
    assert "8150 tokens of completion do not fit" in failure(capsys, arguments)


# Images


@pytest.fixture
def spoilt(lab, tmp_path):
    """The photographs with one missing and one cut off, both of the first lesion: (folder, missing, cut off)."""
    root = shutil.copytree(lab.photographs, tmp_path / "photographs")
    missing, cut = (sorted(root.glob("*/*.jpg"), key=lambda path: path.name)[i] for i in (0, 1))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:300])
    return root, missing, cut


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_skipped_images_are_listed(stage, batch_size, lab, spoilt, tmp_path, capsys):
    """Also where the image is the only one of its batch; every photograph is in the training split."""
    root, missing, cut = spoilt
    sources = json.dumps({"train": lab.source(stage, root)})
    data = [f"--data.sources={sources}", f"--data.batch_size={batch_size}"]
    with pytest.warns(UserWarning, match="Skipped 2 samples with unreadable images; they are listed in"):
        lab.run("fit", stage, tmp_path / "run", *data, "--data.on_bad_image=skip")
    lines = sorted((tmp_path / "run" / "skipped.txt").read_text().splitlines())
    assert [line.split(": ")[0] for line in lines] == [missing.stem, cut.stem]
    assert str(missing) in lines[0] and "missing" in lines[0]
    assert str(cut) in lines[1] and "cannot be read" in lines[1]


def test_an_evaluation_without_a_readable_image(lab, tmp_path, capsys):
    root = shutil.copytree(lab.photographs, tmp_path / "photographs")
    for path in root.glob("*/*.jpg"):
        path.write_bytes(b"nothing")
    options = [f"--data.sources.all.root={root}", "--data.on_bad_image=skip"]
    message = failure(capsys, lab.arguments("test", "SFTModule", tmp_path / "run", *options))
    assert message.startswith("No sample of the test split could be read")


# Disk and Ctrl-C


@pytest.mark.slow
def test_a_full_disk_leaves_the_previous_checkpoint(lab, tmp_path):
    """A limit on the size of files stands in for the disk: smaller than a checkpoint, larger than all else."""
    lab.run("fit", "SFTModule", tmp_path, "--trainer.max_steps=1")
    before = RunDirectory(tmp_path).last_checkpoint.read_bytes()
    arguments = lab.arguments("fit", "SFTModule", tmp_path, "--trainer.max_steps=2", "--ckpt_path=last")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 4000, resource.RLIM_INFINITY))

    run = subprocess.run(shell(arguments), env=environment(), capture_output=True, text=True, preexec_fn=limit)
    assert run.returncode == 2, run.stderr
    message = run.stderr.splitlines()[-1]
    assert message.startswith(f"dermiq: The checkpoint {RunDirectory(tmp_path).last_checkpoint} could not be written (")
    assert "The previous checkpoint is whole. Free space on this disk, then resume with --ckpt_path last." in message
    assert RunDirectory(tmp_path).last_checkpoint.read_bytes() == before
    assert [path.name for path in RunDirectory(tmp_path).last_checkpoint.parent.iterdir()] == ["last.ckpt"]
    lab.run("fit", "SFTModule", tmp_path, "--trainer.max_steps=2", "--ckpt_path=last")


def test_an_adapter_that_cannot_be_written_leaves_the_previous_one(lab, tmp_path, monkeypatch, capsys):
    lab.run("fit", "SFTModule", tmp_path, "--trainer.max_steps=1")
    before = adapter(tmp_path)

    def full(self, directory, **options):
        Path(directory).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("peft.PeftModel.save_pretrained", full)
    message = failure(capsys, lab.arguments("fit", "SFTModule", tmp_path, "--trainer.max_steps=2", "--ckpt_path=last"))
    assert "The adapter" in message and "No space left on device" in message and "Free space" in message
    assert different(adapter(tmp_path), before) == []
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter"} and not (tmp_path / "adapter.partial").exists()


@pytest.mark.parametrize("stage", [pytest.param("SFTModule", marks=pytest.mark.slow), "GRPOModule"])
def test_ctrl_c_saves_and_exits_with_130(stage, lab, tmp_path):
    """The shell's Ctrl-C, which reaches the worker that loads data too, in a run that would go on for hours."""
    arguments = lab.arguments("fit", stage, tmp_path, "--trainer.max_epochs=100000", "--data.num_workers=1")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(shell(arguments), env=environment(), start_new_session=True, **streams)
    try:
        table = tmp_path / "metrics" / "version_0" / "metrics.csv"
        deadline = time.monotonic() + 300
        while not (table.is_file() and len(table.read_text().splitlines()) > 3):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(process.communicate()[0])
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert output.count("Ctrl-C: finishing this step, then saving.") == 1 and "--ckpt_path last" in output
    step = checkpoint(tmp_path)["global_step"]
    assert step >= 3 and adapter(tmp_path)
    more = ["--trainer.max_epochs=100000", f"--trainer.max_steps={step + 1}"]
    lab.run("fit", stage, tmp_path, "--ckpt_path=last", *more)
    assert checkpoint(tmp_path)["global_step"] == step + 1


def test_grpo_refuses_conversation(lab, tmp_path, capsys):
    content = yaml.safe_load(lab.config("GRPOModule").read_text())
    talk = {"class_path": "dermiq.datamodules.phantom.PhantomConversations", "init_args": {"count": 2}}
    content["data"]["init_args"] |= {"sources": {"train": talk}, "fractions": None}
    config = tmp_path / "talk.yaml"
    config.write_text(yaml.safe_dump(content))
    message = failure(capsys, ["fit", f"--config={config}", f"--trainer.default_root_dir={tmp_path}"])
    assert "Samples phantom-0-" in message and "ask for no diagnosis" in message and "SFTModule" in message
