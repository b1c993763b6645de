"""The nodes: load a cascade, invert, choose a region, edit, report. Each sends requests to iterinv's workbench."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from iterinv import images
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS
from iterinv.masks import GivenMask
from iterinv.methods import METHODS
from iterinv.workbench import EditRequest, InvertRequest, Model, Result, Workbench

from . import words
from .progress import Meter
from .tensors import image_of, mask_of, masks, pictures

CASCADE, INVERSION, EDIT = "ITERINV_CASCADE", "ITERINV_INVERSION", "ITERINV_EDIT"
OWN = -1
"""The value of a number that leaves the choice to the editor."""

# ComfyUI runs nodes in inference mode, where no tensor can have a gradient, and some methods need them.
with_gradients = torch.inference_mode(False)


@dataclass(frozen=True)
class LoadedModel(Model):
    """A model that a node has loaded."""

    cascade: Cascade | None = None

    def load(self) -> Cascade:
        """The cascade."""
        assert self.cascade is not None
        return self.cascade


@dataclass(frozen=True)
class Batch:
    """The requests and the results of a batch of pictures."""

    requests: tuple[InvertRequest, ...]
    results: tuple[Result, ...]


class Node:
    """The attributes that all nodes share."""

    CATEGORY = "iterinv"
    FUNCTION = "run"


class Load(Node):
    """Load a cascade by name, from a folder or from the hub."""

    DESCRIPTION = (
        "Loads a cascade: 'embedded', the one that comes with iterinv, another by name, a folder, or a hub name."
    )
    RETURN_TYPES, RETURN_NAMES = (CASCADE,), ("cascade",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        return {
            "required": {
                "name": (
                    "STRING",
                    {"default": "embedded", "tooltip": "embedded, deepfloyd, sdxl, flux-dev, a folder …"},
                ),
                "device": (["cpu", "cuda", "mps"], {"default": "cpu"}),
                "dtype": (["float32", "float16", "bfloat16"], {"default": "float32"}),
                "memory": ("STRING", {"default": "", "tooltip": "The memory to use, as 16gb or auto; empty for all."}),
            }
        }

    @with_gradients
    def run(self, name: str, device: str, dtype: str, memory: str) -> tuple[LoadedModel]:
        """Load the cascade. Raises as :func:`iterinv.load` does."""
        if not name.strip():
            raise ValueError(
                "the cascade has no name: type embedded, deepfloyd, sdxl, flux-dev, a folder or a name on the hub"
            )
        model = Model(name.strip(), device, dtype, memory.strip() or None)
        settings = {each.name: getattr(model, each.name) for each in fields(Model)}
        return (LoadedModel(**settings, cascade=model.load()),)


class Invert(Node):
    """Invert pictures through all stages of a cascade, and reconstruct them."""

    DESCRIPTION = "Inverts pictures at every stage of a cascade, and gives back what they reconstruct to."
    RETURN_TYPES, RETURN_NAMES = (INVERSION, "IMAGE"), ("inversion", "reconstruction")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        return {
            "required": {
                "cascade": (CASCADE,),
                "image": ("IMAGE",),
                "prompt": ("STRING", {"multiline": True, "tooltip": "The picture in words."}),
                "method": (list(METHODS), {"default": "bdia"}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
                "guidance_scale": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 50.0, "step": 0.1}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "fit": (
                    list(images.FITS),
                    {"default": "pad", "tooltip": "How a picture that is no square is brought to one."},
                ),
            }
        }

    @with_gradients
    def run(
        self,
        cascade: LoadedModel,
        image: Any,
        prompt: str,
        method: str,
        steps: int,
        guidance_scale: float,
        seed: int,
        fit: str,
    ) -> tuple[Batch, torch.Tensor]:
        """Invert each picture. Raises ``ValueError`` for what cannot work."""
        requests = tuple(
            InvertRequest(picture, prompt, method, steps, guidance_scale, seed, fit, cascade)
            for picture in pictures(image)
        )
        meter, results = Meter(2 * len(requests) * len(cascade.load().stages)), []
        for request in requests:
            results.append(Workbench(meter).invert(request))
            meter.next_picture()
        meter.end()
        return Batch(requests, tuple(results)), image_of([result.reconstruction for result in results])


class Region(Node):
    """Draw the region of an edit: a box, a mask or both."""

    DESCRIPTION = "Draws where an edit may change a picture: inside a box, a mask or both, grown and feathered."
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("region",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        place = {"default": 0, "min": 0, "max": 16384}
        return {
            "required": {
                "image": ("IMAGE",),
                "left": ("INT", place),
                "top": ("INT", place),
                "width": ("INT", {**place, "tooltip": "The width of the box in pixels; 0 for no box."}),
                "height": ("INT", {**place, "tooltip": "The height of the box in pixels; 0 for no box."}),
                "invert": ("BOOLEAN", {"default": False}),
                "grow": ("INT", {"default": 0, "min": -1000, "max": 1000}),
                "feather": ("INT", {"default": 0, "min": 0, "max": 1000}),
            },
            "optional": {"mask": ("MASK",)},
        }

    def run(
        self,
        image: Any,
        left: int,
        top: int,
        width: int,
        height: int,
        invert: bool,
        grow: int,
        feather: int,
        mask: Any = None,
    ) -> tuple[torch.Tensor]:
        """Draw the region of every picture. Raises ``ValueError`` for one that is empty or outside the picture."""
        batch = pictures(image)
        box = (left, top, width, height) if width or height else None
        with tempfile.TemporaryDirectory() as folder:
            files = _files(mask, len(batch), Path(folder))
            regions = [
                GivenMask(file, box, invert=invert, grow=grow, feather=feather).drawn(*picture.shape[:2])[0]
                for picture, file in zip(batch, files, strict=True)
            ]
        return (mask_of(regions),)


class Edit(Node):
    """Edit inverted pictures by other words."""

    DESCRIPTION = "Edits inverted pictures by other words; outside the region every pixel stays as it is."
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "MASK", EDIT), ("image", "region", "edit")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        own = f"{OWN}: the editor's own."
        return {
            "required": {
                "inversion": (INVERSION,),
                "prompt": ("STRING", {"multiline": True, "tooltip": "The edited picture in words."}),
                "editor": (list(EDITORS), {"default": "automatic"}),
                "strength": ("FLOAT", {"default": OWN, "min": OWN, "max": 1.0, "step": 0.05, "tooltip": own}),
                "guidance_scale": ("FLOAT", {"default": OWN, "min": OWN, "max": 50.0, "step": 0.1, "tooltip": own}),
                "edit_seed": ("INT", {"default": OWN, "min": OWN, "max": 2**32 - 1, "tooltip": own}),
                "size": (["own", "model"], {"default": "own", "tooltip": "The picture's own size, or the model's."}),
                "force": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Edit pictures that the model does not know (--force)."},
                ),
            },
            "optional": {"region": ("MASK", {"tooltip": "White where the picture may change."})},
        }

    @with_gradients
    def run(
        self,
        inversion: Batch,
        prompt: str,
        editor: str,
        strength: float,
        guidance_scale: float,
        edit_seed: int,
        size: str,
        force: bool,
        region: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor, Batch]:
        """Edit each picture. Raises ``ValueError`` for what cannot work."""
        count = len(inversion.requests)
        meter, results = Meter(count * len(inversion.results[0].cascade.stages)), []
        with tempfile.TemporaryDirectory() as folder:
            files = _files(region, count, Path(folder))
            for source, inverted, file in zip(inversion.requests, inversion.results, files, strict=True):
                request = EditRequest(
                    source,
                    (prompt,),
                    editor,
                    None if strength == OWN else strength,
                    None if guidance_scale == OWN else guidance_scale,
                    mask=None if file is None else GivenMask(file),
                    force=force,
                    size=size,
                    edit_seed=None if edit_seed == OWN else edit_seed,
                )
                results.append(Workbench(meter).edit(request, inverted))
                meter.next_picture()
        meter.end()
        edited, regions = zip(*map(_edited, results), strict=True)
        return image_of(edited), mask_of(regions), Batch(inversion.requests, tuple(results))


class Report(Node):
    """Say in plain words how well pictures come back, and what was edited."""

    DESCRIPTION = "Says in plain words how well the pictures come back at every stage, and what an edit did."
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("report",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI reads them."""
        return {"required": {"inversion": (INVERSION,)}, "optional": {"edit": (EDIT,)}}

    @with_gradients
    def run(self, inversion: Batch, edit: Batch | None = None) -> dict[str, Any]:
        """Say it. Raises ``ValueError`` for the edit of other pictures."""
        if edit is not None and edit.requests is not inversion.requests:
            raise ValueError("the edit is one of another inversion: connect the inversion that was edited")
        said = words.report(inversion.results, edit.results if edit else ())
        return {"ui": {"text": (said,)}, "result": (said,)}


def _files(mask: Any, count: int, folder: Path) -> Sequence[Path | None]:
    """The mask of each picture as a file in a folder; none without a mask."""
    if mask is None:
        return [None] * count
    files = []
    for k, values in enumerate(masks(mask, count)):
        files.append(folder / f"{k}.png")
        images.save((255 * values).round().astype("uint8"), files[-1])
    return files


def _edited(result: Result) -> tuple[Any, Any]:
    """The edited picture (h, w, 3) uint8 and its region (h, w) in [0, 1]."""
    (edit,), (canvas,) = result.edits, result.inversion.canvases
    if result.original is None:
        return canvas.place(edit.pictures[-1]), edit.region(0) / 255
    (own,) = edit.at_own_size(result.original)
    return own.values, own.region / 255


NODE_CLASS_MAPPINGS: dict[str, type[Node]] = {
    "IterinvLoad": Load,
    "IterinvInvert": Invert,
    "IterinvRegion": Region,
    "IterinvEdit": Edit,
    "IterinvReport": Report,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "IterinvLoad": "Load Cascade (iterinv)",
    "IterinvInvert": "Invert Image (iterinv)",
    "IterinvRegion": "Edit Region (iterinv)",
    "IterinvEdit": "Edit Inversion (iterinv)",
    "IterinvReport": "Report (iterinv)",
}
