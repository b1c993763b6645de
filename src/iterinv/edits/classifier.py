"""Readings of a picture by the network itself: which of two prompts it shows, and how likely it is at all.

A diffusion model predicts the noise on a picture the better, the likelier the picture is under the prompt (Li,
Prabhudesai, Duggal, Brown, Pathak, 2023, https://arxiv.org/abs/2303.16203).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iterinv.edits.site import Site, start_index
from iterinv.guidance import unguided
from iterinv.levels import Field, move
from iterinv.streams import draw_noise

PROMPT_SHARE, LIKELIHOOD_SHARE, NOISES = 0.85, 0.35, 8
"""The shares of the grid at which prompts are compared, where shapes are settled, and at which a picture is judged,
where surfaces are; and the number of noises that a reading averages."""

AT_ONCE = 4
"""The number of noises in one call of the network."""


def margin(site: Site, mask: Tensor, z: Tensor, seed: int = 0, share: float = PROMPT_SHARE) -> float:
    """Measure how much better the target prompt than the source prompt predicts the noise of a clean state ``z``
    (1, channels, h, w), within ``mask`` (1, 1, h, w), at a share of the grid.

    Above 0 the network sees the target prompt in it.
    """
    return float(_margins(site, mask, z, seed, share).sum())


def certainty(site: Site, mask: Tensor, z: Tensor, seed: int = 0) -> float:
    """Measure the margin of a clean state in standard errors of its mean over the noises: above 2 it is no chance."""
    margins = _margins(site, mask, z, seed, PROMPT_SHARE)
    return float(margins.mean() / (margins.std() / math.sqrt(NOISES)))


def clearness(site: Site, mask: Tensor, z: Tensor, seed: int = 0) -> tuple[float, float]:
    """Measure how much better the target prompt than the source prompt, and than no prompt, predicts the noise of a
    clean state, within ``mask``.

    Above 0 for both, the network sees the target prompt in it. Without the second, a scene from which a thing has
    vanished shows a small one rather than a large one.
    """
    none = unguided(site.stage.denoiser, site.stage.with_prompt(site.target, None))
    target, source, empty = (
        float(_errors(site, field, mask, z, PROMPT_SHARE, seed).sum())
        for field in (site.unguided(), site.source(), none)
    )
    return source - target, empty - target


def likelihood(site: Site, mask: Tensor, z: Tensor, seed: int = 0) -> float:
    """Measure how well the network predicts the noise of a clean state without a prompt, within ``mask``: at most 0,
    and the higher, the likelier the picture is."""
    field = unguided(site.stage.denoiser, site.stage.with_prompt(site.target, None))
    return -float(_errors(site, field, mask, z, LIKELIHOOD_SHARE, seed).sum())


def _margins(site: Site, mask: Tensor, z: Tensor, seed: int, share: float) -> Tensor:
    """The errors (noises,) by the source prompt less those by the target prompt."""
    source, target = (_errors(site, field, mask, z, share, seed) for field in (site.source(), site.unguided()))
    return source - target


def _errors(site: Site, field: Field, mask: Tensor, z: Tensor, share: float, seed: int) -> Tensor:
    """The squared errors (noises,) of the noise that a field predicts, summed over the mask."""
    level, errors = site.grid[start_index(site.grid, share)], []
    for first in range(0, NOISES, AT_ONCE):
        draws = [draw_noise(z.shape[1:], [seed], "classifier", first + k) for k in range(AT_ONCE)]
        noise = torch.cat(draws).to(z)
        x = move(z, noise, site.grid[-1], level)
        errors.append((mask * (field(x, level).eps - noise) ** 2).sum((1, 2, 3)))
    return torch.cat(errors)
