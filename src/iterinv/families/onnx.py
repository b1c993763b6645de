"""Networks of EDM's kind in ONNX files, which onnxruntime evaluates on the CPU.

Such a file follows EDM's contract: its first input is a noisy sample (batch, channels, h, w), its second the noise
level (batch,), and its output the clean data. Further inputs (batch, ...) are numbers that it is conditioned on.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.families.edm import EDMDenoiser
from iterinv.families.family import Family
from iterinv.models import Embed, Stage
from iterinv.models.codec import Grey
from iterinv.schedules import Karras

NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
"""The kinds of numbers that an input may take."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Input:
    """An input of a network: its name, its kind of numbers, and the shape of one row."""

    name: str
    kind: Any
    row: tuple[int, ...]

    @property
    def width(self) -> int:
        """The number of values in one row."""
        return math.prod(self.row)

    def array(self, values: Tensor) -> np.ndarray:
        """Shape values to one row (1, ...) of the input's kind."""
        return values.reshape(1, *self.row).numpy().astype(self.kind)


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network in a file's bytes, called with a sample, its noise levels (batch,) and conditions (batch, values),
    which are 0 unless given.

    It is run on one picture after another, so that a picture has the same prediction in every batch, by as many threads
    as torch has then.
    """

    data: bytes = field(repr=False)
    name: str
    sessions: dict[int, Any] = field(default_factory=dict, repr=False)

    @property
    def session(self) -> Any:
        """onnxruntime's session for torch's number of threads now; that for another number is dropped.

        Raises ``ModuleNotFoundError`` without onnxruntime, and ``ValueError`` for bytes that it cannot read.
        """
        threads = torch.get_num_threads()
        if threads not in self.sessions:
            runtime = runtime_for(self.name)
            options = runtime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = threads, 4
            try:
                made = runtime.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # of onnxruntime's own kinds, which have no common base
                reason = str(error).strip().split("\n")[0]
                raise ValueError(f"{self.name} is damaged, or no ONNX network in one file ({reason})") from None
            self.sessions.clear()
            self.sessions[threads] = made
        return self.sessions[threads]

    @property
    def inputs(self) -> list[Input]:
        """The inputs in their order. Raises ``ValueError`` for one that is no array of numbers with a row a picture."""
        inputs = []
        for each in self.session.get_inputs():
            row = each.shape[1:]
            if each.type not in NUMBERS or not each.shape or not all(isinstance(n, int) and n > 0 for n in row):
                shape = " x ".join(map(str, each.shape)) or "one value"
                raise ValueError(
                    f"{self.name} takes {each.name!r} ({shape}, {each.type}), which is no array of numbers with a row "
                    "for each picture and a fixed size: export it so"
                )
            if isinstance(each.shape[0], int) and each.shape[0] != 1:
                raise ValueError(
                    f"{self.name} takes {each.shape[0]} pictures at once: export it for one, or for any number"
                )
            inputs.append(Input(each.name, NUMBERS[each.type], tuple(row)))
        return inputs

    def __call__(self, x: Tensor, sigma: Tensor, values: Tensor | None = None) -> Tensor:
        session, (sample, level, *conditions) = self.session, self.inputs
        widths, rows = [each.width for each in conditions], []
        values = torch.zeros(len(x), sum(widths), device="cpu") if values is None else values
        for k in range(len(x)):
            parts = values[k].split(widths)
            given = {sample.name: sample.array(x[k]), level.name: level.array(sigma[k])}
            given |= {each.name: each.array(part) for each, part in zip(conditions, parts, strict=True)}
            rows.append(torch.from_numpy(session.run(None, given)[0]))
        return torch.cat(rows)


@dataclass(frozen=True)
class OnnxDenoiser(EDMDenoiser):
    """An :class:`OnnxNetwork` as a denoiser: the ``text`` of a condition holds the numbers it is conditioned on."""

    denoised: OnnxNetwork
    differentiable: ClassVar[bool] = False

    @property
    def kernels(self) -> str:
        """The name and the version of the package that evaluates the network."""
        return f"onnxruntime {runtime_for(self.denoised.name).__version__}"

    def clean(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return self.denoised(x, sigma, condition.expand(len(x))["text"][:, 0])


def runtime_for(name: str) -> Any:
    """The package onnxruntime. Raises ``ModuleNotFoundError``, naming the file that needs it, where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise ModuleNotFoundError(
            f"{name} is an ONNX network, which onnxruntime evaluates: pip install onnxruntime"
        ) from None
    return onnxruntime


def reader(conditions: Sequence[Input]) -> Embed:
    """Read prompts as the numbers that a network is conditioned on: ``name=0.5``, with commas between several numbers
    of one input, each 0 where the prompt does not give it.

    Other words have no effect, and a note says so. Raises ``ValueError`` for another count of numbers.
    """
    names = "|".join(re.escape(each.name) for each in conditions) or "(?!)"
    said = re.compile(rf"(?<![\w.])({names})\s*=\s*({_NUMBER}(?:\s*,\s*{_NUMBER})*)(?![\w.])")
    width = sum(each.width for each in conditions)
    known = ", ".join(f"{each.name}=NUMBER{',…' * (each.width > 1)}" for each in conditions)

    def numbers(prompt: str) -> list[float]:
        given = {name: [float(number) for number in values.split(",")] for name, values in said.findall(prompt)}
        for each in conditions:
            if len(given.setdefault(each.name, [0.0] * each.width)) != each.width:
                raise ValueError(
                    f"{each.name} is {each.width} number(s), and the prompt gives {len(given[each.name])}: {prompt!r}"
                )
        return [number for each in conditions for number in given[each.name]]

    def embed(prompts: Sequence[str | None]) -> Condition:
        rows = torch.tensor([numbers(prompt or "") for prompt in prompts], dtype=torch.float32, device="cpu")
        reads = (
            f"it takes {known}, each 0 where the prompt does not give it" if known else "its pictures are of one kind"
        )
        words = any(said.sub("", prompt or "").strip(" ,;") for prompt in prompts)
        notes = [f"this network reads no words: {reads}"] if words else []
        return Condition({"text": rows.reshape(len(prompts), 1, width)}, notes)

    return embed


def from_file(file: Path, name: str = "EDM", device: str = "cpu") -> Stage:
    """A stage from an ONNX file of EDM's contract, over EDM's noise levels, 80 to 0.002.

    A network of one channel sees the grey of a picture. Raises ``ModuleNotFoundError`` without onnxruntime, and
    ``ValueError`` for another device than the CPU and for a network that is not of this kind: one that has other
    inputs, or that changes a sample without noise, which is its own clean data.
    """
    if torch.device(device).type != "cpu":
        raise ValueError(f"{file} is an ONNX network, which runs on the CPU here: leave the device {device!r} out")
    network = OnnxNetwork(file.read_bytes(), str(file))
    sample, _, *conditions = _contract(network)
    channels, size, _ = sample.row
    kind, levels = getattr(torch, np.dtype(sample.kind).name), Karras()
    x = torch.linspace(-1, 1, math.prod(sample.row), dtype=kind).reshape(1, *sample.row)
    sigma = torch.full((1,), levels.sigma_min, dtype=kind)
    try:
        clean = network(x, sigma)
    except Exception as error:  # onnxruntime has many classes of errors for shapes that do not fit
        raise ValueError(f"{file} cannot be run ({str(error).strip().splitlines()[0]})") from None
    if clean.shape != x.shape or not float((clean - x).double().square().mean().sqrt()) < 0.1:
        raise ValueError(
            f"{file} is no network of EDM's contract, whose output at a noise of {levels.sigma_min:g} is the sample "
            "itself but for that noise: export one that predicts noise or velocity, or takes timesteps, together with "
            "the step from its prediction to clean data"
        )
    return Stage(
        name,
        size,
        OnnxDenoiser(network, kind),
        levels,
        reader(conditions),
        hashlib.sha256(network.data).hexdigest()[:16],
        device=device,
        codec=Grey() if channels == 1 else None,
        move=lambda where, below: from_file(file, name, where),
    )


def _contract(network: OnnxNetwork) -> list[Input]:
    """The inputs of a network. Raises ``ValueError`` where they are not EDM's."""
    inputs = network.inputs
    sample, level = inputs[:2] if len(inputs) > 1 else (Input("", None, ()), Input("", None, ()))
    square = len(sample.row) == 3 and sample.row[0] in (1, 3) and sample.row[1] == sample.row[2]
    floats = all(each.kind in (np.float16, np.float32, np.float64) for each in (sample, level))
    if not square or level.width != 1 or not floats:
        taken = ", ".join(f"{each.name} ({' x '.join(map(str, ('batch', *each.row)))})" for each in inputs) or "nothing"
        raise ValueError(
            f"{network.name} is no network of EDM's contract: it takes {taken}, and the contract is a sample (batch x "
            "1 or 3 x size x size), a noise level (batch) and numbers that it is conditioned on"
        )
    return inputs


def opened(what: Any, name: str, device: str, allow_pickle: bool = False) -> Stage | None:
    """Open a file that is named as ONNX by :func:`from_file`; ``None`` for anything else."""
    if isinstance(what, (str, Path)) and Path(what).suffix.lower() == ".onnx" and Path(what).is_file():
        return from_file(Path(what), name, device)
    return None


ONNX = Family(opened=opened)
