"""What SECURITY.md promises of files that strangers made."""

from __future__ import annotations

import ast
import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.hub import load_processor
from dermiq.schema import ModelError, TrainingError
from dermiq.text_encoder import TextEncoder
from dermiq.trainer.checkpointing import AtomicCheckpointIO

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted((REPOSITORY / "src" / "dermiq").rglob("*.py"))
PAGE = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
OWN_PICKLES = {"kg/ontology/loading.py", "datamodules/loading.py"}  # a cache of this user, and a process's own workers


@cache
def calls(path: Path) -> list[tuple[str, dict[str, ast.expr]]]:
    """Every call in a file: the name as written (``torch.load``), and its keywords."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), {key.arg: key.value for key in node.keywords if key.arg}) for node in found]


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


def test_no_call_reads_more_than_weights():
    seen = 0
    for path in SOURCES:
        for name, keywords in calls(path):
            if name == "torch.load":
                seen += 1
                assert is_constant(keywords.get("weights_only"), True), path
            assert not is_constant(keywords.get("trust_remote_code"), True), path
            assert not is_constant(keywords.get("allow_pickle"), True), path
    assert seen


def test_only_own_files_are_unpickled():
    found = {
        path.relative_to(REPOSITORY / "src" / "dermiq").as_posix()
        for path in SOURCES
        for name, _ in calls(path)
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler")
    }
    assert found == OWN_PICKLES


def test_no_text_is_run_as_code_or_command():
    refused = {"eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"}
    for path in SOURCES:
        for name, keywords in calls(path):
            assert name not in refused, (path, name)
            assert not is_constant(keywords.get("shell"), True), path


def test_a_checkpoint_runs_nothing(tmp_path):
    witness = tmp_path / "witness"
    torch.save({"state_dict": {}, "evil": Payload(witness)}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match="cannot be read"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert not witness.exists()


@pytest.mark.slow
def test_resuming_runs_nothing_of_a_checkpoint(lab, tmp_path):
    witness = tmp_path / "witness"
    torch.save({"state_dict": {}, "evil": Payload(witness)}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match="cannot be read"):
        lab.run("fit", "SFTModule", tmp_path / "run", f"--ckpt_path={tmp_path / 'last.ckpt'}")
    assert not witness.exists()


def test_weights_of_a_model_come_from_safetensors_alone(family_dir, tmp_path):
    witness = tmp_path / "witness"
    shutil.copytree(family_dir("idefics3"), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({"evil": Payload(witness)}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        VLMBackbone(str(tmp_path / "model"), lora=None).load()
    assert not witness.exists()


def test_weights_of_an_adapter_come_from_safetensors_alone(backbone, family_dir, tmp_path):
    witness = tmp_path / "witness"
    backbone.save_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({"evil": Payload(witness)}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError, match="holds no adapter_model"):
        VLMBackbone(str(family_dir("idefics3")), adapter_path=str(tmp_path / "adapter")).load()
    assert not witness.exists()


def with_own_code(directory: Path, witness: Path, classes: dict[str, str]) -> None:
    """Make a directory say that its classes come with it."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | {"model_type": "evil", "auto_map": classes}
    path.write_text(json.dumps(config))
    (directory / "evil.py").write_text(f"from pathlib import Path\nPath({str(witness)!r}).touch()\nclass Evil: pass\n")


def test_code_that_comes_with_a_model_is_not_run(family_dir, tmp_path):
    witness = tmp_path / "witness"
    shutil.copytree(family_dir("idefics3"), tmp_path / "model")
    with_own_code(tmp_path / "model", witness, {"AutoConfig": "evil.Evil", "AutoProcessor": "evil.Evil"})
    with pytest.raises(ModelError, match="custom code"):
        load_processor(str(tmp_path / "model"))
    assert not witness.exists()


def test_code_that_comes_with_a_text_encoder_is_not_run(tmp_path):
    witness = tmp_path / "witness"
    (tmp_path / "config.json").write_text("{}")
    with_own_code(tmp_path, witness, {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})
    with pytest.raises(ModelError):
        TextEncoder(str(tmp_path))(["skin"])
    assert not witness.exists()


def test_the_demo_is_bound_to_this_machine():
    from dermiq.demo.__main__ import _parser

    assert _parser().get_default("host") == "127.0.0.1"


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`tests/([\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 5
    for file, test in named:
        assert f"def {test or 'test'}" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), (file, test)
