"""ComfyUI nodes that invert and edit pictures with iterinv: copy this folder to ComfyUI/custom_nodes."""

from importlib.util import find_spec

if find_spec("iterinv") is None:
    raise ModuleNotFoundError(
        "iterinv is not installed in the Python that runs ComfyUI: install it with 'python -m pip install iterinv'"
    )

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
