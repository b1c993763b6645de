"""Regions where an edit may act, one value each: from the prompts, given by the user, everywhere, or several
combined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.settings import check_shares
from iterinv.edits.site import Region, Site, start_index
from iterinv.streams import draw_noise
from iterinv.typed import Checked, Count, Natural, Positive, Range, check_fields


@dataclass(frozen=True)
class FromPrompts:
    """The region where the two prompts predict different noise (DiffEdit: Couairon, Verbeek, Schwenk, Cord, 2022,
    https://arxiv.org/abs/2210.11427, step 1).

    ``maps`` noised copies of the picture are made at the level ``strength`` up the grid; the mean absolute difference
    of the noise predicted for the two prompts, without guidance, is cut in two and grown by ``grow`` pixels. The
    threshold minimises the cross entropy (Li and Lee, 1993), which finds a small thing as well as all of the floor.
    ``close`` closes narrow gaps and fills holes before the region is grown.
    ``clip`` selects the paper's threshold: the difference is clipped at ``clip`` times its mean (3, in the paper) and
    cut at half of that.
    """

    strength: float = 0.7
    maps: Count = 10
    clip: Positive | None = None
    grow: Annotated[int, Range(0, 1000)] = 1
    close: bool = False
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_shares(mask_strength=self.strength)

    def __call__(self, site: Site) -> Tensor:
        clean = site.path[-1]
        level = site.grid[start_index(site.grid, self.strength)]
        source, wanted = site.source(), site.unguided()
        difference = torch.zeros_like(clean)
        for k in range(self.maps):
            noise = draw_noise(clean.shape[1:], [self.seed], "region", k).to(clean)
            x = level.alpha * clean + level.sigma * noise
            difference += (wanted(x, level).eps - source(x, level).eps).abs()
        heat = difference.mean(1, keepdim=True)
        cut = torch.stack([self.threshold(each) for each in heat]).reshape(-1, 1, 1, 1)
        mask = (heat > cut).float()
        return grown(closed(mask) if self.close else mask, self.grow)

    def threshold(self, heat: Tensor) -> Tensor:
        """The difference (1, h, w) of one picture above which it may change."""
        if self.clip is not None:
            return 0.5 * self.clip * heat.mean()
        if float(heat.max() - heat.min()) == 0:  # no difference anywhere
            return heat.max()
        from skimage.filters import threshold_li

        return heat.new_tensor(float(threshold_li(heat[0].double().cpu().numpy())))


def bridged(mask: Tensor) -> Tensor:
    """A mask (batch, 1, h, w), 1 where it was above 0, with its gaps of up to two pixels closed."""
    from scipy.ndimage import binary_closing

    inside = mask[:, 0].cpu().numpy() > 0
    joined = [binary_closing(np.pad(each, 2, mode="edge"))[2:-2, 2:-2] | each for each in inside]
    return torch.from_numpy(np.stack(joined))[:, None].to(mask)


def closed(mask: Tensor) -> Tensor:
    """A mask (batch, 1, h, w), 1 where it was above 0, with its gaps of up to two pixels closed and its holes
    filled."""
    from scipy.ndimage import binary_fill_holes

    filled = [binary_fill_holes(each) for each in bridged(mask)[:, 0].cpu().numpy() > 0]
    return torch.from_numpy(np.stack(filled))[:, None].to(mask)


def grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask (batch, 1, h, w) that reaches so many pixels further."""
    return F.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)


@dataclass(frozen=True)
class Everywhere:
    """No limit: every pixel may change."""

    def __call__(self, site: Site) -> None:
        return None


@dataclass(frozen=True, eq=False)
class Given(Checked):
    """A region that the user gives: ``mask`` (batch or 1, 1, h, w) in [0, 1], 1 inside, of any size."""

    mask: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask.ndim != 4 or self.mask.shape[1] != 1:
            raise ValueError(f"a mask is (batch or 1, 1, h, w), not {tuple(self.mask.shape)}")

    def __call__(self, site: Site) -> Tensor:
        mask = F.adaptive_max_pool2d(self.mask.float(), site.stage.shape[1:])  # no small part of it is lost
        return mask.to(site.stage.device).expand(len(site.path[-1]), -1, -1, -1)


@dataclass(frozen=True)
class Union(Checked):
    """Every pixel that lies in one of several regions."""

    regions: tuple[Region, ...]

    def __call__(self, site: Site) -> Tensor | None:
        masks = [region(site) for region in self.regions]
        known = [mask for mask in masks if mask is not None]
        return None if len(known) < len(masks) else torch.stack(known).amax(0)


@dataclass(frozen=True)
class Intersection(Checked):
    """Every pixel that lies in all of several regions."""

    regions: tuple[Region, ...]

    def __call__(self, site: Site) -> Tensor | None:
        known = [mask for mask in (region(site) for region in self.regions) if mask is not None]
        return torch.stack(known).amin(0) if known else None
