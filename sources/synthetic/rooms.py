"""Furnished rooms for a person seated at a table at the origin, facing +z. Metres, y up, colours linear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from render.rotations import Floats, matrix_from_axis_angle
from render.scene import (
    Colour,
    Lighting,
    Material,
    Scene,
    SceneObject,
    SpotLight,
    Surface,
    box_surface,
    cylinder_surface,
    translated,
)
from sources.synthetic import textures

ROOM_HEIGHT = 2.6
TABLE_TOP_THICKNESS = 0.035

_WOODS: tuple[tuple[str, Colour], ...] = (
    ("oak", (0.50, 0.32, 0.16)),
    ("walnut", (0.23, 0.13, 0.07)),
    ("pine", (0.66, 0.47, 0.25)),
    ("cherry", (0.42, 0.19, 0.10)),
    ("white", (0.72, 0.70, 0.66)),
    ("grey", (0.33, 0.32, 0.30)),
)
_TILED_TABLE_SHARE = 0.25
_FLOORS = ("planks", "tiles", "carpet")
_WALLS: tuple[Colour, ...] = (
    (0.62, 0.56, 0.44),
    (0.42, 0.52, 0.56),
    (0.60, 0.44, 0.38),
    (0.46, 0.54, 0.40),
    (0.68, 0.66, 0.62),
    (0.40, 0.40, 0.52),
)
_ACCENTS: tuple[Colour, ...] = (
    (0.45, 0.10, 0.08),
    (0.08, 0.20, 0.42),
    (0.12, 0.32, 0.16),
    (0.55, 0.38, 0.08),
    (0.30, 0.12, 0.32),
    (0.10, 0.34, 0.36),
)


@dataclass(frozen=True)
class Room:
    """A furnished room.

    Attributes:
        scene: what is drawn.
        table_height: of the table's top.
        table_front: z of the table's edge before the person.
        description: a few words for prompts, such as "an oak table in a room with a tiled floor".
    """

    scene: Scene
    table_height: float
    table_front: float
    description: str


def make_room(random: np.random.Generator) -> Room:
    """Furnish a room: floor, walls, table, two to four pieces of furniture, things on the table, lights."""
    wall = _pick(random, _WALLS)
    far, half_width = float(random.uniform(1.9, 2.6)), float(random.uniform(1.5, 2.1))
    floor_name, floor = _floor(random)
    table_height, table_front = float(random.uniform(0.72, 0.76)), float(random.uniform(0.21, 0.24))
    table_name, table = _table(random, table_height, table_front)
    objects = [
        *_shell(random, wall, floor, far, half_width),
        table,
        *_furniture(random, far, half_width),
        *_table_things(random, table_height),
    ]
    description = f"{table_name} in a room with {floor_name}"
    scene = Scene(tuple(objects), _lighting(random), background=(0.5, 0.5, 0.5))
    return Room(scene, table_height, table_front, description)


def _floor(random: np.random.Generator) -> tuple[str, Material]:
    kind = _FLOORS[int(random.integers(len(_FLOORS)))]
    if kind == "planks":
        colour = _WOODS[int(random.integers(4))][1]
        return "a wooden floor", Material(_WHITE, textures.planks(random, colour), 1.2, gloss=0.05)
    if kind == "tiles":
        tone = float(random.uniform(0.35, 0.7))
        return "a tiled floor", Material(_WHITE, textures.tiles(random, (tone, tone, tone * 0.95)), 1.3, gloss=0.08)
    colour = _muted(_pick(random, _ACCENTS))
    return "a carpet", Material(_WHITE, textures.fabric(random, colour), 0.6)


_WHITE: Colour = (1.0, 1.0, 1.0)


def _shell(
    random: np.random.Generator, wall: Colour, floor: Material, far: float, half_width: float
) -> list[SceneObject]:
    """Floor, three walls with a skirting board."""
    make = textures.wallpaper if random.random() < 0.5 else textures.plaster
    paper = Material(_WHITE, make(random, wall), 1.0)
    depth, middle = far + 1.5, (far - 1.5) / 2
    skirting = Material((0.7, 0.68, 0.64))
    size, height = 0.1, ROOM_HEIGHT / 2
    return [
        _object("floor", [box_surface((2 * half_width, size, depth), floor)], (0, -size / 2, middle)),
        _object("far wall", [box_surface((2 * half_width, ROOM_HEIGHT, size), paper)], (0, height, far + size / 2)),
        *(
            _object("side wall", [box_surface((size, ROOM_HEIGHT, depth), paper)], (side * half_width, height, middle))
            for side in (-1, 1)
        ),
        _object("skirting", [box_surface((2 * half_width, 0.09, 0.02), skirting)], (0, 0.045, far - 0.01)),
    ]


def _table(random: np.random.Generator, height: float, front: float) -> tuple[str, SceneObject]:
    """A table of wood, sometimes with a tiled top, and its name."""
    wood_name, colour = _WOODS[int(random.integers(len(_WOODS)))]
    width, depth = float(random.uniform(1.25, 1.7)), float(random.uniform(0.72, 0.85))
    name = f"{_article(wood_name)} {wood_name} table"
    top = Material(_WHITE, textures.wood(random, colour), float(random.uniform(0.7, 1.1)), gloss=0.06)
    if random.random() < _TILED_TABLE_SHARE:
        name = "a tiled table"
        top = Material(_WHITE, textures.tiles(random, _scaled(_pick(random, _WALLS), 0.65)), 0.7, gloss=0.06)
    plain = Material(colour)
    leg = box_surface((0.06, height - TABLE_TOP_THICKNESS, 0.06), plain)
    leg_height = -(height + TABLE_TOP_THICKNESS) / 2
    surfaces = [translated(box_surface((width, TABLE_TOP_THICKNESS, depth), top), (0, -TABLE_TOP_THICKNESS / 2, 0))]
    surfaces += [
        translated(leg, (x * (width / 2 - 0.06), leg_height, z * (depth / 2 - 0.06))) for x in (-1, 1) for z in (-1, 1)
    ]
    return name, _object("table", surfaces, (0, height, front + depth / 2))


def _furniture(random: np.random.Generator, far: float, half_width: float) -> list[SceneObject]:
    """Two to four pieces along the far wall, one in each of its parts, and a picture or window above."""
    makers = [_shelf, _cabinet, _sofa, _plant, _chair]
    order = random.permutation(len(makers))[: int(random.integers(2, 4))]
    places = np.linspace(-half_width + 0.5, half_width - 0.5, len(order))
    pieces = [
        makers[int(kind)](random, float(x), far, turn=float(random.uniform(-0.12, 0.12)))
        for kind, x in zip(order, places, strict=True)
    ]
    size = (float(random.uniform(0.5, 0.9)), float(random.uniform(0.4, 0.6)))
    frame = box_surface((size[0] + 0.08, size[1] + 0.08, 0.03), Material((0.12, 0.09, 0.07)))
    image = Material(_WHITE, textures.picture(random), max(size))
    canvas = translated(box_surface((*size, 0.03), image), (0, 0, -0.008))
    pieces.append(_object("picture", [frame, canvas], (float(random.uniform(-0.6, 0.6)), 1.45, far - 0.02)))
    return pieces


def _shelf(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    colour = _WOODS[int(random.integers(len(_WOODS)))][1]
    case = Material(colour)
    width, height, depth = 0.8, float(random.uniform(1.1, 1.7)), 0.3
    surfaces = [
        translated(box_surface((width, height, 0.02), case), (0, height / 2, depth / 2)),
        *(translated(box_surface((0.03, height, depth), case), (s * width / 2, height / 2, 0)) for s in (-1, 1)),
    ]
    levels = int(height / 0.34)
    for level in range(levels + 1):
        base = level * (height - 0.03) / levels + 0.015
        surfaces.append(translated(box_surface((width, 0.03, depth), case), (0, base, 0)))
        if level < levels:
            row = Material(_WHITE, textures.books(random), 0.55)
            size = (float(random.uniform(0.45, 0.74)), 0.22, 0.2)
            surfaces.append(translated(box_surface(size, row), (-(0.74 - size[0]) / 2, base + 0.125, 0)))
    return _object("shelf", surfaces, (x, 0, far - depth / 2 - 0.03), turn * 0.2)


def _cabinet(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    colour = _WOODS[int(random.integers(len(_WOODS)))][1]
    width, height, depth = float(random.uniform(0.8, 1.2)), float(random.uniform(0.7, 0.95)), 0.42
    body = Material(_WHITE, textures.wood(random, colour), 0.9)
    front = Material(_scaled(colour, 1.25))
    surfaces = [translated(box_surface((width, height, depth), body), (0, height / 2, 0))]
    for column in (-1, 1):
        for row in range(2):
            place = (column * width / 4, height * (0.27 + 0.46 * row), -depth / 2)
            surfaces.append(translated(box_surface((width * 0.44, height * 0.40, 0.02), front), place))
            knob = box_surface((0.08, 0.015, 0.03), Material((0.55, 0.52, 0.45)))
            surfaces.append(translated(knob, (place[0], place[1] + height * 0.12, -depth / 2 - 0.02)))
    surfaces.append(translated(cylinder_surface(0.07, 0.2, Material(_pick(random, _ACCENTS))), (0.2, height + 0.1, 0)))
    return _object("cabinet", surfaces, (x, 0, far - depth / 2 - 0.03), turn * 0.2)


def _sofa(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    cloth = Material(_WHITE, textures.fabric(random, _muted(_pick(random, _ACCENTS))), 0.5)
    cushion = Material(_WHITE, textures.checks(random, _pick(random, _ACCENTS)), 0.4)
    surfaces = [
        translated(box_surface((1.3, 0.42, 0.75), cloth), (0, 0.21, 0)),
        translated(box_surface((1.3, 0.45, 0.2), cloth), (0, 0.6, 0.28)),
        *(translated(box_surface((0.18, 0.6, 0.75), cloth), (s * 0.62, 0.3, 0)) for s in (-1, 1)),
        translated(box_surface((0.4, 0.36, 0.14), cushion), (0.3, 0.6, 0.1)),
    ]
    return _object("sofa", surfaces, (x, 0, far - 0.45), turn)


def _plant(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    pot = cylinder_surface(0.14, 0.3, Material(_pick(random, _ACCENTS)))
    stem = cylinder_surface(0.03, 0.6, Material((0.2, 0.12, 0.06)))
    surfaces = [translated(pot, (0, 0.15, 0)), translated(stem, (0, 0.6, 0))]
    for _ in range(12):
        tone = float(random.uniform(0.6, 1.4))
        leaf = cylinder_surface(
            float(random.uniform(0.1, 0.2)), 0.16, Material((0.06 * tone, 0.20 * tone, 0.05)), top_share=0.2
        )
        surfaces.append(
            translated(leaf, (*random.uniform(-0.2, 0.2, 1), random.uniform(0.7, 1.3), *random.uniform(-0.2, 0.2, 1)))
        )
    return _object("plant", surfaces, (x, 0, far - 0.35), turn)


def _chair(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    frame = Material(_WOODS[int(random.integers(len(_WOODS)))][1])
    seat = Material(_WHITE, textures.fabric(random, _pick(random, _ACCENTS)), 0.3)
    leg = box_surface((0.04, 0.44, 0.04), frame)
    surfaces = [translated(leg, (sx * 0.19, 0.22, sz * 0.19)) for sx in (-1, 1) for sz in (-1, 1)]
    surfaces.append(translated(box_surface((0.44, 0.05, 0.44), seat), (0, 0.46, 0)))
    surfaces += [translated(box_surface((0.04, 0.5, 0.03), frame), (s * 0.19, 0.72, 0.19)) for s in (-1, 1)]
    surfaces += [translated(box_surface((0.40, 0.09, 0.03), frame), (0, height, 0.19)) for height in (0.72, 0.9)]
    return _object("chair", surfaces, (x, 0, far - 0.6), turn * 5)


def _table_things(random: np.random.Generator, height: float) -> list[SceneObject]:
    """A few things at the far edge of the table, out of the way of the box."""
    things = [_mug, _book_stack, _bowl]
    order = random.permutation(len(things))[: int(random.integers(1, 3))]
    sides = random.permutation([-1.0, 1.0])
    return [
        things[int(kind)](random, (float(side * random.uniform(0.36, 0.5)), height, float(random.uniform(0.76, 0.86))))
        for kind, side in zip(order, sides, strict=False)
    ]


def _mug(random: np.random.Generator, place: tuple[float, float, float]) -> SceneObject:
    glaze = Material(_scaled(_pick(random, _ACCENTS), 1.5), gloss=0.3)
    inside = Material((0.05, 0.03, 0.02))
    surfaces = [
        translated(cylinder_surface(0.042, 0.1, glaze), (0, 0.05, 0)),
        translated(cylinder_surface(0.036, 0.002, inside), (0, 0.1005, 0)),
        translated(box_surface((0.03, 0.06, 0.012), glaze), (0.052, 0.05, 0)),
    ]
    return _object("mug", surfaces, place, float(random.uniform(-3, 3)))


def _book_stack(random: np.random.Generator, place: tuple[float, float, float]) -> SceneObject:
    surfaces: list[Surface] = []
    top = 0.0
    for _ in range(int(random.integers(2, 4))):
        cover = Material(_pick(random, _ACCENTS))
        size = (float(random.uniform(0.16, 0.2)), float(random.uniform(0.02, 0.035)), float(random.uniform(0.13, 0.15)))
        surfaces.append(translated(box_surface(size, cover), (0, top + size[1] / 2, 0)))
        pages = (size[0] + 0.001, size[1] * 0.6, size[2] - 0.01)
        surfaces.append(translated(box_surface(pages, Material((0.75, 0.72, 0.62))), (0, top + size[1] / 2, 0)))
        top += size[1]
    return _object("books", surfaces, place, float(random.uniform(-0.5, 0.5)))


def _bowl(random: np.random.Generator, place: tuple[float, float, float]) -> SceneObject:
    glaze = Material((0.7, 0.68, 0.62), gloss=0.2)
    fruit = _pick(random, ((0.6, 0.08, 0.04), (0.65, 0.35, 0.03), (0.25, 0.4, 0.05)))
    surfaces = [translated(cylinder_surface(0.06, 0.06, glaze, top_share=1.7), (0, 0.03, 0))]
    for angle in (0.3, 2.4, 4.5):
        ball = cylinder_surface(0.04, 0.05, Material(fruit), top_share=0.5)
        surfaces.append(translated(ball, (0.045 * np.cos(angle), 0.08, 0.045 * np.sin(angle))))
    return _object("fruit bowl", surfaces, place)


def _lighting(random: np.random.Generator) -> Lighting:
    """A lamp above and beyond the table, from the left or right, under a bright ceiling."""
    side = float(random.choice([-1.0, 1.0]))
    warmth = float(random.uniform(-1, 1))
    strength = float(random.uniform(3.9, 4.9))
    tint = (1.0 + 0.10 * warmth, 1.0, 1.0 - 0.16 * warmth)
    spot = SpotLight(
        position=(side * float(random.uniform(0.5, 1.0)), 2.4, float(random.uniform(0.7, 1.2))),
        target=(0.0, 0.74, 0.6),
        power=_scaled(tint, strength),
        cone_degrees=125.0,
    )
    ambient = float(random.uniform(0.34, 0.44))
    return Lighting(
        sky=_scaled(tint, ambient),
        ground=_scaled((0.95, 0.9, 0.85), ambient * 0.6),
        spot=spot,
        fill_position=(-side * 0.8, 1.9, -0.3),
        fill_power=_scaled((0.9, 0.95, 1.0), 0.5),
    )


def _object(name: str, surfaces: list[Surface], place: tuple[float, float, float], yaw: float = 0.0) -> SceneObject:
    pose: Floats = np.eye(4)
    pose[:3, :3] = matrix_from_axis_angle([0.0, yaw, 0.0])
    pose[:3, 3] = place
    return SceneObject(name, tuple(surfaces), pose)


def _pick(random: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(random.integers(len(colours)))]


def _scaled(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _muted(colour: Colour) -> Colour:
    grey = sum(colour) / 3
    return (0.6 * colour[0] + 0.4 * grey, 0.6 * colour[1] + 0.4 * grey, 0.6 * colour[2] + 0.4 * grey)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
