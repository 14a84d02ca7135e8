"""The cosine schedule: a line up, half a cosine down, then nothing."""

import pytest
import torch

from dermiq.modules.schedules import CosineWithWarmup


def rates(warmup_steps, total_steps, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = CosineWithWarmup(optimizer, warmup_steps, total_steps)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_by_hand():
    expected = [0.0, 1.0, 2.0, 2 * 0.8535533906, 1.0, 2 * 0.1464466094, 0.0, 0.0]
    assert rates(2, 6, 8) == pytest.approx(expected)


def test_without_warm_up_it_starts_at_the_top():
    assert rates(0, 4, 2)[0] == 2.0


@pytest.mark.parametrize(("warmup", "total"), [(-1, 4), (4, 4), (0, 0)])
def test_what_makes_no_sense_is_refused(warmup, total):
    with pytest.raises(ValueError, match="warmup_steps"):
        rates(warmup, total, 1)
