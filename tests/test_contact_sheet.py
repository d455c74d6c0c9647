"""Contact sheets: right frames, whole labels, same bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from manifests.errors import DwmError
from render.contact_sheet import contact_sheet, encode_png, evenly_spaced
from tests.helpers_video import hands_of_moving_box, moving_box


def test_tiles_show_the_first_and_the_last_frame() -> None:
    frames = np.stack([np.full((48, 64, 3), (10 * index, 0, 0), np.uint8) for index in range(17)])
    sheet = contact_sheet([("a", frames)], columns=3, tile_width=64)
    reds = {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()}
    assert {(0, 0, 0), (80, 0, 0), (160, 0, 0)} <= reds
    assert (10, 0, 0) not in reds


def test_no_label_touches_the_border_or_a_tile() -> None:
    tiles = np.full((3, 48, 64, 3), 0, np.uint8)
    label = "a very long label of a row that cannot stand on a single line of the sheet"
    sheet = contact_sheet([(label, tiles), ("short", tiles)], tile_width=64, title="A title wider than the tiles " * 3)
    background = sheet[0, 0]
    for border in (sheet[:4], sheet[-4:], sheet[:, :4], sheet[:, -4:]):
        assert (border == background).all()
    first_tile_column = int(np.argmax((sheet == 0).all(axis=(2)).any(axis=0)))
    assert (sheet[60:, first_tile_column - 6 : first_tile_column] == background).all()


def test_rows_of_other_sizes_and_lengths_fit_together() -> None:
    rows = [("interaction", moving_box(17)), ("hands", hands_of_moving_box(5, 48, 96)), ("one", moving_box(1))]
    assert contact_sheet(rows, tile_width=80).shape[2] == 3


def test_same_frames_give_the_same_png_that_decodes_to_the_sheet() -> None:
    rows = [("interaction", moving_box(9)), ("hands", hands_of_moving_box(9))]
    sheet = contact_sheet(rows)
    data = encode_png(sheet)
    assert data == encode_png(contact_sheet(rows))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(np.asarray(decoded)[..., ::-1], sheet)


def test_evenly_spaced_frames() -> None:
    assert evenly_spaced(49, 6) == [0, 10, 19, 29, 38, 48]
    assert evenly_spaced(2, 6) == [0, 1]
    assert evenly_spaced(5, 1) == [0]


@pytest.mark.parametrize("rows", [[], [("a", np.zeros((0, 8, 8, 3), np.uint8))]])
def test_nothing_to_draw_is_an_error(rows: list[tuple[str, np.ndarray]]) -> None:
    with pytest.raises(DwmError, match="contact sheet"):
        contact_sheet(rows)
