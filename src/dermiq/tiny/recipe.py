"""Pre-training of the tiny VLM: first to see the phantom's findings, then to name them.

Neither diagnoses nor the format of an answer are part of it: those are for the stages of the project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import cos, pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

from dermiq.datamodules.phantom import CONDITIONS
from dermiq.datamodules.phantom.canvas import SKIN_TONES
from dermiq.datamodules.phantom.lesion import render
from dermiq.datamodules.phantom.source import RULER
from dermiq.findings import ATTRIBUTES, VOCABULARY
from dermiq.prompts import describe
from dermiq.tiny.architecture import CAPTION_QUESTION, IMAGE_SIZE, NAME_QUESTION
from dermiq.tiny.muon import Muon
from dermiq.tiny.reading import readings

BATCH = 32
WARM_UP = 50
MUON_RATE, ADAM_RATE = 0.02, 1.5e-3
PERCEPTION_STEPS, CAPTION_STEPS = 2800, 400
NAMING_WEIGHT = 0.25
READINGS = 32  # per step
_IGNORED = -100

Batch = tuple[Tensor, Tensor]


class Lesions(IterableDataset[Batch]):
    """Fresh synthetic lesions in batches: pixels [B, 3, S, S] float32 in -1..1, labels [B, attributes] int64.

    Findings are sampled independently of each other and uniformly, so that no condition can be learnt
    from which findings occur together.
    """

    def __init__(self, seed: int, stage: int, steps: int) -> None:
        """Describe `steps` batches; batch k is a function of (seed, stage, k)."""
        self.seed = seed
        self.stage = stage
        self.steps = steps

    def __iter__(self) -> Iterator[Batch]:
        """Render batch after batch."""
        for step in range(self.steps):
            rng = np.random.default_rng((self.seed, self.stage, step))
            sizes = [len(VOCABULARY[attribute]) for attribute in ATTRIBUTES]
            labels = rng.integers(0, sizes, (BATCH, len(sizes)))
            pixels = np.stack([_lesion(row, rng) for row in labels])
            yield normalised(pixels), torch.from_numpy(labels)


def _lesion(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    findings = {attribute: VOCABULARY[attribute][i] for attribute, i in zip(ATTRIBUTES, labels, strict=True)}
    tone = list(SKIN_TONES)[int(rng.integers(len(SKIN_TONES)))]
    return render(findings, tone, IMAGE_SIZE, rng, ruled=rng.random() < RULER)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """What the processor makes of square images [B, S, S, 3] uint8: [B, 3, S, S] float32 in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def prepare_tower(tower: Idefics3VisionTransformer, pixels: Tensor) -> None:
    """Start the tower from what images are like: whitened patches and sinusoidal positions.

    The first layer becomes a random rotation of the principal components of the patches in
    `pixels` [B, 3, S, S], each scaled to unit variance and then halved; the positions become sines
    and cosines of row and column. Both learn on from there.
    """
    patches, positions = tower.embeddings.patch_embedding, tower.embeddings.position_embedding
    width, size = patches.out_channels, patches.kernel_size[0]
    columns = F.unfold(pixels, size, stride=size // 2).transpose(1, 2).reshape(-1, 3 * size * size)
    mean = columns.mean(dim=0)
    variances, directions = torch.linalg.eigh((columns - mean).T @ (columns - mean) / len(columns))
    components = (directions / (variances + 5e-3).sqrt()).T.flip(0)[:width]
    rotation = torch.linalg.qr(torch.randn(width, width))[0]
    filters = 0.5 * rotation @ components
    side, waves = IMAGE_SIZE // size, width // 4
    phases = torch.arange(side)[:, None] * (0.5 * pi) / (1.5 * side) ** (torch.arange(waves) / waves)
    line = torch.cat((phases.sin(), phases.cos()), dim=1)
    grid = torch.cat((line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)), dim=-1)
    patches.load_state_dict({"weight": filters.view_as(patches.weight), "bias": -filters @ mean})
    positions.load_state_dict({"weight": 0.5 * grid.reshape(side * side, width)})


def _optimise(
    title: str, modules: list[nn.Module], loss_of: Callable[[Tensor, Tensor], Tensor], batches: Lesions
) -> None:
    """One step per batch: Muon for the hidden matrices, AdamW for the rest, warm-up and cosine to zero."""
    named = [item for module in modules for item in module.named_parameters()]
    hidden = [parameter for name, parameter in named if parameter.ndim == 2 and "layers." in name]
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for _, parameter in named if id(parameter) not in taken]
    optimisers = [Muon(hidden, MUON_RATE), torch.optim.AdamW(rest, ADAM_RATE, betas=(0.9, 0.98))]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / WARM_UP, 0.5 * (1.0 + cos(pi * step / batches.steps)))
        )
        for optimiser in optimisers
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=batches.steps)
        for pixels, labels in DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4):
            loss = loss_of(pixels, labels)
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([parameter for _, parameter in named], 1.0)
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step()
            progress.update(task, advance=1, description=f"{title}: loss {loss.item():.3f}")


def pretrain(model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, seed: int) -> None:
    """Run the whole recipe in place: about nine minutes of one core, while another renders.

    One core trains and the other renders; more threads would wait for each other at this size.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        learn_to_see(model, seed, PERCEPTION_STEPS)
        learn_to_speak(model, processor, seed, CAPTION_STEPS)
    finally:
        torch.set_num_threads(threads)


def learn_to_see(model: Idefics3ForConditionalGeneration, seed: int, steps: int) -> nn.Linear:
    """Train the vision tower alone to name each finding, with one linear head per attribute.

    Returns:
        The heads, side by side: [sum of vocabulary sizes, width], for the tower's mean patch.
    """
    tower = model.model.vision_model
    prepare_tower(tower, next(iter(Lesions(seed, stage=0, steps=1)))[0])
    sizes = [len(VOCABULARY[attribute]) for attribute in ATTRIBUTES]
    heads = nn.Linear(tower.config.hidden_size, sum(sizes))

    def loss_of(pixels: Tensor, labels: Tensor) -> Tensor:
        logits = heads(tower(pixel_values=pixels).last_hidden_state.mean(dim=1)).split(sizes, dim=-1)
        losses = [F.cross_entropy(part, labels[:, i]) for i, part in enumerate(logits)]
        return torch.stack(losses).mean()

    model.train()
    _optimise("seeing", [tower, heads], loss_of, Lesions(seed, stage=1, steps=steps))
    return heads


def learn_to_speak(
    model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, seed: int, steps: int
) -> None:
    """Train the connector and the language model to caption; the tower stays as it is.

    Beside the captions it learns, with no image before them, to spell the names of the conditions, each as likely
    as the other, and to answer from facts that it is shown (see `dermiq.tiny.reading`).
    """
    model.model.vision_model.requires_grad_(False)
    tokenizer = processor.tokenizer
    lessons = readings(seed)
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    show = [{"type": "image"}, {"type": "text", "text": CAPTION_QUESTION}]
    prompt_ids = processor(text=[_prompt(processor, show)], images=[[blank]], return_tensors="pt")["input_ids"][0]
    name_prompt_ids = tokenizer(_prompt(processor, NAME_QUESTION), return_tensors="pt")["input_ids"][0]

    def loss_of(pixels: Tensor, labels: Tensor) -> Tensor:
        captions = [_caption(row) for row in labels.tolist()]
        captioning = _loss(model, tokenizer, prompt_ids.expand(len(captions), -1), captions, pixels)
        spelling = _loss(model, tokenizer, name_prompt_ids.expand(len(CONDITIONS), -1), list(CONDITIONS))
        questions, replies = zip(*islice(lessons, READINGS), strict=True)
        prompts = [_prompt(processor, question) for question in questions]
        reading = _loss(model, tokenizer, tokenizer(prompts, padding=True, return_tensors="pt")["input_ids"], replies)
        return captioning + NAMING_WEIGHT * spelling + reading

    model.train()
    speakers: list[nn.Module] = [model.model.connector, model.model.text_model]
    _optimise("speaking", speakers, loss_of, Lesions(seed, stage=2, steps=steps))
    model.model.vision_model.requires_grad_(True)


def _prompt(processor: Idefics3Processor, content: str | list[dict[str, str]]) -> str:
    """The user's turn, and the start of the assistant's."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    prompt: str = processor.apply_chat_template(messages, add_generation_prompt=True)
    return prompt


def _loss(
    model: Idefics3ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Tensor,
    replies: Sequence[str],
    pixels: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of replies to prompts [B, P], padded on the left; `pixels` [B, 3, S, S] shows each an image."""
    ended = [reply + tokenizer.eos_token for reply in replies]
    reply = tokenizer(ended, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    shown = prompts != tokenizer.pad_token_id
    output = model(
        input_ids=torch.cat((prompts, reply["input_ids"]), dim=1),
        attention_mask=torch.cat((shown.long(), reply["attention_mask"]), dim=1),
        pixel_values=None if pixels is None else pixels[:, None],
    )
    logits = output.logits[:, prompts.shape[1] - 1 : -1]
    targets = reply["input_ids"].masked_fill(reply["attention_mask"] == 0, _IGNORED)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)


def _caption(labels: list[int]) -> str:
    """The findings as text."""
    return describe({a: (VOCABULARY[a][i],) for a, i in zip(ATTRIBUTES, labels, strict=True)})
