"""The page: its parts, and the actions that they start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iterinv.edits import EDITORS
from iterinv.images import FITS
from iterinv.methods import METHODS
from iterinv.metrics import metrics
from iterinv.metrics.registry import USUAL
from iterinv.web.connect import connect
from iterinv.web.kinds import KINDS
from iterinv.web.requests import LONGEST, NOTHING, REGIONS, UPLOAD, WORDS, offered
from iterinv.web.session import Place, Session
from iterinv.web.theme import HEADER, TITLE
from iterinv.web.words import ends, message, notes

IDLE = message("Choose a picture, say what it shows, and press Invert.")
COMPARED = ["bdia", "ddim", "iterinv-anderson"]
"""The methods that the page compares unless others are chosen."""


def page(place: Place, examples: list[list[str]]) -> Any:
    """The page as Gradio's ``Blocks``; ``examples`` are files of pictures, each with a prompt and a kind of edit."""
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 7200), fill_width=True) as blocks:
        session = gr.State(Session(place), delete_callback=Session.close)
        gr.HTML(HEADER)
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                given = _picture(gr, place, examples)
            with gr.Column(scale=8, min_width=320):
                with gr.Row(elem_classes="bar"):
                    status = gr.HTML(IDLE, show_label=False, min_height=34)
                    stop = gr.Button("Cancel", variant="stop", size="sm", min_width=90)
                with gr.Tabs():
                    with gr.Tab("Reconstruction"):
                        parts = _reconstruction(gr)
                    with gr.Tab("Edit"):
                        parts |= _edit(gr)
                    with gr.Tab("Compare"):
                        parts |= _compare(gr)
                    with gr.Tab("Sweep"):
                        parts |= _sweep(gr)
                    with gr.Tab("Measure"):
                        parts |= _measure(gr)
        connect(session, {**given, **parts, "status": status}, stop, examples)
    return blocks


def _picture(gr: Any, place: Place, examples: list[list[str]]) -> dict[str, Any]:
    """The left side: the picture, the words for it, and how it is inverted."""
    parts: dict[str, Any] = {}
    parts["picture"] = gr.Image(
        label="Picture",
        elem_id="picture",
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=260,
        buttons=[],
    )
    parts["picture"].preprocess = _path  # the package's own reader opens the file
    parts["examples"] = gr.Gallery(
        [file for file, *_ in examples],
        label="Examples",
        show_label=False,
        columns=len(examples),
        height=148,
        elem_classes="examples",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )
    parts["prompt"] = gr.Textbox(label="Source prompt", info="What the picture shows.", lines=2, max_length=LONGEST)
    models = list(place.models)
    with gr.Row(elem_classes="go"):
        parts["model"] = gr.Dropdown(models, label="Model", value=models[0], min_width=160)
        parts["invert"] = gr.Button("Invert", variant="primary", min_width=100)
    parts["kind"] = gr.Radio(list(KINDS), label="Kind of edit", value=next(iter(KINDS)))
    target = gr.Textbox(label="Target prompt", info="What the edited picture should show.", lines=2, max_length=LONGEST)
    parts["hint"] = gr.Markdown(next(iter(KINDS.values())).hint, elem_classes="hint")
    with gr.Accordion("Advanced settings of the inversion", open=False):
        about = [(f"{name}: {method.about}", name) for name, method in METHODS.items()]
        parts["method"] = gr.Dropdown(about, label="Method", value="bdia")
        parts["steps"] = gr.Slider(2, 200, 20, step=1, label="Steps at every stage", buttons=[])
        parts["guidance"] = gr.Number(1, label="Guidance scale; 1 is none", minimum=-50, maximum=50)
        parts["seed"] = gr.Number(0, label="Seed of the noise on low-resolution pictures", precision=0, minimum=0)
        parts["fit"] = gr.Radio(list(FITS), label="A picture that is not square", value="pad")
    with gr.Accordion("Open an inversion file", open=False):
        parts["file"] = gr.File(label="Inversion file (.safetensors)", file_types=[".safetensors"], height=110)
        parts["reopen"] = gr.Button("Reconstruct from the file")
    return parts | {"target": target}


def _reconstruction(gr: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["stage"] = gr.Radio(["whole picture"], label="Stage of the cascade", value="whole picture")
    parts["slider"] = gr.ImageSlider(
        label="Original, and reconstruction", format="png", elem_id="reconstruction", max_height=560, buttons=[]
    )
    parts["path"] = gr.Gallery(
        label="Path of the stage, from the noise to the picture",
        elem_id="path",
        columns=8,
        object_fit="contain",
        allow_preview=False,
        format="png",
        buttons=[],
    )
    parts["report"] = gr.HTML(label="Report", elem_classes="words", elem_id="report")
    with gr.Row(equal_height=True):
        parts["noise_picture"] = gr.Image(
            label="Terminal noise",
            elem_id="terminal-noise",
            height=196,
            min_width=200,
            format="png",
            interactive=False,
            buttons=["fullscreen"],
        )
        with gr.Column(scale=2, min_width=280):
            parts["noise"] = gr.HTML(label="Values of the terminal noise", elem_id="noise")
    with gr.Row(elem_classes="downloads"):
        parts["inversion_file"] = gr.DownloadButton("Inversion file", size="sm", min_width=130)
        parts["reconstruction_file"] = gr.DownloadButton("Reconstruction, PNG", size="sm", min_width=130)
        parts["report_file"] = gr.DownloadButton("Report, JSON", size="sm", min_width=130)
    return parts


def _edit(gr: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    editors = [("the model's own", ""), *((name, name) for name in EDITORS)]
    with gr.Row(equal_height=True):
        parts["editor"] = gr.Dropdown(editors, label="Editor", value=KINDS["Recolour"].editor, min_width=180)
        for name, label in (("strength", "Strength"), ("edit_guidance", "Guidance"), ("edit_seed", "Seed")):
            parts[name] = gr.Textbox(label=label, placeholder="its own", max_length=20, min_width=110)
    about = "The editor finds it from the words, or you give a box in pixels of the upright picture, or paint it."
    parts["where"] = gr.Radio(list(REGIONS), label="Region that may change", info=about, value=WORDS, elem_id="where")
    with gr.Row(visible=False) as box:
        for name, value in (("left", 0), ("top", 0), ("width", 64), ("height", 64)):
            parts[name] = gr.Number(value, label=f"{name.capitalize()}, px", precision=0, minimum=0, min_width=120)
    with gr.Column(visible=False) as brush:
        parts["canvas"] = gr.ImageEditor(
            label="Paint over the part that may change",
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(default_size=40, colors=["#ffffff"], default_color="#ffffff", color_mode="fixed"),
            type="filepath",
            format="png",
            buttons=[],
        )
        parts["canvas"].preprocess = lambda payload: _strokes(parts["canvas"], payload)
    with gr.Row(equal_height=True):
        parts["force"] = gr.Checkbox(label="Edit what the model does not know (--force)", min_width=200)
        parts["edit"] = gr.Button("Edit", variant="primary", min_width=120)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            parts["after"] = gr.ImageSlider(
                label="Original, and edited", format="png", elem_id="edited", max_height=560, buttons=[]
            )
            parts["edit_report"] = gr.HTML(label="Report of the edit", elem_classes="words")
        with gr.Column(scale=2, min_width=220):
            parts["region"] = gr.Image(
                label="Region that could change", format="png", interactive=False, buttons=["fullscreen"]
            )
            parts["difference"] = gr.Image(
                label="Difference, brightened", format="png", interactive=False, buttons=["fullscreen"]
            )
    with gr.Row(elem_classes="downloads"):
        parts["edited_file"] = gr.DownloadButton("Edited picture, PNG", size="sm", min_width=130)
        parts["mask_file"] = gr.DownloadButton("Region, PNG", size="sm", min_width=130)
        parts["painted_file"] = gr.DownloadButton("Region as painted, PNG", size="sm", min_width=130)
        parts["edit_report_file"] = gr.DownloadButton("Report, JSON", size="sm", min_width=130)
        parts["undo"] = gr.Button("Undo", size="sm", min_width=90)
    parts["gallery"] = gr.Gallery(
        label="History of edits",
        elem_id="history",
        object_fit="contain",
        columns=6,
        fit_columns=False,
        height=196,
        allow_preview=False,
        format="png",
        buttons=[],
    )
    with gr.Accordion("The same by the command line and in Python", open=False):
        plain = {"lines": 1, "show_line_numbers": False, "interactive": False, "wrap_lines": True}
        parts["command"] = gr.Code(label="Command line", max_lines=6, **plain)
        parts["python"] = gr.Code(label="Python", max_lines=12, **plain)
    return parts | {"box": box, "brush": brush}


def _compare(gr: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["methods"] = gr.CheckboxGroup(
        list(METHODS), label="Methods, at equal steps, on the picture at the left", value=COMPARED
    )
    parts["compare"] = gr.Button("Compare", variant="primary")
    parts["compare_table"] = gr.HTML(label="Comparison", elem_classes="words")
    parts["compare_plot"] = gr.Image(
        label="Fidelity and noise against cost", interactive=False, buttons=["fullscreen"], elem_classes="sheet"
    )
    return parts


def _sweep(gr: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    gr.Markdown(
        "Every strength, guidance scale and seed with every other, from the inversion, by the editor and the target "
        "prompt that are chosen. An empty field is the editor's own value.",
        elem_classes="hint",
    )
    with gr.Row():
        parts["strengths"] = gr.Textbox("0.4,0.6,0.8", label="Strengths", min_width=140)
        parts["guidances"] = gr.Textbox("", label="Guidance scales", placeholder="1,2,4", min_width=140)
        parts["seeds"] = gr.Textbox("", label="Seeds", placeholder="0,1,2", min_width=140)
        parts["sweep_editor"] = gr.Dropdown(list(EDITORS), label="Editor", value="prompt-swap", min_width=140)
    parts["sweep"] = gr.Button("Sweep", variant="primary")
    parts["sheet"] = gr.Image(label="Contact sheet", interactive=False, buttons=["fullscreen"], elem_classes="sheet")
    with gr.Row(elem_classes="downloads"):
        parts["sheet_file"] = gr.DownloadButton("Contact sheet, PNG", size="sm", min_width=130)
        parts["sweep_file"] = gr.DownloadButton("Settings and reports, JSON", size="sm", min_width=130)
    parts["commands"] = gr.Code(
        label="Command lines", lines=1, max_lines=6, show_line_numbers=False, interactive=False, wrap_lines=True
    )
    return parts


def _measure(gr: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    labels = {"reference": "Reference", "compared": "Picture to measure", "within": "Mask, white inside"}
    with gr.Row():
        for name, label in labels.items():
            optional = name == "within"
            with gr.Column(min_width=200):
                choices = [NOTHING, UPLOAD] if optional else [UPLOAD]
                parts[name] = gr.Dropdown(choices, value=choices[0], label=label)
                parts[f"{name}_file"] = gr.Image(
                    label=f"{label}: a file",
                    sources=["upload", "clipboard"],
                    type="filepath",
                    image_mode=None,
                    height=180,
                    visible=not optional,
                    buttons=[],
                )
                parts[f"{name}_file"].preprocess = _path
    here, left_out = offered()
    known = metrics()
    about = [
        (f"{name}: {known[name].about}; {known[name].direction} is better, {ends(known[name])}", name) for name in here
    ]
    usual = [name for name in USUAL if name in here]
    parts["metrics"] = gr.CheckboxGroup(about, label="Metrics", value=usual, elem_id="metrics")
    if left_out:
        with gr.Accordion(f"{len(left_out)} metrics lack files here", open=False):
            gr.HTML(notes([f"{name} {reason}" for name, reason in left_out.items()]), elem_classes="words")
    with gr.Row(equal_height=True):
        parts["resize"] = gr.Checkbox(
            label="Bring a picture of another size to the reference's (--resize)", min_width=240
        )
        parts["measure"] = gr.Button("Measure", variant="primary", min_width=120)
    parts["measured"] = gr.HTML(label="Measured", elem_classes="words", elem_id="measured")
    parts["flip"] = gr.Image(
        label="FLIP: the difference that is seen on flipping between the two",
        format="png",
        interactive=False,
        height=320,
        buttons=["fullscreen"],
    )
    with gr.Row(elem_classes="downloads"):
        parts["measured_csv"] = gr.DownloadButton("Values, CSV", size="sm", min_width=130)
        parts["measured_json"] = gr.DownloadButton("Report, JSON", size="sm", min_width=130)
    parts["measured_command"] = gr.Code(
        label="The same by the command line",
        lines=1,
        max_lines=6,
        show_line_numbers=False,
        interactive=False,
        wrap_lines=True,
    )
    return parts


def _path(payload: Any) -> str | None:
    """The path of an uploaded file, which Gradio has checked to be one, unread."""
    return None if payload is None else payload.path


def _strokes(canvas: Any, payload: Any) -> bytes | None:
    """The file of the layer that was painted on, unread; ``None`` without one."""
    if payload is None:
        return None
    if payload.id is not None:
        payload = canvas.blob_storage.pop(payload.id, None)
    layers = [] if payload is None else payload.layers or []
    for layer in layers:
        if layer is not None:
            return layer if isinstance(layer, bytes) else Path(layer.path).read_bytes()
    return None
