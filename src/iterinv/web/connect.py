"""The connections between the page's parts and its actions."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from inspect import Parameter, Signature
from typing import Any

from iterinv.web import actions, views
from iterinv.web.kinds import KINDS
from iterinv.web.requests import BOX, BRUSH, UPLOAD
from iterinv.web.session import Session
from iterinv.web.views import Change, Values
from iterinv.web.words import problem

# fmt: off
OUTPUTS = (
    "status", "stage", "slider", "path", "noise_picture", "noise", "report", "inversion_file",
    "reconstruction_file", "report_file", "gallery", "after", "region", "difference", "edit_report", "command",
    "python", "edited_file", "mask_file", "painted_file", "edit_report_file", "compare_table", "compare_plot",
    "sheet", "sheet_file", "sweep_file", "commands", "reference", "compared", "within", "reference_file",
    "compared_file", "within_file", "measured", "flip", "measured_command", "measured_json", "measured_csv",
)
# fmt: on
"""The parts that actions give values to."""

PICTURES = ("reference", "compared", "within")
"""The parts that choose what is measured; the files of a visitor's own have their names and ``_file``."""

FAILED = problem(
    "The server did not do this: it is busy, it was started again, or it has removed the file. Press the button again; "
    "if that does not help, reload the page and choose the picture again."
)
"""The status where an answer of the server's is none, which the browser shows by itself."""

SHOWN = ("slider", "path", "noise_picture", "noise")
"""The parts that show one stage."""


def connect(session: Any, parts: dict[str, Any], stop: Any, examples: list[list[str]]) -> None:
    """Let the buttons among the ``parts``, which have names, start their actions; ``stop`` cancels these."""
    import gradio as gr

    outputs = [parts[name] for name in OUTPUTS]

    def values(update: Values) -> dict[Any, Any]:
        """The values by part, as Gradio takes them."""
        return {
            parts[name]: gr.update(**value.properties) if isinstance(value, Change) else value
            for name, value in update.items()
        }

    def starting(action: Callable[..., Any], names: str) -> Callable[..., Any]:
        def run(*given: Any) -> Generator[dict[Any, Any], None, None]:
            for update in action(*given):
                yield values(update)

        each = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ["session", *names.split()]]
        run.__signature__ = Signature(each)  # type: ignore[attr-defined]  # the names that programs call it by
        return run

    def at_once(action: Callable[..., Values]) -> Callable[..., Any]:
        return lambda *given: values(action(*given))

    def edit(session: Session, *given: Any) -> actions.Action:
        (target, editor, strength, guidance, seed, where), box, (strokes, force) = given[:6], given[6:10], given[10:]
        return actions.edit(session, target, editor, strength, guidance, seed, where, box, strokes, force)

    def measure(session: Session, *given: Any) -> actions.Action:
        return actions.measure(session, given[0:6:2], given[1:6:2], *given[6:])

    def named(names: str) -> list[Any]:
        return [session, *(parts[name] for name in names.split())]

    inverting = "steps guidance seed fit"
    works: dict[str, tuple[Callable[..., actions.Action], str]] = {
        "invert": (actions.invert, f"picture prompt model method {inverting}"),
        "reopen": (actions.reopen, "file model"),
        "edit": (edit, "target editor strength edit_guidance edit_seed where left top width height canvas force"),
        "compare": (actions.compare, f"picture prompt model {inverting} methods"),
        "measure": (measure, f"{' '.join(f'{each} {each}_file' for each in PICTURES)} metrics resize prompt target"),
        "sweep": (actions.sweep, "target sweep_editor strengths guidances seeds force"),
    }
    started = {
        name: parts[name].click(
            starting(action, names),
            named(names),
            outputs,
            api_name=name,
            show_progress="hidden",
            concurrency_id="work",
            concurrency_limit=1,
        )
        for name, (action, names) in works.items()
    }
    quick = {"queue": False, "show_progress": "hidden"}
    stopping = stop.click(
        at_once(actions.cancel), session, parts["status"], cancels=list(started.values()), api_name="cancel", **quick
    )
    failed = f"(said) => said === {json.dumps(actions.CANCELLED)} ? said : {json.dumps(FAILED)}"
    for start in started.values():
        start.failure(None, parts["status"], parts["status"], js=failed, show_progress="hidden")
    # Said again in the order of the queue, after the progress that was on its way.
    again = {"show_progress": "hidden", "api_visibility": "private"}
    stopping.then(lambda: actions.CANCELLED, None, parts["status"], **again)
    parts["undo"].click(at_once(actions.undo), session, outputs, api_name="undo", **quick)
    quick["api_visibility"] = "private"
    for name in ("invert", "reopen"):
        started[name].success(views.to_paint_on, session, parts["canvas"], **quick)
    parts["stage"].input(at_once(views.show_stage), named("stage"), [parts[each] for each in SHOWN], **quick)

    def drafted(kind: str, prompt: str) -> tuple[str, str, str]:
        how = KINDS[kind]
        return how.draft(prompt), how.editor, how.hint

    draft = [parts["target"], parts["editor"], parts["hint"]]

    def chosen(session: Session, event: Any) -> dict[Any, Any]:
        return values(actions.choose(session, int(event.index)))

    def taken(event: Any) -> list[str]:
        file, prompt, kind = examples[event.index]
        return [file, prompt, kind, *drafted(kind, prompt)]

    for select in (chosen, taken):
        select.__annotations__["event"] = gr.SelectData
    parts["gallery"].select(chosen, session, outputs, **quick)
    parts["examples"].select(taken, None, [parts["picture"], parts["prompt"], parts["kind"], *draft], **quick)
    parts["prompt"].blur(
        lambda kind, prompt, target: target or KINDS[kind].draft(prompt),
        [parts["kind"], parts["prompt"], parts["target"]],
        parts["target"],
        **quick,
    )
    parts["kind"].input(drafted, [parts["kind"], parts["prompt"]], draft, **quick)
    for name in PICTURES:
        parts[name].input(
            lambda source: gr.update(visible=source == UPLOAD), parts[name], parts[f"{name}_file"], **quick
        )
    regions = [parts["box"], parts["brush"]]
    parts["where"].input(
        lambda where: [gr.update(visible=where == each) for each in (BOX, BRUSH)], parts["where"], regions, **quick
    )
