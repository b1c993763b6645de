"""Probes: a few numbers that the networks of a stage compute of a fixed input.

They tell two stages apart that hold the same weights and compute something else: by an adapter's scale, a hook, an
attention processor, a limit on tokens or a tiled autoencoder, under any name and in any place.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.streams import draw_noise

if TYPE_CHECKING:
    from iterinv.models import Stage

PROMPTS = (None, "", "A photo of 2 (red:1.3) [cats], naïve — “quoted”;", "one after another " * 40)
"""The prompts of a probe: none, the empty one, marks, and one that is longer than most encoders read."""


@dataclass(frozen=True)
class Probe:
    """Groups of numbers, the first of each the rms of a tensor; ``where`` names the arithmetic that computed them, and
    ``eps`` is the rounding of the network's precision."""

    values: tuple[tuple[float, ...], ...]
    where: str
    eps: float

    def agrees(self, other: Probe) -> bool:
        """Say whether two probes are of the same computation.

        They may differ by 1e-5 of the rms. Where the arithmetic is another (another device, number of threads or torch)
        sums are taken in another order, and they may differ by 1e-4 of the rms, in half precision by four roundings.
        """
        most = 1e-5 if self.where == other.where else max(1e-4, 4 * self.eps, 4 * other.eps)
        return len(self.values) == len(other.values) and all(
            len(a) == len(b) and all(abs(x - y) <= most * max(a[0], b[0]) for x, y in zip(a, b, strict=True))
            for a, b in zip(self.values, other.values, strict=True)
        )


@torch.no_grad()
def probed(stage: Stage, whose: str) -> Stage:
    """A stage with its probe, for which every network of it is run once on a small input.

    Raises ``ValueError``, naming the part of ``whose`` model, where one cannot be run, and ``MemoryError`` where there
    is too little memory for it.
    """
    values: list[tuple[float, ...]] = []
    with _part("text encoder", stage, whose):
        words = [stage.embed([prompt]) for prompt in PROMPTS]
        values += [_numbers(x) for each in words for _, x in sorted(each.items())]
    side = min(stage.shape[1], getattr(stage.denoiser, "least_side", stage.shape[1]))
    shape = (stage.shape[0], side, side)
    with _part("network", stage, whose):
        x = draw_noise(shape, [0], "probe").to(stage.device)
        low = {name: draw_noise((3, side, side), [0], "probe", name) for name in ("low_image", "low_noise")}
        given = words[2] if stage.low_level is None else words[2].updated(**{k: y.to(x.device) for k, y in low.items()})
        for level in stage.schedule.grid(8)[1:8:2]:
            values += map(_numbers, stage.denoiser((level.alpha + level.sigma) * x, level, given))
    if stage.codec is not None:
        with _part("autoencoder", stage, whose):
            picture = draw_noise((3, side * stage.codec.factor, side * stage.codec.factor), [0], "probe").clamp(-1, 1)
            values += [_numbers(stage.encode(picture.to(x.device))), _numbers(stage.decode(x))]
    dtype = precision(stage) or torch.float32
    return replace(stage, probe=Probe(tuple(values), _where(dtype, stage.device), _eps(dtype, stage.device)))


def precision(stage: Stage) -> torch.dtype | None:
    """The dtype of a stage's network, ``None`` where it has no weights."""
    network = getattr(stage.denoiser, "network", None)
    weights = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    return None if weights is None else weights.dtype


@contextmanager
def _part(name: str, stage: Stage, whose: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise MemoryError(f"the {name} of {whose} does not fit on {stage.device}: load it with memory='auto'") from None
    except Exception as error:  # the network of someone else may raise any error
        reason = str(error).strip().split("\n")[0] or "no reason given"
        raise ValueError(
            f"the {name} of {whose} cannot be run as this kind of model is run ({type(error).__name__}: {reason})"
        ) from error


def _numbers(x: Tensor) -> tuple[float, ...]:
    """The rms of a tensor and four projections of it, each about as large."""
    y = x.double().cpu().flatten().nan_to_num(0.0, 0.0, 0.0)
    directions = draw_noise(y.shape, range(4), "probe").double()
    rms = float(y.square().mean().sqrt())
    return (rms, *((directions @ y) / max(len(y), 1) ** 0.5).tolist())


def _where(dtype: torch.dtype, device: str) -> str:
    """A name for an arithmetic: the versions, the threads, and a hash of its kernels' results on noise."""
    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    picture, kernel, left = (
        draw_noise(shape, [0], "where").to(device, dtype) for shape in ((8, 32, 32), (8, 3, 3), (64, 64))
    )
    digest = 0
    for x in (F.conv2d(picture, kernel.expand(16, -1, -1, -1), padding=1), left @ left.mT):
        digest = zlib.crc32(x.cpu().contiguous().view(torch.uint8).numpy().tobytes(), digest)
    return f"torch {torch.__version__} on {kind}, {torch.get_num_threads()} threads, {dtype}, {digest:08x}"


def _eps(dtype: torch.dtype, device: str) -> float:
    """The rounding of a network's arithmetic; convolutions on CUDA may round float32 to 10 bits."""
    if device.startswith("cuda") and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        return torch.finfo(torch.float16).eps
    return torch.finfo(dtype).eps
