"""The plainest edit: the inverted state of a level, run to the clean end under another prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Region, Running, Site, share_of, start_index
from iterinv.steps import DDIM, Step, rule_name


@dataclass(frozen=True)
class PromptSwap(FirstStageEditor):
    """Run the last ``strength`` of the levels of the first stage under the target prompt, within ``region``.

    ``guidance`` acts from the source prompt to the target prompt, 1 for none. ``detail`` edits the stages above.

    ``rule`` is damped on purpose. BDIA at gamma = 1 reproduces a picture exactly, but once the prompt changes its
    undamped parasitic mode ruins the edit (``docs/exact-and-editable.md``). Raises ``ValueError`` for a strength
    outside (0, 1].
    """

    strength: float = 0.7
    guidance: float = 4.0
    region: Region = field(default_factory=Everywhere)
    rule: Step = field(default_factory=DDIM)

    def edit_first(self, site: Site) -> Running:
        mask = site.region(self.region)
        state = yield from site.follow_path(self.rule, self.strength, site.towards(self.guidance), mask)
        return site.result(state, mask, **self.report(site))

    def report(self, site: Site) -> dict[str, Any]:
        """The settings that the first stage is edited with."""
        return {
            "rule": rule_name(site.rule_for(self.rule)),
            "guidance": site.guidance_scale(self.guidance),
            "strength": share_of(site.grid, start_index(site.grid, self.strength)),
        }
