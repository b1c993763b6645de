"""Compare what two commits compute, bit by bit: every method, editor and sampler at two stages of the embedded cascade.

    git worktree add ../before 7d5f126
    PYTHONPATH=../before/src python benchmarks/goldens.py record runs/before
    python benchmarks/goldens.py record runs/after            # both with float64 behind it: networks in float64
    python benchmarks/goldens.py compare runs/before runs/after [TOLERANCE]

``record`` calls what both commits have. In float32 a network rounds a state, so a change in its last bit shows at 1e-7; in
float64 only what the arithmetic itself changes is seen. States, paths, pictures and masks are kept as tensors and reports as
numbers; ``compare`` names every entry that differs, by more than TOLERANCE if one is given.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).parents[1]
PROMPT = "a large red shiny sphere on a wooden floor in front of a beige wall"
TARGETS = {
    "recolour": "a large blue shiny sphere on a wooden floor in front of a beige wall",
    "floor": "a large red shiny sphere on a checkered floor in front of a beige wall",
}
EDITED = ("bdia", "iterinv-anderson", "null-text", "edit-friendly", "proximal")


def record(out: Path, dtype: str = "float32") -> None:
    """Run everything and write ``tensors.safetensors`` and ``numbers.json``."""
    import iterinv
    from iterinv.edits import EDITORS
    from iterinv.images import Frame, read
    from iterinv.methods import METHODS, plan
    from iterinv.steps import RULES

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    cascade = iterinv.load(dtype=getattr(torch, dtype))
    cascade = getattr(cascade, "up_to" if hasattr(cascade, "up_to") else "until")(64)
    frame, _ = Frame.fit(read(ROOT / "examples" / "red-sphere.png")[0], 64)
    for method in METHODS:
        for guidance in (1.0, 3.0):
            key = f"method/{method}/{guidance:g}"
            inversion = cascade.invert(frame.square(), PROMPT, plan(method, 6, guidance), seed=5)
            for k, found in enumerate(inversion.stages):
                tensors |= {f"{key}/{k}/state/{j}": x for j, x in enumerate(found.state)}
                tensors[f"{key}/{k}/path"] = torch.cat([x.double() for x in found.path or ()])
                tensors[f"{key}/{k}/picture"] = torch.as_tensor(found.picture)
                told = found.report
                numbers[f"{key}/{k}"] = [told.forward, told.backward, told.residual_max, told.root_error_max]
            if method not in EDITED or guidance != (3.0 if method == "null-text" else 1.0):
                continue
            for editor in EDITORS:
                for name, target in TARGETS.items():
                    edit = cascade.edit(inversion, target, EDITORS[editor]())
                    key = f"edit/{editor}/{method}/{name}"
                    tensors |= {f"{key}/{k}/picture": x for k, x in enumerate(edit.pictures)}
                    tensors |= {f"{key}/{k}/mask": x for k, x in enumerate(edit.masks or ())}
                    ran: Any = edit.reports[0] if hasattr(edit, "reports") else edit._asdict()
                    numbers[key] = [ran["rule"], round(ran["strength"], 12), ran["guidance"]]
        print(method, flush=True)
    for name, rule in RULES.items():
        tensors |= {f"sample/{name}/{k}": x for k, x in enumerate(cascade.sample(PROMPT, steps=6, seed=3, rule=rule))}
    out.mkdir(parents=True, exist_ok=True)
    save_file({key: x.detach().clone().contiguous() for key, x in tensors.items()}, out / "tensors.safetensors")
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")


def compare(a: Path, b: Path, tolerance: float = 0.0) -> int:
    """Print every entry that differs and return how many do."""
    ours, theirs = load_file(b / "tensors.safetensors"), load_file(a / "tensors.safetensors")
    lines = [f"only in one: {key}" for key in sorted(ours.keys() ^ theirs.keys())]
    for key in sorted(ours.keys() & theirs.keys()):
        if ours[key].shape != theirs[key].shape:
            lines.append(f"{key}: {tuple(theirs[key].shape)} and {tuple(ours[key].shape)}")
        elif not (apart := float((ours[key].double() - theirs[key].double()).abs().max())) <= tolerance:
            lines.append(f"{key}: {apart:.1e} apart")
    before, after = (json.loads((each / "numbers.json").read_text(encoding="utf-8")) for each in (a, b))
    lines += [f"{key}: {before.get(key)} and {after.get(key)}" for key in before if not _same(before[key], after.get(key))]
    print("\n".join(lines) or f"{len(ours)} tensors and {len(after)} reports are the same")
    return len(lines)


def _same(a: Any, b: Any) -> bool:
    return a == b or all(
        x == y or (isinstance(x, float) and isinstance(y, float) and abs(x - y) <= 1e-9) for x, y in zip(a, b, strict=True)
    )


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "record":
        record(Path(rest[0]), *rest[1:])
    else:
        sys.exit(compare(Path(rest[0]), Path(rest[1]), *map(float, rest[2:])) and 1)
