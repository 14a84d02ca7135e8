"""Drawing completions: every group reads its prompt's keys and values together, and finished rows leave."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.caches import OwnCache, Room
from dermiq.policy.chat_template import frame
from dermiq.policy.logprobs import log_distribution
from dermiq.policy.prefix import Prefix, continue_from, prefill
from dermiq.ranges import TOKENS, check_numbers
from dermiq.schema import Sample

_WORTH_LEAVING = 0.75  # rows leave when no more than this share of them is left


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new_tokens: length of the longest completion.
        temperature: of the policy; 0 is greedy.
        stop: texts that end a completion, beside the end of the turn; the token that completes one counts.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Logits overflow once they are divided by something smaller.
        check_numbers(self, max_new_tokens=TOKENS, temperature="[0, 100]" if self.temperature == 0 else "[1e-6, 100]")
        if "" in self.stop:
            raise ValueError(f"sampling needs no empty stop; got {self}")


class Completions(NamedTuple):
    """N completions of T tokens, each [N, T]: ids int64, mask bool (True = counts), logprobs float32 of the sampler."""

    ids: Tensor
    mask: Tensor
    logprobs: Tensor


class Engine(Protocol):
    """Whatever draws completions of the policy."""

    def complete(
        self,
        backbone: VLMBackbone,
        batch: PromptBatch,
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        """Draw `group_size` completions for each of the batch's B prompts: N = B * group_size rows in prompt order.

        Args:
            backbone: the policy, loaded, in evaluation mode without gradients.
            batch: the prompts.
            sampling: how they are drawn.
            group_size: completions per prompt.
            seed: what is drawn depends on it, on the sample's id and on the place in the group alone.
            prefix: the prompts, if they ran already.
        """
        ...


class Decoder:
    """Draws with the policy itself, on its device: the default engine.

    Args:
        rows_per_pass: completions that are decoded together, whole groups or parts of one; None takes all.
        compiled: keep every step of the same shape, and on a GPU record it once as a CUDA graph to be replayed, which
            saves the time that Python takes for each of many small layers.
    """

    def __init__(self, rows_per_pass: int | None = None, compiled: bool = False) -> None:
        self.rows_per_pass = rows_per_pass
        check_numbers(self, rows_per_pass="[1, inf)")
        self.compiled = compiled

    def complete(
        self,
        backbone: VLMBackbone,
        batch: PromptBatch,
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        """See `Engine.complete`."""
        prefix = prefill(backbone, batch["prompt"]) if prefix is None else prefix
        noise = uniform_numbers(batch["samples"], group_size, sampling.max_new_tokens, seed).to(
            prefix.last_state.device
        )
        passes = []
        with backbone.folded():
            for rows in group_pieces(len(batch["samples"]), group_size, self.rows_per_pass):
                prompts = torch.tensor(sorted({row // group_size for row in rows}), device=noise.device)
                drawing = _Drawing(backbone, prefix, prompts, noise[rows], sampling, self.compiled)
                passes.append(drawing.run(self.look))
        return Completions(*(_join(parts) for parts in zip(*passes, strict=True)))

    def look(self, written: Completions) -> None:
        """Called with what a pass has written so far, after each token, on a GPU after every 16; does nothing here.

        Whoever overrides it can show the text as it comes, or raise to break off.
        """


def group_pieces(prompts: int, group_size: int, limit: int | None) -> list[list[int]]:
    """Rows of whole groups while they fit into `limit` rows, or of pieces of one group: every prompt has as many."""
    rows = list(range(prompts * group_size))
    limit = len(rows) if limit is None else limit
    width = limit // group_size * group_size
    if width:
        return [rows[start : start + width] for start in range(0, len(rows), width)]
    groups = [rows[start : start + group_size] for start in range(0, len(rows), group_size)]
    return [group[start : start + limit] for group in groups for start in range(0, group_size, limit)]


class _Drawing:
    """One pass: the completions that are still being written, in slots, as many for each prompt that is left.

    Rows that are finished leave where that makes the rectangle of prompts by slots smaller. What a row has written
    stays in `written`, under the number that it had at first.
    """

    def __init__(
        self, backbone: VLMBackbone, prefix: Prefix, prompts: Tensor, noise: Tensor, sampling: Sampling, compiled: bool
    ) -> None:
        self.backbone, self.prefix, self.sampling, self.compiled = backbone, prefix, sampling, compiled
        self.output = backbone.output_layer(restricted=True)
        device, (rows, length) = noise.device, noise.shape
        self.stops = torch.tensor(backbone.stop_ids, device=device)
        self.written = Completions(
            torch.full((rows, length), backbone.stop_ids[0], device=device),
            torch.zeros(rows, length, dtype=torch.bool, device=device),
            torch.zeros(rows, length, dtype=torch.float32, device=device),
        )
        self.step = torch.zeros(1, dtype=torch.int64, device=device)  # the column that was written last
        self.room = Room(length, self.step if compiled else 0)
        self.cache = OwnCache(len(prefix.states), self.room)
        self.prompts, self.shared = prompts, prefix.shared(prompts)
        each = prompts.repeat_interleave(rows // len(prompts))
        self.start, self.position = prefix.last_state[each], prefix.next_position[each]
        self.row, self.noise = torch.arange(rows, device=device), noise
        self.token = self.row.clone()
        self.going = torch.ones(rows, dtype=torch.bool, device=device)

    def run(self, look: Callable[[Completions], None]) -> Completions:
        """Write until every row is finished, and let `look` see what there is from time to time."""
        length, look_every = self.sampling.max_new_tokens, _steps_per_look(self.going.device)
        self._draw(self.start)
        seen, done, advance = 0, 1, self._stepper()
        while True:
            self._stop_at_texts(seen, done)
            look(Completions(*(part[:, :done] for part in self.written)))
            alive = int(self.going.sum())
            if done == length or not alive:
                break
            if alive <= _WORTH_LEAVING * len(self.going) and self._leave():
                advance = self._stepper()
            seen, done = done, min(done + look_every, length)
            for place in range(seen - 1, done - 1):
                advance(place)
        width = int(self.written.mask.sum(-1).max())
        return Completions(*(part[:, :width] for part in self.written))

    def _stepper(self) -> Callable[[int], None]:
        """What feeds the tokens of a column and draws the next: Python, or the recording of its first time on a GPU."""
        if not (self.compiled and self.going.is_cuda):
            return self._advance
        graph: torch.cuda.CUDAGraph | None = None

        def advance(place: int) -> None:
            nonlocal graph
            if graph is not None:
                graph.replay()
                return
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._advance(place)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._advance(place)

        return advance

    def _advance(self, place: int) -> None:
        """Feed the tokens of the column `place`, and draw those of the next."""
        self.room.place = self.step if self.compiled else place
        self.shared.move(self.room.place)
        position = (self.position + self.step)[:, None]
        states = continue_from(self.backbone, self.shared, self.token[:, None], position, self.cache)
        self.step += 1
        self._draw(states[:, -1])

    def _draw(self, states: Tensor) -> None:
        """Write the tokens that hidden states [n, H] predict into the column `step`."""
        distribution = log_distribution(states, self.output, self.sampling.temperature or 1.0)
        uniform = self.noise.index_select(1, self.step)[:, 0] if self.sampling.temperature else None
        self.token.copy_(_pick(distribution, uniform))
        logprob = distribution.gather(-1, self.token[:, None])[:, 0]
        place = (self.row, self.step.expand_as(self.row))
        self.written.ids[place] = self.token.where(self.going, self.stops[0])
        self.written.mask[place] = self.going
        self.written.logprobs[place] = logprob.where(self.going, 0.0)
        self.going &= (self.token[:, None] != self.stops).all(-1)

    def _leave(self) -> bool:
        """Let finished rows go, if that makes the rectangle of slots smaller; True if it did."""
        going = self.going.view(len(self.prompts), -1)
        alive = going.sum(-1)
        prompts, width = alive.nonzero()[:, 0], int(alive.max())
        if len(prompts) * width > _WORTH_LEAVING * going.numel():
            return False
        slots = going.int().argsort(dim=1, descending=True, stable=True)[prompts, :width]
        slots = (slots + prompts[:, None] * going.shape[1]).flatten()
        if len(prompts) < len(self.prompts):
            self.prompts = self.prompts[prompts]
            self.shared = self.prefix.shared(self.prompts)
        self.cache.keep(slots)
        self.row, self.noise, self.position = self.row[slots], self.noise[slots], self.position[slots]
        self.token, self.going = self.token[slots], self.going[slots]
        return True

    def _stop_at_texts(self, seen: int, done: int) -> None:
        """End rows at the first token that completes a stopping text, looking at the columns from `seen` to `done`."""
        if not self.sampling.stop:
            return
        begun = len(frame(self.backbone.processor).opened)
        for slot, row in enumerate(self.row.tolist()):
            length = int(self.written.mask[row, :done].sum())
            for end in range(seen + 1, length + 1):
                text = self.backbone.decode(self.written.ids[row, None, :end], self.written.mask[row, None, :end])[0]
                if any(stop in text[begun:] for stop in self.sampling.stop):
                    self.written.ids[row, end:] = self.stops[0]
                    self.written.mask[row, end:] = False
                    self.written.logprobs[row, end:] = 0.0
                    self.going[slot] = False
                    break


def _steps_per_look(device: torch.device) -> int:
    """Steps between looks at what is finished, each of which waits for a GPU to catch up."""
    return 1 if device.type == "cpu" else 16


def _pick(distribution: Tensor, uniform: Tensor | None) -> Tensor:
    """Tokens [N] by inverse transform of log-probs [N, V] at `uniform` [N] in [0, 1); None is greedy."""
    if uniform is None:
        return distribution.argmax(-1)
    # A GPU adds up in parts: in float32 a later sum may be the smaller one, and a token of probability 0 be found.
    cumulative = distribution.exp().cumsum(-1, dtype=torch.float64)
    threshold = uniform.clamp(max=1 - 1e-6) * cumulative[:, -1]
    token = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    token = token.clamp(max=distribution.shape[-1] - 1)  # NaN finds no place; the caller refuses it
    possible = distribution.gather(-1, token[:, None])[:, 0] > -torch.inf
    return torch.where(possible, token, distribution.argmax(-1))


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Rows of different width [n, T] one below the other, padded with 0."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])


def uniform_numbers(samples: Sequence[Sample], group_size: int, steps: int, seed: str) -> Tensor:
    """Uniform numbers [B * G, steps] float32 that depend on the seed, the sample's id and the place in the group."""
    rows = []
    for digest in seed_digests(samples, seed):
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        rows.append(torch.rand(group_size, steps, generator=generator, dtype=torch.float32))
    return torch.cat(rows)


def seed_digests(samples: Sequence[Sample], seed: str) -> Iterator[bytes]:
    """A hash for each sample of the seed, its id, and how often that id stood before."""
    seen: Counter[str] = Counter()
    for sample in samples:
        yield hashlib.sha256(f"{seed}/{sample.id}/{seen[sample.id]}".encode()).digest()
        seen[sample.id] += 1
