"""The contents of a session, as values of the page's parts by their names."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image

from iterinv import images
from iterinv.web.requests import MASK
from iterinv.web.session import Session
from iterinv.web.words import edit_words

LARGE, SMALL = 1024, 256
"""The longer side in px of the pictures that are shown: reduced to the first, enlarged to the second."""

Values = dict[str, Any]
"""New values of parts of the page, by their names."""


def history(session: Session) -> Values:
    """The history, and the edit that is shown."""
    gallery = [(shown(session, each.picture), str(each.number)) for each in session.edits]
    names = "after", "region", "difference", "edit_report", "command", "python"
    blank: Values = dict.fromkeys((*names, "edited_file", "mask_file", "painted_file", "edit_report_file"))
    if session.result is None or session.shown < 0:
        return {"gallery": gallery, **blank, "edit_report": ""}
    entry, before = session.edits[session.shown], session.result.inversion.canvases[0].image
    files = {"edited_file": "edited.png", "mask_file": "mask.png", "painted_file": MASK}
    files["edit_report_file"] = "report.json"
    inside = np.asarray(Image.open(shown(session, entry.region)), np.float32) / 255
    return {
        "gallery": gallery,
        "after": (shown(session, before), shown(session, entry.picture)),
        "region": (shown(session, before), [(inside, "the region that may change")]),
        "difference": shown(session, images.difference(before, entry.picture)),
        "edit_report": edit_words(entry.report),
        "command": entry.command,
        "python": entry.python,
        **{name: str(entry.folder / file) if (entry.folder / file).exists() else None for name, file in files.items()},
    }


def show_stage(session: Session, stage: str | None) -> Values:
    """Show the picture of one stage beside its reconstruction."""
    if session.result is None:
        return {"slider": None}
    pictures = {
        name: (shown(session, one), shown(session, other)) for name, one, other in session.result.stage_pictures
    }
    (canvas,) = session.result.inversion.canvases
    whole = shown(session, canvas.image), shown(session, session.result.reconstruction)
    return {"slider": pictures.get(stage or "", whole)}


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
