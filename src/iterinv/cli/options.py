"""The options that several commands share, and the editor that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from iterinv.editing import Editor

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for what is made.")]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="What the picture shows.")]
Model = Annotated[
    str,
    typer.Option("--model", help="embedded, deepfloyd, sd15, sd21, sdxl …; a cascade or diffusers folder; a name on the hub."),
]
Method = Annotated[str, typer.Option("--method", "-m", help="bdia is exact; `iterinv methods` lists the others.")]
Steps = Annotated[int, typer.Option("--num-inference-steps", "--steps", "-n", min=2, help="Steps at every stage.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Draws noise: on low-resolution conditions.")]
Guidance = Annotated[float, typer.Option("--guidance-scale", "--guidance", help="Classifier-free guidance; 1 is none.")]
Sampler = Annotated[
    str, typer.Option(help="ddim, heun, dpmpp-2s, dpmpp-2m, bdia, bdia-fixed, bdia-heun, bdia-dpmpp, edict or belm.")
]
Gamma = Annotated[float | None, typer.Option(help="Of a bdia sampler: 0 is its base, 1 the whole correction.")]
Size = Annotated[int | None, typer.Option(help="Of the largest pictures, one that a stage has; stages above are left out.")]
Fit = Annotated[str, typer.Option("--fit", help="A picture that is not square: 'pad' it, or 'crop' to its middle.")]
EditorName = Annotated[str, typer.Option("--editor", help="flowedit or diffedit (within a mask), or prompt-swap (everywhere).")]
Strength = Annotated[float | None, typer.Option(help="Share of the levels run again; the editor's own if not given.")]
EditGuidance = Annotated[float | None, typer.Option(help="Guidance of the edit; the editor's own if not given.")]


def editor_of(name: str, strength: float | None, guidance: float | None) -> Editor:
    """The editor of that name, with what was given in place of its own. Raises ``ValueError`` where there is none."""
    from iterinv.edits import EDITORS

    if name not in EDITORS:
        raise ValueError(f"there is no editor {name!r}: the editors are {', '.join(EDITORS)}")
    given = {"strength": strength, "guidance": guidance}
    return EDITORS[name](**{k: v for k, v in given.items() if v is not None})
