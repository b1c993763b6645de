"""The arithmetic of a network evaluation: its last digits depend on more than the weights."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from iterinv.typed import Natural


@dataclass(frozen=True)
class Arithmetic:
    """The facts that decide in which order floating-point sums are added, and so their last digits.

    ``device`` is the processor's kind, ``kernels`` torch's settings for it and what else computes, ``batch`` the number
    of pictures that went through the networks together.
    """

    device: str
    kernels: str
    torch: str
    threads: Natural
    batch: Natural

    @classmethod
    def here(cls, device: str, batch: int, also: str = "") -> Arithmetic:
        """The facts of this process for a batch on a device; ``also`` are kernels of another library than torch."""
        kernels = [f"matmul {torch.get_float32_matmul_precision()}"]
        if device.startswith("cuda"):
            name = torch.cuda.get_device_name(device)
            kernels += [f"cuDNN {torch.backends.cudnn.version()}", f"TF32 {torch.backends.cudnn.allow_tf32}"]
        else:
            name = f"{device} {torch.backends.cpu.get_cpu_capability()}"
            kernels += [f"oneDNN {torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled}"]
        if torch.are_deterministic_algorithms_enabled():
            kernels.append("deterministic")
        kernels += [also] if also else []
        return cls(name, ", ".join(kernels), torch.__version__, torch.get_num_threads(), batch)

    def differences(self, here: Arithmetic) -> str:
        """Name the facts in which two differ, as ``threads 1, here 2``; empty if they do not differ."""
        pairs = ((f.name, getattr(self, f.name), getattr(here, f.name)) for f in fields(self))
        return "; ".join(f"{name} {was}, here {now}" for name, was, now in pairs if was != now)
