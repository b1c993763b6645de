"""A metric of your own: the difference of colour, whatever the brightness. Listing it makes it known by name.

python examples/extending/metric.py
"""

from pathlib import Path

import numpy as np

from iterinv import images
from iterinv.metrics import METRICS, Metric
from iterinv.metrics.pixels import check_pair


def chroma(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Root mean square difference of what is left of two pictures (h, w, 3) uint8 without their grey, in 8-bit steps.

    Within ``mask`` (h, w) bool; ``None`` where it is empty. Raises ``ValueError`` for pictures of two sizes.
    """
    check_pair(reference, picture, mask)
    one, other = (each.astype(np.float64) - each.mean(-1, keepdims=True) for each in (reference, picture))
    squares = np.square(one - other).mean(-1)
    values = squares if mask is None else squares[mask]
    return float(np.sqrt(values.mean())) if values.size else None


METRICS["chroma"] = Metric("difference of colour alone", "lower", (0, 255), "8-bit steps", function=chroma)

if __name__ == "__main__":
    red, _ = images.read(Path(__file__).parents[1] / "red-sphere.png")
    darker = (red * 0.9).round().astype(np.uint8)
    for words, picture in (("darker", darker), ("in other colours", red[..., ::-1])):
        print(f"{words}: {METRICS['chroma'](red, picture):.1f} 8-bit steps of colour")
