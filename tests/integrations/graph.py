"""A small ComfyUI: it loads a folder of nodes, checks a workflow and runs it as ComfyUI does, with core nodes that read
and write files as ComfyUI's do."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WIDGETS = {"STRING": str, "INT": int, "FLOAT": (int, float), "BOOLEAN": bool}


def load_nodes(folder):
    """Import a folder under a name made of its path, as ComfyUI does, and return its module."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def core_nodes(inputs: Path, outputs: Path):
    """Return the nodes of ComfyUI itself that the workflows use, by name."""

    class LoadImage:
        RETURN_TYPES, FUNCTION = ("IMAGE", "MASK"), "load_image"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"image": (sorted(file.name for file in inputs.iterdir()), {"image_upload": True})}}

        def load_image(self, image):
            pixels = np.array(Image.open(inputs / image).convert("RGB"), np.float32) / 255
            return torch.from_numpy(pixels)[None], torch.zeros(1, 64, 64)  # what a picture without alpha gives

    class SaveImage:
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "save_images", True

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "ComfyUI"})}}

        def save_images(self, images, filename_prefix="preview"):
            for k, image in enumerate(images):
                pixels = (255 * image.numpy()).astype(np.uint8)  # cut, not rounded, as ComfyUI does
                Image.fromarray(pixels).save(outputs / f"{filename_prefix}_{k + 1:05}_.png")
            return {"ui": {"images": []}}

    class PreviewImage(SaveImage):
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"images": ("IMAGE",)}}

    class PreviewAny:
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = ("STRING",), "main", True

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"source": ("*", {})}}

        def main(self, source=None):
            return {"ui": {"text": (source,)}, "result": (source,)}

    class MaskToImage:
        RETURN_TYPES, FUNCTION = ("IMAGE",), "mask_to_image"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"mask": ("MASK",)}}

        def mask_to_image(self, mask):
            return (torch.stack([mask] * 3, -1),)

    return {each.__name__: each for each in (LoadImage, SaveImage, PreviewImage, PreviewAny, MaskToImage)}


def all_inputs(node):
    types = node.INPUT_TYPES()
    return {**types["required"], **types.get("optional", {})}


def is_widget(info):
    return isinstance(info[0], list) or info[0] in WIDGETS


def problems(prompt, nodes):
    """Yield what is wrong with a workflow in the format of the interface: classes, inputs, values, links, outputs."""
    if not any(getattr(nodes.get(each["class_type"]), "OUTPUT_NODE", False) for each in prompt.values()):
        yield "the workflow has no output"
    for key, each in prompt.items():
        if each["class_type"] not in nodes:
            yield f"{key}: there is no node {each['class_type']}"
            continue
        node = nodes[each["class_type"]]
        yield from (
            f"{key}: {name} is missing" for name in node.INPUT_TYPES()["required"] if name not in each["inputs"]
        )
        for name, value in each["inputs"].items():
            if name not in all_inputs(node):
                yield f"{key}: there is no input {name}"
            else:
                yield from (f"{key}.{name}: {what}" for what in _wrong(prompt, nodes, all_inputs(node)[name], value))


def _wrong(prompt, nodes, info, value):
    kind, how = info[0], info[1] if len(info) > 1 else {}
    if isinstance(value, list):
        source = nodes[prompt[value[0]]["class_type"]]
        if value[1] >= len(source.RETURN_TYPES) or kind not in ("*", source.RETURN_TYPES[value[1]]):
            yield f"the link {value} does not give a {kind}"
    elif isinstance(kind, list):
        if value not in kind:
            yield f"{value!r} is not one of {kind}"
    elif kind not in WIDGETS:
        yield f"a {kind} takes a link"
    elif not isinstance(value, WIDGETS[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
        yield f"{value!r} is no {kind}"
    elif kind in ("INT", "FLOAT") and not how.get("min", value) <= value <= how.get("max", value):
        yield f"{value} is out of range"


def execute(prompt, nodes):
    """Run a workflow: each node once, after those it is linked to, in inference mode; return the outputs of every
    node."""
    outputs = {}

    def run(key):
        if key in outputs:
            return
        values = {}
        for name, value in prompt[key]["inputs"].items():
            if isinstance(value, list):
                run(value[0])
                values[name] = outputs[value[0]][value[1]]
            else:
                values[name] = value
        node = nodes[prompt[key]["class_type"]]
        returned = getattr(node(), node.FUNCTION)(**values)
        result = returned.get("result", ()) if isinstance(returned, dict) else returned
        assert len(result) == len(node.RETURN_TYPES)
        outputs[key] = result

    with torch.inference_mode():
        for key, each in prompt.items():
            if getattr(nodes[each["class_type"]], "OUTPUT_NODE", False):
                run(key)
    return outputs


def as_prompt(workflow, nodes):
    """Convert a workflow of the editor to the format of the interface, as ComfyUI's page does; assert that its links
    agree with its nodes."""
    links = {link[0]: link[1:] for link in workflow["links"]}
    by_id = {node["id"]: node for node in workflow["nodes"]}
    used, prompt = set(), {}
    for node in workflow["nodes"]:
        kind = nodes[node["type"]]
        inputs, widgets = {}, list(node["widgets_values"])
        for name, info in all_inputs(kind).items():
            if is_widget(info):
                inputs[name] = widgets.pop(0)
                if name == "seed":  # the page adds a choice of what follows each run
                    assert widgets.pop(0) in ("fixed", "increment", "decrement", "randomize")
                if len(info) > 1 and info[1].get("image_upload"):
                    assert widgets.pop(0) == "image"  # the button
        assert not widgets, node["type"]
        assert [each["name"] for each in node["inputs"]] == [n for n, i in all_inputs(kind).items() if not is_widget(i)]
        assert [each["type"] for each in node["outputs"]] == list(kind.RETURN_TYPES)
        for slot, each in enumerate(node["inputs"]):
            if each["link"] is not None:
                source, place, target, into, data = links[each["link"]]
                assert (target, into) == (node["id"], slot)
                assert each["link"] in by_id[source]["outputs"][place]["links"]
                assert data == by_id[source]["outputs"][place]["type"]
                assert each["type"] in ("*", data)
                inputs[each["name"]] = [str(source), place]
                used.add(each["link"])
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    assert used == set(links)
    assert used == {link for node in workflow["nodes"] for out in node["outputs"] for link in out["links"] or ()}
    assert workflow["last_node_id"] == max(by_id)
    assert workflow["last_link_id"] == max(links)
    return prompt
