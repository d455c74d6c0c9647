"""Hands over time: linking, following, sides, limits, gaps, smoothing. Sightings are made up; no network runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manifests.errors import DwmError
from render.arrays import write_npz
from render.hand_estimation.box_tracks import read_box_tracks
from render.hand_estimation.detection import Sighting, brightened, distinct, tiles
from render.hand_estimation.estimator import HandVideo
from render.hand_estimation.regions import Region, box_overlap, region_from_landmarks
from render.hand_estimation.settings import TrackSettings
from render.hand_estimation.smoothing import (
    filled_frames,
    interpolate_rotations,
    nearest_rotations,
    runs,
    smooth,
)
from render.hand_estimation.tracking import Track, follow, link, name_sides

BOX = (0, 0, 720, 480)
_THUMB = [(-0.3, -0.2), (-0.55, -0.45), (-0.7, -0.65), (-0.8, -0.85)]
_FINGER_BASES = [(-0.3, 1.0), (0.0, 1.05), (0.22, 0.98), (0.42, 0.88)]
_FINGERS = [(x, -base - along) for x, base in _FINGER_BASES for along in (0, 0.4, 0.65, 0.85)]
SHAPE = np.array([(0, 0), *_THUMB, *_FINGERS])
"""An open hand, fingers up, in units of its palm."""


def sighting(x: float, y: float, size: float = 60.0, right: float = 0.9, presence: float = 0.95) -> Sighting:
    """A hand with its wrist at a place."""
    pixels = SHAPE * size + (x, y)
    return Sighting(np.concatenate([pixels, np.zeros((21, 1))], axis=1), np.zeros((21, 3)), presence, right)


def nothing(_frame: int, region: Region) -> Sighting:
    return sighting(region.x, region.y, presence=0.01)


def sides_of(tracks: list[Track]) -> dict[int, list[bool]]:
    """Sides by frame."""
    result: dict[int, list[bool]] = {}
    for track in tracks:
        for frame in track.sightings:
            result.setdefault(frame, []).append(track.is_right)
    return result


ANY = TrackSettings(viewpoint="any")


def test_side_is_the_vote_of_the_whole_track() -> None:
    opinions = [0.9, 0.2, 0.8, 0.95, 0.1, 0.9]
    hands = [[sighting(400 + 5 * frame, 300, right=chance)] for frame, chance in enumerate(opinions)]
    tracks = name_sides(link(hands, ANY), BOX, ANY)
    assert [(track.first, track.last, track.is_right) for track in tracks] == [(0, 5, True)]


def test_two_hands_never_have_one_side_and_the_surer_decides() -> None:
    hands = [[sighting(200, 300, right=0.7), sighting(500, 300, right=0.99)] for _ in range(5)]
    tracks = name_sides(link(hands, ANY), BOX, ANY)
    assert [track.is_right for track in tracks] == [False, True]


def test_crossing_hands_keep_their_sides() -> None:
    hands = [
        [sighting(150 + 22 * f, 300, right=0.1), sighting(150 + 22 * (20 - f), 300 - 14 * (f - 9.6), right=0.9)]
        for f in range(21)
    ]
    tracks = name_sides(link([distinct(each) for each in hands], ANY), BOX, ANY)
    sides = sides_of(tracks)
    assert all(sorted(each) == [False, True] for frame, each in sides.items() if abs(frame - 10) > 1)
    left = max((track for track in tracks if not track.is_right), key=lambda track: track.weight)
    assert left.sightings[left.first].pixels[0, 0] < 200
    assert left.sightings[left.last].pixels[0, 0] > 500


def test_egocentric_arms_outweigh_a_doubtful_network_and_a_setting_turns_that_off() -> None:
    arm_from_the_right = replace(sighting(520, 330, right=0.3))
    turn = Rotation.from_euler("z", -40, degrees=True).as_matrix()[:2, :2]
    points = arm_from_the_right.points.copy()
    points[:, :2] = (points[:, :2] - points[0, :2]) @ turn.T + points[0, :2]
    hands = [[replace(arm_from_the_right, points=points)] for _ in range(4)]
    egocentric = TrackSettings(viewpoint="egocentric")
    assert name_sides(link(hands, egocentric), BOX, egocentric)[0].is_right
    assert not name_sides(link(hands, ANY), BOX, ANY)[0].is_right


def test_four_hands_are_cut_to_one_a_side_unless_a_setting_allows_more() -> None:
    frame = [sighting(90, 300, right=0.1), sighting(270, 300, right=0.9), sighting(450, 300, right=0.05, presence=0.8)]
    frame.append(sighting(630, 300, right=0.97, presence=0.8))
    hands = [list(frame) for _ in range(4)]
    assert sides_of(name_sides(link(hands, ANY), BOX, ANY)) == {f: [False, True] for f in range(4)}
    two = TrackSettings(viewpoint="any", max_hands_per_side=2)
    assert sides_of(name_sides(link(hands, two), BOX, two)) == {f: [False, True, False, True] for f in range(4)}


def test_duplicates_of_one_hand_are_one_sighting() -> None:
    hands = [sighting(300, 300), sighting(306, 297, presence=0.7), sighting(300, 300, size=75, presence=0.6)]
    assert [hand.presence for hand in distinct(hands)] == [0.95]
    assert len(distinct([sighting(200, 300), sighting(330, 300)])) == 2


def test_tracks_that_no_frame_is_sure_of_are_dropped() -> None:
    hands = [[sighting(300, 300, presence=0.55)] for _ in range(6)] + [[sighting(100, 100, presence=0.99)]]
    assert name_sides(link(hands, TrackSettings()), BOX, TrackSettings()) == []


def test_a_hand_much_smaller_than_the_one_that_is_seen_longest_is_none() -> None:
    hands = [[sighting(100, 100, size=6.0)] for _ in range(4)] + [[sighting(400, 300)] for _ in range(20)]
    assert [track.first for track in name_sides(link(hands, ANY), BOX, ANY)] == [4]
    every_size = ANY.model_copy(update={"least_size_share": 0.0})
    assert [track.first for track in name_sides(link(hands, every_size), BOX, every_size)] == [0, 4]


def test_a_hand_is_followed_where_no_palm_was_found() -> None:
    def moving(frame: int, region: Region) -> Sighting:
        hand = sighting(200 + 20 * frame, 300, presence=0.8 if frame < 8 else 0.1)
        near = abs(region.x - hand.region.x) < hand.region.size
        return hand if near else replace(hand, presence=0.0)

    hands = [[sighting(200 + 20 * frame, 300)] if frame in {3, 4} else [] for frame in range(10)]
    tracks = follow(link(hands, ANY), 10, moving, ANY)
    assert [(track.first, track.last) for track in tracks] == [(0, 7)]
    assert [len(track.sightings) for track in follow(link(hands, ANY), 10, nothing, ANY)] == [2]


def test_far_away_hands_are_not_one_track() -> None:
    hands = [[sighting(100, 200)], [sighting(600, 400)]]
    assert len(link(hands, ANY)) == 2


def test_short_gaps_are_filled_and_long_ones_kept() -> None:
    frame = np.array([2, 3, 6, 12, 13])
    filled = filled_frames(frame, 2)
    assert filled.tolist() == [2, 3, 4, 5, 6, 12, 13]
    assert [filled[run].tolist() for run in runs(filled)] == [[2, 3, 4, 5, 6], [12, 13]]
    assert filled_frames(frame, 0).tolist() == frame.tolist()
    assert filled_frames(frame[:1], 3).tolist() == [2]


def test_smoothing_damps_jitter_without_delay_and_keeps_straight_lines() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(60.0)
    slow = np.sin(2 * np.pi * time / 30)
    noisy = slow + 0.2 * rng.normal(size=60)
    result = smooth(noisy, np.ones(60), 7.0)
    second = [np.abs(np.diff(each, n=2)).mean() for each in (noisy, result)]
    assert second[1] < 0.35 * second[0]
    assert np.abs(result - slow).mean() < 0.75 * np.abs(noisy - slow).mean()
    shifts = [np.corrcoef(np.roll(result, s)[5:-5], slow[5:-5])[0, 1] for s in (-1, 0, 1)]
    assert np.argmax(shifts) == 1
    line = np.stack([time, 3 - 2 * time], axis=1)
    np.testing.assert_allclose(smooth(line, rng.random(60) + 0.1, 9.0), line, atol=1e-6)
    np.testing.assert_array_equal(smooth(noisy, np.ones(60), 0.0), noisy)


def test_smoothing_follows_a_fast_swing_and_still_halves_the_jitter() -> None:
    """A hand that rests, is somewhere else for six frames and comes back: the peak stays, the jitter does not."""
    rng = np.random.default_rng(1)
    swing = np.zeros((60, 2))
    swing[27:33] = (120.0, -80.0)
    swing[[26, 33]] = (60.0, -40.0)
    noisy = swing + 3.0 * rng.normal(size=swing.shape)
    result = smooth(noisy, np.ones(60), 7.0)
    peak, rest = slice(26, 34), np.r_[0:22, 38:60]
    assert np.linalg.norm(result - swing, axis=1)[peak].max() < 0.15 * np.linalg.norm(swing, axis=1).max()
    jitter = [
        np.linalg.norm(np.diff(each[part], n=2, axis=0), axis=1).mean()
        for each in (noisy, result)
        for part in (slice(0, 22),)
    ]
    assert jitter[1] < 0.5 * jitter[0]
    assert np.abs(result - swing)[rest].mean() < 0.75 * np.abs(noisy - swing)[rest].mean()


def test_a_hand_that_leaves_at_once_is_found_where_it_went_and_specks_are_not_led_there() -> None:
    """Between two frames it moves farther than following looks, as where fingers leave the picture."""
    last = 5

    def look(frame: int, region: Region) -> Sighting:
        hand = sighting(300, 300) if frame <= last else sighting(378, 318)
        near = np.hypot(region.x - hand.region.x, region.y - hand.region.y) < 0.3 * hand.region.size
        return hand if near and frame <= last + 1 else replace(hand, presence=0.02)

    seen = [[sighting(300, 300)] if frame <= last else [] for frame in range(9)]
    tracks = follow(link(seen, ANY), 9, look, ANY)
    assert [(track.first, track.last) for track in tracks] == [(0, last + 1)]
    assert tracks[0].sightings[last + 1].pixels[0, 0] == pytest.approx(378)
    brief = [hands if frame >= last - 1 else [] for frame, hands in enumerate(seen)]
    unsure = ANY.model_copy(update={"follow_presence": 0.99})  # not followed backwards: it stays a speck
    assert [track.last for track in follow(link(brief, unsure), 9, look, unsure)] == [last]


def test_a_hand_that_leaves_is_not_led_to_another_hand() -> None:
    other = [sighting(378, 318) for _ in range(9)]

    def look(frame: int, region: Region) -> Sighting:
        gone = replace(sighting(300, 300), presence=0.95 if frame <= 5 else 0.02)
        return max((gone, other[frame]), key=lambda hand: -np.hypot(region.x - hand.region.x, region.y - hand.region.y))

    seen = [[sighting(300, 300), other[frame]] if frame <= 5 else [other[frame]] for frame in range(9)]
    tracks = follow(link(seen, ANY), 9, look, ANY)
    assert sorted((track.first, track.last) for track in tracks) == [(0, 5), (0, 8)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_rotations_stay_rotations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = Rotation.random(4, rng=rng).as_matrix()
    result = interpolate_rotations(np.array([0, 1, 5, 6]), values, np.arange(7))
    np.testing.assert_allclose(result @ np.swapaxes(result, 1, 2), np.tile(np.eye(3), (7, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(result), 1, atol=1e-9)
    np.testing.assert_allclose(result[[0, 1, 5, 6]], values, atol=1e-9)
    np.testing.assert_allclose(nearest_rotations(values), values, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-3.1, 3.1),
    st.floats(20, 200),
    st.tuples(st.floats(100, 600), st.floats(100, 400)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_region_of_landmarks_is_upright_and_maps_back(
    angle: float, size: float, place: tuple[float, float], inside: tuple[float, float]
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    region = region_from_landmarks(SHAPE * size @ turn.T + place)
    assert np.cos(region.angle - angle) > 0.97  # up to the lean of the drawn hand
    picture = region.to_picture(inside)
    matrix = region.picture_from_unit()
    np.testing.assert_allclose(np.linalg.solve(matrix[:, :2], picture - matrix[:, 2]), inside, atol=1e-9)
    still = region_from_landmarks(SHAPE * size)
    assert region.size == pytest.approx(still.size)


def test_crop_shows_what_lies_in_the_region_and_flips() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[40:60, 100:120] = 255
    crop = Region(110, 50, 40).crop(picture, 40)
    assert np.argwhere(crop[..., 0] > 128).min(axis=0).tolist() == [10, 10]
    assert np.argwhere(crop[..., 0] > 128).max(axis=0).tolist() == [29, 29]
    picture[40:60, 110:120] = 0
    plain, flipped = (Region(110, 50, 40).crop(picture, 40, flip=flip) for flip in (False, True))
    np.testing.assert_array_equal(plain[:, ::-1], flipped)
    quarter = Region(110, 50, 40, np.pi / 2).crop(picture, 40)  # the picture's right becomes the crop's top
    assert np.argwhere(quarter[..., 0] > 128).mean(axis=0)[0] > 20
    large = Region(100, 50, 1000).crop(np.full((100, 200, 3), 80, np.uint8), 100)
    assert large[50, 50].tolist() == [80, 80, 80]
    assert large[0].max() == 0


def test_tiles_cover_the_picture_box_and_tiny_pictures_have_few() -> None:
    box = (20, 40, 700, 440)
    covered = np.zeros((480, 720), bool)
    for tile in tiles(box):
        left, top = round(tile.x - tile.size / 2), round(tile.y - tile.size / 2)
        assert left >= 20
        assert top >= 40
        covered[top : top + round(tile.size), left : left + round(tile.size)] = True
    assert covered[40:440, 20:700].all()
    assert len(tiles(BOX)) == 3 + 8 + 15
    assert [tile.size for tile in tiles((0, 0, 192, 128))] == [128.0] * 3


def test_brightening_raises_dark_tones() -> None:
    dark = np.full((60, 80, 3), 40, np.uint8)
    dark[20:40, 20:40] = 60
    light = brightened(dark)
    assert light.shape == dark.shape
    assert light.mean() > dark.mean() + 20


def test_detections_file_becomes_tracks_without_duplicates(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    video = HandVideo("clip", np.zeros((6, 480, 720, 3), np.uint8), 8.0)
    frame = np.array([0, 0, 0, 1, 1, 3, 3])
    left, right = [100.0, 200, 160, 260], [400.0, 200, 460, 260]
    boxes = np.array([left, right, [102.0, 200, 160, 262], left, right, left, right])
    arrays = {"frame": frame, "box": boxes, "is_right": np.array([0, 1, 1, 0, 1, 0, 1], bool)}
    write_npz(folder / "clip.npz", {**arrays, "score": np.array([0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9])})
    tracks = read_box_tracks(folder / "clip.npz", video, TrackSettings())
    assert [(track.is_right, track.frame.tolist()) for track in tracks] == [(False, [0, 1, 3]), (True, [0, 1, 3])]
    for name, value, message in (
        ("frame", np.array([0, 0, 0, 1, 1, 3, 9]), "frame 9 is not in the clip of 6 frames"),
        ("box", boxes[:, [2, 1, 0, 3]], "is empty"),
        ("is_right", np.zeros(3, bool), "differ in number"),
    ):
        write_npz(folder / "bad.npz", {**arrays, name: value})
        with pytest.raises(DwmError, match=message):
            read_box_tracks(folder / "bad.npz", video, TrackSettings())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=4, max_size=4), st.floats(1, 50), st.floats(1, 50))
def test_box_overlap_is_symmetric_and_at_most_one(corner: list[float], width: float, height: float) -> None:
    first = [corner[0], corner[1], corner[0] + width, corner[1] + height]
    second = [corner[2], corner[3], corner[2] + height, corner[3] + width]
    assert box_overlap(first, second) == pytest.approx(box_overlap(second, first))
    assert 0 <= box_overlap(first, second) <= 1
    assert box_overlap(first, first) == pytest.approx(1)
