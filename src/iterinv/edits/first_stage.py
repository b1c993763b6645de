"""The base of editors: they edit the first stage, and leave the stages above it to ``detail``."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

from iterinv.edits.detail import Detail
from iterinv.edits.settings import check_shares
from iterinv.edits.site import Running, Site
from iterinv.typed import check_fields


@dataclass(frozen=True)
class FirstStageEditor(ABC):
    """An editor that runs the last ``strength`` of the levels of the first stage; ``detail`` edits the stages above.

    A ``strength`` of ``None`` is one that the editor chooses for each picture. Raises ``ValueError`` for a strength
    outside (0, 1], and for settings of other types than are written.
    """

    strength: float | None = 1.0
    detail: Detail = dataclasses.field(default_factory=Detail, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)
        check_shares(strength=1.0 if self.strength is None else self.strength)

    def __call__(self, site: Site) -> Running:
        return self.edit_first(site) if site.below is None else self.detail(site)

    @abstractmethod
    def edit_first(self, site: Site) -> Running:
        """Edit the first stage."""
