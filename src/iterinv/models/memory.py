"""Cascades that do not fit: networks that take turns on the device, and text encoders that are there only to read new
words."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.locks import Lock
from iterinv.models import Embed, Stage


def cache() -> Path:
    """The folder of encoded prompts: ``$ITERINV_CACHE``, else ``~/.cache/iterinv``."""
    return Path(os.environ.get("ITERINV_CACHE") or Path.home() / ".cache" / "iterinv")


def checked_device(name: str) -> str:
    """The name of a device that is there. Raises ``ValueError``, naming those that are, for another."""
    try:
        if torch.device(name).type == "meta":
            raise ValueError
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ImportError, ValueError):  # of a device whose library is not installed
        gpus = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        here = ["cpu", *gpus, *["mps"] * torch.backends.mps.is_available()]
        raise ValueError(f"there is no device {name!r} here: take {', '.join(here)}") from None
    return name


def budget(said: str, device: str) -> int:
    """The bytes that ``6gb`` or ``auto`` stand for; ``auto`` is the device's free memory. Raises ``ValueError``."""
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


class OneAtATime:
    """A denoiser, codec or text encoder that waits for its turn: threads would move each other's networks away."""

    def __init__(self, what: Any, lock: Lock) -> None:
        self._what, self._lock = what, lock

    def __call__(self, *args: Any) -> Any:
        with self._lock:
            return self._what(*args)

    def encode(self, picture: Tensor) -> Any:
        """The codec's ``encode``, alone."""
        with self._lock:
            return self._what.encode(picture)

    def decode(self, state: Tensor) -> Any:
        """The codec's ``decode``, alone."""
        with self._lock:
            return self._what.decode(state)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._what, name)


class Placement:
    """A device, and how networks share it."""

    def __init__(self, device: str, mode: str | None) -> None:
        self.device, self.mode, self.turns, self.lock = device, mode, DeviceRotation(device), Lock()

    def settle(self, pipe: Any) -> None:
        """Give a pipeline's networks their places."""
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae"):
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

    def shared(self, stage: Stage) -> Stage:
        """A stage that several threads may use, wherever its networks are."""
        if self.mode not in ("staged", "layered"):
            return stage
        alone = partial(OneAtATime, lock=self.lock)
        embed = stage.embed if isinstance(stage.embed, CachedTextEncoder) else alone(stage.embed)
        return replace(stage, denoiser=alone(stage.denoiser), codec=stage.codec and alone(stage.codec), embed=embed)


class CachedTextEncoder:
    """Words read by an encoder that is loaded when new ones come, and kept on disk.

    ``load`` gives the encoder, ``read`` an :data:`iterinv.models.text.Embed` of it and ``digest`` its hash;
    ``signature`` gives a name for the files of encoder and tokenizer, so that both are read once. An entry that
    is damaged is made again, and one that cannot be kept is not. Raises ``ValueError`` where the files changed since.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        read: Callable[[Any], Embed],
        digest: Callable[[Any], str],
        signature: Callable[[], str],
        place: Placement,
    ) -> None:
        self.load, self.read, self.device, self._lock = load, read, place.device, place.lock
        self._digest, self._sign, self.signature = digest, signature, signature()
        self._encoder: Any = None
        self._embed: Embed | None = None

    def __call__(self, prompts: Sequence[str | None]) -> Condition:
        with self._lock:
            conditions = [self._read(prompt or "") for prompt in prompts]
        return Condition(Condition.stack(conditions, 1), [note for each in conditions for note in each.notes])

    def _read(self, prompt: str) -> Condition:
        def encode() -> tuple[dict[str, Tensor], Sequence[str]]:
            self._embed = self._embed or self.read(self._loaded())
            encoded = self._embed([prompt])
            return dict(encoded), encoded.notes

        tensors, notes = self._entry(f"words {prompt}", encode)
        return Condition({name: x.to(self.device) for name, x in tensors.items()}, notes)

    def digest(self) -> str:
        """The hash of the encoder's weights."""

        def compute() -> tuple[dict[str, Tensor], Sequence[str]]:
            return {"digest": torch.tensor(list(bytes.fromhex(self._digest(self._loaded()))), dtype=torch.uint8)}, ()

        with self._lock:
            tensors, _ = self._entry("weights", compute)
        return bytes(tensors["digest"].tolist()).hex()

    def free(self, network: Any = None) -> None:
        """Let the encoder go, before another network comes."""
        if network is None or network is not self._encoder:
            self._encoder = self._embed = None

    def _loaded(self) -> Any:
        if self._encoder is None:
            if self._sign() != self.signature:
                raise ValueError("the text encoder's files changed since the cascade was loaded: load it again")
            self._encoder = self.load()
        return self._encoder

    def _entry(
        self, what: str, compute: Callable[[], tuple[dict[str, Tensor], Sequence[str]]]
    ) -> tuple[dict[str, Tensor], Sequence[str]]:
        """An entry of the cache, computed and written where there is none that is whole."""
        file = cache() / f"{hashlib.sha256(f'{self.signature} {what}'.encode()).hexdigest()[:32]}.safetensors"
        with suppress(OSError, SafetensorError, ValueError, KeyError, TypeError):
            with safe_open(file, framework="pt") as opened:
                header = json.loads(opened.metadata()["iterinv"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a dict)
            if tensors and header["sha256"] == _checksum(tensors):
                return tensors, header["notes"]
        tensors, notes = compute()
        tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        text = json.dumps({"sha256": _checksum(tensors), "notes": list(notes)})
        partial_file = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial_file, {"iterinv": text})
            partial_file.replace(file)
        except (OSError, SafetensorError):  # no room, or no right to write there: it is computed again the next time
            with suppress(OSError):
                partial_file.unlink()
        return tensors, notes


def signature(what: Iterable[Path], *settings: object) -> str:
    """A name for files and all files in folders, which changes when they do.

    It is made of their names, sizes, times and places on the disk: writing to a file, or another file in its place,
    cannot leave all of these as they were.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for each in what:
        for file in sorted(file for file in (each.rglob("*") if each.is_dir() else [each]) if file.is_file()):
            status = file.stat()
            stamp = f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"
            digest.update(stamp.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
