"""The work of one visitor: an inversion, its edits, and their files. No two visitors share any of it."""

from __future__ import annotations

import functools
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iterinv.cascade import Cascade
from iterinv.workbench import EditRequest, InvertRequest, Model, ReopenRequest, Result

SESSIONS = 32
"""The most visitors whose inversions are in memory; the one who was here longest ago loses it first."""

FITTED = {"picture": "original", "reconstruction": "reconstruction"}
"""The pictures at the model's size, and the names of their files."""

EDITS = 48
"""The most edits of an inversion that the history holds; the oldest goes first."""


@dataclass(frozen=True)
class SharedModel(Model):
    """A model that is loaded once for all visitors."""

    def load(self) -> Cascade:
        """The cascade. Raises as :func:`iterinv.load` does."""
        return _shared(self)


@functools.cache
def _shared(model: SharedModel) -> Cascade:
    return Model.load(model)


@dataclass(frozen=True, eq=False)
class Entry:
    """An edit in the history: its request, the folder of its files, the picture (h, w, 3) and the region (h, w) at the
    model's size, uint8, and its report."""

    number: int
    request: EditRequest
    folder: Path
    picture: np.ndarray
    region: np.ndarray
    report: dict[str, Any]
    command: str
    python: str


@dataclass(eq=False)
class Place:
    """The server's side of all sessions: its folder, whose ``sessions`` hold their files, and the models that a visitor
    may choose."""

    folder: Path
    models: dict[str, Model]
    recent: list[Session] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note_use(self, session: Session) -> None:
        """Put a session last in the order of use, and close those beyond :data:`SESSIONS`."""
        with self.lock:
            self.recent = [*(each for each in self.recent if each is not session), session]
            old, self.recent = self.recent[:-SESSIONS], self.recent[-SESSIONS:]
        for each in old:
            each.close()

    def close(self) -> None:
        """Stop all work, and forget all sessions."""
        for each in self.recent:
            each.close()
        self.recent = []


class Session:
    """One visitor's inversion and edits. A copy, which Gradio makes for each visitor, begins empty.

    ``source`` and ``result`` are of the inversion, ``files`` is the folder of its files, ``edits`` its edits, of which
    ``shown`` is the place of the one on the page, and ``count`` their number with those that were undone.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.source: InvertRequest | ReopenRequest | None = None
        self.result: Result | None = None
        self.files: Path | None = None
        self.edits: list[Entry] = []
        self.shown, self.count = -1, 0
        self.stop = threading.Event()
        self._folder: Path | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        return Session(self.place)

    @property
    def folder(self) -> Path:
        """The folder of this session's files, which is made when it is first asked for."""
        if self._folder is None or not self._folder.is_dir():
            (self.place.folder / "sessions").mkdir(exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(dir=self.place.folder / "sessions"))
        return self._folder

    def pictures(self) -> dict[str, Path]:
        """The files of the pictures of this session, by what they are."""
        if self.files is None or self.source is None:
            return {}
        own = {"the picture": self.source.picture} if isinstance(self.source, InvertRequest) else {}
        fitted = {f"the {name} at the model's size": self.files / f"{file}.png" for name, file in FITTED.items()}
        edits = {f"edit {each.number}": each.folder / "edited.png" for each in self.edits}
        return {**{name: Path(str(file)) for name, file in own.items()}, **fitted, **edits}

    def regions(self) -> dict[str, Path]:
        """The files of the regions of this session's edits, by what they are."""
        return {f"region of edit {each.number}": each.folder / "mask.png" for each in self.edits}

    def new_folder(self, name: str, instead: bool = False) -> Path:
        """An empty folder for the files of one piece of work, ``instead`` of the folders of that name so far."""
        for old in self.folder.glob(f"{name}-*") if instead else ():
            shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def begin(self) -> threading.Event:
        """Begin a piece of work: the event that stops it."""
        self.place.note_use(self)
        self.stop = threading.Event()
        return self.stop

    def take(self, source: InvertRequest | ReopenRequest, result: Result, folder: Path) -> None:
        """Hold a new inversion, whose files are in ``folder``, in place of the old one, whose edits and files go."""
        self.source, self.result, self.files = source, result, folder
        self.edits, self.shown, self.count = [], -1, 0
        for old in self.folder.iterdir():
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)

    def add(self, entry: Entry) -> None:
        """Add an edit to the history, and show it."""
        self.edits.append(entry)
        for old in self.edits[:-EDITS]:
            shutil.rmtree(old.folder, ignore_errors=True)
        self.edits = self.edits[-EDITS:]
        self.shown = len(self.edits) - 1

    def undo(self) -> None:
        """Remove the latest edit, and show the one before."""
        if self.edits:
            shutil.rmtree(self.edits.pop().folder, ignore_errors=True)
        self.shown = len(self.edits) - 1

    def close(self) -> None:
        """Stop the work, and remove the inversion, the edits and their files."""
        self.stop.set()
        self.source, self.result, self.files, self.edits, self.shown = None, None, None, [], -1
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
