"""Inversion and editing as blocks of diffusers' modular pipelines, alone or between other blocks.

blocks = SequentialPipelineBlocks.from_blocks_dict({"invert": InvertBlock, "edit": EditBlock})
pipe = blocks.init_pipeline()
pipe.update_components(cascade=iterinv.load())
pipe(image=picture, prompt="a red sphere", target_prompt="a blue sphere", output="images")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from diffusers.modular_pipelines import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam, PipelineState

from iterinv.cascade import Cascade
from iterinv.edits.site import Edit
from iterinv.images import Picture, Pictures
from iterinv.inversion import Inversion
from iterinv.masks import Mask
from iterinv.plans import Plan
from iterinv.typed import checked

__all__ = ["EditBlock", "InvertBlock", "PipelineCascade"]


class PipelineCascade(Cascade):
    """A cascade that ``load_components`` of a modular pipeline loads: by default the embedded one, another by
    ``pretrained_model_name_or_path={"cascade": ...}``."""

    @classmethod
    def from_pretrained(  # type: ignore[override]  # with the one argument more that diffusers gives to all components
        cls, what: Any = "embedded", *, subfolder: str | None = "", **how: Any
    ) -> PipelineCascade:
        """Load a cascade as :meth:`iterinv.Cascade.from_pretrained` does. Raises as it does, and ``ValueError`` for a
        subfolder, since a cascade has several."""
        if subfolder:
            raise ValueError(
                f"a cascade is loaded from its own folder, not from the subfolder {subfolder!r} of another"
            )
        loaded = Cascade.from_pretrained(what, **how)
        return cls(loaded.stages, loaded.defaults)


class CascadeBlock(ModularPipelineBlocks, ABC):
    """A block that works with a cascade, the component ``cascade`` of its pipeline."""

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The cascade, of any kind that :func:`iterinv.load` returns."""
        description = "The cascade that inverts and edits."
        return [ComponentSpec("cascade", PipelineCascade, description, pretrained_model_name_or_path="embedded")]

    @abstractmethod
    def work(self, cascade: Cascade, values: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of the block for the values of its inputs."""

    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        """Run the block on the state of a pipeline. Raises ``ValueError`` where the pipeline has no cascade yet."""
        if components.cascade is None:
            raise ValueError(
                "the pipeline has no cascade: call update_components(cascade=iterinv.load()) or load_components()"
            )
        block = self.get_block_state(state)
        cascade = checked(components.cascade, Cascade, "cascade")
        for name, value in self.work(cascade, {each.name: block[each.name] for each in self.inputs}).items():
            block[name] = value
        self.set_block_state(state, block)
        return components, state


class InvertBlock(CascadeBlock):
    """Invert pictures: the inputs ``image`` and ``prompt`` and the settings of :meth:`iterinv.Cascade.invert`; the
    outputs ``inversion`` and ``reconstruction``."""

    @property
    def description(self) -> str:
        """The sentence that diffusers shows for the block."""
        return "Inverts pictures at every stage of a cascade, and reconstructs them."

    @property
    def inputs(self) -> list[InputParam]:
        """The inputs, with the defaults of :meth:`iterinv.Cascade.invert`."""
        return [
            InputParam(
                "image",
                Picture | list,
                required=True,
                description="A picture, or a list of pictures: files, PIL, arrays.",
            ),
            InputParam(
                "prompt", str | list, required=True, description="The words for the picture, or one text for each."
            ),
            InputParam(
                "method", str | Plan | list, "bdia", description="The name of a method of inversion, or a plan."
            ),
            InputParam("num_inference_steps", int, description="The number of steps of a stage, 20 unless given."),
            InputParam(
                "guidance_scale", float | list, description="The guidance of the inversion, 1 (none) unless given."
            ),
            InputParam("seed", int | list, 0, description="The seed of the noise on the pictures from below."),
            InputParam("generator", torch.Generator | list, description="A generator that draws in place of the seed."),
            InputParam("fit", str, "pad", description="How a picture that is not square is fitted: pad, crop, aspect."),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The inversion, and the pictures that it gives back."""
        return [
            OutputParam("inversion", Inversion, "The inversion of all pictures."),
            OutputParam("reconstruction", list, "The reconstructed pictures, as PIL images."),
        ]

    def work(self, cascade: Cascade, values: dict[str, Any]) -> dict[str, Any]:
        """Invert, by :meth:`iterinv.Cascade.invert`."""
        inversion = cascade.invert(values.pop("image"), values.pop("prompt"), **values)
        return {"inversion": inversion, "reconstruction": inversion.images}


class EditBlock(CascadeBlock):
    """Edit an inversion by other words: the inputs ``inversion`` and ``target_prompt`` and the settings of
    :meth:`iterinv.Cascade.edit`; the outputs ``images`` and ``edit``."""

    @property
    def description(self) -> str:
        """The sentence that diffusers shows for the block."""
        return "Edits inverted pictures by other words."

    @property
    def inputs(self) -> list[InputParam]:
        """The inputs, with the defaults of :meth:`iterinv.Cascade.edit`."""
        return [
            InputParam("inversion", Inversion, required=True, description="The inversion that is edited."),
            InputParam("target_prompt", str | list, required=True, description="The words for the edited picture."),
            InputParam("editor", str | Callable, description="The name of an editor, or an editor with settings."),
            InputParam(
                "mask_image",
                Mask | list,
                description="White where the picture may change; the editor's own unless given.",
            ),
            InputParam("output_type", str, "pil", description="The type of the pictures: pil, np or pt."),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The edited pictures, and all that is known of the edit."""
        return [
            OutputParam("images", Pictures, "The edited pictures."),
            OutputParam("edit", Edit, "The edit of every stage, with masks and reports."),
        ]

    def work(self, cascade: Cascade, values: dict[str, Any]) -> dict[str, Any]:
        """Edit, by :meth:`iterinv.Cascade.edit`."""
        edit = cascade.edit(
            values["inversion"],
            values["target_prompt"],
            values["editor"],
            mask=values["mask_image"],
            output_type=values["output_type"],
        )
        return {"images": edit.images, "edit": edit}
