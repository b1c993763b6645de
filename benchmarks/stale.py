"""List the pages under docs/benchmarks: the age and the time of each, and whether it was made on the weights that ship.

`python benchmarks/stale.py` prints a table; with `--mark` it also writes a warning into pages whose networks ship with
other weights now, which the next run of their benchmark removes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from common import OUT, PARTS, ROOT, weights

MARK = "> **Of earlier weights.** The networks that ship have been trained on since these figures were measured."


class Page(NamedTuple):
    """A page's name, the commit and the seconds of its benchmark, and the weights by part that it was made on."""

    name: str
    commit: str
    seconds: int
    networks: dict[str, str]

    @property
    def outdated(self) -> list[str]:
        """The networks that ship with other weights than those of this page."""
        return [part for part, made in self.networks.items() if made != weights(part)]


def page(file: Path) -> Page:
    """Read the last line of a page. Raises ``ValueError`` where it does not say how the page was made."""
    foot = file.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
    made = re.match(r"Made by `python benchmarks/([\w-]+)\.py` at ([0-9a-f]+)\S* in (\d+) s", foot)
    if made is None:
        raise ValueError(f"{file} does not say in its last line how it was made")
    networks = dict(re.findall(rf"; ({'|'.join(PARTS)}) ([0-9a-f]{{8}})\b", foot))
    return Page(made[1], made[2], int(made[3]), networks)


def pages() -> dict[Path, Page]:
    """The pages that a benchmark wrote, by file."""
    return {file: page(file) for file in sorted(OUT.glob("*.md"))}


def commits_since(commit: str) -> str:
    """The number of commits to the package since a commit, or a word where it is not in the history."""
    words = ["git", "rev-list", "--count", f"{commit}..HEAD", "--", "src/iterinv"]
    count = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return count.stdout.strip() or "unknown"


def mark(file: Path) -> None:
    """Write the warning under a page's title."""
    title, rest = file.read_text(encoding="utf-8").split("\n\n", 1)
    if not rest.startswith(MARK):
        file.write_text(f"{title}\n\n{MARK}\n\n{rest}", encoding="utf-8")


def main(words: list[str]) -> None:
    print(f"{'page':22} {'run, s':>7} {'commits since':>14}  weights")
    for file, each in pages().items():
        state = f"other {', '.join(each.outdated)}" if each.outdated else "as shipped" if each.networks else "none"
        print(f"{each.name:22} {each.seconds:7} {commits_since(each.commit):>14}  {state}")
        if each.outdated and "--mark" in words:
            mark(file)


if __name__ == "__main__":
    main(sys.argv[1:])
