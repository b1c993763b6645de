"""The cost of inverting by a cascade: parameters, memory, network calls and time, computed without weights.

Networks are built on torch's meta device, where tensors have shapes and no values, and called once.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os.path import isfile  # which knows no name that is too long
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from iterinv.conditions import Condition
from iterinv.families import FAMILIES, family_of
from iterinv.families.family import Family
from iterinv.levels import Level, Prediction
from iterinv.models import CountingDenoiser, Stage, folders
from iterinv.models.blueprint import Blueprint
from iterinv.models.memory import checked_device
from iterinv.models.pipelines import PARTS, SCHEDULERS, read_index, scheduler_config
from iterinv.models.toy import gaussian
from iterinv.observer import Silent
from iterinv.plans import Plan
from iterinv.presets import Source, presets
from iterinv.schedules import Flow, Karras, Schedule
from iterinv.stage_inversion import invert_stage

MODES = ("resident", "staged", "layered")
"""All networks on the device; one at a time, the others waiting in main memory; one layer at a time."""


@dataclass(frozen=True)
class Cost:
    """The cost of one stage.

    ``parameters`` of its network, its text encoders and its autoencoder; in bytes their ``weights``, those of the
    largest ``layer``, and ``activations``, which a call and the inverted path hold besides; ``flops`` of a call;
    ``forward`` and ``backward`` calls of inverting and reconstructing one picture.
    """

    name: str
    source: str
    size: int
    parameters: int
    text_parameters: int
    codec_parameters: int
    weights: int
    text_weights: int
    codec_weights: int
    layer: int
    activations: int
    codec_activations: int
    flops: int
    forward: int
    backward: int

    def seconds(self, rate: float) -> float:
        """Return the time at ``rate`` floating-point operations per second; a backward call counts as two forward
        calls."""
        return (self.forward + 2 * self.backward) * self.flops / rate


def blueprints(what: str | Path) -> list[tuple[str, Family, Blueprint]]:
    """Return the stages of a published or local cascade, and the source of each.

    Raises ``FileNotFoundError`` for anything else.
    """
    if not isinstance(what, (str, Path)):
        raise FileNotFoundError("the cost is computed only for preset names and local folders: leave `memory` out")
    folder = Path(what)
    if preset := presets().get(str(what)):
        names = [source.name for source in preset.sources if isinstance(source, Source)]
        if names:
            return [_published(name) for name in names]
        (folder,) = (source for source in preset.sources if isinstance(source, Path))
    if isfile(folder / "model_index.json"):
        return [_folder(folder)]
    if isfile(folder / "cascade.json"):
        return [_folder(part) for part in folders.parts(folder)[0]]
    raise FileNotFoundError(
        f"the cost of {what} is not known: give a cascade or diffusers folder, or one of "
        f"{', '.join(name for name, preset in presets().items() if not preset.extra)}"
    )


def costs(what: str | Path, plan: Plan, dtype: torch.dtype = torch.float32) -> list[Cost]:
    """Compute the cost of each stage of a cascade by a plan, its networks in ``dtype`` and its autoencoder in
    float32."""
    stage_costs: list[Cost] = []
    for k, (source, family, blueprint) in enumerate(blueprints(what)):
        below = stage_costs[-1].size if stage_costs else None
        with torch.device("meta"), torch.no_grad():
            cost = _cost("I" * (k + 1), source, family, blueprint, below, plan, dtype)
        # A later stage with the same text encoder takes the words that the first one encodes.
        if stage_costs and cost.text_parameters == stage_costs[0].text_parameters:
            cost = replace(cost, text_parameters=0, text_weights=0)
        stage_costs.append(cost)
    return stage_costs


def peak(stage_costs: Sequence[Cost], mode: str) -> int:
    """Return the most memory of a device, in bytes, that a mode of :data:`MODES` needs. Prompts are encoded first, and
    once."""
    texts = {cost.source: cost.text_weights for cost in stage_costs}
    codecs = {cost.source: cost.codec_weights for cost in stage_costs}
    weights = {cost.source: cost.weights for cost in stage_costs}
    calls = max(max(cost.activations, cost.codec_activations) for cost in stage_costs)
    if mode == "resident":
        return sum(sum(each.values()) for each in (weights, codecs, texts)) + calls
    if mode == "staged":
        each = [
            max(cost.weights + cost.activations, cost.codec_weights + cost.codec_activations) for cost in stage_costs
        ]
        return max([*each, *texts.values()])
    return max(cost.layer for cost in stage_costs) + calls


def fitting(what: str | Path, dtype: torch.dtype, size: int) -> str:
    """Return the first of :data:`MODES` in which inverting by bdia fits into ``size`` bytes of the device.

    Raises ``MemoryError`` where none does, naming the stage that needs most.
    """
    stage_costs = costs(what, Plan(), dtype)
    for mode in MODES:
        if peak(stage_costs, mode) <= size:
            return mode
    least = peak(stage_costs, MODES[-1])
    most = max(stage_costs, key=lambda cost: max(cost.activations, cost.codec_activations))
    raise MemoryError(
        f"{what} needs {least / 1e9:.1f} GB with a layer at a time, most of it for stage {most.name}, and the limit is "
        f"{size / 1e9:.1f} GB: take half precision, a smaller model, or a device with more"
    )


def rate(device: str = "cpu", dtype: torch.dtype = torch.float32, seconds: float = 1.0) -> float:
    """Measure the floating-point operations per second of convolutions here, by running some for about ``seconds``."""
    device = checked_device(device)
    x = torch.randn(1, 320, 64, 64, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.randn(320, 320, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    F.conv2d(x, kernel, padding=1)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        F.conv2d(x, kernel, padding=1)
        if x.is_cuda:
            torch.cuda.synchronize()
        done += 1
    return done * 2 * 9 * 320 * 320 * 64 * 64 / (time.perf_counter() - began)


def _published(name: str) -> tuple[str, Family, Blueprint]:
    family = next(each for each in FAMILIES if name in each.published)
    return name, family, family.published[name]


def _folder(folder: Path) -> tuple[str, Family, Blueprint]:
    """Make the blueprint of a diffusers folder from its configurations."""
    import diffusers

    index = read_index(folder)
    family = family_of(index.get("_class_name"), folder)
    there = {name: index[name][1] for name in (*PARTS, *SCHEDULERS) if index.get(name, [None])[0] is not None}

    def network(part: str) -> Any:
        kind = getattr(diffusers, there[part])
        return kind.from_config(kind.load_config(folder / part)).eval()

    def text(part: str) -> Any:
        import transformers

        kind = getattr(transformers, there[part])
        return kind(kind.config_class.from_pretrained(folder / part))

    config = scheduler_config(folder, "scheduler", there["scheduler"])
    texts = [partial(text, part) for part in there if part.startswith("text_encoder")]
    vae = partial(network, "vae") if "vae" in there else None
    return str(folder), family, Blueprint(partial(network, family.network), texts, config, vae)


def _cost(
    name: str, source: str, family: Family, blueprint: Blueprint, below: int | None, plan: Plan, dtype: torch.dtype
) -> Cost:
    network, *texts = (make().to(dtype) for make in (blueprint.network, *blueprint.texts))
    vae = blueprint.vae() if blueprint.vae else None
    factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae else 1
    side = family.state_side(network.config, source, below)
    arguments = family.inputs(network.config, 1 if plan.guidance == 1 else 2, side, dtype)
    with FlopCounterMode(display=False) as flops, PeakMemory() as memory, Attention() as attention:
        network(**arguments)
    codec = PeakMemory()
    channels = vae.config.latent_channels if vae else 3
    if vae is not None:
        with codec, Attention():
            vae.decode(torch.empty(1, channels, side, side))
    calls = network_calls(plan, family.schedule(blueprint.schedule))
    # Layers take turns without their buffers, which stay on the device.
    buffers = _bytes(network) - sum(x.numel() * x.element_size() for x in network.parameters())
    states = (plan.steps + 1) * 8 * channels * side**2
    return Cost(
        name,
        source,
        side * factor,
        _count(network),
        sum(map(_count, texts)),
        _count(vae) if vae else 0,
        _bytes(network),
        sum(map(_bytes, texts)),
        _bytes(vae) if vae else 0,
        max(_bytes(each) for each in network.modules() if _leaf(each)) + buffers,
        memory.peak + states,
        codec.peak,
        flops.get_total_flops() + attention.flops,
        calls.forward,
        calls.backward,
    )


def _leaf(module: Any) -> bool:
    return next(module.children(), None) is None


def _weights(module: Any) -> list[Tensor]:
    """The parameters of a module, and the buffers that are stored with them, each once."""
    return list({id(x): x for x in module.state_dict(keep_vars=True).values()}.values())


def _count(module: Any) -> int:
    return sum(x.numel() for x in _weights(module))


def _bytes(module: Any) -> int:
    return sum(x.numel() * x.element_size() for x in _weights(module))


def network_calls(plan: Plan, schedule: Schedule | Karras | Flow) -> CountingDenoiser:
    """Count the network calls of inverting one picture by a plan at one stage and of running it again, on a few
    Gaussian values under the stage's schedule. A solver with a tolerance may need another number of calls on a
    picture. Raises ``ValueError`` for a plan that the schedule refuses."""
    field = gaussian()

    def denoiser(x: Tensor, level: Level, condition: Condition) -> Prediction:
        eps = field(x, level).eps + 1e-3 * condition["text"].mean((1, 2), keepdim=True)[..., None]
        return Prediction.from_eps(x, level, eps)

    def embed(prompts: Sequence[str | None]) -> Condition:
        return Condition({"text": torch.full((len(prompts), 1, 4), float(bool(prompts[0])), dtype=torch.float64)})

    with torch.device("cpu"):
        counted = CountingDenoiser(denoiser)
        stage = Stage("", 4, counted, schedule, embed, "")
        picture = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(1, 3, 4, 4)
        report = invert_stage(stage, plan, stage.condition("words"), picture, observer=Silent()).report
        counted.forward, counted.backward = report.forward, report.backward
    return counted


def within(plan: Plan, schedule: Schedule | Karras | Flow, budget: int) -> Plan:
    """A plan in as many steps as fit into a budget of network calls at one stage, for inverting one picture and running
    it again; a backward call counts as two.

    Raises ``ValueError`` where the fewest steps take more.
    """

    def work(steps: int) -> float:
        try:
            calls = network_calls(replace(plan, steps=steps), schedule)
        except ValueError:  # more steps than the schedule has, or than the rule can undo
            return math.inf
        return calls.forward + 2 * calls.backward

    steps = plan.first + 1
    if (least := work(steps)) > budget:
        raise ValueError(f"{plan.method} takes {least:g} calls in {steps} step(s), more than the budget of {budget}")
    while work(2 * steps) <= budget:
        steps *= 2
    above = 2 * steps
    while above - steps > 1:
        middle = (steps + above) // 2
        steps, above = (middle, above) if work(middle) <= budget else (steps, middle)
    return replace(plan, steps=steps)


class Attention(TorchFunctionMode):
    """Count attention as fused kernels compute it, without storing its matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = kwargs or {}
        q, k, v = (*args, *(named[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        self.flops += 2 * q.numel() * k.shape[-2] * (1 + v.shape[-1] // q.shape[-1])
        return q.new_empty(*q.shape[:-1], v.shape[-1])


class PeakMemory(TorchDispatchMode):
    """Measure the most bytes that tensors made within the block occupy at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, Tensor):
                self._hold(x)
        return made

    def _hold(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            self._users[key] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self._users[key] += 1
        weakref.finalize(x, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.now -= size
