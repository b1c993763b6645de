"""The server of the page: who may reach it, its limits, and its folder of temporary files."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from iterinv.web.page import page
from iterinv.web.session import Place, SharedModel
from iterinv.web.theme import CSS, JS, theme

BYTES = 64 << 20
"""The most bytes of an uploaded file."""

PIXELS = 40_000_000
"""The most pixels of a picture."""

WAITING = 32
"""The most visitors' work that waits; that of others is refused."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server on a host. Raises ``ValueError`` for a name that is none."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ValueError(f"--host is {host!r}; it is localhost or an address, as 127.0.0.1 or 0.0.0.0") from None


def check(host: str, port: int, token: str | None) -> None:
    """Raise ``ValueError`` for a host beyond this machine without a token, and ``OSError`` for a port that is taken."""
    if not is_loopback(host) and not token:
        raise ValueError(f"--host {host} lets other machines reach this server: give a secret word with --token")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            remedy = "choose another --port" if taken else "choose another --host or --port"
            reason = "is in use" if taken else f"cannot be opened ({error.strerror})"
            raise OSError(f"port {port} of {host} {reason}: {remedy}") from None


@contextmanager
def running(models: Sequence[SharedModel], host: str, port: int, token: str | None) -> Iterator[str]:
    """Serve the page while the block runs; yield its address. The first model is the one that is chosen at first.

    Files lie in a folder of this process, which is removed in the end. Raises as :func:`check` does.
    """
    check(host, port, token)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    Image.MAX_IMAGE_PIXELS = PIXELS
    with tempfile.TemporaryDirectory(prefix="iterinv-serve-", ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(name) / "shared")  # whose files Gradio serves
        (Path(name) / "shared").mkdir()
        place = Place(Path(name), {Path(str(model.name)).name: model for model in models})
        blocks = page(place, examples(Path(name) / "shared"))
        blocks.queue(max_size=WAITING, default_concurrency_limit=4)
        _, address, _ = blocks.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            auth=None if not token else lambda _, word: hmac.compare_digest(word.encode(), token.encode()),
            auth_message="Any name, and the token of this server as the password.",
            app_kwargs={"middleware": _middleware(host)},
            max_file_size=BYTES,
            theme=theme(),
            css=CSS,
            js=JS,
            footer_links=[],
            run_history=False,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            show_error=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        try:
            yield address
        finally:
            place.close()
            blocks.close(verbose=False)


def _middleware(host: str) -> list[Any]:
    """Answer only to this machine's own names where only it is served, so that no other site's page can ask."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    names = ["localhost", "127.0.0.1", "[::1]", host]
    return [Middleware(TrustedHostMiddleware, allowed_hosts=names)] if is_loopback(host) else []


PICTURES = Path(__file__).parent / "examples"
KINDS_OF_EXAMPLES = {"red-sphere": "Recolour", "yellow-cube": "Background", "cone-and-cylinder": "Remove"}


def examples(folder: Path) -> list[list[str]]:
    """Copy the pictures of the example scenes to a folder: the file of each, a prompt and a kind of edit."""
    from iterinv.embedded.scenes import EXAMPLES, caption

    rows = []
    for name, kind in KINDS_OF_EXAMPLES.items():
        file = shutil.copyfile(PICTURES / f"{name}.png", folder / f"{name}.png")  # to render them takes seconds
        rows.append([str(file), caption(EXAMPLES[name]), kind])
    return rows
