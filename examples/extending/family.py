"""A family of models of your own: modules that predict the flow of a straight path. Listing it makes them loadable.

python examples/extending/family.py
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import iterinv
from iterinv.conditions import Condition
from iterinv.families import FAMILIES
from iterinv.families.family import Family
from iterinv.levels import Level, Prediction, prediction_from
from iterinv.models import Stage, digest_of, frozen
from iterinv.schedules import Flow


class FlowNetwork(nn.Module):
    """A toy: ``network(x, t)`` is the flow ``noise - picture`` of a sample (batch, 3, size, size) at time t
    (batch,)."""

    size = 16

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x - 0.1 * self.conv(x)


@dataclass(frozen=True, eq=False)
class FlowDenoiser:
    """A :class:`FlowNetwork` as a denoiser: its output becomes the pair of picture and noise."""

    network: FlowNetwork

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        t = torch.full((len(x),), level.sigma, device=x.device)
        return prediction_from(self.network(x.float(), t).to(x.dtype), x, level, "flow_prediction")


def opened(what: object, name: str, device: str, allow_pickle: bool) -> Stage | None:
    """The stage of a flow network; ``None`` for anything else, which another family may know."""
    if not isinstance(what, FlowNetwork):
        return None
    network = frozen(what).to(device)  # a copy of the modules that shares the weights

    def embed(prompts: Sequence[str | None]) -> Condition:
        return Condition({"text": torch.zeros(len(prompts), 1, 1, device=device)})

    return Stage(name, network.size, FlowDenoiser(network), Flow(), embed, digest_of(network)[:16], device=device)


FAMILIES.insert(0, Family(opened=opened))

if __name__ == "__main__":
    torch.manual_seed(0)
    cascade = iterinv.load(FlowNetwork())
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    inversion = cascade.invert(picture, "", num_inference_steps=8)
    print(
        f"largest error {float((inversion.picture - picture).abs().max()):.0e}, from alpha "
        f"{inversion.noise_level.alpha}"
    )
