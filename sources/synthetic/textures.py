"""Procedural textures [256,256,3] uint8 that repeat without seams: wood, tiles, fabric, wallpaper, plaster."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from render.scene import Colour, Image

SIZE = 256
"""Side of a texture, pixels."""

_Field = npt.NDArray[np.float64]


def planks(random: np.random.Generator, colour: Colour, rows: int = 8) -> Image:
    """Floor boards along u, each with its own tone and grain."""
    shade = np.empty((SIZE, SIZE))
    height = SIZE // rows
    for row in range(rows):
        grain = _noise(random, 4, 48)[:height] * 0.16 + _noise(random, 2, 128)[:height] * 0.07
        joint = int(random.integers(0, SIZE))
        first, second = random.uniform(-0.14, 0.14, 2)
        tones = np.where((np.arange(SIZE) - joint) % SIZE < SIZE // 2, first, second)
        board = 1.0 + grain + tones[None]
        board[:2] *= 0.55
        board[:, joint % SIZE] *= 0.55
        board[:, (joint + SIZE // 2) % SIZE] *= 0.55
        shade[row * height : (row + 1) * height] = board
    return _tinted(shade, colour)


def wood(random: np.random.Generator, colour: Colour) -> Image:
    """A smooth table top: long grain along u."""
    warp = _noise(random, 2, 4) * 0.6
    rings = np.sin((np.arange(SIZE)[:, None] / SIZE + warp * 0.12) * 2 * np.pi * 9)
    return _tinted(1.0 + 0.07 * rings + 0.10 * _noise(random, 3, 64), colour)


def tiles(random: np.random.Generator, colour: Colour, count: int = 4) -> Image:
    """Square tiles with joints, each with its own tone."""
    cell = SIZE // count
    tones = np.kron(1.0 + random.uniform(-0.08, 0.08, (count, count)), np.ones((cell, cell)))
    place = np.arange(SIZE) % cell
    joint = (place[:, None] < 3) | (place[None] < 3)
    return _tinted(np.where(joint, 0.6, tones + 0.04 * _noise(random, 16, 16)), colour)


def fabric(random: np.random.Generator, colour: Colour) -> Image:
    """A woven cloth or carpet."""
    place = np.arange(SIZE) * 2 * np.pi * 32 / SIZE
    weave = 0.09 * np.sign(np.sin(place[:, None]) * np.sin(place[None]))
    return _tinted(0.95 + weave + 0.12 * _noise(random, 24, 24), colour)


def wallpaper(random: np.random.Generator, colour: Colour) -> Image:
    """Vertical stripes or a lattice of diamonds on paper."""
    place = np.arange(SIZE) / SIZE
    if random.random() < 0.5:
        pattern = np.broadcast_to(np.sin(place * 2 * np.pi * 6)[None] > 0.2, (SIZE, SIZE))
    else:
        pattern = (np.abs(np.sin(np.pi * 4 * (place[:, None] + place[None]))) < 0.18) | (
            np.abs(np.sin(np.pi * 4 * (place[:, None] - place[None]))) < 0.18
        )
    return _tinted(np.where(pattern, 0.86, 1.0) + 0.03 * _noise(random, 32, 32), colour)


def plaster(random: np.random.Generator, colour: Colour) -> Image:
    """A painted wall with faint unevenness."""
    return _tinted(1.0 + 0.05 * _noise(random, 6, 6) + 0.03 * _noise(random, 48, 48), colour)


def checks(random: np.random.Generator, colour: Colour) -> Image:
    """A coarse two-tone pattern for cloths and cartons."""
    place = np.arange(SIZE) * 4 // SIZE
    pattern = (place[:, None] + place[None]) % 2
    return _tinted(np.where(pattern == 1, 0.72, 1.0) + 0.03 * _noise(random, 32, 32), colour)


def books(random: np.random.Generator) -> Image:
    """The backs of a row of books."""
    image = np.empty((SIZE, SIZE, 3))
    start = 0
    while start < SIZE:
        width = int(random.integers(12, 30))
        colour = random.uniform(0.12, 0.75, 3) * random.uniform(0.6, 1.0)
        image[:, start : start + width] = colour
        image[:, start : start + 2] *= 0.4
        image[60:75, start + 3 : start + width - 2] = np.minimum(colour * 1.8, 1.0)
        start += width
    return _bytes(image)


def picture(random: np.random.Generator) -> Image:
    """An abstract painting: soft patches of colour."""
    layers = [_noise(random, 3, 3) for _ in range(3)]
    image = np.stack([0.5 + 0.42 * layer for layer in layers], axis=-1)
    return _bytes(image)


def _noise(random: np.random.Generator, columns: int, rows: int) -> _Field:
    """Smooth noise in about -1..1 that repeats: a random grid of ``rows`` x ``columns``, interpolated."""
    grid = np.pad(random.uniform(-1, 1, (rows, columns)), 2, mode="wrap").astype(np.float32)
    scale = (SIZE // columns * (columns + 4), SIZE // rows * (rows + 4))
    large = cv2.resize(grid, scale, interpolation=cv2.INTER_CUBIC)
    top, left = SIZE // rows * 2, SIZE // columns * 2
    field = large[top : top + SIZE // rows * rows, left : left + SIZE // columns * columns]
    return np.asarray(cv2.resize(field, (SIZE, SIZE)), np.float64)


def _tinted(shade: _Field, colour: Colour) -> Image:
    """Shade (1 = the colour itself) times a linear colour, as sRGB bytes."""
    linear = np.clip(shade, 0.0, None)[..., None] ** 2 * np.asarray(colour)
    return _bytes(np.sqrt(np.clip(linear, 0.0, 1.0)))


def _bytes(image: _Field) -> Image:
    return np.asarray(np.rint(np.clip(image, 0.0, 1.0) * 255), np.uint8)
