"""What `benchmarks/gpu` measures: each section yields what it has found, the most important first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from gpu.meter import GIB, Meter, Result
from gpu.paths import Bench
from gpu.shapes import Shape, build_completions, build_model, build_policy, quantise
from torch import Tensor

from dermiq.policy.decoding import Decoder
from dermiq.policy.prefix import prefill
from dermiq.policy.sampling import Sampling

QLORA_TARGET_GIB = 12.0


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        groups: group sizes, the most important first.
        new_tokens: length of every completion.
        long_tokens: length of every completion of the 4-bit step, and of one more comparison.
        long_group: group size of the 4-bit step.
        tokens_per_pass: tokens of the update's micro-batches, the same for every path.
        repeats: runs that are timed.
        attention: transformers' name of the kernel for prompts and for the duplicated path.
        slice: decoder layers and vision blocks of the float32 comparison.
        copied_bytes: what is copied to measure the memory's bandwidth.
    """

    groups: tuple[int, ...] = (16, 8, 32, 4)
    new_tokens: int = 128
    long_tokens: int = 256
    long_group: int = 8
    tokens_per_pass: int = 8192
    repeats: int = 3
    attention: str = "sdpa"
    slice: tuple[int, int] = (2, 8)
    copied_bytes: int = GIB


TINY = Settings((2, 4), 6, 8, 2, 64, 1, slice=(2, 2), copied_bytes=2**20)


class Lab:
    """The device, and one model on it at a time.

    Args:
        shape: of the model.
        settings: what is measured.
        meter: of the device.
    """

    def __init__(self, shape: Shape, settings: Settings, meter: Meter) -> None:
        self.shape, self.settings, self.meter = shape, settings, meter
        self.bandwidth: float | None = None
        self._bench: Bench | None = None

    def bench(self) -> Bench:
        """The policy in bfloat16."""
        if self._bench is None:
            model = build_model(self.shape, self.meter.device, torch.bfloat16, self.settings.attention)
            policy = build_policy(self.shape, model)
            self._bench = Bench(policy, self.shape, self.meter, True, self.settings.tokens_per_pass)
        return self._bench

    def clear(self) -> None:
        """Free the model."""
        self._bench = None
        self.meter.clear()


def bandwidth(lab: Lab) -> Iterator[Result]:
    """Bytes per second of the device's memory, read and written."""
    lab.bandwidth = lab.meter.bandwidth(lab.settings.copied_bytes)
    yield {"gigabytes_per_second": lab.bandwidth / 1e9}


def exactness(lab: Lab) -> Iterator[Result]:
    """How far the product's paths are from the plain ones, in float32 on a slice of the model."""
    torch.set_float32_matmul_precision("highest")
    lab.clear()
    shape, length = lab.shape.slice(*lab.settings.slice), 16
    yield {"decoder_layers": lab.settings.slice[0]}
    ids = build_completions(shape, 4, length, lab.meter.device)
    mask = torch.arange(length, device=ids.device) < torch.tensor([16, 11, 5, 1], device=ids.device)[:, None]
    for path, memory in (
        ("shared", {}),
        ("checkpointed", {"gradient_checkpointing": True}),
        ("offloaded", {"offload_activations": True}),
    ):
        model = build_model(shape, lab.meter.device, torch.float32)
        bench = Bench(build_policy(shape, model, **memory), shape, lab.meter, False, 2 * (shape.prompt_tokens + length))
        if not memory:
            logprobs, expected = gradients(bench, bench.update_duplicated, ids, mask)
            yield sampled_alike(bench, length)
        found = gradients(bench, bench.update_shared, ids, mask)
        yield {
            f"{path}_gradient_difference": float((found[1] - expected).norm() / expected.norm()),
            f"{path}_logprob_difference": float((found[0] - logprobs).abs().max()),
        }


def gradients(
    bench: Bench, update: Callable[[Tensor, Tensor], Tensor], ids: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probs [G, T] and all gradients [W] of an update."""
    logprobs = update(ids, mask)
    found = torch.cat([weight.grad.flatten() for weight in bench.policy.trainable_parameters()])
    bench.policy.zero_grad(set_to_none=True)
    return logprobs, found


def sampled_alike(bench: Bench, length: int) -> Result:
    """Share of tokens that the compiled decoder samples as the eager one, and that it picks as `generate` (greedy)."""
    policy, batch = bench.policy, bench.batch()
    with policy.sampling_mode():
        eager, compiled = (
            Decoder(compiled=compiled).complete(policy, batch, Sampling(length), 4, "0") for compiled in (False, True)
        )
        greedy = Decoder().complete(policy, batch, Sampling(length, temperature=0.0), 4, "0").ids
    expected = bench.rollout_duplicated(4, length, do_sample=False)
    return {
        "compiled_samples_alike": float((eager.ids == compiled.ids).float().mean()),
        "greedy_as_generate": float((greedy == expected).float().mean()),
    }


def qlora(lab: Lab) -> Iterator[Result]:
    """Peak memory of a GRPO++ step over 4-bit weights, layers recomputed, and whether it fits into the target."""
    if find_spec("bitsandbytes") is None:
        yield {"skipped": "bitsandbytes is not installed"}
        return
    lab.clear()
    settings, meter = lab.settings, lab.meter
    model = build_model(lab.shape, meter.device, torch.bfloat16, settings.attention)
    quantise(model, torch.bfloat16)
    meter.clear()
    policy = build_policy(lab.shape, model, gradient_checkpointing=True)
    bench = Bench(policy, lab.shape, meter, True, settings.tokens_per_pass // 4)
    step = partial(bench.step_shared, settings.long_group, settings.long_tokens, kl=True)
    yield {"group_size": settings.long_group, "new_tokens": settings.long_tokens}
    steps: Result = {}
    with meter.peak(steps):
        step()  # the next one holds the optimiser's state too
        steps["seconds"] = meter.seconds(step)
    yield {"steps": steps}
    if meter.cuda:
        total = torch.cuda.get_device_properties(meter.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, QLORA_TARGET_GIB * GIB / total), meter.device)
        meter.clear()
        try:
            step()
            yield {"runs_in_target": True}
        except torch.OutOfMemoryError:
            yield {"runs_in_target": False}
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, meter.device)


def group(lab: Lab, group_size: int, new_tokens: int) -> Iterator[Result]:
    """Rollout, update, step and memory of both paths at one group size."""
    bench, repeats = lab.bench(), lab.settings.repeats
    ids = build_completions(lab.shape, group_size, new_tokens, lab.meter.device)
    prompt_tokens = lab.shape.prompt_tokens
    yield {
        "group_size": group_size, "new_tokens": new_tokens,
        "tokens_duplicated_over_shared":
            group_size * (prompt_tokens + new_tokens) / (prompt_tokens + group_size * new_tokens),
    }  # fmt: skip
    paths = {
        "shared": (bench.rollout_shared, bench.update_shared, new_tokens),
        "duplicated": (bench.rollout_duplicated, bench.update_duplicated, prompt_tokens + new_tokens),
    }
    found: dict[str, Result] = {}
    for path, (rollout, update, row_tokens) in paths.items():
        result = found[path] = {"vision": vision(bench, 1 if path == "shared" else group_size)}
        bench.tokens_per_pass = lab.settings.tokens_per_pass
        result["rows_per_pass"] = bench.fit_micro_batch(update, ids, row_tokens)
        result["update"] = bench.meter.measure(partial(update, ids), repeats)
        yield {path: result}
        result["rollout"] = bench.meter.measure(
            partial(rollout, group_size, new_tokens), repeats, partial(rollout, group_size, 2)
        )
        yield {path: result}
        if path == "shared":
            result["step"] = bench.meter.measure(partial(bench.step_shared, group_size, new_tokens), repeats)
        else:  # nothing is shared between its parts
            result["step"] = {"seconds": sum(result[part]["seconds"] for part in ("rollout", "update"))}
        yield {path: result}
    yield {"duplicated_over_shared": ratios(found["duplicated"], found["shared"])}


def ratios(slow: Result, fast: Result) -> Result:
    """How many times as long `slow` takes."""
    parts = {part: slow[part]["seconds"] / fast[part]["seconds"] for part in ("step", "rollout", "update")}
    if "vision" in slow:
        language = [path["update"]["seconds"] - path["vision"]["seconds"] for path in (slow, fast)]
        parts["update_without_vision"] = language[0] / language[1]
    return parts


def decoding(lab: Lab, group_size: int) -> Iterator[Result]:
    """Milliseconds per token of the group, against the time that the memory takes to deliver what a token needs."""
    bench, policy, settings = lab.bench(), lab.bench().policy, lab.settings
    lengths = (max(2, settings.new_tokens // 4), settings.new_tokens)
    needed = bytes_per_token(bench, group_size, sum(lengths) // 2)
    floor = None if lab.bandwidth is None else needed / lab.bandwidth * 1e3
    yield {"group_size": group_size, "bytes_per_token": needed, "floor_ms": floor}
    batch = bench.batch()
    with bench.autocast(), policy.sampling_mode():
        prefix = prefill(policy, batch["prompt"])
    for name, engine in (("eager", Decoder()), ("compiled", Decoder(compiled=True))):

        def decode(length: int, engine: Decoder = engine) -> None:
            with bench.autocast(), policy.sampling_mode():
                engine.complete(policy, batch, Sampling(length), group_size, "0", prefix)

        short, long = (bench.meter.measure(partial(decode, length), settings.repeats) for length in lengths)
        per_token = (long["seconds"] - short["seconds"]) / (lengths[1] - lengths[0]) * 1e3
        over = None if floor is None else per_token / floor
        yield {name: {"ms_per_token": per_token, "over_floor": over, **long}}


def bytes_per_token(bench: Bench, group_size: int, own_tokens: int) -> int:
    """What one step of a group has to read: all weights but the embeddings, the output layer, keys and values.

    The prompt's keys and values count once for the group.
    """
    vlm = bench.policy.vlm
    decoder, output = vlm.get_decoder(), vlm.get_output_embeddings()
    weights = {id(p): p for p in (*decoder.parameters(), *output.parameters())}
    if output.weight is not vlm.get_input_embeddings().weight:
        del weights[id(vlm.get_input_embeddings().weight)]
    config = decoder.config
    channels = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    states = 2 * config.num_hidden_layers * channels * torch.bfloat16.itemsize
    read = sum(p.numel() * p.element_size() for p in weights.values())
    return read + states * (bench.shape.prompt_tokens + group_size * own_tokens)


def vision(bench: Bench, images: int) -> Result:
    """Seconds that the tower takes for so many copies of the image, which an update has in it."""
    features = bench.policy.vlm.model.get_image_features

    def run() -> None:
        inputs = bench.copies(images)
        with bench.autocast(), torch.no_grad():
            features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)

    return {"images": images, **bench.meter.measure(run, 1)}


def trl(lab: Lab, group_size: int, ours: Result) -> Iterator[Result]:
    """A step of TRL's trainer, and how it compares with `ours`, the section of the same group size."""
    try:
        from gpu.against_trl import build_trl, largest_divisor, measure_trl
    except (ImportError, RuntimeError) as error:  # transformers turns a missing library into a RuntimeError
        yield {"skipped": f"TRL cannot be imported: {error}"}
        return
    lab.clear()
    settings = lab.settings
    rows = largest_divisor(group_size, settings.tokens_per_pass // (lab.shape.prompt_tokens + settings.new_tokens))
    with tempfile.TemporaryDirectory() as folder:
        step = build_trl(lab.shape, lab.meter, settings.attention, group_size, settings.new_tokens, folder)
        found = measure_trl(step, rows, settings.repeats)
    yield found
    if {"step", "rollout", "update"} <= ours.get("shared", {}).keys():
        yield {"trl_over_shared": ratios(found, ours["shared"])}
