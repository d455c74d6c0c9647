"""Things that a person moves: cartons, cups, tins, boxes with lids, drawers, doors. Metres, y up, linear colours.

A thing's own frame: table things stand on y = 0 around the origin; a drawer has the middle of its front's face at the
origin and goes into its chest along +z; a door and a lid turn about an axis through the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from render.rotations import Floats
from render.scene import Colour, Material, Surface, box_surface, cylinder_surface, translated
from sources.synthetic import textures
from sources.synthetic.furniture import ACCENTS, WHITE, pick, scaled
from sources.synthetic.solids import Box, Cylinder, Solid

HANDLE_GAP_M = 0.042
"""Distance of a bar handle's middle from the front that it is on: room for fingers."""

_BAR_M = 0.014
_LID_THICKNESS_M = 0.014
_COLOURS: tuple[tuple[str, Colour], ...] = (
    ("red", (0.55, 0.05, 0.04)),
    ("blue", (0.04, 0.14, 0.50)),
    ("green", (0.06, 0.32, 0.10)),
    ("yellow", (0.72, 0.50, 0.05)),
    ("brown", (0.46, 0.29, 0.15)),
    ("white", (0.78, 0.77, 0.74)),
    ("purple", (0.28, 0.08, 0.36)),
    ("orange", (0.70, 0.24, 0.03)),
)
_METAL = Material((0.52, 0.50, 0.46), gloss=0.3)


@dataclass(frozen=True)
class Prop:
    """A rigid thing with a track.

    Attributes:
        name: file name of its mesh and name of its track.
        label: words for it, such as "red mug".
        surfaces: what is drawn, in its own frame.
        solids: what hands touch, in its own frame.
        size: [3] extent, metres.
        handle: [3] middle of what a hand takes hold of, in its own frame.
    """

    name: str
    label: str
    surfaces: tuple[Surface, ...]
    solids: tuple[Solid, ...]
    size: Floats
    handle: Floats


def make_carton(random: np.random.Generator) -> Prop:
    """A box to push, plain or checked, perhaps with a ribbon or a band."""
    name, colour = _colour(random)
    size = np.array([random.uniform(0.15, 0.21), random.uniform(0.12, 0.15), random.uniform(0.12, 0.15)])
    kind = str(random.choice(["plain", "checked", "ribbon", "band"]))
    skin = textures.checks(random, colour) if kind == "checked" else textures.plaster(random, colour)
    up = (0.0, float(size[1]) / 2, 0.0)
    surfaces = [translated(box_surface(size.tolist(), Material(WHITE, skin, 0.12, gloss=0.06)), up)]
    trim = Material(pick(random, ACCENTS), gloss=0.1)
    if kind == "ribbon":
        band, lift = 0.028, 0.002
        surfaces.append(translated(box_surface((band, size[1] + lift, size[2] + lift), trim), up))
        surfaces.append(translated(box_surface((size[0] + lift, size[1] + lift, band), trim), up))
    if kind == "band":
        top = (0.0, float(size[1]) - 0.0165, 0.0)
        surfaces.append(translated(box_surface((size[0] + 0.002, 0.035, size[2] + 0.002), trim), top))
    label = f"checked {name} box" if kind == "checked" else f"{name} box"
    solid = Box((0.0, float(size[1]) / 2, 0.0), _three(size))
    return Prop("carton", label, tuple(surfaces), (solid,), size, np.array([0.0, size[1] / 2, 0.0]))


def make_drink(random: np.random.Generator) -> Prop:
    """A mug, can or bottle to take from the side; a mug's handle is at +x."""
    colour_name, colour = _colour(random)
    kind = str(random.choice(["mug", "can", "bottle"]))
    radius, height = {"mug": (0.040, 0.105), "can": (0.034, 0.125), "bottle": (0.036, 0.15)}[kind]
    glaze = Material(scaled(colour, 1.2), gloss=0.25)
    surfaces = [translated(cylinder_surface(radius, height, glaze), (0, height / 2, 0))]
    total = height
    if kind == "mug":
        surfaces.append(
            translated(cylinder_surface(radius - 0.005, 0.002, Material((0.05, 0.03, 0.02))), (0, height, 0))
        )
        surfaces += [
            translated(box_surface((0.026, 0.010, 0.010), glaze), (radius + 0.011, height * share, 0))
            for share in (0.28, 0.72)
        ]
        surfaces.append(translated(box_surface((0.009, height * 0.54, 0.010), glaze), (radius + 0.024, height / 2, 0)))
    elif kind == "can":
        band = Material(pick(random, ACCENTS), gloss=0.25)
        surfaces.append(translated(cylinder_surface(radius + 0.0006, height * 0.4, band), (0, height / 2, 0)))
        surfaces.append(translated(cylinder_surface(radius - 0.004, 0.003, _METAL), (0, height + 0.0008, 0)))
    else:
        surfaces.append(translated(cylinder_surface(radius, 0.035, glaze, top_share=0.4), (0, height + 0.0175, 0)))
        surfaces.append(translated(cylinder_surface(0.0145, 0.04, glaze), (0, height + 0.055, 0)))
        surfaces.append(
            translated(cylinder_surface(0.016, 0.016, Material(pick(random, ACCENTS))), (0, height + 0.08, 0))
        )
        total = height + 0.088
    solid = Cylinder((0.0, height / 2, 0.0), radius, height)
    size = np.array([2 * radius, total, 2 * radius])
    return Prop(kind, f"{colour_name} {kind}", tuple(surfaces), (solid,), size, np.array([0.0, 0.069, 0.0]))


def make_tin(random: np.random.Generator) -> Prop:
    """A small square tin, each side of another colour, to turn with a grip from above."""
    name, colour = _colour(random)
    width, height = float(random.uniform(0.056, 0.064)), float(random.uniform(0.10, 0.13))
    body = Material(colour, gloss=0.2)
    surfaces = [translated(box_surface((width, height, width), body), (0, height / 2, 0))]
    surfaces.append(translated(box_surface((width + 0.002, 0.014, width + 0.002), _METAL), (0, height - 0.006, 0)))
    for axis, sign in ((0, 1.0), (2, -1.0), (2, 1.0)):
        extent = [width * 0.7, height * 0.5, width * 0.7]
        extent[axis] = 0.002
        place = [0.0, height * 0.45, 0.0]
        place[axis] = sign * width / 2
        tone = (0.75, 0.72, 0.62) if sign < 0 else pick(random, ACCENTS)
        surfaces.append(translated(box_surface(extent, Material(tone)), place))
    solid = Box((0.0, height / 2, 0.0), (width, height, width))
    size = np.array([width, height, width])
    return Prop("tin", f"{name} tin", tuple(surfaces), (solid,), size, np.array([0.0, height - 0.013, 0.0]))


def make_lidded_box(random: np.random.Generator) -> tuple[Prop, Prop]:
    """An open box that stands on its floor, and its lid, hinged at the far upper edge, with a knob."""
    name, colour = _colour(random)
    width, height, depth, wall = float(random.uniform(0.19, 0.24)), 0.095, float(random.uniform(0.15, 0.18)), 0.008
    skin = textures.wood(random, colour) if random.random() < 0.5 else textures.plaster(random, colour)
    shell = Material(WHITE, skin, 0.3, gloss=0.08)
    cloth = Material(scaled(pick(random, ACCENTS), 0.8))
    parts = _open_box(width, height, depth, wall)
    surfaces = [translated(box_surface(part.size, shell), part.centre) for part in parts]
    inside = (width - 2 * wall - 0.002, 0.012, depth - 2 * wall - 0.002)
    surfaces.append(translated(box_surface(inside, cloth), (0, 0.015, 0)))
    surfaces.append(translated(box_surface((0.07, 0.03, 0.05), Material(pick(random, ACCENTS))), (0.03, 0.035, 0.01)))
    box = Prop(
        "storage_box", f"{name} box", tuple(surfaces), tuple(parts), np.array([width, height, depth]), np.zeros(3)
    )
    plate = Box((0.0, _LID_THICKNESS_M / 2, -depth / 2), (width + 0.008, _LID_THICKNESS_M, depth + 0.008))
    knob = Cylinder((0.0, _LID_THICKNESS_M + 0.019, -depth + 0.028), 0.014, 0.038)
    lid_surfaces = (
        translated(box_surface(plate.size, shell), plate.centre),
        translated(cylinder_surface(knob.radius, knob.length, _METAL), knob.centre),
    )
    lid = Prop(
        "storage_box_lid",
        f"lid of the {name} box",
        lid_surfaces,
        (plate, knob),
        np.array([width, _LID_THICKNESS_M, depth]),
        np.array(knob.centre) + np.array([0.0, 0.004, 0.0]),
    )
    return box, lid


def make_drawer(name: str, label: str, size: tuple[float, float, float], front: Material, inside: Material) -> Prop:
    """A drawer ``size`` (width and height of its front, depth) with a bar handle and a folded cloth in it."""
    width, height, depth = size
    panel = Box((0.0, 0.0, 0.01), (width, height, 0.02))
    bar = Box((0.0, 0.0, -HANDLE_GAP_M), (0.15, _BAR_M, _BAR_M))
    surfaces = [translated(box_surface(panel.size, front), panel.centre), *_bar_surfaces(bar)]
    tray = Material((0.60, 0.52, 0.40))
    inner, low = width - 0.06, -height / 2 + 0.012
    for part in (
        Box((0.0, low, 0.02 + depth / 2), (inner, 0.01, depth)),
        Box((0.0, low + height * 0.3, 0.015 + depth), (inner, height * 0.6, 0.01)),
        *(
            Box((s * inner / 2, low + height * 0.3, 0.02 + depth / 2), (0.012, height * 0.6, depth))
            for s in (-1.0, 1.0)
        ),
    ):
        surfaces += [translated(box_surface(part.size, tray), part.centre)]
    cloth = (inner * 0.5, height * 0.35, depth * 0.6)
    surfaces.append(translated(box_surface(cloth, inside), (-inner * 0.15, low + height * 0.2, 0.03 + depth * 0.4)))
    return Prop(name, label, tuple(surfaces), (panel, bar), np.array(size), np.array(bar.centre))


def make_door(
    name: str, label: str, size: tuple[float, float], *, side: float, front: Material, panel: Material
) -> Prop:
    """A door (width, height) on a vertical hinge at the origin that reaches towards ``side`` * x, with a bar."""
    width, height = size
    plate = Box((side * width / 2, 0.0, 0.01), (width, height, 0.02))
    bar = Box((side * (width - 0.05), -0.06, -HANDLE_GAP_M), (_BAR_M, 0.15, _BAR_M))
    surfaces = [translated(box_surface(plate.size, front), plate.centre), *_bar_surfaces(bar)]
    filling = (width - 0.13, height - 0.13, 0.004)
    surfaces.append(translated(box_surface(filling, panel), (side * width / 2, 0.0, -0.001)))
    return Prop(name, label, tuple(surfaces), (plate, bar), np.array([width, height, 0.02]), np.array(bar.centre))


def _bar_surfaces(bar: Box) -> list[Surface]:
    """A bar handle and its two posts."""
    axis = int(np.argmax(bar.size))
    surfaces = [translated(box_surface(bar.size, _METAL), bar.centre)]
    for sign in (-1.0, 1.0):
        place = list(bar.centre)
        place[axis] += sign * (bar.size[axis] / 2 - 0.008)
        place[2] = bar.centre[2] / 2
        surfaces.append(translated(box_surface((0.011, 0.011, abs(bar.centre[2])), _METAL), place))
    return surfaces


def _open_box(width: float, height: float, depth: float, wall: float) -> list[Box]:
    """Floor and four walls."""
    return [
        Box((0.0, wall / 2, 0.0), (width, wall, depth)),
        *(Box((s * (width - wall) / 2, height / 2, 0.0), (wall, height, depth)) for s in (-1.0, 1.0)),
        *(Box((0.0, height / 2, s * (depth - wall) / 2), (width - 2 * wall, height, wall)) for s in (-1.0, 1.0)),
    ]


def _colour(random: np.random.Generator) -> tuple[str, Colour]:
    return _COLOURS[int(random.integers(len(_COLOURS)))]


def _three(values: Floats) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
