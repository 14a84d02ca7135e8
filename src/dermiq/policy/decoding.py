"""The default engine: token-by-token decoding of groups of completions that share their prompts' keys and values.

Shapes: B prompts, G completions of each, N = B*G, of T tokens at most; b prompts that are still decoded, with as many
slots each, n in all; V tokens in the vocabulary; H channels of a hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.caches import CacheSlots, CompletionCache
from dermiq.policy.chat_template import frame
from dermiq.policy.logprobs import log_distribution
from dermiq.policy.prefix import Prefix, continue_from, prefill
from dermiq.policy.sampling import Completions, Sampling, uniform_numbers
from dermiq.ranges import check_numbers

_COMPACT_BELOW = 0.75  # finished rows are dropped when no more than this share of the slots is needed


class Decoder:
    """Samples with the policy itself, on its device: the default engine.

    Args:
        rows_per_pass: completions that are decoded at once, whole groups or parts of one; None takes all.
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
        """See `dermiq.policy.sampling.Engine.complete`."""
        prefix = prefill(backbone, batch["prompt"]) if prefix is None else prefix
        noise = uniform_numbers(batch["samples"], group_size, sampling.max_new_tokens, seed)  # [N, T]
        noise = noise.to(prefix.last_state.device)
        passes = []
        with backbone.folded():
            for rows in group_pieces(len(batch["samples"]), group_size, self.rows_per_pass):
                prompts = torch.tensor(sorted({row // group_size for row in rows}), device=noise.device)
                decoding = _DecodingPass(backbone, prefix, prompts, noise[rows], sampling, self.compiled)
                passes.append(decoding.run(self.on_tokens))
        return Completions(*(_join(parts) for parts in zip(*passes, strict=True)))

    def on_tokens(self, completions: Completions) -> None:
        """Called with a pass's completions so far after each token, on a GPU after every 16.

        Override to stream the text; raise to stop.
        """


def group_pieces(prompts: int, group_size: int, limit: int | None) -> list[list[int]]:
    """Rows of each pass: as many whole groups as fit into `limit` rows, or pieces of one group."""
    rows = list(range(prompts * group_size))
    limit = len(rows) if limit is None else limit
    width = limit // group_size * group_size
    if width:
        return [rows[start : start + width] for start in range(0, len(rows), width)]
    groups = [rows[start : start + group_size] for start in range(0, len(rows), group_size)]
    return [group[start : start + limit] for group in groups for start in range(0, group_size, limit)]


class _DecodingPass:
    """Decoding of some completions at once, in slots, as many for each prompt.

    Finished rows are dropped where that makes the rectangle of prompts by slots smaller. The tokens of a row stay in
    `completions`, under its first number.
    """

    def __init__(
        self, backbone: VLMBackbone, prefix: Prefix, prompts: Tensor, noise: Tensor, sampling: Sampling, compiled: bool
    ) -> None:
        self.backbone, self.prefix, self.sampling, self.compiled = backbone, prefix, sampling, compiled
        self.output = backbone.output_layer(restricted=True)
        device, (rows, length) = noise.device, noise.shape
        self.stops = torch.tensor(backbone.stop_ids, device=device)
        self.completions = Completions(  # each [N, T]
            torch.full((rows, length), backbone.stop_ids[0], device=device),
            torch.zeros(rows, length, dtype=torch.bool, device=device),
            torch.zeros(rows, length, dtype=torch.float32, device=device),
        )
        self.step = torch.zeros(1, dtype=torch.int64, device=device)  # the column that was sampled last
        self.slots = CacheSlots(length, self.step if compiled else 0)
        self.cache = CompletionCache(len(prefix.states), self.slots)
        self.prompts, self.shared = prompts, prefix.shared(prompts)  # [b]
        each = prompts.repeat_interleave(rows // len(prompts))  # [n], the prompt of each row
        self.start, self.position = prefix.last_state[each], prefix.next_position[each]  # [n, H], [n]
        self.row, self.noise = torch.arange(rows, device=device), noise  # [n] into `completions`, [n, T]
        self.token = self.row.clone()  # [n], sampled last
        self.going = torch.ones(rows, dtype=torch.bool, device=device)  # [n], False = finished

    def run(self, on_tokens: Callable[[Completions], None]) -> Completions:
        """The completions once all are finished; `on_tokens` is called with those so far from time to time."""
        length, check_every = self.sampling.max_new_tokens, _steps_per_check(self.going.device)
        self._sample(self.start)
        seen, done, advance = 0, 1, self._stepper()
        while True:
            self._stop_at_texts(seen, done)
            on_tokens(Completions(*(part[:, :done] for part in self.completions)))
            alive = int(self.going.sum())
            if done == length or not alive:
                break
            if alive <= _COMPACT_BELOW * len(self.going) and self._drop_finished():
                advance = self._stepper()
            seen, done = done, min(done + check_every, length)
            for place in range(seen - 1, done - 1):
                advance(place)
        width = int(self.completions.mask.sum(-1).max())
        return Completions(*(part[:, :width] for part in self.completions))

    def _stepper(self) -> Callable[[int], None]:
        """A function that does one step: `_advance`, or on a GPU the CUDA graph recorded at its first call."""
        if not (self.compiled and self.going.is_cuda):
            return self._advance
        graph: torch.cuda.CUDAGraph | None = None

        def advance(place: int) -> None:
            nonlocal graph
            if graph is not None:
                graph.replay()
                return
            # This step runs as it is, on a side stream, since kernels have to be warm before they are recorded; what
            # is recorded after it runs only when it is replayed.
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
        """Feed the tokens of the column `place`, and sample those of the next."""
        self.slots.place = self.step if self.compiled else place
        self.shared.move(self.slots.place)
        position = (self.position + self.step)[:, None]  # [n, 1]
        states = continue_from(self.backbone, self.shared, self.token[:, None], position, self.cache)  # [n, 1, H]
        self.step += 1
        self._sample(states[:, -1])

    def _sample(self, states: Tensor) -> None:
        """Sample the tokens of the column `step` from the hidden states [n, H] that predict them."""
        distribution = log_distribution(states, self.output, self.sampling.temperature or 1.0)  # [n, V]
        uniform = self.noise.index_select(1, self.step)[:, 0] if self.sampling.temperature else None  # [n]
        self.token.copy_(_pick(distribution, uniform))
        logprob = distribution.gather(-1, self.token[:, None])[:, 0]  # [n]
        place = (self.row, self.step.expand_as(self.row))  # [n], [n]
        self.completions.ids[place] = self.token.where(self.going, self.stops[0])
        self.completions.mask[place] = self.going
        self.completions.logprobs[place] = logprob.where(self.going, 0.0)
        self.going &= (self.token[:, None] != self.stops).all(-1)

    def _drop_finished(self) -> bool:
        """Drop finished rows if that makes the rectangle of slots smaller; True if it did."""
        going = self.going.view(len(self.prompts), -1)  # [b, slots]
        alive = going.sum(-1)  # [b]
        prompts, width = alive.nonzero()[:, 0], int(alive.max())
        if len(prompts) * width > _COMPACT_BELOW * going.numel():
            return False
        # Each prompt left keeps `width` slots, those not finished first: attention needs as many for each.
        slots = going.int().argsort(dim=1, descending=True, stable=True)[prompts, :width]  # [b', width]
        slots = (slots + prompts[:, None] * going.shape[1]).flatten()  # [b'*width] into n
        if len(prompts) < len(self.prompts):
            self.prompts = self.prompts[prompts]
            self.shared = self.prefix.shared(self.prompts)
        self.cache.keep(slots)
        self.row, self.noise, self.position = self.row[slots], self.noise[slots], self.position[slots]
        self.token, self.going = self.token[slots], self.going[slots]
        return True

    def _stop_at_texts(self, seen: int, done: int) -> None:
        """End rows at the first token that completes a stopping text, among the columns from `seen` to `done`."""
        if not self.sampling.stop:
            return
        ids, mask, logprobs = self.completions
        begun = len(frame(self.backbone.processor).opened)  # what the chat template has opened is not the policy's
        for slot, row in enumerate(self.row.tolist()):
            length = int(mask[row, :done].sum())
            for end in range(seen + 1, length + 1):
                text = self.backbone.decode(ids[row, None, :end], mask[row, None, :end])[0]
                if any(stop in text[begun:] for stop in self.sampling.stop):
                    ids[row, end:] = self.stops[0]
                    mask[row, end:] = False
                    logprobs[row, end:] = 0.0
                    self.going[slot] = False
                    break


def _steps_per_check(device: torch.device) -> int:
    """Steps between checks for finished rows, each of which waits for a GPU to catch up."""
    return 1 if device.type == "cpu" else 16


def _pick(distribution: Tensor, uniform: Tensor | None) -> Tensor:
    """Tokens [n] by inverse transform sampling from log-probs [n, V] at `uniform` [n] in [0, 1); None is greedy."""
    if uniform is None:
        return distribution.argmax(-1)
    # A GPU adds up in parts: in float32 a later sum may be the smaller one, and a token of probability 0 be found.
    cumulative = distribution.exp().cumsum(-1, dtype=torch.float64)  # [n, V]
    threshold = uniform.clamp(max=1 - 1e-6) * cumulative[:, -1]  # [n]
    token = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]  # [n]
    token = token.clamp(max=distribution.shape[-1] - 1)  # NaN finds no place; the caller refuses it
    possible = distribution.gather(-1, token[:, None])[:, 0] > -torch.inf
    return torch.where(possible, token, distribution.argmax(-1))


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Rows [n, T] of different width as one tensor, padded with 0."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])
