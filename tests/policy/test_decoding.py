"""The default engine: finished rows are dropped, texts stop, and steps of one shape sample what growing ones do."""

import pytest
import torch

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.decoding import Decoder, group_pieces
from dermiq.policy.lora import LoRA
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Sampling, sample_rollout
from dermiq.prompts import to_messages
from dermiq.schema import Sample
from support.families import FAMILIES
from support.gradients import loaded
from support.images import picture


@pytest.fixture(scope="module")
def backbone(family_dir):
    return loaded(family_dir("idefics3"))


def batch_of(backbone, questions=("What is it?", "Which skin condition does this photograph show?", "And this?")):
    samples = [
        Sample(f"s{i}", ("x.png",), "melanoma", "mel", f"s{i}", question=question)
        for i, question in enumerate(questions)
    ]
    images = [[picture(i, 48)] for i in range(len(samples))]
    return {
        "prompt": encode_prompts(backbone.processor, [to_messages(sample) for sample in samples], images),
        "samples": samples,
    }


@pytest.fixture
def talkative(backbone, monkeypatch):
    """A third of all tokens end a completion, so that rows finish at very different steps."""
    monkeypatch.setattr(backbone, "stop_ids", tuple(sorted({*backbone.stop_ids, *range(100, 480, 3)})))
    return backbone


def widths_of(backbone, monkeypatch):
    """Rows of each pass through the decoder."""
    decoder, widths = backbone.vlm.get_decoder(), []
    forward = decoder.forward

    def counted(**inputs):
        if "shared_prefix" in inputs:
            widths.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(decoder, "forward", counted)
    return widths


def test_finished_rows_are_dropped_and_nothing_else_changes(talkative, monkeypatch):
    batch = batch_of(talkative)
    alone = sample_rollout(talkative, batch, Sampling(12), group_size=4, engine=Decoder(rows_per_pass=1))
    widths = widths_of(talkative, monkeypatch)
    together = sample_rollout(talkative, batch, Sampling(12), group_size=4)
    assert torch.equal(together.mask, alone.mask)
    assert torch.equal(together.ids[together.mask], alone.ids[alone.mask])
    torch.testing.assert_close(together.logprobs, alone.logprobs, atol=3e-5, rtol=0)
    lengths = together.lengths.flatten()
    assert lengths.min() < lengths.max() and widths[-1] < widths[0] <= 12
    going = [int((lengths > step).sum()) for step in range(1, len(widths) + 1)]
    assert all(width >= alive for width, alive in zip(widths, going, strict=True))
    assert sum(widths) < 12 * len(widths)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_one_shape_sample_the_same(family, family_dir):
    """What a GPU records as a CUDA graph, run here step by step; Gemma 3 has sliding windows."""
    backbone = loaded(family_dir(family))
    batch = batch_of(backbone)
    growing = sample_rollout(backbone, batch, Sampling(20), group_size=2)
    fixed = sample_rollout(backbone, batch, Sampling(20), group_size=2, engine=Decoder(compiled=True))
    assert torch.equal(growing.ids, fixed.ids) and torch.equal(growing.mask, fixed.mask)
    torch.testing.assert_close(growing.logprobs, fixed.logprobs, atol=3e-5, rtol=0)


def test_checking_seldom_changes_nothing(talkative, monkeypatch):
    """On a GPU finished rows are checked for every 16 steps only."""
    batch = batch_of(talkative)
    often = sample_rollout(talkative, batch, Sampling(12, stop=("a",)), group_size=4)
    monkeypatch.setattr("dermiq.policy.decoding._steps_per_check", lambda device: 16)
    seldom = sample_rollout(talkative, batch, Sampling(12, stop=("a",)), group_size=4)
    assert torch.equal(often.ids, seldom.ids) and torch.equal(often.mask, seldom.mask)
    torch.testing.assert_close(often.logprobs, seldom.logprobs, atol=3e-5, rtol=0)


def test_a_completion_ends_with_the_token_that_completes_a_stopping_text(backbone):
    batch = batch_of(backbone)
    free = sample_rollout(backbone, batch, Sampling(20), group_size=4)
    stopped = sample_rollout(backbone, batch, Sampling(20, stop=("a", "zzz")), group_size=4)
    shortened = 0
    for row in range(len(free.ids)):
        ids = free.ids[row][free.mask[row]]
        ends = [
            end for end in range(1, len(ids) + 1) if "a" in backbone.decode(ids[None, :end], torch.ones(1, end) > 0)[0]
        ]
        expected = ids[: ends[0]] if ends else ids
        assert stopped.ids[row][stopped.mask[row]].tolist() == expected.tolist()
        shortened += len(expected) < len(ids)
    assert shortened > 0 and (stopped.logprobs[~stopped.mask] == 0).all()


def test_the_weights_return_bit_by_bit(backbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with backbone.folded():
        changed = [name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])]
    assert changed and all("base_layer" in name for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_nothing_is_folded_where_rounding_would_swallow_it(family_dir):
    backbone = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=4), dtype="bfloat16")
    backbone.load()
    half = [p for n, p in backbone.named_parameters() if "base_layer" in n]
    before = [p.data_ptr() for p in half]
    with backbone.folded():
        assert [p.data_ptr() for p in half] == before


@pytest.mark.parametrize(
    ("limit", "pieces"),
    [
        (None, [[0, 1, 2, 3, 4, 5]]),
        (5, [[0, 1, 2], [3, 4, 5]]),
        (3, [[0, 1, 2], [3, 4, 5]]),
        (2, [[0, 1], [2], [3, 4], [5]]),
        (1, [[0], [1], [2], [3], [4], [5]]),
    ],
)
def test_passes_hold_whole_groups_or_part_of_one(limit, pieces):
    assert group_pieces(2, 3, limit) == pieces


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="rows_per_pass is at least 1"):
        Decoder(rows_per_pass=0)
    with pytest.raises(ValueError, match="no empty stop"):
        Sampling(stop=("",))
