"""The contents of a session, as values of the page's parts by their names."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image

from iterinv import images
from iterinv.evaluate.pairs import pairs, read_pair
from iterinv.metrics.flip import flip_map
from iterinv.web.requests import MASK, NOTHING, UPLOAD
from iterinv.web.session import Session
from iterinv.web.words import edit_words, noise_words
from iterinv.workbench import MeasureRequest, Result

LARGE, SMALL = 1024, 256
"""The longer side in px of the pictures that are shown: reduced to the first, enlarged to the second."""

TINT = (13, 148, 136)
"""The colour of a region over a picture."""

FRAMES = 8
"""The most states of a stage's path that are shown."""

Values = dict[str, Any]
"""New values of parts of the page, by their names."""


@dataclass(frozen=True, eq=False)
class Change:
    """New properties of a part of the page, in place of a new value alone."""

    properties: dict[str, Any]


def history(session: Session) -> Values:
    """The history, the edit that is shown, and what can be measured."""
    return {**_edits(session), **measurable(session)}


def measurable(session: Session) -> Values:
    """The choices of pictures to measure: the latest edit, or the reconstruction, against the picture, at first."""
    pictures, regions = list(session.pictures()), list(session.regions())
    latest = pictures[-1] if pictures else UPLOAD
    first = UPLOAD if not pictures else pictures[0] if session.edits else pictures[-2]
    return {
        "reference": Change({"choices": [*pictures, UPLOAD], "value": first}),
        "compared": Change({"choices": [*pictures, UPLOAD], "value": latest}),
        "within": Change({"choices": [NOTHING, *regions, UPLOAD], "value": NOTHING}),
        "reference_file": Change({"visible": not pictures}),
        "compared_file": Change({"visible": not pictures}),
        "within_file": Change({"visible": False}),
    }


def flip_picture(request: MeasureRequest) -> np.ndarray:
    """The FLIP map of two pictures as colours (h, w, 3) uint8: black where no difference is visible, then violet, red
    and yellow."""
    from matplotlib import colormaps

    (pair,), _ = pairs(request.reference, request.picture)
    reference, picture, _ = read_pair(pair, request.resize, lambda text, name: None)
    return np.asarray(colormaps["magma"](flip_map(reference, picture), bytes=True)[..., :3])


def _edits(session: Session) -> Values:
    gallery = [(shown(session, each.picture), str(each.number)) for each in session.edits]
    names = "after", "region", "difference", "edit_report", "command", "python"
    blank: Values = dict.fromkeys((*names, "edited_file", "mask_file", "painted_file", "edit_report_file"))
    if session.result is None or session.shown < 0:
        return {"gallery": gallery, **blank, "edit_report": ""}
    entry, before = session.edits[session.shown], session.result.inversion.canvases[0].image
    files = {"edited_file": "edited.png", "mask_file": "mask.png", "painted_file": MASK}
    files["edit_report_file"] = "report.json"
    return {
        "gallery": gallery,
        "after": (shown(session, before), shown(session, entry.picture)),
        "region": shown(session, tinted(before, entry.region)),
        "difference": shown(session, images.difference(before, entry.picture)),
        "edit_report": edit_words(entry.report),
        "command": entry.command,
        "python": entry.python,
        **{name: str(entry.folder / file) if (entry.folder / file).exists() else None for name, file in files.items()},
    }


def tinted(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 with a tint over a region (h, w) uint8."""
    share = 0.45 / 255 * region[..., None].astype(np.float32)
    return (picture * (1 - share) + np.array(TINT) * share).round().astype(np.uint8)


def show_stage(session: Session, stage: str | None) -> Values:
    """Show the picture of one stage beside its reconstruction, its path from the noise, and the values of that; the
    path of the last stage for the whole picture."""
    if session.result is None:
        return {"slider": None, "path": None, "noise_picture": None, "noise": ""}
    pictures = {
        name: (shown(session, one), shown(session, other)) for name, one, other in session.result.stage_pictures
    }
    (canvas,) = session.result.inversion.canvases
    whole = shown(session, canvas.image), shown(session, session.result.reconstruction)
    names = list(pictures)
    k = names.index(stage) if stage in names else len(names) - 1
    inversion = session.result.inversion.stages[k]
    noise = (inversion.noise / inversion.grid[0].noise_scale).float().cpu().numpy()
    path = [(shown(session, picture), caption) for picture, caption in frames(session.result, k)]
    return {
        "slider": pictures.get(stage or "", whole),
        "path": path,
        "noise_picture": path[0][0],
        "noise": noise_words(names[k], noise),
    }


def frames(result: Result, k: int) -> list[tuple[np.ndarray, str]]:
    """At most :data:`FRAMES` states of the path of stage ``k``, noisy to clean: the picture (h, w, 3) uint8 of each and
    its caption.

    A state is divided by twice the spread of its noise and the range of its signal, so that both are visible. Of a
    latent the first three channels are shown, as red, green and blue.
    """
    inversion, latent = result.inversion.stages[k], result.cascade.stages[k].codec is not None
    grid, pictures = inversion.grid, []
    for i in np.unique(np.linspace(0, len(grid) - 1, FRAMES).round().astype(int)):
        x, level = inversion.path[int(i)], grid[int(i)]
        x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
        caption = f"t {level.t:.0f}" if 0 < i < len(grid) - 1 else "clean" if i else "noise"
        pictures.append((images.to_uint8(x / ((2 if latent else 1) * level.alpha + 2 * level.sigma)), caption))
    return pictures


def to_paint_on(session: Session) -> str | None:
    """The picture that a region is painted on, ``None`` without an inversion."""
    return None if session.result is None else shown(session, session.result.inversion.canvases[0].image)


def shown(session: Session, picture: np.ndarray) -> str:
    """The file of a picture (h, w, 3) or region (h, w), uint8, at a size that suits a screen; small ones are enlarged
    pixel by pixel. It is written once: a file that a browser reads must not be written again meanwhile."""
    digest = sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
    file = session.folder / "shown" / f"{digest[:32]}.png"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        images.save(_at_screen_size(Image.fromarray(picture)), file)
    return str(file)


def _at_screen_size(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer > LARGE:
        image.thumbnail((LARGE, LARGE))
    elif longer < SMALL:
        times = SMALL / longer
        size = max(1, round(image.width * times)), max(1, round(image.height * times))
        image = image.resize(size, Image.Resampling.NEAREST)
    return image
