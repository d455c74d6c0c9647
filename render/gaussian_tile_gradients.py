"""Gradients of `render.gaussian_tiles`: the same tiles, walked from the farthest Gaussian to the nearest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from render.compiled import Share, compiled, in_parts
from render.gaussian_tiles import (
    ALPHA_THRESHOLD,
    COLOUR,
    CROSS,
    END_ROW,
    FARTHEST,
    FIRST_ROW,
    HALF_A,
    HALF_C,
    MAX_ALPHA,
    MEAN_X,
    MEAN_Y,
    OPACITY,
    PIXELS,
    TILE,
    DrawnImage,
    Float32s,
    Int32s,
    Int64s,
    TileLists,
    exp_minus,
)

_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

MEAN, CONIC, OPACITY_GRADIENT, MEAN_ABSOLUTE, COLOUR_GRADIENT = 0, 2, 5, 6, 8
"""First columns of a Gaussian's gradients: mean (2), conic (3), opacity, mean with the absolute value of each pixel's
part (2, AbsGS), colour."""


class ImageGradient(NamedTuple):
    """What the backward pass is given: gradients of the colours [H,W,C] and of the alphas (1 - transmittance) [H,W]."""

    colours: Float32s
    alphas: Float32s


class _Tile(NamedTuple):
    """One tile.

    Attributes:
        light: [256] transmittance; used up.
        last: [256] end of the entries drawn.
        colour_gradient: [C,256].
        alpha_gradient: [256] gradient of the alpha times the final transmittance.
    """

    light: Float32s
    last: Int32s
    colour_gradient: Float32s
    alpha_gradient: Float32s


class _RowSums(NamedTuple):
    """Sums over the rows that a Gaussian reaches, for each column of a tile.

    Attributes:
        moments: [3,16] of the pulls (gradients of minus the exponent) times 1, dy and dy^2.
        absolute: [2,16] of the absolute values of the pulls on the mean.
        colours: [C,16] of the gradients of the colour.
    """

    moments: Float32s
    absolute: Float32s
    colours: Float32s


@compiled()
def _tile_gradients(lists: TileLists, first: int, corner: tuple[int, int], tile: _Tile, gradients: Float32s) -> None:
    """Write the gradients of each entry of a tile, from ``first``, into its row of ``gradients`` [entries, 8 + C].

    ``corner`` is the tile's first pixel (x, y).
    """
    packed, _, entries = lists
    light, last, colour_gradient, alpha_gradient = tile
    left, top = corner
    channels = colour_gradient.shape[0]
    behind = np.zeros(PIXELS, np.float32)
    dots, weights, pulls = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    sums = _RowSums(
        np.empty((3, TILE), np.float32), np.empty((2, TILE), np.float32), np.empty((channels, TILE), np.float32)
    )
    for index in range(np.max(last) - 1, first - 1, -1):
        gaussian = packed[entries[index]]
        mean_x, mean_y, opacity = gaussian[MEAN_X], gaussian[MEAN_Y], gaussian[OPACITY]
        half_a, b, half_c = gaussian[HALF_A], gaussian[CROSS], gaussian[HALF_C]
        a, c = half_a + half_a, half_c + half_c
        offset = np.float32(left) + _HALF - mean_x
        sums.moments[:], sums.absolute[:], sums.colours[:] = _ZERO, _ZERO, _ZERO
        for row in range(max(int(gaussian[FIRST_ROW]), top), min(int(gaussian[END_ROW]), top + TILE)):
            dy = np.float32(row) + _HALF - mean_y
            slant, floor = b * dy, half_c * dy * dy
            start = (row - top) * TILE
            light_row, last_row = light[start : start + TILE], last[start : start + TILE]
            behind_row, alpha_gradient_row = behind[start : start + TILE], alpha_gradient[start : start + TILE]
            _dot_row(gaussian, colour_gradient, start, dots)
            for x in range(TILE):
                dx = np.float32(x) + offset
                distance = (half_a * dx + slant) * dx + floor
                unclipped = opacity * exp_minus(min(max(distance, _ZERO), FARTHEST))
                alpha = min(MAX_ALPHA, unclipped)
                drawn = (distance >= _ZERO) & (alpha >= ALPHA_THRESHOLD) & (np.int32(index) < last_row[x])
                inverse = _ONE / (_ONE - alpha)
                before = light_row[x] * inverse
                light_row[x] = before if drawn else light_row[x]
                weights[x] = alpha * before if drawn else _ZERO
                change = before * dots[x] + (alpha_gradient_row[x] - behind_row[x]) * inverse
                behind_row[x] += weights[x] * dots[x]
                pulls[x] = -unclipped * change if drawn & (unclipped <= MAX_ALPHA) else _ZERO
            for x in range(TILE):
                dx = np.float32(x) + offset
                sums.moments[0, x] += pulls[x]
                sums.moments[1, x] += pulls[x] * dy
                sums.moments[2, x] += pulls[x] * (dy * dy)
                sums.absolute[0, x] += abs(pulls[x] * (a * dx + slant))
                sums.absolute[1, x] += abs(pulls[x] * (b * dx + c * dy))
            _add_weighted(weights, colour_gradient, start, sums.colours)
        _add_up(sums, offset, gaussian, gradients[index])


@compiled()
def _dot_row(gaussian: Float32s, colour_gradient: Float32s, start: int, dots: Float32s) -> None:
    """The product of a Gaussian's colour with the gradients [C,256] of a row of pixels, into ``dots`` [16]."""
    dots[:] = _ZERO
    for channel in range(len(colour_gradient)):
        colour, wanted = gaussian[COLOUR + channel], colour_gradient[channel, start : start + TILE]
        for x in range(TILE):
            dots[x] += colour * wanted[x]


@compiled()
def _add_weighted(weights: Float32s, colour_gradient: Float32s, start: int, sums: Float32s) -> None:
    """Add a row's gradients [C,256] times its weights [16] to ``sums`` [C,16]."""
    for channel in range(len(colour_gradient)):
        wanted, colour_sums = colour_gradient[channel, start : start + TILE], sums[channel]
        for x in range(TILE):
            colour_sums[x] += weights[x] * wanted[x]


@compiled()
def _add_up(sums: _RowSums, offset: float, gaussian: Float32s, gradient: Float32s) -> None:
    """Turn the sums over each column of pixels into an entry's gradients [8 + C]."""
    a, b, c = gaussian[HALF_A] + gaussian[HALF_A], gaussian[CROSS], gaussian[HALF_C] + gaussian[HALF_C]
    pull, pull_x, pull_y, pull_xx, pull_xy, pull_yy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    for x in range(TILE):
        dx = np.float32(x) + offset
        pull += sums.moments[0, x]
        pull_x += sums.moments[0, x] * dx
        pull_xx += sums.moments[0, x] * dx * dx
        pull_y += sums.moments[1, x]
        pull_xy += sums.moments[1, x] * dx
        pull_yy += sums.moments[2, x]
    gradient[MEAN] = -(a * pull_x + b * pull_y)
    gradient[MEAN + 1] = -(b * pull_x + c * pull_y)
    gradient[CONIC] = _HALF * pull_xx
    gradient[CONIC + 1] = pull_xy
    gradient[CONIC + 2] = _HALF * pull_yy
    gradient[OPACITY_GRADIENT] = -pull / gaussian[OPACITY]
    gradient[MEAN_ABSOLUTE] = np.sum(sums.absolute[0])
    gradient[MEAN_ABSOLUTE + 1] = np.sum(sums.absolute[1])
    for channel in range(len(sums.colours)):
        gradient[COLOUR_GRADIENT + channel] = np.sum(sums.colours[channel])


@compiled()
def _write_part(lists: TileLists, share: Share, drawn: DrawnImage, wanted: ImageGradient, gradients: Float32s) -> None:
    """Write the gradients of the entries of the tiles of a share."""
    height, width, channels = wanted.colours.shape
    across, down = -(-width // TILE), -(-height // TILE)
    tile = _Tile(
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.int32),
        np.empty((channels, PIXELS), np.float32),
        np.empty(PIXELS, np.float32),
    )
    for number in range(share.part, across * down, share.parts):
        top, left = number // across * TILE, number % across * TILE
        first = lists.starts[number]
        tile.light[:] = _ONE
        tile.last[:] = np.int32(first)
        tile.colour_gradient[:] = _ZERO
        tile.alpha_gradient[:] = _ZERO
        for y in range(min(TILE, height - top)):
            for x in range(min(TILE, width - left)):
                place, light = y * TILE + x, drawn.remaining[top + y, left + x]
                tile.light[place] = light
                tile.last[place] = drawn.ends[top + y, left + x]
                tile.alpha_gradient[place] = wanted.alphas[top + y, left + x] * light
                for channel in range(channels):
                    tile.colour_gradient[channel, place] = wanted.colours[top + y, left + x, channel]
        _tile_gradients(lists, first, (left, top), tile, gradients)


@compiled()
def _sum_entries(gradients: Float32s, entries: Int32s, order: Int64s, count: int) -> Float32s:
    """Sum the gradients of the entries of each Gaussian, in the order of the tiles: [N, 8 + C]."""
    totals = np.zeros((count, gradients.shape[1]), np.float32)
    for entry in range(len(entries)):
        which = order[entries[entry]]
        for column in range(gradients.shape[1]):
            totals[which, column] += gradients[entry, column]
    return totals


def tile_gradients(
    lists: TileLists, drawn: DrawnImage, wanted: ImageGradient, order: Int64s, count: int, *, threads: int | None
) -> Float32s:
    """Gradients of N Gaussians [N, 8 + C] from those of the image; see `MEAN` and its neighbours for the columns.

    Args:
        lists: the visible Gaussians by tiles.
        drawn: the image that was drawn from them.
        wanted: its gradients.
        order: [V] the visible Gaussians, nearest first.
        count: Gaussians in all, N.
        threads: see `render.compiled.in_parts`.
    """
    by_entry = np.zeros((len(lists.entries), COLOUR_GRADIENT + wanted.colours.shape[2]), np.float32)
    in_parts(lambda share: _write_part(lists, share, drawn, wanted, by_entry), threads)
    return _sum_entries(by_entry, lists.entries, order, count)
