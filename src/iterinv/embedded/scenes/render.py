"""A small ray caster in torch: one ray a sub-pixel, one lamp with soft shadows, no dependency.

The picture of a scene is a pure function of the scene and the size. It is drawn at ``size * supersample`` and averaged,
so a picture at 64 px is, but for sampling, the area average of the one at 256 px, as the cascade resizes it.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from iterinv.embedded.scenes.scene import COLORS, LIGHTS, RADII, WALLS, Scene, Thing

_FAR = 1e9
_EYE, _AIM, _HALF_WIDTH = (0.0, 2.3, 5.2), (0.0, 0.55, 0.0), math.tan(math.radians(19.5))
_WALL_Z = -2.6
_LAMP_RADIUS, _SHADOW_RAYS = 0.55, 8
_tensor = partial(torch.tensor, dtype=torch.float32)


def _linear(rgb: tuple[float, float, float]) -> Tensor:
    return _tensor(rgb) ** 2.2


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _unit(a: Tensor) -> Tensor:
    return a / a.norm(dim=-1, keepdim=True)


def _first(ok: Tensor, t: Tensor) -> Tensor:
    return torch.where(ok & (t > 1e-4), t, _FAR)


class _Solid:
    """A thing's surface: ``hit(o, d)`` gives the distance along each ray, ``normal(p)`` the outward direction at a
    point."""

    def __init__(self, thing: Thing) -> None:
        self.thing, self.r = thing, RADII[thing.size]
        self.base = _tensor([thing.x, 0.0, thing.z])
        c, s = math.cos(thing.yaw), math.sin(thing.yaw)
        self.turn = _tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])

    def hit(self, o: Tensor, d: Tensor) -> Tensor:
        return getattr(self, f"_hit_{self.thing.shape}")((o - self.base) @ self.turn.T, d @ self.turn.T)

    def normal(self, p: Tensor) -> Tensor:
        return _unit(getattr(self, f"_normal_{self.thing.shape}")((p - self.base) @ self.turn.T)) @ self.turn

    def _hit_sphere(self, o: Tensor, d: Tensor) -> Tensor:
        o = o - _tensor([0.0, self.r, 0.0])
        b = _dot(o, d)
        disc = b * b - _dot(o, o) + self.r**2
        return _first(disc > 0, -b - disc.clamp_min(0).sqrt())

    def _normal_sphere(self, p: Tensor) -> Tensor:
        return p - _tensor([0.0, self.r, 0.0])

    def _hit_cube(self, o: Tensor, d: Tensor) -> Tensor:
        half = 0.72 * self.r
        o = o - _tensor([0.0, half, 0.0])
        inverse = 1 / torch.where(d.abs() < 1e-9, 1e-9, d)
        t1, t2 = (-half - o) * inverse, (half - o) * inverse
        near, far = torch.minimum(t1, t2).amax(-1), torch.maximum(t1, t2).amin(-1)
        return _first(far > near, near)

    def _normal_cube(self, p: Tensor) -> Tensor:
        p = p - _tensor([0.0, 0.72 * self.r, 0.0])
        return torch.where(p.abs() >= p.abs().amax(-1, keepdim=True), p.sign(), 0.0)

    def _hit_cylinder(self, o: Tensor, d: Tensor) -> Tensor:
        radius, height = 0.75 * self.r, 1.7 * self.r
        (ox, oy, oz), (dx, dy, dz) = o.unbind(-1), d.unbind(-1)
        a = (dx * dx + dz * dz).clamp_min(1e-9)
        b, c = ox * dx + oz * dz, ox * ox + oz * oz - radius**2
        disc = b * b - a * c
        side = (-b - disc.clamp_min(0).sqrt()) / a
        y = oy + side * dy
        side = _first((disc > 0) & (y >= 0) & (y <= height), side)
        lid = (height - oy) / torch.where(dy.abs() < 1e-9, 1e-9, dy)
        lid = _first((ox + lid * dx) ** 2 + (oz + lid * dz) ** 2 <= radius**2, lid)
        return torch.minimum(side, lid)

    def _normal_cylinder(self, p: Tensor) -> Tensor:
        on_lid = (p[..., 1:2] > 1.7 * self.r - 1e-3).float()
        return p * _tensor([1.0, 0.0, 1.0]) * (1 - on_lid) + _tensor([0.0, 1.0, 0.0]) * on_lid

    def _hit_cone(self, o: Tensor, d: Tensor) -> Tensor:
        height, slope = 1.9 * self.r, 0.95 / 1.9
        (ox, oy, oz), (dx, dy, dz) = o.unbind(-1), d.unbind(-1)
        oy, dy = height - oy, -dy  # measured down from the apex: x^2 + z^2 = (slope y)^2
        a = dx * dx + dz * dz - (slope * dy) ** 2
        a = torch.where(a.abs() < 1e-9, 1e-9, a)
        b, c = ox * dx + oz * dz - slope**2 * oy * dy, ox * ox + oz * oz - (slope * oy) ** 2
        disc = b * b - a * c
        root = disc.clamp_min(0).sqrt()
        best = torch.full_like(a, _FAR)
        for t in ((-b - root) / a, (-b + root) / a):
            y = oy + t * dy
            best = torch.minimum(best, _first((disc > 0) & (y >= 0) & (y <= height), t))
        return best

    def _normal_cone(self, p: Tensor) -> Tensor:
        slope = 0.95 / 1.9
        x, y, z = p.unbind(-1)
        return torch.stack([x, slope**2 * (1.9 * self.r - y) + 1e-6, z], -1)


def _rays(scene: Scene, n: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions of ``n * n`` rays, row by row from the top left."""
    eye = _tensor(_EYE) + _tensor([scene.camera[0], scene.camera[1], 0.0])
    forward = _unit(_tensor(_AIM) - eye)
    right = _unit(torch.linalg.cross(forward, _tensor([0.0, 1.0, 0.0])))
    up = torch.linalg.cross(right, forward)
    s = ((torch.arange(n, dtype=torch.float32) + 0.5) / n * 2 - 1) * _HALF_WIDTH
    d = forward + s[None, :, None] * right - s[:, None, None] * up
    d = _unit(d.reshape(-1, 3))
    return eye.expand_as(d), d


def _hash(ix: Tensor, iy: Tensor, seed: int) -> Tensor:
    """A fixed pseudo-random number in [0, 1) for each pair of integers."""
    h = (ix.long() * 374761393 + iy.long() * 668265263 + (seed + 1) * 1442695041) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF).float() / 65536


def _noise(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Value noise in [-1, 1]: hashed lattice, smoothly interpolated."""
    ix, iy = x.floor(), y.floor()
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    top = _hash(ix, iy, seed) * (1 - fx) + _hash(ix + 1, iy, seed) * fx
    bottom = _hash(ix, iy + 1, seed) * (1 - fx) + _hash(ix + 1, iy + 1, seed) * fx
    return (top * (1 - fy) + bottom * fy) * 2 - 1


def _floor(kind: str, x: Tensor, z: Tensor, seed: int) -> Tensor:
    """Linear albedo of the floor at points (x, z)."""
    if kind == "plain":
        tone = 1 + 0.05 * _noise(x * 14, z * 14, seed)
        return _linear((0.66, 0.63, 0.60)) * tone[:, None]
    if kind == "checkered":
        odd = ((x / 0.55).floor() + (z / 0.55).floor()).remainder(2)[:, None]
        return _linear((0.88, 0.86, 0.82)) * odd + _linear((0.20, 0.19, 0.22)) * (1 - odd)
    if kind == "planks":
        u, board = x / 0.36, (x / 0.36).floor()
        joint = (z / 1.7 + _hash(board, board * 0, seed) * 3).remainder(1)
        tone = 0.72 + 0.4 * _hash(board, (z / 1.7 + _hash(board, board * 0, seed) * 3).floor(), seed + 1)
        tone = tone * (1 + 0.16 * _noise(x * 34, z * 2.2, seed + 2) + 0.08 * _noise(x * 11, z * 0.8, seed + 3))
        gap = ((u - board - 0.5).abs() > 0.465) | (joint < 0.018)
        return _linear((0.66, 0.43, 0.24)) * (tone * (1 - 0.75 * gap.float()))[:, None]
    u, v = x / 0.62, z / 0.62
    tone = 0.9 + 0.2 * _hash(u.floor(), v.floor(), seed)
    grout = (((u - u.floor() - 0.5).abs() > 0.455) | ((v - v.floor() - 0.5).abs() > 0.455)).float()
    tile = _linear((0.62, 0.70, 0.78)) * tone[:, None]
    return tile * (1 - grout[:, None]) + _linear((0.30, 0.30, 0.32)) * grout[:, None]


def _lamp(scene: Scene) -> Tensor:
    return _tensor(LIGHTS[scene.light]) + _tensor(scene.lamp)


def _lit(scene: Scene, solids: list[_Solid], p: Tensor, n: Tensor, turn: Tensor) -> Tensor:
    """Return the share of the lamp that each point sees, in [0, 1]; ``turn`` rotates the sample pattern by one angle
    per ray."""
    lamp, visible = _lamp(scene), torch.zeros(len(p), dtype=torch.float32)
    for k in range(_SHADOW_RAYS):  # a sunflower on the lamp's disc
        radius, angle = _LAMP_RADIUS * math.sqrt((k + 0.5) / _SHADOW_RAYS), turn + 2.39996 * k
        offset = torch.stack([angle.cos() * radius, torch.zeros_like(angle), angle.sin() * radius], -1)
        way = _unit(lamp + offset - p)
        free = torch.ones(len(p), dtype=torch.bool)
        for solid in solids:
            free &= solid.hit(p + 2e-3 * n, way) >= _FAR
        visible += free.float() * _dot(n, way).clamp_min(0)
    return visible / _SHADOW_RAYS


def _trace(scene: Scene, n: int) -> tuple[Tensor, Tensor]:
    """Linear colour (n*n, 3) and which surface each ray meets (n*n): thing 0, thing 1, 2 the floor, 3 the wall."""
    o, d = _rays(scene, n)
    solids = [_Solid(thing) for thing in scene.things]
    to_floor = torch.where(d[:, 1] < -1e-6, -o[:, 1] / d[:, 1], _FAR)
    to_wall = torch.where(d[:, 2] < -1e-6, (_WALL_Z - o[:, 2]) / d[:, 2], _FAR)
    empty = torch.full_like(to_floor, _FAR)
    hits = [solid.hit(o, d) for solid in solids] + [empty] * (2 - len(solids)) + [to_floor, to_wall]
    t, what = torch.stack(hits).min(0)
    p = o + t[:, None] * d

    normal, albedo = torch.zeros_like(p), torch.zeros_like(p)
    shiny = torch.zeros(len(p), dtype=torch.float32)
    for k, solid in enumerate(solids):
        here = what == k
        normal[here] = solid.normal(p[here])
        albedo[here] = _linear(COLORS[solid.thing.color])
        shiny[here] = float(solid.thing.material == "shiny")
    here = what == 2
    normal[here] = _tensor([0.0, 1.0, 0.0])
    albedo[here] = _floor(scene.floor, p[here, 0] + 0.17, p[here, 2] + 0.08, scene.grain)
    here = what == 3
    normal[here] = _tensor([0.0, 0.0, 1.0])
    plaster = 1 + 0.025 * _noise(p[here, 0] * 9, p[here, 1] * 9, scene.grain + 7)
    albedo[here] = _linear(WALLS[scene.wall]) * plaster[:, None]

    index = torch.arange(n)
    turn = 2 * math.pi * _hash(index[None, :].expand(n, n), index[:, None].expand(n, n), 5).reshape(-1)
    visible = _lit(scene, solids, p, normal, turn)
    ambient = 0.30 + 0.12 * normal[:, 1].clamp_min(0)
    colour = albedo * (ambient + 0.95 * visible)[:, None]

    on = shiny > 0  # a highlight of the lamp, and a fresnel glimpse of floor below and room above
    way, view = _unit(_lamp(scene) - p[on]), -d[on]
    highlight = _dot(_unit(way + view), normal[on]).clamp_min(0) ** 55 * (visible[on] > 0).float()
    mirror = 2 * _dot(view, normal[on])[:, None] * normal[on] - view
    fresnel = 0.05 + 0.6 * (1 - _dot(view, normal[on]).clamp(0, 1)) ** 4
    room = (_linear(WALLS[scene.wall]) * 0.5 + 0.35) * (0.5 + 0.5 * mirror[:, 1:2]).clamp(0, 1)
    colour[on] = colour[on] * (1 - fresnel)[:, None] + room * fresnel[:, None] + 0.9 * highlight[:, None]
    return colour, what


def _average(values: Tensor, size: int, supersample: int) -> Tensor:
    return values.reshape(size, supersample, size, supersample, -1).mean((1, 3)).permute(2, 0, 1)


def _supersample(size: int) -> int:
    return 2 if size >= 128 else 4


@torch.no_grad()
def render(scene: Scene, size: int = 256) -> Tensor:
    """The picture of a scene: (3, size, size) float32 in [-1, 1], the same for the same scene and size."""
    n = _supersample(size)
    with torch.device("cpu"):
        colour, _ = _trace(scene, size * n)
    return _average(colour.clamp(0, 1) ** (1 / 2.2), size, n).clamp(0, 1) * 2 - 1


@torch.no_grad()
def object_mask(scene: Scene, size: int = 256, thing: int = 0) -> Tensor:
    """The mask of a thing (1, size, size) float32: the share of each pixel it covers, in [0, 1]."""
    if not 0 <= thing < len(scene.things):
        raise IndexError(f"this scene has {len(scene.things)} thing(s); there is no thing {thing}")
    n = _supersample(size)
    with torch.device("cpu"):
        o, d = _rays(scene, size * n)
        hits = [_Solid(other).hit(o, d) for other in scene.things]
    visible = (torch.stack(hits).argmin(0) == thing) & (hits[thing] < _FAR)
    return _average(visible.float(), size, n)
