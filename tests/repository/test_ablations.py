"""Each overlay in configs/ablation/ changes what its header says, and nothing else."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from dermiq.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = sorted((CONFIGS / "ablation").glob("*.yaml"))
PLAIN = {"correction_coef", "advantage", "token_weights", "clip_high"}  # what the published algorithms have otherwise
CHANGED = {
    "alignment_loss": {"alignment"},
    "cispo": PLAIN | {"surrogate", "clip_low", "kl_coef", "inner_epochs", "accumulate_batches"},
    "consistency": {"consistency"},
    "correctness_weighted_length": {"length"},
    "curriculum": {"curriculum"},
    "dapo": PLAIN - {"clip_high"} | {"kl_coef", "redraws"},
    "dr_grpo": PLAIN - {"token_weights"} | {"kl_coef"},
    "extended_chain": {"length"},
    "gdpo": PLAIN | {"accumulate_batches"},
    "group_fair": {"advantage", "accumulate_batches"},
    "grpo": PLAIN | {"kl_coef"},
    "grpo_plus_plus": set(),
    "gspo": PLAIN | {"surrogate", "clip_low", "kl_coef", "inner_epochs", "accumulate_batches"},
    "hierarchical_credit": {"credit"},
    "kg_reward": {"kg", "findings"},
    "length_band": {"length"},
    "no_anchor": {"anchor"},
    "no_confidence": {"confidence_floor"},
    "no_correction": {"correction_coef"},
    "no_kl": {"kl_coef"},
    "no_shaping": {"shaping"},
    "no_uniform": {"uniform_weight"},
    "raft": PLAIN - {"clip_high"} | {"kl_coef"},
    "repetition": {"repetition"},
    "rloo": PLAIN - {"token_weights"},
    "semantic_reward": {"alignment"},
    "symmetric_clip": {"clip_high"},
}


def resolved(*options):
    """configs/grpo.yaml with further options, as a run would have it."""
    with redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        main(["fit", f"--config={CONFIGS / 'grpo.yaml'}", *options, "--print_config"])
    return yaml.safe_load(shown.getvalue())


@pytest.fixture(scope="module")
def plain():
    return resolved()


def changed(base, overlay):
    """The names of what an overlay sets to another value: of options, or of the reward terms that count."""
    found = set()
    for key, value in overlay.items():
        if key == "terms":
            before, after = (
                {name: term for name, term in each.items() if term["weight"]} for each in (base[key], value)
            )
            found |= {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            own = base[key].get("class_path")
            other = value.get("class_path", own) != own
            found |= {key} if other else changed(base[key], value)
        elif base.get(key) != value:
            found.add(key)
    return found - {"default_root_dir"}


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_changes_what_it_says(path, plain):
    assert changed(plain, yaml.safe_load(path.read_text())) == CHANGED[path.stem]


def test_grpo_plus_plus_spelled_out_is_the_default(plain):
    spelled = resolved(f"--config={CONFIGS / 'ablation' / 'grpo_plus_plus.yaml'}")
    assert spelled["trainer"].pop("default_root_dir") == "runs/ablation/grpo_plus_plus"
    assert spelled == plain | {"trainer": {k: v for k, v in plain["trainer"].items() if k != "default_root_dir"}}
