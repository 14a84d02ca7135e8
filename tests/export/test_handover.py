"""What names an adapter to go on from: its directory, its run, a file in either; and what is said otherwise."""

import pytest
import yaml

from dermiq.cli import main
from dermiq.policy.lora import LoRA, split_names
from dermiq.run_directory import found_adapter, hand_over, no_adapter, no_checkpoint
from dermiq.schema import ModelError


@pytest.fixture
def run(tmp_path):
    """The files of a run, empty."""
    for name in ("config.yaml", "metrics.json", "checkpoints/last.ckpt", "adapter/adapter_config.json",
                 "adapter/adapter_model.safetensors"):  # fmt: skip
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name",
    ["", "/", "/adapter", "/adapter//", "/checkpoints", "/checkpoints/last.ckpt", "/adapter/adapter_model.safetensors",
     "/adapter/adapter_config.json", "/config.yaml", "/metrics.json", "/../run/adapter"],
)  # fmt: skip
def test_what_names_an_adapter(name, run):
    found = found_adapter(f"{run}{name}")
    assert found is not None and found.samefile(run / "adapter") and found.name == "adapter"


def test_a_home_directory(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert found_adapter("~/run") == run / "adapter"


def test_an_adapter_by_itself_and_a_copy_under_another_name(run):
    (run / "adapter").rename(run.parent / "kept")
    assert found_adapter(run.parent / "kept") == run.parent / "kept"


@pytest.mark.parametrize("name", ["/adaptr", "/nothing/here", "/checkpoints/other.ckpt"])
def test_a_mistyped_path_is_not_taken_for_another(name, run):
    assert found_adapter(f"{run}{name}") is None


def test_a_run_without_an_adapter_yet(run):
    (run / "adapter" / "adapter_config.json").unlink()
    for path in (run, run / "checkpoints" / "last.ckpt", run / "adapter", run / "config.yaml"):
        assert found_adapter(path) is None
        assert no_adapter(path).startswith(
            f"The run {run} has no adapter/ yet: it is written with the first checkpoint"
        )
    assert no_adapter(run.parent).endswith("adapter_path takes the adapter/ of a stage's run.")


def test_what_hands_over(run):
    assert hand_over(run / "checkpoints" / "last.ckpt") == f"--model.backbone.adapter_path={run / 'adapter'}"
    assert hand_over(None).endswith("=RUN/adapter")


def test_what_is_no_checkpoint(run):
    assert no_checkpoint(run).endswith(f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    assert no_checkpoint(run / "checkpoints").endswith(f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    for path in (run / "adapter", run / "adapter" / "adapter_model.safetensors"):
        assert no_checkpoint(path).endswith(f"To go on from it: --model.backbone.adapter_path={run / 'adapter'}")


def test_a_run_goes_on_from_a_run(lab, tmp_path, capsys):
    """The next stage takes the run's directory, and records the adapter in it."""
    first, second = tmp_path / "first", tmp_path / "second"
    lab.run("fit", "SFTModule", first, "--trainer.max_steps=1")
    lab.run("fit", "SFTModule", second, "--trainer.max_steps=1", f"--model.backbone.adapter_path={first}/")
    recorded = yaml.safe_load((second / "config.yaml").read_text())["model"]["init_args"]["backbone"]["init_args"]
    assert recorded["adapter_path"] == str(first / "adapter")
    for path, text in (
        (first, "is a directory. Its checkpoint: --ckpt_path="),
        (first / "adapter", "is an adapter and"),
    ):
        with pytest.raises(SystemExit):
            main(lab.arguments("fit", "SFTModule", tmp_path / "third", f"--ckpt_path={path}"))
        assert text in capsys.readouterr().err


# Targets


@pytest.mark.parametrize("given", ["q_proj,v_proj", " q_proj , v_proj ", "[q_proj, v_proj]", "('q_proj', 'v_proj')", ["q_proj", "v_proj"]])  # fmt: skip  # noqa: E501
def test_names_as_text(given):
    assert split_names(given) == LoRA(targets=given).targets == ("q_proj", "v_proj")


def adapted(family_dir, **lora):
    from dermiq.policy.backbone import VLMBackbone

    backbone = VLMBackbone(str(family_dir("qwen2_5_vl")), LoRA(rank=2, **lora))
    backbone.load()
    return {key.split(".lora_")[0].split(".")[-1] for key in backbone.adapter_keys()}


def test_targets_given_as_text(family_dir):
    assert adapted(family_dir, targets="q_proj") == {"q_proj"}
    every = adapted(family_dir, targets="all-linear")
    assert {"q_proj", "o_proj", "gate_proj", "down_proj"} <= every and "lm_head" not in every and "qkv" not in every


@pytest.mark.parametrize(
    ("lora", "text"),
    [
        ({"targets": ("q_proj", "k_porj")}, "is named 'k_porj'; did you mean k_proj?"),
        ({"targets": ("q_proj", "lm_head")}, "'lm_head' is the output layer"),
        ({"targets": ("qkv",)}, "in its vision tower one is: to adapt that too, set lora.vision=true"),
        ({"targets": "q_proj,zebra"}, "is named 'zebra'. Its linear layers: ["),
        ({"targets": "all-liner"}, "is named 'all-liner'"),
        ({"fully_trained": ("embed_token",)}, "is named 'embed_token'; did you mean embed_tokens?"),
    ],
)
def test_unknown_targets_are_refused(lora, text, family_dir):
    with pytest.raises(ModelError) as refused:
        adapted(family_dir, **lora)
    assert text in str(refused.value)
