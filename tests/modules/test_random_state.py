"""A checkpoint keeps the random state of the process's own GPU, whatever else is visible there and where it resumes."""

import pytest
import torch

from dermiq.modules.random_state import random_state, set_random_state


class Cards:
    """As many GPUs as are visible, each with a state, of which `own` is this process's."""

    def __init__(self, monkeypatch, count, own):
        self.states = [torch.tensor([10 + card], dtype=torch.uint8) for card in range(count)]
        self.own = own
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(count))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: own)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=own: self.states[device])
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: list(self.states))
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device=own: self.set(state, device))
        monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda all_: [self.set(s, i) for i, s in enumerate(all_)])

    def set(self, state, device):
        self.states[device] = state


def taken_up(monkeypatch, state, count, own):
    cards = Cards(monkeypatch, count, own)
    set_random_state(state)
    return [int(state) for state in cards.states]


@pytest.mark.parametrize(
    ("count", "own", "later", "then"),
    [(1, 0, 1, 0), (8, 0, 1, 0), (8, 5, 1, 0), (8, 5, 2, 1), (1, 0, 8, 6), (2, 1, 0, 0), (0, 0, 2, 1)],
)
def test_a_random_state_is_that_of_the_own_gpu(count, own, later, then, monkeypatch):
    """However many are visible, the own one goes on where the former one stopped; the others are left alone."""
    Cards(monkeypatch, count, own)
    state = random_state()
    expected = [10 + card for card in range(later)]
    if count and later:
        expected[then] = 10 + own
    assert taken_up(monkeypatch, state, later, then) == expected


@pytest.mark.parametrize(
    ("later", "then", "found"), [(1, 0, [90]), (2, 1, [10, 91]), (8, 6, [10, 11, 12, 13, 14, 15, 90, 17])]
)
def test_an_earlier_checkpoint_holds_the_states_of_all(later, then, found, monkeypatch):
    Cards(monkeypatch, 2, 0)
    state = random_state() | {"cuda": [torch.tensor([90], dtype=torch.uint8), torch.tensor([91], dtype=torch.uint8)]}
    assert taken_up(monkeypatch, state, later, then) == found
