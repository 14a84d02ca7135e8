"""Models and prompts of the benchmarks: four real families, randomly initialised, and one prompt of a given length.

Both sides of a comparison load the same directory, so that weights, processor, chat template and picture are the same.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cost_model import LanguageModel, Tower
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.prompts import to_messages
from dermiq.schema import Sample
from support.families import _initialise, build_model_dir

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "idefics3", "gemma3")
LAYERS = 3
HIDDEN = {"tiny": 64, "medium": 320}  # width of the language model by size
# Families that scale every picture to one size: its edge in pixels, and the tokens that it takes (169 and 256 in the
# released models; 256 would leave no room for the question in the shorter prompts).
PICTURES = {"idefics3": (208, 169), "gemma3": (96, 144)}
FILLER = " a"  # one token each, wherever it stands


@dataclass(frozen=True)
class Case:
    """A model directory and one prompt about some pictures, exactly as long as asked for."""

    directory: Path
    sample: Sample
    images: list[Image.Image]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat that both sides render with the model's own template."""
        return to_messages(self.sample)

    def batch(self, max_new_tokens: int) -> dict[str, Any]:
        """The batch that DermIQ's data module would make of it."""
        return PromptCollate(str(self.directory), None, max_new_tokens)([Item(self.sample, self.images)])


def build(family: str, size: str, prompt_tokens: int, out: Path) -> Case:
    """Write a model of `family` and find pictures and a question that make its prompt `prompt_tokens` long.

    Qwen's pictures keep their size, so one of them fills the prompt; Idefics3 and Gemma 3 scale each picture to a
    fixed number of tokens, so there are several, and the question does the rest.

    Raises:
        SystemExit: if the text alone is longer than `prompt_tokens`.
    """
    disable_progress_bar()
    directory = build_model_dir(family, out, layers=LAYERS, hidden=HIDDEN[size])
    if family in PICTURES:
        _scale_pictures(family, directory)
        case, short = _with_fixed_pictures(family, directory, prompt_tokens)
    else:
        _keep_picture_sizes(directory)
        case, short = _with_one_picture(directory, prompt_tokens)
    case = _case(directory, case.images, short)
    found = _length(case)
    if found != prompt_tokens:
        raise SystemExit(f"the shortest prompt of {family} has {found} tokens: raise --prompt-tokens")
    return case


def image_tokens(config: PreTrainedConfig, case: Case) -> int:
    """Positions of the prompt that hold pictures."""
    return int((case.batch(0)["prompt"]["input_ids"] == config.image_token_id).sum())


def _scale_pictures(family: str, directory: Path) -> None:
    """Give a picture as many tokens as in the released model, and the tower the positions for it."""
    pixels, tokens = PICTURES[family]
    model = AutoModelForImageTextToText.from_pretrained(directory)
    processor, config = AutoProcessor.from_pretrained(directory), model.config
    config.vision_config.image_size = pixels
    if family == "gemma3":
        config.mm_tokens_per_image = processor.image_seq_length = tokens
        processor.image_processor.size = {"height": pixels, "width": pixels}
    else:
        processor.image_seq_len = tokens
        processor.image_processor.size = processor.image_processor.max_image_size = {"longest_edge": pixels}
    scaled = type(model)(config)
    _initialise(scaled, seed=0)
    scaled.generation_config = GenerationConfig.from_pretrained(directory)
    scaled.save_pretrained(directory)
    processor.save_pretrained(directory)


def _keep_picture_sizes(directory: Path) -> None:
    processor = AutoProcessor.from_pretrained(directory)
    processor.image_processor.size = {"shortest_edge": 1, "longest_edge": 2**30}
    processor.save_pretrained(directory)


def _with_fixed_pictures(family: str, directory: Path, prompt_tokens: int) -> tuple[Case, int]:
    """As many pictures as fit (one at least), and how many tokens are missing then."""
    pixels, _ = PICTURES[family]
    lengths = [_length(_case(directory, [_noise(pixels, pixels)] * count, 0)) for count in (1, 2)]
    each = lengths[1] - lengths[0]
    count = max(1, 1 + (prompt_tokens - lengths[0]) // each)
    return _case(directory, [_noise(pixels, pixels, seed) for seed in range(count)], 0), (
        prompt_tokens - lengths[0] - (count - 1) * each
    )


def _with_one_picture(directory: Path, prompt_tokens: int) -> tuple[Case, int]:
    """The largest picture that fits, near to a square, and how many tokens are missing then."""
    images = AutoProcessor.from_pretrained(directory).image_processor
    unit = images.patch_size * images.merge_size
    text = _length(_case(directory, [_noise(2 * unit, 2 * unit)], 0)) - 4
    height = max(1, int((prompt_tokens - text) ** 0.5)) if prompt_tokens > text else 1
    width = max(1, (prompt_tokens - text) // height)
    return _case(directory, [_noise(height * unit, width * unit)], 0), prompt_tokens - text - height * width


def _case(directory: Path, images: list[Image.Image], filler: int) -> Case:
    names = tuple(f"{i}.png" for i in range(len(images)))
    asked = "What is the diagnosis?" + FILLER * max(0, filler)
    sample = Sample(id="lesion", images=names, target="melanoma", label="mel", group="lesion", question=asked)
    return Case(directory, sample, images)


def _length(case: Case) -> int:
    ids: Tensor = case.batch(0)["prompt"]["input_ids"]
    return ids.shape[1]


def _noise(height: int, width: int, seed: int = 0) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def language_model(config: PreTrainedConfig, rank: int) -> LanguageModel:
    """The sizes that a step's cost depends on."""
    text = config.get_text_config()
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return LanguageModel(
        text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.num_attention_heads * channels,
        text.num_key_value_heads * channels, text.vocab_size, rank,
    )  # fmt: skip


def tower(config: PreTrainedConfig, case: Case) -> Tower:
    """The vision tower of a model, and what it has to read of a prompt."""
    vision, out = config.vision_config, config.get_text_config().hidden_size
    hidden, inner = vision.hidden_size, vision.intermediate_size
    if hasattr(vision, "depth"):  # Qwen: pictures of any size, four patches to a token
        sizes = [(image.width // vision.patch_size) * (image.height // vision.patch_size) for image in case.images]
        windows = getattr(vision, "window_size", None)
        whole = len(vision.fullatt_block_indexes) if windows else vision.depth
        pairs = sum(size * size * whole for size in sizes)
        if windows:
            pairs += sum(sizes) * (vision.depth - whole) * (windows // vision.patch_size) ** 2
        merged = vision.spatial_merge_size**2 * hidden
        mergers = 1 + len(getattr(vision, "deepstack_visual_indexes", ()))
        projection = mergers * (merged * merged + merged * out) / vision.spatial_merge_size**2
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        return Tower(vision.depth, hidden, inner, bool(windows), sum(sizes), pairs, patch, projection)
    size = (vision.image_size // vision.patch_size) ** 2
    patches = size * len(case.images)
    # Idefics3 joins the channels of several patches in front of its projection, Gemma 3 takes their mean.
    projection = hidden * out * (1 if hasattr(config, "scale_factor") else config.mm_tokens_per_image / size)
    return Tower(
        vision.num_hidden_layers, hidden, inner, False, patches, size * patches * vision.num_hidden_layers,
        3 * vision.patch_size**2, projection,
    )  # fmt: skip
