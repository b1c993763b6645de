"""``iterinv serve`` serves the web page."""

from __future__ import annotations

from typing import Annotated

import typer

from iterinv.cli.options import Device, Memory, Precision
from iterinv.cli.session import answer, errors, note, say

INSTALL = "pip install 'iterinv[web]'"


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; beyond this machine it takes a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    token: Annotated[
        str | None, typer.Option(envvar="ITERINV_TOKEN", help="A secret word that visitors give as the password.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model that visitors may choose; again for another.")
    ] = None,
    device: Device = "cpu",
    dtype: Precision = None,
    memory: Memory = None,
) -> None:
    """Serve the page to invert, edit, compare, sweep and measure."""
    with errors():
        import importlib.util
        import threading

        if importlib.util.find_spec("gradio") is None:
            raise ModuleNotFoundError(f"the web page needs gradio, which is not installed: type {INSTALL}")
        from iterinv.web.server import is_loopback, running
        from iterinv.web.session import SharedModel

        models = [SharedModel(name, device, dtype, memory) for name in model or ["embedded"]]
        with running(models, host, port, token) as address:
            say(f"iterinv is at {address}; Ctrl-C stops it")
            answer({"address": address})
            if not is_loopback(host):
                note("the token and the pictures travel unencrypted; put a proxy with TLS before it")
            threading.Event().wait()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)
