"""BDIA as diffusers schedulers: for sampling in any pipeline that takes DDIM's, and for inverting with the pair.

    pipe.scheduler = BDIAScheduler.from_config(pipe.scheduler.config, gamma=0.5)

Exact Diffusion Inversion via Bi-directional Integration Approximation (Zhang, Lewis, Kleijn, 2023),
https://arxiv.org/abs/2307.10829
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

from iterinv.levels import Grid, Level, Prediction, constant, prediction_from
from iterinv.steps import BDIA
from iterinv.steps.bdia import bdia_init_inverse
from iterinv.typed import checked

__all__ = [
    "BDIAInverseScheduler",
    "BDIAScheduler",
    "SchedulerMixin",
]  # diffusers looks for the last where it finds the first

Pair = tuple[Tensor, Tensor]
"""The two noisiest states of an inversion, noisiest first."""

SHARED = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "set_alpha_to_one",
    "steps_offset",
    "prediction_type",
    "timestep_spacing",
    "rescale_betas_zero_snr",
    "gamma",
)
"""The settings that two schedulers must share to undo each other."""


class Configured(DDIMScheduler):
    """DDIM's settings and ``gamma``, in one signature for both directions."""

    timesteps: Tensor

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        clip_sample: bool = True,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        gamma: float = 1.0,
    ) -> None:
        self.check()
        own = {key: value for key, value in self.config.items() if key != "gamma" and not key.startswith("_")}
        DDIMScheduler.__init__.__wrapped__(self, **own)  # undecorated: it would register the settings anew
        self.pair: Pair | None = None

    def check(self) -> None:
        """Raise ``ValueError`` for settings that this direction cannot run."""


class BDIAScheduler(Configured):
    """DDIM, with BDIA's correction from its second step on: ``gamma`` times the error of a step back to the state
    before.

    ``gamma`` 0 is DDIM bit for bit. ``docs/benchmarks/sampling.md`` compares values between. Above 0 the rule is
    undone exactly by :class:`BDIAInverseScheduler`, best at 1. Its steps end at the next timestep of the grid; DDIM's
    own do not under ``linspace``. Everything else (``timestep_spacing``, ``prediction_type``, clipping ...) is as in
    ``DDIMScheduler``. Deterministic: raises ``ValueError`` for an ``eta`` other than 0.
    """

    older: tuple[Tensor, Level] | None = None
    path: Sequence[int] = ()

    def check(self) -> None:
        """Raise ``ValueError`` for a gamma outside [0, 1]."""
        if not 0 <= checked(self.config.gamma, float, "gamma") <= 1:
            raise ValueError(f"gamma is {self.config.gamma}; it lies in [0, 1], 0 for DDIM")

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Set the timesteps as DDIM does, and forget the run before."""
        super().set_timesteps(num_inference_steps, device=device)
        self.older = None

    def start_from(self, inverse: BDIAInverseScheduler) -> None:
        """Take the pair that an inversion ended in. A run from its first state then goes to its second, at any
        prediction of the network; no other run changes. Raises ``ValueError`` where the two schedulers would not undo
        each other, and when a run from that state takes other timesteps."""
        unlike = [key for key in (*SHARED, "clip_sample", "thresholding") if self.config[key] != inverse.config[key]]
        if unlike:
            differing = ", ".join(f"{key} {self.config[key]} and {inverse.config[key]}" for key in unlike)
            raise ValueError(f"these schedulers do not undo each other: {differing}; make both from one configuration")
        if inverse.pair is None or inverse.done != len(inverse.labels):
            raise ValueError(
                f"{inverse.done} of {len(inverse.labels)} steps were inverted: step the inverse scheduler "
                "through its timesteps"
            )
        self.pair, self.path = inverse.pair, inverse.labels

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        *args: Any,
        return_dict: bool = True,
        **settings: Any,
    ) -> DDIMSchedulerOutput | tuple[Tensor, ...]:
        """One step, as DDIM's. ``sample`` must be what the step before gave.

        Raises ``ValueError`` for a timestep that is not on the grid.
        """
        if eta != 0:
            raise ValueError(f"eta is {eta}; BDIA is deterministic and takes 0")
        if use_clipped_model_output and self.config.gamma > 0:
            raise ValueError("use_clipped_model_output is for GLIDE under DDIM (gamma 0); BDIA takes False")
        if self.num_inference_steps is None:
            raise ValueError("there are no timesteps yet: call set_timesteps before the first step")
        if int(timestep) not in self.timesteps.tolist():
            raise ValueError(
                f"timestep {int(timestep)} is none of the {len(self.timesteps)} that set_timesteps gave: step "
                "through scheduler.timesteps"
            )
        out = super().step(
            model_output, timestep, sample, 0.0, use_clipped_model_output, *args, return_dict=True, **settings
        )
        if self.config.gamma > 0:
            out.prev_sample = self._corrected(model_output, int(timestep), sample, out)
        return out if return_dict else (out.prev_sample, out.pred_original_sample)

    def _corrected(self, model_output: Tensor, timestep: int, sample: Tensor, out: DDIMSchedulerOutput) -> Tensor:
        labels = self.timesteps.tolist()
        i, grid = labels.index(timestep), grid_of(self, labels)
        a = grid[i]
        older, self.older = self.older, (sample, a)
        if i == 0 and self.pair is not None and torch.equal(sample, self.pair[0].to(sample)):
            if labels != self.path:
                raise ValueError(
                    f"this noise was inverted by {len(self.path)} steps and cannot be run by {len(labels)} others"
                )
            return self.pair[1].to(sample)
        prediction = prediction_from(model_output, sample, a, self.config.prediction_type)
        if self.config.clip_sample or self.config.thresholding:
            # Else not, since diffusers rounds the coefficients to float32.
            prediction = Prediction(out.pred_original_sample, prediction.eps)
        follows = i and older is not None and older[1].t == labels[i - 1]
        state = (sample, older[0]) if follows and older is not None else (sample,)
        return BDIA(self.config.gamma).step(constant(prediction), state, grid, i)[0]


class BDIAInverseScheduler(Configured):
    """Undoes :class:`BDIAScheduler` of the same configuration: from clean data to the pair that it starts from.

    A loop over ``timesteps`` calls the network as often as sampling does; after it, ``pair`` goes to
    ``BDIAScheduler.start_from``. The network must predict the same noise both ways, so clipping and thresholding must
    be off: ``ValueError`` where they are not.
    """

    labels: Sequence[int] = ()
    done = 0
    older: Tensor | None = None

    def check(self) -> None:
        """Raise ``ValueError`` for a gamma outside (0, 1], clipping and thresholding."""
        if not 0 < checked(self.config.gamma, float, "gamma") <= 1:
            raise ValueError(f"gamma is {self.config.gamma}; to undo it, it must lie in (0, 1]")
        if self.config.clip_sample or self.config.thresholding:
            raise ValueError(
                "clipping and thresholding cannot be undone: pass clip_sample=False, thresholding=False to both"
            )

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """The labels of sampling, backwards, the cleanest of them twice: the start-up step needs it too."""
        super().set_timesteps(num_inference_steps, device=device)
        self.labels = self.timesteps.tolist()
        back = self.timesteps.flip(0)
        self.timesteps = torch.cat([back[:1], back[:-1]])
        self.done, self.older, self.pair = 0, None, None

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, *args: Any, return_dict: bool = True, **settings: Any
    ) -> DDIMSchedulerOutput | tuple[Tensor, ...]:
        """Step from one state to the next noisier one, the ``prev_sample`` of the output.

        Raises ``ValueError`` before ``set_timesteps``, for another timestep than the next, and after the last.
        """
        k = self.done
        if k == len(self.labels):
            done = f"all {k} steps are done" if k else "there are no timesteps yet"
            raise ValueError(f"{done}: call set_timesteps before an inversion")
        if int(timestep) != int(self.timesteps[k]):
            raise ValueError(
                f"timestep {int(timestep)} is not the next, {int(self.timesteps[k])}: step through "
                "scheduler.timesteps in order"
            )
        grid = grid_of(self, self.labels)
        i = len(self.labels) - max(k, 1)  # the index of the level that the network was given
        prediction = prediction_from(model_output, sample, grid[i], self.config.prediction_type)
        if self.older is None:
            _, new = bdia_init_inverse(constant(prediction), sample, grid)
        else:
            _, new = BDIA(self.config.gamma).undo(constant(prediction), (self.older, sample), grid, i)
        self.done, self.older, self.pair = k + 1, sample, (new, sample)
        out = DDIMSchedulerOutput(prev_sample=new, pred_original_sample=prediction.x0)
        return out if return_dict else (out.prev_sample, out.pred_original_sample)


def level(scheduler: DDIMScheduler, t: int) -> Level:
    """The level of a timestep, or of the clean end below 0."""
    squared = float(scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod)
    return Level(t, squared**0.5, (1 - squared) ** 0.5)


def grid_of(scheduler: DDIMScheduler, labels: Sequence[int]) -> Grid:
    """The levels of timesteps, noisy to clean, and the clean end."""
    return [level(scheduler, t) for t in (*labels, -1)]
