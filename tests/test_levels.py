import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from iterinv.levels import Level, move

angles = st.floats(0.01, 1.5)


def level(angle):
    return Level(angle, math.cos(angle), math.sin(angle))


@given(angles, angles, angles, st.floats(-2, 2), st.floats(-2, 2))
def test_moves_are_a_group(a, b, c, x, eps):
    x, eps = torch.tensor([x], dtype=torch.float64), torch.tensor([eps], dtype=torch.float64)
    a, b, c = level(a), level(b), level(c)
    torch.testing.assert_close(move(move(x, eps, a, b), eps, b, c), move(x, eps, a, c), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(move(x, eps, a, a), x, rtol=1e-8, atol=1e-8)


@given(angles, angles)
def test_a_move_carries_data_and_noise(a, b):
    x0, eps = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-1.3], dtype=torch.float64)
    a, b = level(a), level(b)
    arrived = move(a.alpha * x0 + a.sigma * eps, eps, a, b)
    torch.testing.assert_close(arrived, b.alpha * x0 + b.sigma * eps, rtol=1e-9, atol=1e-9)
