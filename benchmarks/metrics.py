"""Calibration of the metrics against other implementations, and distortions that one metric cannot tell apart.

The values of FLIP's own package, flip-evaluator 1.7, lie in ``docs/benchmarks/metrics-flip.json``; where that package
is installed they are measured anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter, shift

from common import OUT, photographs, publish, shipped, square, table
from iterinv import images
from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.metrics import METRICS, frechet, metrics, psnr
from iterinv.metrics.flip import flip_map

FLIP = OUT / "metrics-flip.json"
SEED = 0
EQUAL = 26.0
"""Decibels of the distortions in the picture."""


def rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def noisy(picture: np.ndarray, sigma: float, seed: int = SEED) -> np.ndarray:
    return rounded(picture + np.random.default_rng(seed).normal(0, sigma, picture.shape))


DISTORTIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "noise": noisy,
    "blur": lambda x, much: rounded(gaussian_filter(x.astype(float), (much, much, 0))),
    "shift": lambda x, much: rounded(shift(x.astype(float), (0, much, 0), order=1, mode="nearest")),
    "brighter": lambda x, much: rounded(x * (1 + much / 100)),
    "fewer tones": lambda x, much: rounded(np.rint(x / much) * much),
}
STRENGTH = {"noise": 10.0, "blur": 1.5, "shift": 1.0, "brighter": 12.0, "fewer tones": 32.0}


def pairs() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """The committed pictures and each distortion of them."""
    pictures = [picture for picture, _ in shipped().values()]
    return {name: [(x, distort(x, STRENGTH[name])) for x in pictures] for name, distort in DISTORTIONS.items()}


def tensors(*pictures: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(each).permute(2, 0, 1)[None].double() / 255 for each in pictures]


def references() -> dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]]:
    """Second implementations of metrics: their names and their functions."""
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
    from torchmetrics.functional import image as tm

    how: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    return {
        "mse": ("scikit-image", lambda a, b: mean_squared_error(a / 255, b / 255)),
        "psnr": ("scikit-image", lambda a, b: peak_signal_noise_ratio(a / 255, b / 255, data_range=1)),
        "ssim": ("scikit-image", lambda a, b: structural_similarity(a / 255, b / 255, data_range=1, **how)),
        "ssim-border": (
            "torchmetrics",
            lambda a, b: float(tm.structural_similarity_index_measure(*tensors(a, b), data_range=1.0)),
        ),
        "ms-ssim-border": (
            "torchmetrics",
            lambda a, b: float(tm.multiscale_structural_similarity_index_measure(*tensors(a, b), data_range=1.0)),
        ),
    }


def flip_values(drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, list[float]]:
    """FLIP by its authors' package."""
    if find_spec("flip_evaluator") is not None:
        from flip_evaluator import evaluate

        values = {
            name: [float(evaluate(*(x.astype(np.float32) / 255 for x in pair), "LDR")[1]) for pair in each]
            for name, each in drawn.items()
        }
        FLIP.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return json.loads(FLIP.read_text(encoding="utf-8"))


def calibration() -> str:
    """Our mean beside the reference implementation's, and the largest difference on one picture."""
    drawn, rows = pairs(), []
    by_flip, others = flip_values(drawn), references()
    for name in ("mse", "psnr", "ssim", "ssim-border", "ms-ssim", "ms-ssim-border", "flip", "st-lpips", "st-lpips-vgg"):
        ours = {kind: [METRICS[name](*pair) or 0.0 for pair in each] for kind, each in drawn.items()}
        cells, source, most = [f"{np.mean(values):.6f}" for values in ours.values()], "", ""
        if name in others or name == "flip":
            source = "flip-evaluator 1.7" if name == "flip" else others[name][0]
            theirs = (
                by_flip
                if name == "flip"
                else {kind: [others[name][1](*pair) for pair in each] for kind, each in drawn.items()}
            )
            most = f"{max(np.abs(np.subtract(ours[kind], theirs[kind])).max() for kind in ours):.0e}"
            rows.append([f"`{name}`", "ours", *cells, ""])
            rows.append(["", source, *(f"{np.mean(values):.6f}" for values in theirs.values()), most])
        else:
            rows.append([f"`{name}`", "ours", *cells, ""])
    features = metrics()["frechet-reader"]
    a, b = (
        torch.stack([features.look(images.to_uint8(render(Scene.random(HELD_OUT + k), 64)[None])) for k in each])
        for each in (range(300), range(300, 600))
    )
    cov_a, cov_b = (np.cov(x.double().numpy(), rowvar=False) for x in (a, b))
    theirs_frechet = float((a.double().mean(0) - b.double().mean(0)).square().sum())
    theirs_frechet += np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    ours_frechet = frechet(a, b)
    text = table(["metric", "by", *drawn, "largest difference"], rows)
    return f"""{text}

Fréchet distance of the reader's features of 300 and 300 rendered scenes: {ours_frechet:.6f}, by scipy's matrix root
{theirs_frechet:.6f}."""


def strength_for(distort: Callable[[np.ndarray, float], np.ndarray], x: np.ndarray, decibels: float) -> np.ndarray:
    """The distortion whose PSNR is nearest to a number of decibels, by bisection."""
    low, high = 0.01, 100.0
    for _ in range(40):
        middle = (low + high) / 2
        value = psnr(x, distort(x, middle))
        low, high = (middle, high) if value is None or value > decibels else (low, middle)
    return distort(x, low)


def equal_decibels() -> str:
    """Distortions of one PSNR, as a picture and as a table."""
    astronaut = square(photographs()["astronaut"][0], 256).image
    shown, maps, rows = [("original", astronaut)], [("FLIP maps", np.full_like(astronaut, 255))], []
    for name in ("noise", "blur", "shift", "brighter"):
        x = strength_for(DISTORTIONS[name], astronaut, EQUAL)
        values = [METRICS[each](astronaut, x) or 0.0 for each in ("psnr", "ssim", "ms-ssim", "flip", "st-lpips")]
        rows.append([name, *(f"{value:.3f}" for value in values)])
        shown.append((f"{name}: {values[0]:.1f} dB", x))
        shades = rounded(255 * flip_map(astronaut, x))[..., None].repeat(3, 2)
        maps.append((f"FLIP {values[3]:.2f}  ST-LPIPS {values[4]:.2f}", shades))
    images.save(images.labelled([shown, maps]), OUT / "metrics.png")
    return table(["", "PSNR, dB", "SSIM", "MS-SSIM", "FLIP", "ST-LPIPS"], rows)


def main() -> None:
    began = time.time()
    body = f"""
Means over the pictures under `examples/` (256 px) with stated distortions: noise of sigma 10, a blur of sigma 1.5 px, a
shift of 1 px, 12 % brighter, 8 tones a channel. *Largest difference* is that of one picture. LPIPS, DINO and CLIP
are compared with second implementations in the tests, on shared weights.

{calibration()}

## Distortions of one PSNR

A photograph at {EQUAL:.0f} dB four times.

![distortions of one PSNR, and FLIP's maps](metrics.png)

{equal_decibels()}
"""
    publish("metrics", "Metrics: calibration", body, began, ("reader",))


if __name__ == "__main__":
    main()
