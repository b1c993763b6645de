"""CLIP score (Hessel, Holtzman, Forbes, Le Bras, Choi, 2021) and directional similarity (Gal, Patashnik, Maron,
Chechik, Cohen-Or, 2021): whether a picture, or the change of a picture, fits words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.metrics.pixels import check_pair, region_of
from iterinv.metrics.weights import hub_command, hub_folder

MODEL = "openai/clip-vit-large-patch14"


class Clip(NamedTuple):
    """A CLIP model of transformers, its preparation of pictures and its tokenizer."""

    model: Any
    images: Any
    tokenizer: Any

    @torch.no_grad()
    def look(self, *pictures: np.ndarray) -> Tensor:
        """Unit features (n, d) of pictures (h, w, 3) uint8. They go in as 0 to 255 and are scaled by
        the model's own preparation, which crops them to their middle square."""
        from PIL import Image

        ready = self.images(images=[Image.fromarray(each) for each in pictures], return_tensors="pt")
        return _unit(self.model.get_image_features(pixel_values=ready["pixel_values"]))

    @torch.no_grad()
    def read(self, *prompts: str) -> Tensor:
        """Unit features (n, d) of prompts, as long as the model reads them."""
        ready = self.tokenizer(list(prompts), return_tensors="pt", padding=True, truncation=True)
        return _unit(self.model.get_text_features(**ready))


def _unit(result: Any) -> Tensor:
    return F.normalize(result if isinstance(result, Tensor) else result.pooler_output, dim=-1)


def clip_score(
    reference: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray | None = None,
    prompts: tuple[str, str] = ("", ""),
    weights: Path | None = None,
) -> float | None:
    """100 times the cosine between a picture (h, w, 3) uint8 and the second prompt, its own; more is better.

    It is not cut off at 0. Outside a mask (h, w) bool the picture is black, as in published tables; ``None`` where the
    mask is empty. The reference is not looked at. ``weights`` is a folder that holds the model's. Raises
    ``ModuleNotFoundError`` without the weights.
    """
    check_pair(reference, picture, mask)
    if mask is not None and not mask.any():
        return None
    clip = load(weights)
    shown = picture if mask is None else picture * mask[..., None].astype(np.uint8)
    return float(100 * (clip.look(shown) @ clip.read(prompts[1]).mT))


def clip_direction(
    reference: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray | None = None,
    prompts: tuple[str, str] = ("", ""),
    weights: Path | None = None,
) -> float | None:
    """Cosine between the change from a reference to a picture, both (h, w, 3) uint8, and the change from its prompt to
    the picture's; 1 is the change that the words ask for.

    In a mask (h, w) bool only the change inside it counts. ``None`` where nothing changes, in the pictures or the
    prompts. Raises as :func:`clip_score` does.
    """
    check_pair(reference, picture, mask)
    clip = load(weights)
    before, after = clip.look(reference, region_of(reference, picture, mask))
    source, target = clip.read(*prompts)
    if torch.equal(before, after) or torch.equal(source, target):
        return None
    return float(F.cosine_similarity(after - before, target - source, dim=0))


def missing(weights: Path | None = None) -> str | None:
    """Say in words what CLIP lacks here and what to do; ``None`` where it can run."""
    return None if hub_folder(MODEL, weights) else f"needs {MODEL}: {hub_command(MODEL)}"


def load(weights: Path | None = None) -> Clip:
    """CLIP, from a folder of weights or the hub's cache. Raises ``ModuleNotFoundError`` where it is in neither."""
    folder = hub_folder(MODEL, weights)
    if folder is None:
        raise ModuleNotFoundError(f"CLIP {missing(weights)}")
    return _load(folder)


@cache
def _load(folder: Path) -> Clip:
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model, images, tokenizer = (
        kind.from_pretrained(folder, local_files_only=True)
        for kind in (CLIPModel, CLIPImageProcessorPil, CLIPTokenizer)
    )
    return Clip(model.eval(), images, tokenizer)
