"""Furniture and small things of generated rooms. Metres, y up, colours linear."""

from __future__ import annotations

import numpy as np

from render.rotations import Floats, matrix_from_axis_angle
from render.scene import Colour, Material, SceneObject, Surface, box_surface, cylinder_surface, translated
from sources.synthetic import textures

ROOM_HEIGHT = 2.6
NEAR_WALL_M = 1.9
_TABLE_TOP_M = 0.035
_TILED_TABLE_SHARE = 0.25

WOODS: tuple[tuple[str, Colour], ...] = (
    ("oak", (0.50, 0.32, 0.16)),
    ("walnut", (0.23, 0.13, 0.07)),
    ("pine", (0.66, 0.47, 0.25)),
    ("cherry", (0.42, 0.19, 0.10)),
    ("white", (0.72, 0.70, 0.66)),
    ("grey", (0.33, 0.32, 0.30)),
)
FLOORS = ("planks", "tiles", "carpet")
WHITE: Colour = (1.0, 1.0, 1.0)
WALLS: tuple[Colour, ...] = (
    (0.62, 0.56, 0.44),
    (0.42, 0.52, 0.56),
    (0.60, 0.44, 0.38),
    (0.46, 0.54, 0.40),
    (0.68, 0.66, 0.62),
    (0.40, 0.40, 0.52),
)
ACCENTS: tuple[Colour, ...] = (
    (0.45, 0.10, 0.08),
    (0.08, 0.20, 0.42),
    (0.12, 0.32, 0.16),
    (0.55, 0.38, 0.08),
    (0.30, 0.12, 0.32),
    (0.10, 0.34, 0.36),
)


def make_floor(random: np.random.Generator) -> tuple[str, Material]:
    """A floor of planks, tiles or carpet: its words and its material."""
    kind = FLOORS[int(random.integers(len(FLOORS)))]
    if kind == "planks":
        colour = WOODS[int(random.integers(4))][1]
        return "a wooden floor", Material(WHITE, textures.planks(random, colour), 1.2, gloss=0.05)
    if kind == "tiles":
        tone = float(random.uniform(0.35, 0.7))
        return "a tiled floor", Material(WHITE, textures.tiles(random, (tone, tone, tone * 0.95)), 1.3, gloss=0.08)
    colour = muted(pick(random, ACCENTS))
    return "a carpet", Material(WHITE, textures.fabric(random, colour), 0.6)


def make_shell(
    random: np.random.Generator, wall: Colour, floor: Material, far: float, half_width: float
) -> list[SceneObject]:
    """Floor, ceiling, four walls and a skirting board; the near wall is `NEAR_WALL_M` behind the origin."""
    make = textures.wallpaper if random.random() < 0.5 else textures.plaster
    paper = Material(WHITE, make(random, wall), 1.0)
    depth, middle = far + NEAR_WALL_M, (far - NEAR_WALL_M) / 2
    white = Material((0.78, 0.77, 0.75))
    skirting = Material((0.7, 0.68, 0.64))
    size, height = 0.1, ROOM_HEIGHT / 2
    return [
        placed("floor", [box_surface((2 * half_width, size, depth), floor)], (0, -size / 2, middle)),
        *(
            placed("end wall", [box_surface((2 * half_width, ROOM_HEIGHT, size), paper)], (0, height, z))
            for z in (far + size / 2, -NEAR_WALL_M - size / 2)
        ),
        placed("ceiling", [box_surface((2 * half_width, size, depth), white)], (0, ROOM_HEIGHT + size / 2, middle)),
        *(
            placed("side wall", [box_surface((size, ROOM_HEIGHT, depth), paper)], (side * half_width, height, middle))
            for side in (-1, 1)
        ),
        placed("skirting", [box_surface((2 * half_width, 0.09, 0.02), skirting)], (0, 0.045, far - 0.01)),
    ]


def make_table(random: np.random.Generator, height: float, front: float) -> tuple[str, SceneObject, float]:
    """A table of wood, sometimes with a tiled top: its name, itself, its depth."""
    wood_name, colour = WOODS[int(random.integers(len(WOODS)))]
    width, depth = float(random.uniform(1.25, 1.7)), float(random.uniform(0.72, 0.85))
    name = f"{article(wood_name)} {wood_name} table"
    top = Material(WHITE, textures.wood(random, colour), float(random.uniform(0.7, 1.1)), gloss=0.06)
    if random.random() < _TILED_TABLE_SHARE:
        name = "a tiled table"
        top = Material(WHITE, textures.tiles(random, scaled(pick(random, WALLS), 0.65)), 0.7, gloss=0.06)
    plain = Material(colour)
    leg = box_surface((0.06, height - _TABLE_TOP_M, 0.06), plain)
    leg_height = -(height + _TABLE_TOP_M) / 2
    surfaces = [translated(box_surface((width, _TABLE_TOP_M, depth), top), (0, -_TABLE_TOP_M / 2, 0))]
    surfaces += [
        translated(leg, (x * (width / 2 - 0.06), leg_height, z * (depth / 2 - 0.06))) for x in (-1, 1) for z in (-1, 1)
    ]
    return name, placed("table", surfaces, (0, height, front + depth / 2)), depth


def make_furniture(random: np.random.Generator, far: float, half_width: float) -> list[SceneObject]:
    """Two to four pieces along the far wall, one in each of its parts, and a picture or window above."""
    makers = [book_shelf, low_cabinet, sofa, plant, chair]
    order = random.permutation(len(makers))[: int(random.integers(2, 4))]
    places = np.linspace(-half_width + 0.5, half_width - 0.5, len(order))
    pieces = [
        makers[int(kind)](random, float(x), far, turn=float(random.uniform(-0.12, 0.12)))
        for kind, x in zip(order, places, strict=True)
    ]
    size = (float(random.uniform(0.5, 0.9)), float(random.uniform(0.4, 0.6)))
    frame = box_surface((size[0] + 0.08, size[1] + 0.08, 0.03), Material((0.12, 0.09, 0.07)))
    image = Material(WHITE, textures.picture(random), max(size))
    canvas = translated(box_surface((*size, 0.03), image), (0, 0, -0.008))
    pieces.append(placed("picture", [frame, canvas], (float(random.uniform(-0.6, 0.6)), 1.45, far - 0.02)))
    return pieces


def book_shelf(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    """A shelf with books, its back at the wall ``far``."""
    colour = WOODS[int(random.integers(len(WOODS)))][1]
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
            row = Material(WHITE, textures.books(random), 0.55)
            size = (float(random.uniform(0.45, 0.74)), 0.22, 0.2)
            surfaces.append(translated(box_surface(size, row), (-(0.74 - size[0]) / 2, base + 0.125, 0)))
    return placed("shelf", surfaces, (x, 0, far - depth / 2 - 0.03), turn * 0.2)


def low_cabinet(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    """A low cabinet with a vase, its back at the wall ``far``."""
    colour = WOODS[int(random.integers(len(WOODS)))][1]
    width, height, depth = float(random.uniform(0.8, 1.2)), float(random.uniform(0.7, 0.95)), 0.42
    body = Material(WHITE, textures.wood(random, colour), 0.9)
    front = Material(scaled(colour, 1.25))
    surfaces = [translated(box_surface((width, height, depth), body), (0, height / 2, 0))]
    for column in (-1, 1):
        for row in range(2):
            place = (column * width / 4, height * (0.27 + 0.46 * row), -depth / 2)
            surfaces.append(translated(box_surface((width * 0.44, height * 0.40, 0.02), front), place))
            knob = box_surface((0.08, 0.015, 0.03), Material((0.55, 0.52, 0.45)))
            surfaces.append(translated(knob, (place[0], place[1] + height * 0.12, -depth / 2 - 0.02)))
    surfaces.append(translated(cylinder_surface(0.07, 0.2, Material(pick(random, ACCENTS))), (0.2, height + 0.1, 0)))
    return placed("cabinet", surfaces, (x, 0, far - depth / 2 - 0.03), turn * 0.2)


def sofa(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    """A sofa with a cushion before the wall ``far``."""
    cloth = Material(WHITE, textures.fabric(random, muted(pick(random, ACCENTS))), 0.5)
    cushion = Material(WHITE, textures.checks(random, pick(random, ACCENTS)), 0.4)
    surfaces = [
        translated(box_surface((1.3, 0.42, 0.75), cloth), (0, 0.21, 0)),
        translated(box_surface((1.3, 0.45, 0.2), cloth), (0, 0.6, 0.28)),
        *(translated(box_surface((0.18, 0.6, 0.75), cloth), (s * 0.62, 0.3, 0)) for s in (-1, 1)),
        translated(box_surface((0.4, 0.36, 0.14), cushion), (0.3, 0.6, 0.1)),
    ]
    return placed("sofa", surfaces, (x, 0, far - 0.45), turn)


def plant(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    """A potted plant before the wall ``far``."""
    pot = cylinder_surface(0.14, 0.3, Material(pick(random, ACCENTS)))
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
    return placed("plant", surfaces, (x, 0, far - 0.35), turn)


def chair(random: np.random.Generator, x: float, far: float, turn: float) -> SceneObject:
    """A chair with its back to +z, turned by five times ``turn``."""
    frame = Material(WOODS[int(random.integers(len(WOODS)))][1])
    seat = Material(WHITE, textures.fabric(random, pick(random, ACCENTS)), 0.3)
    leg = box_surface((0.04, 0.44, 0.04), frame)
    surfaces = [translated(leg, (sx * 0.19, 0.22, sz * 0.19)) for sx in (-1, 1) for sz in (-1, 1)]
    surfaces.append(translated(box_surface((0.44, 0.05, 0.44), seat), (0, 0.46, 0)))
    surfaces += [translated(box_surface((0.04, 0.5, 0.03), frame), (s * 0.19, 0.72, 0.19)) for s in (-1, 1)]
    surfaces += [translated(box_surface((0.40, 0.09, 0.03), frame), (0, height, 0.19)) for height in (0.72, 0.9)]
    return placed("chair", surfaces, (x, 0, far - 0.6), turn * 5)


def book_stack(random: np.random.Generator, place: tuple[float, float, float]) -> SceneObject:
    """Two or three books on each other."""
    surfaces: list[Surface] = []
    top = 0.0
    for _ in range(int(random.integers(2, 4))):
        cover = Material(pick(random, ACCENTS))
        size = (float(random.uniform(0.16, 0.2)), float(random.uniform(0.02, 0.035)), float(random.uniform(0.13, 0.15)))
        surfaces.append(translated(box_surface(size, cover), (0, top + size[1] / 2, 0)))
        pages = (size[0] + 0.001, size[1] * 0.6, size[2] - 0.01)
        surfaces.append(translated(box_surface(pages, Material((0.75, 0.72, 0.62))), (0, top + size[1] / 2, 0)))
        top += size[1]
    return placed("books", surfaces, place, float(random.uniform(-0.5, 0.5)))


def fruit_bowl(random: np.random.Generator, place: tuple[float, float, float]) -> SceneObject:
    """A bowl of fruit."""
    glaze = Material((0.7, 0.68, 0.62), gloss=0.2)
    fruit = pick(random, ((0.6, 0.08, 0.04), (0.65, 0.35, 0.03), (0.25, 0.4, 0.05)))
    surfaces = [translated(cylinder_surface(0.06, 0.06, glaze, top_share=1.7), (0, 0.03, 0))]
    for angle in (0.3, 2.4, 4.5):
        ball = cylinder_surface(0.04, 0.05, Material(fruit), top_share=0.5)
        surfaces.append(translated(ball, (0.045 * np.cos(angle), 0.08, 0.045 * np.sin(angle))))
    return placed("fruit bowl", surfaces, place)


def placed(name: str, surfaces: list[Surface], place: tuple[float, float, float], yaw: float = 0.0) -> SceneObject:
    """An object at a place [3], turned by ``yaw`` radians."""
    pose: Floats = np.eye(4)
    pose[:3, :3] = matrix_from_axis_angle([0.0, yaw, 0.0])
    pose[:3, 3] = place
    return SceneObject(name, tuple(surfaces), pose)


def pick(random: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of some colours."""
    return colours[int(random.integers(len(colours)))]


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made brighter or darker."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def muted(colour: Colour) -> Colour:
    """A colour mixed with its grey."""
    grey = sum(colour) / 3
    return (0.6 * colour[0] + 0.4 * grey, 0.6 * colour[1] + 0.4 * grey, 0.6 * colour[2] + 0.4 * grey)


def article(word: str) -> str:
    """The article of a word."""
    return "an" if word[0] in "aeiou" else "a"
