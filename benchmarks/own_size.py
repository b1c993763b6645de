"""Time and memory of an edit of a picture of 12 megapixels, beside that of its copy of 256 px, by the command line."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from common import publish, recolourings, table
from iterinv import images
from iterinv.edits.own_size import carry_up
from iterinv.embedded.scenes import caption, render
from iterinv.reading import Original, read

SCRIPT = Path(sys.executable).with_name("iterinv")
SIDE, RENDERED, GRAIN, ROUNDS = 3464, 768, 3.0, 2
"""The picture's side in px, that of the drawing it is enlarged from, its grain in 8-bit levels, and the rounds."""
SCENES, TRUTH, SIDES, VISIBLE = 6, 400, (50, 100), 3
"""The scenes with true answers, their side in px, the sides they are reduced to, and the least 8-bit change of a
region."""
LANCZOS = Image.Resampling.LANCZOS


def draw(folder: Path) -> tuple[dict[str, Path], str, str]:
    """Write a held-out scene as a JPEG file of 12 megapixels and as a copy of 256 px; return the files and the prompts
    of a recolouring."""
    ((scene, wanted),) = recolourings(1)
    drawn = Image.fromarray(images.to_uint8(render(scene, RENDERED)[None]))
    large = np.array(drawn.resize((SIDE, SIDE), LANCZOS))
    random = np.random.default_rng(0)
    for row in large:
        row[:] = np.rint(row + random.normal(0, GRAIN, row.shape)).clip(0, 255)
    files = {"256 px": folder / "small.png", "12 megapixels": folder / "large.jpg"}
    Image.fromarray(large).save(files["12 megapixels"], quality=92)
    Image.open(files["12 megapixels"]).resize((256, 256), LANCZOS).save(files["256 px"])
    return files, caption(scene), caption(wanted)


def edit(file: Path, prompt: str, target: str, out: Path) -> tuple[tuple[float, float], dict[str, Any]]:
    """Run the command in a process of its own; return its seconds, those of the processor, and its report."""
    start = time.perf_counter(), processor()
    subprocess.run(
        [SCRIPT, "edit", file, "--prompt", prompt, "--to", target, "--out", out], check=True, capture_output=True
    )
    taken = time.perf_counter() - start[0], processor() - start[1]
    return taken, json.loads((out / "report.json").read_text(encoding="utf-8"))


def processor() -> float:
    """The seconds of the processor that all processes started here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seam(before: np.ndarray, after: np.ndarray, inside: np.ndarray) -> float:
    """The mean step between neighbours across the border of the region, over the picture's own there."""
    steps = [np.zeros(0), np.zeros(0)]
    for axis in (0, 1):
        border = np.diff(inside.astype(np.int8), axis=axis) != 0
        for k, each in enumerate((before, after)):
            step = np.abs(np.diff(each.astype(np.int16), axis=axis)).mean(-1)[border]
            steps[k] = np.concatenate([steps[k], step])
    return float(steps[1].mean() / steps[0].mean())


def truths(side: int) -> list[float]:
    """The mean PSNR to the true answer, within the region, of recolourings worked out at ``side`` px: the change is
    carried up, or enlarged and added, or the edited picture is enlarged."""
    psnr = []
    for scene, wanted in recolourings(SCENES):
        picture, truth = (images.to_uint8(render(each, TRUTH)[None]) for each in (scene, wanted))
        before, after = (np.array(Image.fromarray(each).resize((side, side), LANCZOS)) for each in (picture, truth))
        change = after - before.astype(np.float32)
        mask = binary_dilation(np.abs(change).max(-1) >= VISIBLE)
        after[~mask], change[~mask] = before[~mask], 0
        own = carry_up(Original.of_array(picture), before, after, mask.astype(np.uint8))
        planes = [Image.fromarray(change[..., c]).resize((TRUTH, TRUTH), LANCZOS) for c in range(3)]
        added = picture + np.stack([np.asarray(each) for each in planes], -1)
        enlarged = np.asarray(Image.fromarray(after).resize((TRUTH, TRUTH), LANCZOS))
        errors = [(each - truth.astype(float))[own.region > 0] for each in (own.values, added.clip(0, 255), enlarged)]
        psnr.append([20 * np.log10(255 / np.sqrt(np.square(each).mean())) for each in errors])
    return [float(each) for each in np.mean(psnr, 0)]


def main() -> None:
    began = time.time()
    quality = [[side, *(f"{each:.1f} dB" for each in truths(side))] for side in SIDES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, prompt, target = draw(folder)
        seconds: dict[str, list[tuple[float, float]]] = {each: [] for each in files}
        reports = {}
        for turn in range(ROUNDS):  # the one that comes first changes, since the machine may slow down
            for each in sorted(files, reverse=bool(turn % 2)):
                taken, reports[each] = edit(files[each], prompt, target, folder / each)
                seconds[each].append(taken)
        before, _ = read(files["12 megapixels"])
        after, mask = (np.array(Image.open(folder / "12 megapixels" / f"{each}.png")) for each in ("edited", "mask"))
        equal = float((before == after).all(-1)[mask == 0].mean())
        step = seam(before, after, mask > 0)
    small, large = ([min(each) for each in zip(*seconds[name], strict=True)] for name in files)
    memory = {each: reports[each]["peak_memory_mb"] for each in files}
    own = reports["12 megapixels"]["edits"][0]["own_size"]
    rows = [
        ["edit of the copy of 256 px", f"{small[0]:.0f} s", ""],
        [f"edit of {own['width']} x {own['height']} px", f"{large[0]:.0f} s", ""],
        ["ratio of the times", f"{large[0] / small[0]:.2f}", "1.3"],
        ["ratio of the processor's times", f"{large[1] / small[1]:.2f}", "1.3"],
        ["peak memory of the copy", f"{memory['256 px']:.0f} MB", ""],
        [f"peak memory of {own['width']} x {own['height']} px", f"{memory['12 megapixels']:.0f} MB", "1500 MB"],
        ["pixels outside the region that equal the file's", f"{equal:.2%}", ""],
        ["step across the region's border, over the picture's own", f"{step:.2f}", "1.5"],
    ]
    body = f"""
A held-out scene with grain, as a JPEG file of {own["width"]} x {own["height"]} px and as its copy of 256 px, edited by
the command line with its default settings: from "{prompt}" to "{target}". Seconds are those of the whole command, the
least of {ROUNDS} in turns, by the clock and of the processor ({small[1]:.0f} and {large[1]:.0f} s); memory is the peak
of the process. The region is {own["region"]:.1%} of the picture. Where other work runs on the
machine, the clock's ratio scatters, and the processor's is the one to read.

{table(["what", "measured", "at most"], rows)}

## Against the true answer

{SCENES} held-out scenes of {TRUTH} px and the same in another colour, both drawn by the renderer. The pair reduced to a
smaller size stands for a perfect edit there, and the change is brought up to {TRUTH} px in three ways. PSNR to the true
answer within the region, mean over the scenes:

{table(["worked out at, px", "carried up", "change enlarged and added", "edited picture enlarged"], quality)}
"""
    publish("own_size", "An edit at a picture's own size", body, began)


if __name__ == "__main__":
    main()
