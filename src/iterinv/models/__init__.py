"""Models, one file a family: what a stage of a cascade is, and how its network is asked for noise.

All oddities of a model (what it predicts, extra channels, labels, half precision) stop at its denoiser. What comes out is
predicted noise in the sample's dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.levels import Eps, Level
from iterinv.schedule import Karras, Schedule


@dataclass(frozen=True)
class Low:
    """The low-resolution condition of a super-resolution stage, its noise already drawn.

    ``image`` (batch, 3, h, w) in [-1, 1] at the resolution of the stage below; ``noise`` (batch, 3, H, W) at that of this
    stage's states; ``level`` is the one that the noise is added at.
    """

    image: Tensor
    noise: Tensor
    level: Level

    def enlarged(self) -> Tensor:
        """The picture at the size of the noise: bilinear with aligned corners, as IF's pipelines do it."""
        return F.interpolate(self.image, self.noise.shape[-2:], mode="bilinear", align_corners=True)

    def noised(self) -> Tensor:
        """What the network sees of it."""
        return self.level.alpha * self.enlarged() + self.level.sigma * self.noise

    def row(self, k: int) -> Low:
        """The condition of the ``k``-th picture of a batch alone."""
        return Low(self.image[k : k + 1], self.noise[k : k + 1], self.level)


@dataclass(frozen=True)
class Condition:
    """Everything a network is told besides the sample, made once per picture.

    ``text`` and ``null`` (batch, tokens, width) are the embeddings of the prompt and of the empty prompt. ``nulls`` stand for
    ``null`` at the levels whose labels they are kept by. ``shape`` is applied to the difference of the two predictions.
    """

    text: Tensor
    null: Tensor
    low: Low | None = None
    nulls: Mapping[float, Tensor] | None = None
    shape: Callable[[Tensor], Tensor] | None = None

    def row(self, k: int) -> Condition:
        """The condition of the ``k``-th picture of a batch alone; what all pictures share stays as it is."""

        def row(x: Tensor) -> Tensor:
            return x if len(x) == 1 else x[k : k + 1]

        nulls = None if self.nulls is None else {t: row(x) for t, x in self.nulls.items()}
        text = row(self.text)
        null = text if self.null is self.text else row(self.null)  # guidance looks whether the two are one
        low = None if self.low is None else self.low.row(k)
        return Condition(text, null, low, nulls, self.shape)


class Denoiser(Protocol):
    """Predicted noise (batch, channels, h, w) of a sample at a level, in the sample's dtype."""

    def __call__(self, x: Tensor, level: Level, text: Tensor, low: Low | None) -> Tensor: ...


class Codec(Protocol):
    """What a latent stage's states are made by, of pictures (batch, 3, h, w) in [-1, 1], and made pictures by again.

    A state is (batch, ``channels``, h / ``factor``, w / ``factor``). The same picture has the same code whenever it is asked.
    """

    @property
    def channels(self) -> int: ...

    @property
    def factor(self) -> int: ...

    def encode(self, picture: Tensor) -> Tensor: ...

    def decode(self, state: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Stage:
    """One diffusion model of a cascade: *what* it is. How it is run is a :class:`iterinv.inversion.Plan`.

    ``embed`` turns prompts into (batch, tokens, width). ``fingerprint`` names the weights, so that an inversion is not
    reopened under others. ``low_schedule`` is there in a super-resolution stage: the schedule of the noise, at label
    ``noise_level``, on the picture from the stage below. A stage with a ``codec`` works on latents, one without on pixels.
    """

    name: str
    size: int
    denoiser: Denoiser
    schedule: Schedule | Karras
    embed: Callable[[list[str]], Tensor]
    fingerprint: str
    low_schedule: Schedule | None = None
    noise_level: int = 0
    device: str = "cpu"
    codec: Codec | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of one state: (channels, h, w)."""
        if self.codec is None:
            return 3, self.size, self.size
        return self.codec.channels, self.size // self.codec.factor, self.size // self.codec.factor

    def encode(self, picture: Tensor) -> Tensor:
        """The clean state of pictures (batch, 3, size, size): themselves, or their latents."""
        return picture if self.codec is None else self.codec.encode(picture).to(picture.dtype)

    def decode(self, state: Tensor) -> Tensor:
        """The pictures of clean states."""
        return state if self.codec is None else self.codec.decode(state).to(state.dtype)

    def enlarged(self, low: Low) -> Tensor:
        """The clean state that the picture below foretells."""
        if self.codec is None:
            return low.enlarged()
        large = F.interpolate(low.image, (self.size, self.size), mode="bilinear", align_corners=True)
        return self.codec.encode(large)

    def blame(self, x: Tensor | None, level: Level | None) -> str:
        """Which part of the network makes NaN or infinity of a finite sample at a level; nothing where none does."""
        network = getattr(self.denoiser, "unet", None)
        if network is None or x is None or level is None:
            return ""
        first: list[str] = []
        hooks = [
            module.register_forward_hook(lambda _, __, out, name=name: first.append(name) if _ill(out) else None)
            for name, module in network.named_modules()
            if next(module.children(), None) is None
        ]
        condition = self.condition("", torch.zeros(len(x), 3, 8, 8))
        try:
            with torch.no_grad():
                guide(self.denoiser, condition)(x, level)
        finally:
            for hook in hooks:
                hook.remove()
        if not first:
            return ""
        better = "; try bfloat16" if network.dtype == torch.float16 else ""
        return f" The network's {first[0]} gives NaN or infinity in {str(network.dtype).removeprefix('torch.')}{better}."

    def condition(
        self, prompt: str | Sequence[str], low: Tensor | None = None, noise: Tensor | None = None, seed: int = 0
    ) -> Condition:
        """The condition of a prompt and, in a super-resolution stage, of the picture below (batch, 3, h, w) in [-1, 1].

        ``prompt`` is one for all the batch, or as many as it has pictures.

        The noise on that picture, as high and wide as a state, is ``noise`` if given, else drawn from ``seed``: the same for
        every picture of a batch. Raises ``ValueError`` where the picture below is missing.
        """
        text, null = self.embed([prompt] if isinstance(prompt, str) else list(prompt)), self.embed([""])
        if self.low_schedule is None:
            return Condition(text, null)
        if low is None:
            raise ValueError(f"stage {self.name} enlarges a smaller picture: pass it as low")
        if noise is None:
            noise = draw((len(low), 3, *self.shape[1:]), seed)
        low = low.clamp(-1, 1).float().to(self.device)
        return Condition(text, null, Low(low, noise.to(self.device), self.low_schedule.level(self.noise_level)))


def digest_of(network: torch.nn.Module, settings: str = "") -> str:
    """A hash of a network's weights, in their precision, and of its settings."""
    digest = hashlib.sha256(settings.encode())
    for key, x in sorted(network.state_dict().items()):
        digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _ill(out: object) -> bool:
    return isinstance(out, Tensor) and not bool(torch.isfinite(out).all())


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    """Unit noise in float32 from a CPU generator: the same ``shape[1:]`` for every sample of the batch."""
    one = torch.randn((1, *shape[1:]), generator=torch.Generator().manual_seed(seed))
    return one.expand(shape).clone()


class Calls:
    """A denoiser that counts: network evaluations of one picture, forward and backward apart.

    Guidance evaluates twice a picture and is counted so, though both halves go through the network as one batch.
    """

    def __init__(self, denoiser: Denoiser, batch: int = 1) -> None:
        self.denoiser, self.batch, self.forward, self.backward = denoiser, batch, 0, 0

    def __call__(self, x: Tensor, level: Level, text: Tensor, low: Low | None) -> Tensor:
        rows = len(x) // self.batch
        self.forward += rows
        out = self.denoiser(x, level, text, low)
        if out.requires_grad:
            out.register_hook(lambda _: self._went_back(rows))
        return out

    def _went_back(self, rows: int) -> None:
        self.backward += rows


def guide(denoiser: Denoiser, condition: Condition, scale: float = 1.0) -> Eps:
    """The field of a condition under classifier-free guidance (Ho & Salimans 2022): ``null + scale (text - null)``.

    At scale 1, and where null and text are the same, the null half is not computed. Otherwise both halves go through the
    network as one batch, in both directions.
    """
    text, null, low, nulls, shape = condition.text, condition.null, condition.low, condition.nulls or {}, condition.shape
    if (scale == 1 and shape is None) or (null is text and not nulls):
        return lambda x, a: denoiser(x, a, text.expand(len(x), -1, -1), low)
    if low is not None:
        low = Low(torch.cat([low.image] * 2), torch.cat([low.noise] * 2), low.level)

    def eps(x: Tensor, a: Level) -> Tensor:
        both = torch.cat([nulls.get(a.t, null).expand(len(x), -1, -1), text.expand(len(x), -1, -1)])
        without, with_text = denoiser(torch.cat([x, x]), a, both, low).chunk(2)
        difference = with_text - without
        return without + scale * (difference if shape is None else shape(difference))

    return eps
