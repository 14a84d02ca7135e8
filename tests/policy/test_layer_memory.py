"""What decoder layers save for the backward pass goes to main memory, their weights stay where they are.

That gradients stay as they are, for five families: `test_prefix`.
"""

import pytest
import torch
from torch import nn

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.layer_memory import _to_main_memory, offload_layers

WIDTH = 64


class Decoder(nn.Module):
    """One layer that saves its input (twice) and its weight."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())])


def test_activations_move_and_weights_stay(monkeypatch):
    decoder, packed = Decoder(), []

    def pack(weights, tensor):
        packed.append((tensor, _to_main_memory(weights, tensor)))
        return packed[-1][1]

    monkeypatch.setattr("dermiq.policy.layer_memory._to_main_memory", pack)
    offload_layers(decoder)
    (layer,) = decoder.layers
    layer(torch.randn(100, WIDTH, requires_grad=True)).sum().backward()
    weight = layer[0].weight.untyped_storage().data_ptr()
    moved = [given is not kept for given, (_, kept) in packed]
    of_weight = [given.untyped_storage().data_ptr() == weight for given, _ in packed]
    assert any(moved) and any(of_weight)
    assert moved == [not it for it in of_weight]
    assert all(torch.equal(given, kept) for given, (_, kept) in packed)


def test_nothing_is_packed_without_gradient(monkeypatch):
    decoder = Decoder()
    offload_layers(decoder)
    monkeypatch.setattr("dermiq.policy.layer_memory._to_main_memory", None)
    with torch.no_grad():
        decoder.layers[0](torch.randn(100, WIDTH))


def test_one_way_to_save_memory_at_a_time():
    with pytest.raises(ValueError, match="exclude each other"):
        VLMBackbone("x", gradient_checkpointing=True, offload_activations=True)
