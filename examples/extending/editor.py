"""An editor of your own: the left half alone, by the plain prompt swap. Listing it makes it known by name.

python examples/extending/editor.py [cascade folder]
"""

import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

import iterinv
from iterinv.edits import EDITORS, Detail, Site, StageEdit
from iterinv.levels import State
from iterinv.steps import DDIM


@dataclass(frozen=True)
class LeftHalf:
    """Run the last ``strength`` of the levels under the target prompt, and keep the right half as it is."""

    strength: float = 0.7
    guidance: float = 2.0

    def __call__(self, site: Site) -> Generator[State, None, StageEdit]:
        if site.below is not None:  # the stages above follow what the first one changed
            return (yield from Detail()(site))
        mask = torch.zeros(len(site.path[-1]), 1, *site.stage.shape[1:])
        mask[..., : mask.shape[-1] // 2] = 1
        state = yield from site.follow_path(DDIM(), self.strength, site.towards(self.guidance), mask)
        return site.result(state, mask, strength=self.strength)


EDITORS["left-half"] = LeftHalf

if __name__ == "__main__":
    cascade = iterinv.load(*sys.argv[1:])
    picture = Path(__file__).parents[1] / "red-sphere.png"
    inversion = cascade.invert(picture, "a red sphere on a wooden floor", num_inference_steps=10)
    edit = cascade.edit(inversion, "a blue sphere on a wooden floor", "left-half")
    edit.images[0].save("edited.png")
    print(f"edited {edit.masks[-1].mean():.0%} of the picture")
