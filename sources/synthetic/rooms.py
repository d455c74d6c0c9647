"""Furnished rooms for a person seated at a table at the origin, facing +z. Metres, y up, colours linear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from render.scene import (
    Lighting,
    Material,
    Scene,
    SceneObject,
    SpotLight,
    box_surface,
    translated,
)
from sources.synthetic import textures
from sources.synthetic.furniture import (
    WALLS,
    WHITE,
    WOODS,
    article,
    book_stack,
    fruit_bowl,
    make_floor,
    make_furniture,
    make_shell,
    mug,
    pick,
    placed,
    scaled,
)

TABLE_TOP_THICKNESS = 0.035

_TILED_TABLE_SHARE = 0.25


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
    wall = pick(random, WALLS)
    far, half_width = float(random.uniform(1.9, 2.6)), float(random.uniform(1.5, 2.1))
    floor_name, floor = make_floor(random)
    table_height, table_front = float(random.uniform(0.72, 0.76)), float(random.uniform(0.21, 0.24))
    table_name, table, _ = make_table(random, table_height, table_front)
    objects = [
        *make_shell(random, wall, floor, far, half_width),
        table,
        *make_furniture(random, far, half_width),
        *_table_things(random, table_height),
    ]
    description = f"{table_name} in a room with {floor_name}"
    scene = Scene(tuple(objects), make_lighting(random), background=(0.5, 0.5, 0.5))
    return Room(scene, table_height, table_front, description)


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
    leg = box_surface((0.06, height - TABLE_TOP_THICKNESS, 0.06), plain)
    leg_height = -(height + TABLE_TOP_THICKNESS) / 2
    surfaces = [translated(box_surface((width, TABLE_TOP_THICKNESS, depth), top), (0, -TABLE_TOP_THICKNESS / 2, 0))]
    surfaces += [
        translated(leg, (x * (width / 2 - 0.06), leg_height, z * (depth / 2 - 0.06))) for x in (-1, 1) for z in (-1, 1)
    ]
    return name, placed("table", surfaces, (0, height, front + depth / 2)), depth


def _table_things(random: np.random.Generator, height: float) -> list[SceneObject]:
    """A few things at the far edge of the table, out of the way of the box."""
    things = [mug, book_stack, fruit_bowl]
    order = random.permutation(len(things))[: int(random.integers(1, 3))]
    sides = random.permutation([-1.0, 1.0])
    return [
        things[int(kind)](random, (float(side * random.uniform(0.36, 0.5)), height, float(random.uniform(0.76, 0.86))))
        for kind, side in zip(order, sides, strict=False)
    ]


def make_lighting(random: np.random.Generator) -> Lighting:
    """A lamp above and beyond the table, from the left or right, under a bright ceiling."""
    side = float(random.choice([-1.0, 1.0]))
    warmth = float(random.uniform(-1, 1))
    strength = float(random.uniform(3.9, 4.9))
    tint = (1.0 + 0.10 * warmth, 1.0, 1.0 - 0.16 * warmth)
    spot = SpotLight(
        position=(side * float(random.uniform(0.5, 1.0)), 2.4, float(random.uniform(0.7, 1.2))),
        target=(0.0, 0.74, 0.6),
        power=scaled(tint, strength),
        cone_degrees=125.0,
    )
    ambient = float(random.uniform(0.34, 0.44))
    return Lighting(
        sky=scaled(tint, ambient),
        ground=scaled((0.95, 0.9, 0.85), ambient * 0.6),
        spot=spot,
        fill_position=(-side * 0.8, 1.9, -0.3),
        fill_power=scaled((0.9, 0.95, 1.0), 0.5),
    )
