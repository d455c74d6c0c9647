"""Compositing of projected Gaussians on the CPU, tile by tile (3D Gaussian Splatting, Kerbl et al. 2023).

A pixel takes the Gaussians in the order of their depths. One of opacity o contributes alpha = min(0.999, o exp(-s)),
where s is half the squared Mahalanobis distance from its mean to the pixel's centre; alpha below 1/255 counts as
nothing, and a pixel is finished before the Gaussian that would take its transmittance to 1e-4 or less. (The constants
are gsplat 1.5.3's.)

A tile's Gaussians are drawn one after the other, each on whole rows of 16 pixels: such rows fit vector registers,
which is several times faster than pixel by pixel. Every tile is computed by itself and gradients are summed in a fixed
order: the results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from render.compiled import Share, compiled, in_parts

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

FARTHEST = np.float32(20.0)
"""Exponents are cut off here, where no alpha reaches the threshold: beyond, products become denormal and slow."""

TILE = 16
"""Side of a tile, pixels."""

ALPHA_THRESHOLD = np.float32(1.0 / 255.0)
"""Least alpha that contributes."""

MAX_ALPHA = np.float32(0.999)
"""Greatest alpha; no gradient passes beyond."""

MIN_TRANSMITTANCE = np.float32(1e-4)
"""A pixel stops before its transmittance would come this low."""

MAX_EXTENT = 3.33
"""Standard deviations beyond which a Gaussian is cut off."""

MEAN_X, MEAN_Y, HALF_A, CROSS, HALF_C, OPACITY, FIRST_ROW, END_ROW, COLOUR = range(9)
"""Columns of a packed Gaussian: mean (pixels), conic (a, b, c) with a and c halved, opacity, rows that it reaches,
then its colour."""

PIXELS = TILE * TILE


class Projected(NamedTuple):
    """N projected Gaussians and V of them that are visible.

    Attributes:
        means: [N,2] pixels.
        conics: [N,3] inverse covariances (xx, xy, yy), 1 / pixels^2.
        opacities: [N].
        colours: [N,C].
        order: [V] the visible ones, nearest first.
    """

    means: Float32s
    conics: Float32s
    opacities: Float32s
    colours: Float32s
    order: Int64s


class TileLists(NamedTuple):
    """Which Gaussians reach which tile.

    Attributes:
        packed: [V, 8 + C] the visible Gaussians, nearest first; see `MEAN_X` and its neighbours.
        starts: [tiles + 1] where each tile's part of ``entries`` begins, tiles row by row.
        entries: [starts[-1]] rows of ``packed``, nearest first in each tile.
    """

    packed: Float32s
    starts: Int64s
    entries: Int32s


class DrawnImage(NamedTuple):
    """A composited image.

    Attributes:
        colours: [H,W,C] without background.
        remaining: [H,W] transmittance behind everything drawn.
        ends: [H,W] end of the entries of its tile that each pixel drew.
    """

    colours: Float32s
    remaining: Float32s
    ends: Int32s


class _Tile(NamedTuple):
    """One tile while it is drawn.

    Attributes:
        light: [256] transmittance.
        live: [256] 1 where the pixel is not finished, else 0.
        last: [256] end of the entries drawn.
        sums: [C,256] colours.
        weights: [16] room for a row's weights.
    """

    light: Float32s
    live: Float32s
    last: Int32s
    sums: Float32s
    weights: Float32s


_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_LOG2_E = np.float32(1.4426950408889634)
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = (
    np.float32(value)
    for value in (
        1.0000000005920204,
        0.6931472056005101,
        0.24022646608713794,
        0.055503289975180226,
        0.009618519534360992,
        0.0013399860362913278,
        0.00015337576823814915,
    )
)
"""Polynomial of 2^x on [-0.5, 0.5], fitted at Chebyshev nodes; relative error 2e-9 before rounding."""


@compiled(inline=True)
def exp_minus(value: np.float32) -> np.float32:
    """exp(-value) for 0 <= value <= 80, to 2e-7: unlike the library's, it is computed for a row at once."""
    power = np.float32(-_LOG2_E) * value
    whole = np.floor(power + _HALF)
    x = power - whole
    fraction = _E0 + x * (_E1 + x * (_E2 + x * (_E3 + x * (_E4 + x * (_E5 + x * _E6)))))
    scale = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    result: np.float32 = fraction * scale
    return result


@compiled()
def _edge(conic: tuple[float, float, float], reach: float, height: float, side: float) -> float:
    """x, from the mean, of an ellipse's right (side 1) or left (-1) edge at a height, also from the mean.

    The ellipse is where the squared Mahalanobis distance by ``conic`` (first and second entry, determinant) is
    ``reach``.
    """
    a, b, det = conic
    x: float = (-b * height + side * np.sqrt(max(a * reach - det * height * height, 0.0))) / a
    return x


@compiled()
def _spans(projected: Projected, width: int, height: int) -> tuple[Int32s, Int32s, Int64s]:
    """Rows of pixels and, in each row of tiles, columns of tiles that the Gaussians reach; how many reach each tile.

    Returns:
        ``rows`` [V,2] first row and end, ``columns`` [S,2] first column and end for each row of tiles of each Gaussian
        in turn, ``starts`` [tiles + 1] where each tile's list begins.
    """
    means, conics, opacities, _, order = projected
    across, down = -(-width // TILE), -(-height // TILE)
    rows = np.zeros((len(order), 2), np.int32)
    columns = np.zeros((len(order) * 2 + 16, 2), np.int32)
    starts = np.zeros(across * down + 1, np.int64)
    used = 0
    for place in range(len(order)):
        which = order[place]
        x, y = float(means[which, 0]), float(means[which, 1])
        a, b, c = float(conics[which, 0]), float(conics[which, 1]), float(conics[which, 2])
        det = a * c - b * b
        # A little more than what the threshold lets through: rounding must not cut anything off.
        reach = min(2.0 * np.log(255.0 * float(opacities[which])), MAX_EXTENT * MAX_EXTENT) * 1.0001 + 1e-4
        if not (det > 0.0 and reach > 0.0):
            continue
        tall, wide = np.sqrt(reach * a / det), np.sqrt(reach * c / det)
        first, end = max(int(np.ceil(y - tall - 0.5)), 0), min(int(np.floor(y + tall - 0.5)) + 1, height)
        if first >= end:
            continue
        rows[place, 0], rows[place, 1] = first, end
        swing = -b / c * wide
        for tile_row in range(first // TILE, (end - 1) // TILE + 1):
            if used == len(columns):
                larger = np.zeros((2 * used, 2), np.int32)
                larger[:used] = columns
                columns = larger
            low = max(tile_row * TILE, first) + 0.5 - y
            high = min(tile_row * TILE + TILE, end) - 0.5 - y
            # An ellipse is widest at +-swing; between two heights, at the nearest of them.
            greatest = _edge((a, b, det), reach, min(max(swing, low), high), 1.0)
            least = _edge((a, b, det), reach, min(max(-swing, low), high), -1.0)
            left, right = max(int(np.ceil(x + least - 0.5)), 0), min(int(np.floor(x + greatest - 0.5)), width - 1)
            if left <= right:
                columns[used, 0], columns[used, 1] = left // TILE, right // TILE + 1
                for column in range(left // TILE, right // TILE + 1):
                    starts[tile_row * across + column + 1] += 1
            used += 1
    return rows, columns[:used], np.cumsum(starts)


@compiled()
def bin_gaussians(projected: Projected, width: int, height: int) -> TileLists:
    """Pack the visible Gaussians in the order of their depths and list those of each tile of an image."""
    means, conics, opacities, colours, order = projected
    across = -(-width // TILE)
    rows, columns, starts = _spans(projected, width, height)
    channels = colours.shape[1]
    packed = np.empty((len(order), COLOUR + channels), np.float32)
    entries = np.empty(starts[-1], np.int32)
    filled = starts[:-1].copy()
    used = 0
    for place in range(len(order)):
        which = order[place]
        packed[place, MEAN_X], packed[place, MEAN_Y] = means[which, 0], means[which, 1]
        packed[place, HALF_A], packed[place, CROSS] = _HALF * conics[which, 0], conics[which, 1]
        packed[place, HALF_C], packed[place, OPACITY] = _HALF * conics[which, 2], opacities[which]
        packed[place, FIRST_ROW], packed[place, END_ROW] = rows[place, 0], rows[place, 1]
        for channel in range(channels):
            packed[place, COLOUR + channel] = colours[which, channel]
        if rows[place, 0] == rows[place, 1]:
            continue
        for tile_row in range(rows[place, 0] // TILE, (rows[place, 1] - 1) // TILE + 1):
            for column in range(columns[used, 0], columns[used, 1]):
                tile = tile_row * across + column
                entries[filled[tile]] = place
                filled[tile] += 1
            used += 1
    return TileLists(packed, starts, entries)


@compiled()
def _draw_tile(lists: TileLists, tile_number: int, left: int, top: int, tile: _Tile) -> None:
    """Composite one tile, whose first pixel is at (left, top)."""
    packed, starts, entries = lists
    light, live, last, sums, weights = tile
    first, end = starts[tile_number], starts[tile_number + 1]
    channels = sums.shape[0]
    for index in range(first, end):
        if (index - first) % 16 == 0 and not np.any(live > _ZERO):
            break
        gaussian = packed[entries[index]]
        mean_x, mean_y, opacity = gaussian[MEAN_X], gaussian[MEAN_Y], gaussian[OPACITY]
        half_a, b, half_c = gaussian[HALF_A], gaussian[CROSS], gaussian[HALF_C]
        offset = np.float32(left) + _HALF - mean_x
        for row in range(max(int(gaussian[FIRST_ROW]), top), min(int(gaussian[END_ROW]), top + TILE)):
            dy = np.float32(row) + _HALF - mean_y
            slant, floor = b * dy, half_c * dy * dy
            start = (row - top) * TILE
            # Views of the row: an index that may be negative would keep the loop from using vector units.
            light_row, live_row = light[start : start + TILE], live[start : start + TILE]
            last_row = last[start : start + TILE]
            for x in range(TILE):
                dx = np.float32(x) + offset
                distance = (half_a * dx + slant) * dx + floor
                alpha = min(MAX_ALPHA, opacity * exp_minus(min(max(distance, _ZERO), FARTHEST)))
                before = light_row[x]
                after = before * (_ONE - alpha)
                hits = (distance >= _ZERO) & (alpha >= ALPHA_THRESHOLD) & (live_row[x] > _ZERO)
                draws = hits & (after > MIN_TRANSMITTANCE)
                weights[x] = alpha * before if draws else _ZERO
                light_row[x] = after if draws else before
                live_row[x] = _ZERO if hits & (after <= MIN_TRANSMITTANCE) else live_row[x]
                last_row[x] = np.int32(index + 1) if draws else last_row[x]
            for channel in range(channels):
                colour = gaussian[COLOUR + channel]
                sums_row = sums[channel, start : start + TILE]
                for x in range(TILE):
                    sums_row[x] += weights[x] * colour


@compiled()
def _draw_part(lists: TileLists, share: Share, image: DrawnImage) -> None:
    """Composite the tiles of a share of an image."""
    height, width, channels = image.colours.shape
    across, down = -(-width // TILE), -(-height // TILE)
    tile = _Tile(
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.float32),
        np.empty(PIXELS, np.int32),
        np.empty((channels, PIXELS), np.float32),
        np.empty(TILE, np.float32),
    )
    for number in range(share.part, across * down, share.parts):
        top, left = number // across * TILE, number % across * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        tile.light[:] = _ONE
        tile.live[:] = _ZERO
        tile.last[:] = np.int32(lists.starts[number])
        tile.sums[:] = _ZERO
        for y in range(rows):
            tile.live[y * TILE : y * TILE + columns] = _ONE
        _draw_tile(lists, number, left, top, tile)
        for y in range(rows):
            for x in range(columns):
                image.remaining[top + y, left + x] = tile.light[y * TILE + x]
                image.ends[top + y, left + x] = tile.last[y * TILE + x]
                for channel in range(channels):
                    image.colours[top + y, left + x, channel] = tile.sums[channel, y * TILE + x]


def draw_tiles(lists: TileLists, width: int, height: int, threads: int | None) -> DrawnImage:
    """Composite an image of a size in pixels; see `render.compiled.in_parts` for the threads."""
    channels = lists.packed.shape[1] - COLOUR
    image = DrawnImage(
        np.empty((height, width, channels), np.float32),
        np.empty((height, width), np.float32),
        np.empty((height, width), np.int32),
    )
    in_parts(lambda share: _draw_part(lists, share, image), threads)
    return image
