"""Editors that look into the network: its attention at the inverted states acts on the edit.

The *source row* of such an editor is pinned: at every level the network sees the inverted state of that level, beside
the sample that is edited, and nothing is run again, so that no error of a rerun enters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.edits.prompt_swap import PromptSwap
from iterinv.edits.site import Running, Site, start_index
from iterinv.levels import Grid, Level, Prediction
from iterinv.models.attention import Changes, Layer, changed, layers_of, network_of


@dataclass(frozen=True)
class AttentionEditor(PromptSwap, ABC):
    """The base of editors that run as PromptSwap does, with attention or features of the source row put into the
    others.

    A call of the network has a source row and one for the target prompt and, under guidance, one more for the source
    prompt: three rows a picture. The source row is left out at levels where nothing is taken from it. ``guidance`` acts
    from the source prompt to the target prompt; 7.5 is the papers' for Stable Diffusion, from the empty prompt. Raises
    ``ValueError``, before any network call, for a stage whose network has no such layers.
    """

    strength: float = 1.0
    guidance: float = 7.5

    def edit_first(self, site: Site) -> Running:
        network = network_of(site.stage.denoiser)
        layers = [] if network is None else layers_of(network)
        self.check_layers(site, layers, "attention")
        return (yield from self.edit(site, network, layers))

    @abstractmethod
    def edit(self, site: Site, network: Any, layers: Sequence[Layer]) -> Running:
        """Edit the first stage, whose network has these attention layers."""

    def inject(self, site: Site, network: Any, changes: Callable[[int], Changes | None]) -> Running:
        """Edit with changes of the network at each level of the grid, by its index; ``None`` for none."""
        beside = with_source_row(site, network, changes)
        mask = site.region(self.region)
        state = yield from beside.follow_path(self.rule, self.strength, beside.towards(self.guidance), mask)
        return site.result(state, mask, **self.report(site))

    def check_layers(self, site: Site, layers: Sequence[Layer], kind: str) -> None:
        """Raise ``ValueError``, naming the editors that work there, for a network without layers of a kind."""
        if layers:
            return
        from iterinv.edits import EDITORS

        plain = [name for name, made in EDITORS.items() if not _attends(made)]
        raise ValueError(
            f"{type(self).__name__} changes the {kind} layers of a UNet, and stage {site.stage.name} has none: "
            f"take {', '.join(plain[:-1])} or {plain[-1]}"
        )


def _attends(made: object) -> bool:
    return isinstance(made, type) and issubclass(made, AttentionEditor)


@dataclass(frozen=True)
class Run:
    """The ``steps`` of an edit from ``grid[start]`` on, of so many ``pictures`` at once."""

    start: int
    steps: int
    pictures: int

    @classmethod
    def of(cls, site: Site, strength: float) -> Run:
        """The last ``strength`` of the levels of a stage."""
        start = start_index(site.grid, strength)
        return cls(start, len(site.grid) - 1 - start, len(site.path[-1]))

    def first(self, share: float) -> range:
        """The indices of the levels of the first ``share`` of the steps."""
        return range(self.start, self.start + round(share * self.steps))

    def sources(self, x: Tensor) -> Tensor:
        """The source rows of a batch (rows, ...) in place of all others."""
        return x[: self.pictures].repeat(len(x) // self.pictures, *[1] * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class Beside:
    """A denoiser that runs the source row of each picture, at its inverted state, in one batch before the other rows.

    ``changes`` gives the changes of the network at each level of the grid, by its index. The rows of the target prompt
    are the last.
    """

    site: Site
    network: Any
    changes: Callable[[int], Changes | None]

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        i = level_index(self.site.grid, level)
        denoiser, changes = self.site.stage.denoiser, self.changes(i)
        if changes is None:
            return denoiser(x, level, condition)
        source = self.site.path[i].to(x)
        own = self.site.inversion.condition.expand(len(source))
        rows = Condition({name: torch.cat([own[name], entry]) for name, entry in condition.items()})
        with changed(self.network, changes):
            x0, eps = denoiser(torch.cat([source, x]), level, rows)
        return Prediction(x0[len(source) :], eps[len(source) :])


def with_source_row(site: Site, network: Any, changes: Callable[[int], Changes | None]) -> Site:
    """A site whose denoiser runs the source row beside the others."""
    return replace(site, stage=replace(site.stage, denoiser=Beside(site, network, changes)))


def level_index(grid: Grid, level: Level) -> int:
    """The index of a level in a grid. Raises ``ValueError`` for a level between those of the grid."""
    if level not in grid:
        raise ValueError(
            f"the rule asks for a prediction at timestep {level.t:g}, where no inverted state is known: take a rule "
            "that stays on the levels of the grid, as DDIM does"
        )
    return grid.index(level)
