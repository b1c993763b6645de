"""Cascades that do not fit: networks that take turns on the device, and text encoders that are there only to read new
words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.models import Embed


def cache() -> Path:
    """The folder of encoded prompts: ``$ITERINV_CACHE``, else ``~/.cache/iterinv``."""
    return Path(os.environ.get("ITERINV_CACHE") or Path.home() / ".cache" / "iterinv")


def budget(said: str, device: str) -> int:
    """The bytes that ``6gb`` or ``auto`` stand for; ``auto`` is what is free of the device. Raises ``ValueError``."""
    if said == "auto":
        if device.startswith("cuda"):
            return int(torch.cuda.mem_get_info(device)[0])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    number = said.lower().removesuffix("gb").strip()
    try:
        size = float(number)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e6:
        raise ValueError(f"memory is {said!r}: say auto, or how much there is, as 6gb")
    return int(size * 1e9)


class DeviceRotation:
    """Lets one of its networks be on the device at a time; the others wait in main memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.now: Any = None
        self.before: list[Callable[[Any], None]] = []

    def join(self, network: Any) -> None:
        """Let a network take part: it comes to the device when it is called, and the one that was there leaves."""
        network.to("cpu")
        add_hook_to_module(network, _Turn(self))

    def take(self, network: Any) -> None:
        """Bring a network to the device, and send the one that was there away."""
        if self.now is network:
            return
        for call in self.before:
            call(network)
        if self.now is not None:
            self.now.to("cpu")
        self.now = network
        network.to(self.device)


class _Turn(ModelHook):
    def __init__(self, turns: DeviceRotation) -> None:
        self.turns = turns

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.turns.take(module)
        return args, kwargs


class Placement:
    """A device, and how networks share it."""

    def __init__(self, device: str, mode: str | None) -> None:
        self.device, self.mode, self.turns = device, mode, DeviceRotation(device)

    def settle(self, pipe: Any) -> None:
        """Give a pipeline's networks their places."""
        for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
            if (network := getattr(pipe, name, None)) is not None:
                self.put(network)

    def put(self, network: Any) -> None:
        """Give a network its place."""
        if self.mode == "staged":
            self.turns.join(network)
        elif self.mode == "layered":
            cpu_offload(network, self.device)
        else:
            network.to(self.device)


class CachedTextEncoder:
    """Words read by an encoder that is loaded when new ones come, and kept on disk.

    ``load`` gives the encoder, ``read`` an :data:`iterinv.models.text.Embed` of it and ``digest`` its hash;
    ``signature`` names the encoder's files, so that neither is asked for twice.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        read: Callable[[Any], Embed],
        digest: Callable[[Any], str],
        signature: str,
        device: str,
    ) -> None:
        self.load, self.read, self.signature, self.device = load, read, signature, device
        self._digest = digest
        self._encoder: Any = None
        self._embed: Embed | None = None

    def __call__(self, prompts: list[str]) -> Condition:
        found = []
        for prompt in prompts:
            file = self._file(f"words {prompt}")
            if not file.exists():
                self._embed = self._embed or self.read(self._loaded())
                encoded = self._embed([prompt])
                _write(file, {name: x.cpu() for name, x in encoded.items()}, encoded.notes)
            with safe_open(file, framework="pt", device=self.device) as kept:
                notes = json.loads((kept.metadata() or {}).get("notes", "[]"))
                found.append(Condition({name: kept.get_tensor(name) for name in kept.keys()}, notes))  # noqa: SIM118
        return Condition(Condition.stack(found, 1), [note for each in found for note in each.notes])

    def digest(self) -> str:
        """The hash of the encoder's weights."""
        file = self._file("weights")
        if not file.exists():
            digest = torch.frombuffer(bytearray.fromhex(self._digest(self._loaded())), dtype=torch.uint8)
            _write(file, {"digest": digest})
        return bytes(load_file(file)["digest"].tolist()).hex()

    def free(self, network: Any = None) -> None:
        """Let the encoder go, before another network comes."""
        if network is None or network is not self._encoder:
            self._encoder = self._embed = None

    def _loaded(self) -> Any:
        if self._encoder is None:
            self._encoder = self.load()
        return self._encoder

    def _file(self, what: str) -> Path:
        return cache() / f"{hashlib.sha256(f'{self.signature} {what}'.encode()).hexdigest()[:32]}.safetensors"


def signature(folder: Path, *settings: object) -> str:
    """A name for the files in a folder, which changes when they do, from their names, sizes, times and beginnings."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        told = file.stat()
        digest.update(f"{file.name} {told.st_size} {told.st_mtime_ns}".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(1 << 20))
    return digest.hexdigest()


def _write(file: Path, tensors: dict[str, Tensor], notes: Sequence[str] = ()) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    save_file({name: x.contiguous() for name, x in tensors.items()}, partial, {"notes": json.dumps(list(notes))})
    partial.replace(file)
