"""Plans: the settings by which a stage is run and inverted. A method is a rule, an inverter, and a refinement or
none."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from torch import Tensor

from iterinv.inverters import Inverter, Undo
from iterinv.levels import Grid
from iterinv.models import Stage
from iterinv.steps import BDIA, OneStep, Step
from iterinv.typed import Count, Range, check_fields

if TYPE_CHECKING:
    from iterinv.stage_inversion import StageInversion

LARGE_GROWTH = 1e4
"""The factor on rounding above which the inverted noise is far from a sampler's (``docs/benchmarks/methods.md``)."""

LARGEST_GROWTH = {"float32": 1e4, "float64": 1e9}
"""The largest factor on rounding that is accepted. Times the dtype's precision it stays below half an 8-bit step."""


class Refinement(ABC):
    """A change of an inversion made without guidance, so that a rerun under the plan's guidance stays on its path.

    It is called with the stage, whose network calls are counted, and the inversion. A subclass is a frozen dataclass.
    """

    exact: ClassVar[bool] = False
    """It makes a rerun give every pixel back, whatever path was found."""

    gradients: ClassVar[bool] = False
    """It takes gradients of the network."""

    @abstractmethod
    def __call__(self, stage: Stage, inversion: StageInversion) -> StageInversion: ...

    def fitted(self, inversion: StageInversion) -> dict[str, Tensor]:
        """The tensors (steps, batch, ...) that were computed, which an inversion file keeps, by name."""
        return {}

    def shapes(self, stage: Stage, plan: Plan, rows: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the fitted tensors, which a file keeps in float32, for ``rows`` pictures, by name.

        An inversion with fitted tensors is saved only where a subclass gives these.
        """
        return {}

    def restored(self, stage: Stage, inversion: StageInversion, fitted: Mapping[str, Tensor]) -> StageInversion:
        """The refined inversion with fitted tensors from a file, which have the shapes above."""
        return self(stage, inversion)


@dataclass(frozen=True)
class Plan:
    """The settings by which a stage is run and inverted.

    ``inverter`` finds the path of ``rule`` backwards. ``guidance`` is the classifier-free guidance scale of inversion
    and reconstruction alike, 1 for none; with a refinement that of reconstruction, inversion having none. ``spacing``
    is one of :data:`iterinv.schedules.SPACINGS` for a schedule of discrete timesteps, ``None`` for the schedule's own.
    ``dtype`` is the state's, whatever the network's. ``method`` is the name it goes by, no part of what it computes:
    plans compare without it. Raises ``ValueError`` for parts that do not fit each other, and for settings that leave
    nothing to do.
    """

    rule: Step = field(default_factory=BDIA)
    inverter: Inverter = field(default_factory=Undo)
    refine: Refinement | None = None
    steps: Count = 20
    guidance: float = 1.0
    spacing: str | None = None
    dtype: str = "float64"
    method: Annotated[str, Range(0, 200)] = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        self.inverter.check(self.rule)
        if self.refine is not None and (
            self.inverter.exact or self.inverter.reads_path or not isinstance(self.rule, OneStep)
        ):
            raise ValueError(
                f"{type(self.refine).__name__} needs a one-step rule that does not undo itself, such as DDIM"
            )
        if self.dtype not in LARGEST_GROWTH:
            raise ValueError(f"states in {self.dtype} lose the picture: use float32 or float64")
        if self.steps <= self.first:
            raise ValueError(
                f"{self.steps} step(s) leave {type(self.rule).__name__} nothing to undo: take {self.first + 1} or more"
            )
        if not self.method.isprintable():
            raise ValueError(f"the method's name {self.method!r} holds characters that cannot be printed")
        if not self.method:
            refine = type(self.refine).__name__ if self.refine else ""
            parts = [part for part in (type(self.rule).__name__, self.inverter.name, refine) if part]
            object.__setattr__(self, "method", "+".join(parts))

    @property
    def first(self) -> int:
        """The index of the level that a run starts from."""
        return self.inverter.first(self.rule)

    @property
    def gradients(self) -> bool:
        """Tell whether it takes gradients of the network."""
        return self.inverter.gradients or (self.refine is not None and self.refine.gradients)

    def check(self, stage: Stage) -> Grid:
        """Return the grid of a stage. Raises ``ValueError`` where undoing it would multiply rounding beyond what the
        dtype carries, and where it takes gradients that the stage's network does not give."""
        if self.gradients and not stage.differentiable:
            raise ValueError(
                f"{self.method} takes gradients of the network, and the network of stage {stage.name} gives none: take "
                "bdia, which is exact, or iterinv-anderson, which needs predictions alone"
            )
        grid, limit = stage.schedule.grid(self.steps, self.spacing), LARGEST_GROWTH[self.dtype]
        if (growth := self.inverter.growth(self.rule, grid)) > limit:
            if grid[0].alpha == 0 and growth == math.inf:
                raise ValueError(
                    f"{self.method} cannot undo a step from the level with timestep {grid[0].t:g}, which holds noise "
                    "alone, as a flow's first level does: take bdia or bdia-fixed"
                )
            grids = (stage.schedule.grid(n, self.spacing) for n in range(max(self.first + 1, 2), self.steps))
            fits = [len(each) - 1 for each in grids if self.inverter.growth(self.rule, each) <= limit]
            ways = [f"{max(fits)} steps"] if fits else []
            if isinstance(self.rule, BDIA):
                ways.append(
                    f"a gamma of {math.ceil(1e3 * limit ** (-1 / (self.steps - self.first))) / 1e3:.3f} or more"
                )
            raise ValueError(
                f"undoing {self.steps} steps of {self.rule} multiplies rounding by {growth:.0e}, more than "
                f"{self.dtype} "
                f"carries; take {' or '.join([*ways, 'another method'])}"
            )
        return grid

    def advice(self, grid: Grid) -> list[str]:
        """Sentences on a plan that works but may disappoint on a stage's grid."""
        advice = []
        if not (self.inverter.exact or self.inverter.reads_path) and self.refine is None and self.guidance != 1:
            advice.append(
                f"{self.method} inverts under guidance {self.guidance:g}, where a solver converges slowly or "
                "not at all and "
                "the noise leaves its distribution: take guidance 1, a refinement (null-text, negative-prompt) or bdia"
            )
        if (growth := self.inverter.growth(self.rule, grid)) > LARGE_GROWTH:
            advice.append(
                f"undoing {self.steps} steps of {self.method} multiplies rounding by {growth:.0e}: the picture comes "
                "back, but its noise may be far from a sampler's (see noise std); bdia at gamma 1 multiplies nothing"
            )
        return advice
