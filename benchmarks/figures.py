"""Small experiments on why published figures differ: one pair, several figures of one name."""

from __future__ import annotations

import time

import numpy as np

from common import OUT, photographs, publish, square, table
from iterinv import images
from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.metrics import METRICS, mse, psnr, ssim, ssim_border, st_lpips
from metrics import DISTORTIONS, SEED, noisy, rounded


def data_range() -> list[list[str]]:
    astronaut = square(photographs()["astronaut"][0], 256).image
    rows = []
    for name, x in (("photograph", astronaut), ("the same, a quarter as bright", rounded(astronaut / 4))):
        y = noisy(x, 4)
        own = psnr(x, y) or 0.0
        rows.append([name, f"{own:.2f}", f"{own + 20 * np.log10(x.max() / 255):.2f}", f"{own - 20 * np.log10(2):.2f}"])
    return rows


def border() -> list[list[str]]:
    from skimage.metrics import structural_similarity

    rows = []
    for size in (32, 64, 256):
        x = square(photographs()["astronaut"][0], size).image
        y = noisy(x, 20)
        values = ssim(x, y), ssim_border(x, y), structural_similarity(x, y, channel_axis=-1, data_range=255)
        rows.append([str(size), *(f"{value:.4f}" for value in values)])
    return rows


def perceptual() -> tuple[list[list[str]], list[list[str]]]:
    """One pair by two networks and in two ranges of its input; and two editors whose order a square turns."""
    from iterinv.metrics.backbones import distance
    from iterinv.metrics.st_lpips import NETWORKS, load

    x = square(photographs()["astronaut"][0], 256).image
    rows = []
    for network in ("alex", "vgg"):
        weights, taps = load(network), range(NETWORKS[network].count("tap"))
        heads = [weights[f"lin{k}.model.1.weight"] for k in taps]
        moved, scale = 2 * weights["scaling_layer.shift"] - 1, 2 * weights["scaling_layer.scale"]
        wrong = distance(x, noisy(x, 20), None, NETWORKS[network], weights, heads, moved, scale) or 0.0
        rows.append([network, f"{st_lpips(x, noisy(x, 20), network=network):.4f}", f"{wrong:.4f}"])
    even = [st_lpips(picture, noisy(picture, 16)) or 0.0 for picture, _ in photographs().values() for _ in range(2)]
    uneven = [st_lpips(picture, noisy(picture, s)) or 0.0 for picture, _ in photographs().values() for s in (2, 30)]
    squares = [
        [name, f"{np.mean(each):.4f}", f"{np.mean(np.square(each)):.4f}"]
        for name, each in (("steady: noise of 16 on all", even), ("unsteady: 2 on half, 30 on half", uneven))
    ]
    return rows, squares


def clip_inputs() -> list[list[str]]:
    """The spread of the numbers that CLIP's network gets, for the same picture as bytes and as floats from 0 to 1."""
    from transformers import CLIPImageProcessorPil

    x = square(photographs()["astronaut"][0], 256).image
    rows = []
    for name, values in (("0 to 255", x), ("0 to 1", x.astype(np.float32) / 255)):
        ready = CLIPImageProcessorPil()(images=values, return_tensors="np", input_data_format="channels_last")
        pixels = ready["pixel_values"]
        rows.append([name, f"{pixels.std():.3f}", f"{pixels.min():.2f} to {pixels.max():.2f}"])
    return rows


def means() -> tuple[list[list[str]], list[list[str]]]:
    """Ways to average one set of PSNRs, one of a pair of equal pictures; and means over a part of the pictures."""
    scenes = [images.to_uint8(render(Scene.random(HELD_OUT + k), 128)[None]) for k in range(40)]
    edited = [noisy(x, 1 + k) for k, x in enumerate(scenes[:9])] + [scenes[9]]
    values = [psnr(x, y) for x, y in zip(scenes, edited, strict=False)]
    finite = [value for value in values if value is not None]
    pooled = -10 * np.log10(np.mean([mse(x, y) for x, y in zip(scenes, edited, strict=False)]))
    ways = [
        ["mean of those that have a value (ours)", f"{np.mean(finite):.2f}", "9"],
        ["equal pictures as infinity", "inf", "10"],
        ["equal pictures as 100 dB", f"{np.mean([*finite, 100.0]):.2f}", "10"],
        ["PSNR of the pooled MSE", f"{pooled:.2f}", "10"],
    ]
    blurred = np.array([psnr(x, DISTORTIONS["blur"](x, 2.0)) for x in scenes], float)
    rng, rows = np.random.default_rng(SEED), []
    for n in (40, 32, 10):
        drawn = [np.mean(rng.choice(blurred, n, replace=False)) for _ in range(1000)]
        rows.append([str(n), f"{np.mean(drawn):.2f}", f"{min(drawn):.2f} to {max(drawn):.2f}"])
    return ways, rows


def regions() -> list[list[str]]:
    """One noise on the whole picture, measured outside masks of growing size; a picture of what PIE-Bench compares."""
    x = square(photographs()["coffee"][0], 256).image
    y, rows, shown = noisy(x, 12), [], [("original", x)]
    for share in (0.1, 0.5, 0.9):
        outside = np.ones(x.shape[:2], bool)
        outside[: round(256 * share)] = False
        cells = [METRICS[name](x, y, outside) or 0.0 for name in ("psnr", "psnr-pie", "ssim", "ssim-pie")]
        rows.append(
            [f"{share:.0%}", *(f"{value:.2f}" for value in cells[:2]), *(f"{value:.3f}" for value in cells[2:])]
        )
        words = f"mask of {share:.0%}\nits pixels: {cells[0]:.1f} dB\nas published: {cells[1]:.1f} dB"
        shown.append((words, np.where(outside[..., None], y, 0).astype(np.uint8)))
    images.save(images.labelled([shown]), OUT / "figures-masks.png")
    return rows


def resampled() -> list[list[str]]:
    """A perfect result that was made from one reduction of a photograph, measured against another."""
    from PIL import Image

    photograph = images.to_pil(photographs()["astronaut"][0])
    made = np.asarray(photograph.resize((256, 256), Image.Resampling.BICUBIC))
    rows = []
    for name, how in (("bicubic", "BICUBIC"), ("bilinear", "BILINEAR"), ("Lanczos", "LANCZOS"), ("nearest", "NEAREST")):
        against = np.asarray(photograph.resize((256, 256), Image.Resampling[how]))
        value = psnr(against, made)
        rows.append([name, "equal" if value is None else f"{value:.2f}", f"{ssim(against, made):.4f}"])
    return rows


def main() -> None:
    began = time.time()
    networks, squares = perceptual()
    ways, parts = means()
    body = f"""
## Data range

Noise of sigma 4. PSNR, dB, at the range of the format; at the range of the reference itself (torchmetrics before 1.9);
and with the squared error of values in [-1, 1] at a range of 1.

{table(["picture", "of the format", "of the picture", "[-1, 1] at a range of 1"], data_range())}

## SSIM's border and window

Noise of sigma 20. The window of the paper without and with a mirrored border, and scikit-image's default.

{table(["px", "`ssim`", "`ssim-border`", "7x7 window, all alike"], border())}

## LPIPS: network, range, squares

ST-LPIPS, whose weights are at hand, for noise of sigma 20: input in [-1, 1] as the network needs it, and in [0, 1].

{table(["network", "[-1, 1]", "[0, 1]"], networks)}

Two editors on six pictures, and the mean of their distances and of the squares.

{table(["editor", "mean", "mean of squares"], squares)}

## CLIP's input

What the network gets for one picture, as bytes and as floats.

{table(["values", "spread", "range"], clip_inputs())}

## Means of PSNR

Ten pictures, one of them equal to its reference.

{table(["way", "dB", "n"], ways)}

Forty pictures under one blur: the mean over n of them, least to most of 1000 draws.

{table(["n", "mean, dB", "least to most"], parts)}

## Masks

Noise of sigma 12 everywhere, measured outside a mask that covers a share of the picture. `-pie`: black inside it, mean
over all pixels.

{table(["mask", "`psnr`", "`psnr-pie`", "`ssim`", "`ssim-pie`"], regions())}

## Resampling

A perfect reconstruction of a photograph that was reduced by bicubic averages, against other reductions of it.

{table(["reduced by", "PSNR, dB", "SSIM"], resampled())}
"""
    publish("figures", "Why figures differ", body, began, ())


if __name__ == "__main__":
    main()
