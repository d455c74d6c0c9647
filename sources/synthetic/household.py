"""A furnished room with everything a person can move in it, and the places where the person sits or stands.

World: y up, metres; the seat is at the origin and faces +z, a chest of drawers stands at one side wall and a cupboard
at the other. A place has its own frame: the person at the origin facing +z, left at +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from render.rotations import Floats, matrix_from_axis_angle
from render.scene import Lighting, Material, SceneObject, SpotLight, Surface, box_surface, translated
from sources.synthetic import textures
from sources.synthetic.furniture import (
    ACCENTS,
    NEAR_WALL_M,
    WALLS,
    WHITE,
    WOODS,
    book_stack,
    chair,
    fruit_bowl,
    make_floor,
    make_furniture,
    make_shell,
    make_table,
    muted,
    pick,
    placed,
    scaled,
)
from sources.synthetic.props import (
    Prop,
    make_carton,
    make_door,
    make_drawer,
    make_drink,
    make_lidded_box,
    make_tin,
)
from sources.synthetic.solids import Box

_BOARD = 0.02
_CHEST_DEPTH, _CUPBOARD_DEPTH = 0.42, 0.36
CHEST_DISTANCE, CUPBOARD_DISTANCE = 0.64, 0.70
"""From the pelvis of a standing person to the front of the furniture."""


@dataclass(frozen=True)
class Household:
    """A room and its movable things.

    Attributes:
        background: what never moves, in the world.
        lighting: its lights.
        seat: [4,4] world from the place at the table; likewise ``at_chest`` and ``at_cupboard``.
        table: the table's top in the seat's frame.
        carton: the box to push; likewise ``drink``, ``tin``, ``box`` with its ``lid``.
        drawers: drawers of the chest, from the top.
        door: door of the cupboard.
        closed: [4,4] pose of each drawer and the door, closed, in the frame of its place, by name.
        door_side: +1 or -1, where the door reaches from its hinge along x.
        description: a few words for the room.
    """

    background: tuple[SceneObject, ...]
    lighting: Lighting
    seat: Floats
    at_chest: Floats
    at_cupboard: Floats
    table: Box
    carton: Prop
    drink: Prop
    tin: Prop
    box: Prop
    lid: Prop
    drawers: tuple[Prop, ...]
    door: Prop
    closed: dict[str, Floats]
    door_side: float
    description: str

    @property
    def props(self) -> tuple[Prop, ...]:
        """Everything with a track."""
        return (self.carton, self.drink, self.tin, self.box, self.lid, *self.drawers, self.door)


def make_household(random: np.random.Generator) -> Household:
    """Furnish a room."""
    wall = pick(random, WALLS)
    far, half_width = float(random.uniform(1.9, 2.5)), float(random.uniform(1.9, 2.25))
    floor_name, floor = make_floor(random)
    height, front = float(random.uniform(0.72, 0.76)), float(random.uniform(0.22, 0.25))
    table_name, table, depth = make_table(random, height, front)
    chest_side = float(random.choice([-1.0, 1.0]))
    at_chest = _place(chest_side, half_width - _CHEST_DEPTH - CHEST_DISTANCE, float(random.uniform(-0.95, -0.7)))
    at_cupboard = _place(
        -chest_side, half_width - _CUPBOARD_DEPTH - CUPBOARD_DISTANCE, float(random.uniform(-0.95, -0.7))
    )
    chest, drawers, closed = _chest(random)
    cupboard, door, closed_door, door_side = _cupboard(random)
    background = [
        *make_shell(random, wall, floor, far, half_width),
        table,
        chair(random, 0.0, 0.55, np.pi / 5),
        *make_furniture(random, far, half_width),
        *(SceneObject(item.name, item.surfaces, at_chest @ item.pose) for item in chest),
        *(SceneObject(item.name, item.surfaces, at_cupboard @ item.pose) for item in cupboard),
        *_decoration(random, half_width),
    ]
    box, lid = make_lidded_box(random)
    return Household(
        background=tuple(background),
        lighting=_lighting(random),
        seat=np.eye(4),
        at_chest=at_chest,
        at_cupboard=at_cupboard,
        table=Box((0.0, height - 0.02, front + depth / 2), (1.6, 0.04, depth)),
        carton=make_carton(random),
        drink=make_drink(random),
        tin=make_tin(random),
        box=box,
        lid=lid,
        drawers=drawers,
        door=door,
        closed={**closed, door.name: closed_door},
        door_side=door_side,
        description=f"{table_name} in a room with {floor_name}",
    )


def _place(side: float, x: float, z: float) -> Floats:
    """World from a place [4,4] at ``side`` * x that faces the wall there."""
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_axis_angle([0.0, side * np.pi / 2, 0.0])
    pose[:3, 3] = (side * x, 0.0, z)
    return pose


def _wood(random: np.random.Generator) -> tuple[str, Material, Material]:
    """Name of a wood, its grain, and a brighter plain paint for fronts."""
    name, colour = WOODS[int(random.integers(len(WOODS)))]
    grain = Material(WHITE, textures.wood(random, colour), 0.8, gloss=0.04)
    return name, grain, Material(WHITE, textures.wood(random, scaled(colour, 1.25)), 0.5, gloss=0.05)


def _chest(random: np.random.Generator) -> tuple[list[SceneObject], tuple[Prop, ...], dict[str, Floats]]:
    """A chest of drawers in the frame of its place: its case, the two upper drawers, their closed poses."""
    name, case, front = _wood(random)
    width, height, depth = float(random.uniform(0.56, 0.7)), float(random.uniform(1.10, 1.18)), _CHEST_DEPTH
    rows = 4
    row = (height - 0.10 - _BOARD) / rows
    start = CHEST_DISTANCE
    boards = [
        Box((0.0, height - _BOARD / 2, start + depth / 2), (width + 0.02, _BOARD, depth + 0.02)),
        Box((0.0, 0.05, start + depth / 2 + 0.02), (width - 0.04, 0.10, depth - 0.06)),
        Box((0.0, height / 2, start + depth - _BOARD / 2), (width, height - 0.1, _BOARD)),
        *(Box((s * (width - _BOARD) / 2, height / 2, start + depth / 2), (_BOARD, height, depth)) for s in (-1.0, 1.0)),
        *(
            Box((0.0, 0.10 + row * (level + 1), start + depth / 2 + 0.012), (width - 2 * _BOARD, 0.012, depth - 0.03))
            for level in range(rows - 1)
        ),
    ]
    surfaces = [translated(box_surface(board.size, case), board.centre) for board in boards]
    size = (width - 2 * _BOARD - 0.006, row - 0.018, depth - 0.08)
    closed, drawers = {}, []
    for index in range(rows):
        middle = height - _BOARD - row * (index + 0.5)
        cloth = Material(WHITE, textures.fabric(random, pick(random, ACCENTS)), 0.3)
        label = f"{('upper', 'second', 'third', 'lowest')[index]} drawer of the {name} chest"
        drawer = make_drawer(f"drawer_{index + 1}", label, size, front, cloth)
        pose = np.eye(4)
        pose[:3, 3] = (0.0, middle, start)
        if index < 2:
            drawers.append(drawer)
            closed[drawer.name] = pose
        else:
            surfaces += [translated(surface, pose[:3, 3].tolist()) for surface in drawer.surfaces]
    things = fruit_bowl(random, (0.0, 0.0, 0.0)) if random.random() < 0.5 else book_stack(random, (0.0, 0.0, 0.0))
    top = (float(random.uniform(-0.15, 0.15)), height, start + depth * 0.6)
    items = [placed("chest", surfaces, (0.0, 0.0, 0.0)), placed(things.name, list(things.surfaces), top, 0.3)]
    return items, tuple(drawers), closed


def _cupboard(random: np.random.Generator) -> tuple[list[SceneObject], Prop, Floats, float]:
    """A tall cupboard in the frame of its place: its case with shelves and crockery, its door, closed, its side."""
    name, case, front = _wood(random)
    width, height, depth, start = (
        float(random.uniform(0.42, 0.48)),
        float(random.uniform(1.82, 1.95)),
        _CUPBOARD_DEPTH,
        CUPBOARD_DISTANCE,
    )
    low, high = 1.02, 1.66
    side = float(random.choice([-1.0, 1.0]))
    hinge = -side * (width / 2 - 0.01) + side * 0.02
    middle = start + depth / 2
    boards = [
        Box((0.0, height / 2, start + depth - _BOARD / 2), (width, height, _BOARD)),
        *(Box((s * (width - _BOARD) / 2, height / 2, middle), (_BOARD, height, depth)) for s in (-1.0, 1.0)),
        *(Box((0.0, level, middle), (width - 2 * _BOARD, _BOARD, depth)) for level in (low - 0.01, high + 0.01)),
        Box((0.0, (low + high) / 2, middle + 0.01), (width - 2 * _BOARD, 0.015, depth - 0.05)),
    ]
    shift = np.array([hinge + side * (width / 2 - 0.02), 0.0, 0.0])
    surfaces = [
        translated(box_surface(board.size, case), (board.centre[0] + float(shift[0]), *board.centre[1:]))
        for board in boards
    ]
    for bottom, top in ((0.06, low - 0.02), (high + 0.02, height)):
        panel = (width - 2 * _BOARD, top - bottom, 0.02)
        surfaces.append(translated(box_surface(panel, front), (float(shift[0]), (bottom + top) / 2, start + 0.02)))
    for level in (low, (low + high) / 2 + 0.008):
        surfaces += _crockery(random, width, level, middle + 0.02, float(shift[0]))
    filling = Material(scaled(pick(random, WALLS), 0.8))
    door = make_door(
        "cupboard_door",
        f"door of the {name} cupboard",
        (width - 0.02, high - low - 0.004),
        side=side,
        front=front,
        panel=filling,
    )
    pose = np.eye(4)
    pose[:3, 3] = (hinge - side * 0.01, (low + high) / 2, start - 0.021)
    return [placed("cupboard", surfaces, (0.0, 0.0, 0.0))], door, pose, side


def _crockery(random: np.random.Generator, width: float, level: float, z: float, x: float) -> list[Surface]:
    """Three or four tins and boxes in a row on a shelf board."""
    surfaces = []
    for place in np.linspace(-width / 2 + 0.09, width / 2 - 0.09, int(random.integers(3, 5))):
        tall = float(random.uniform(0.09, 0.2))
        size = (float(random.uniform(0.06, 0.09)), tall, float(random.uniform(0.08, 0.14)))
        thing = Material(scaled(pick(random, ACCENTS), float(random.uniform(0.9, 1.6))), gloss=0.1)
        surfaces.append(translated(box_surface(size, thing), (x + float(place), level + tall / 2, z)))
    return surfaces


def _decoration(random: np.random.Generator, half_width: float) -> list[SceneObject]:
    """A rug, a picture on each side wall and one on the near wall."""
    rug = Material(WHITE, textures.fabric(random, muted(pick(random, ACCENTS))), 0.5)
    items = [placed("rug", [box_surface((2.2, 0.012, 1.5), rug)], (0.0, 0.006, 0.5))]
    for turn, place in (
        (np.pi / 2, (half_width - 0.02, 1.55, float(random.uniform(0.2, 0.7)))),
        (-np.pi / 2, (-half_width + 0.02, 1.55, float(random.uniform(0.2, 0.7)))),
        (np.pi, (0.3, 1.5, -NEAR_WALL_M + 0.02)),
    ):
        size = (float(random.uniform(0.45, 0.7)), float(random.uniform(0.35, 0.5)))
        frame = box_surface((size[0] + 0.07, size[1] + 0.07, 0.03), Material((0.14, 0.10, 0.07)))
        image = box_surface((*size, 0.03), Material(WHITE, textures.picture(random), max(size)))
        items.append(placed("picture", [frame, translated(image, (0, 0, -0.008))], place, turn))
    return items


def _lighting(random: np.random.Generator) -> Lighting:
    """A ceiling lamp near the middle of the room, warm or cold, under a bright ceiling."""
    warmth, strength = float(random.uniform(-1, 1)), float(random.uniform(4.0, 4.8))
    tint = (1.0 + 0.10 * warmth, 1.0, 1.0 - 0.16 * warmth)
    side = float(random.choice([-1.0, 1.0]))
    lamp = (side * float(random.uniform(0.3, 0.8)), 2.5, float(random.uniform(0.1, 0.6)))
    ambient = float(random.uniform(0.36, 0.44))
    return Lighting(
        sky=scaled(tint, ambient),
        ground=scaled((0.95, 0.9, 0.85), ambient * 0.75),
        spot=SpotLight(lamp, (0.0, 0.5, 0.1), scaled(tint, strength), 140.0),
        fill_position=(-side * 0.7, 2.0, -0.7),
        fill_power=scaled((0.95, 0.97, 1.0), 1.1),
    )
