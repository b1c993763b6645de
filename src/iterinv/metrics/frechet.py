"""Fréchet distance between two sets of features, as in FID (Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, 2017):
https://arxiv.org/abs/1706.08500, eq. 6."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet(a: Tensor, b: Tensor) -> float:
    """``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` of two sets of features (n, d), each n of two or more.

    Raises ``ValueError`` for features of other shapes, of different d, or that are not finite.

    The trace of the root is the sum of the square roots of the eigenvalues of ``C_a^(1/2) C_b C_a^(1/2)``, in float64.
    """
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(x) for x in (a, b))
    if len(mean_a) != len(mean_b):
        raise ValueError(f"features of {len(mean_a)} and of {len(mean_b)} values have no distance: take one network's")
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ (values.clamp_min(0).sqrt()[:, None] * vectors.mT)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise ValueError(f"features are {tuple(x.shape)}; a Fréchet distance takes (n, d) with n of 2 or more")
    if not bool(x.isfinite().all()):
        raise ValueError("features that are not finite have no Fréchet distance: look at the pictures they are of")
    return x.double().mean(0), torch.cov(x.double().mT).reshape(x.shape[1], x.shape[1])
