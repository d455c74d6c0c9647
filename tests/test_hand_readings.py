"""Readings of one hand over time: contradicting frames are looked at again. A made-up network reads; none runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from render.hand_estimation.detection import Sighting
from render.hand_estimation.readings import reread
from render.hand_estimation.regions import Region
from render.hand_estimation.settings import TrackSettings
from render.hand_estimation.tracking import Track
from tests.test_hand_tracking import sighting

SETTINGS = TrackSettings(viewpoint="any")


def upright(frame: int) -> Sighting:
    """The hand as it is: a right one that moves."""
    return sighting(300 + 10 * frame, 300)


def turned_over(frame: int) -> Sighting:
    """The same hand read as a left one, upside down about its middle."""
    hand = upright(frame)
    middle = hand.points.mean(axis=0)
    return replace(hand, points=2 * middle - hand.points, right=0.06, presence=0.9)


class Network:
    """Reads the hand rightly only in regions that are turned by about the right angle; counts its looks."""

    def __init__(self, *, readable: bool = True) -> None:
        self.frames: list[int] = []
        self._readable = readable

    def __call__(self, frame: int, region: Region) -> Sighting:
        self.frames.append(frame)
        away = (region.angle - upright(frame).region.angle + np.pi) % (2 * np.pi) - np.pi
        right_way = self._readable and abs(away) < 0.3
        return replace(upright(frame), presence=0.8) if right_way else turned_over(frame)


def track(wrong: set[int], frames: range = range(12)) -> Track:
    return Track({f: turned_over(f) if f in wrong else upright(f) for f in frames}, is_right=True)


def test_a_hand_read_as_the_other_one_is_read_again_like_its_neighbours() -> None:
    network = Network()
    result = reread(track({5, 6}), network, SETTINGS)
    assert [round(result.sightings[f].right, 2) for f in range(12)] == [0.9] * 12
    for frame, hand in result.sightings.items():
        np.testing.assert_allclose(hand.pixels, upright(frame).pixels)
    assert result.is_right
    assert set(network.frames) <= {4, 5, 6, 7}  # frames without doubt cost nothing


def test_a_track_without_contradictions_is_kept_and_not_looked_at() -> None:
    network = Network()
    steady = track(set())
    assert reread(steady, network, SETTINGS).sightings == steady.sightings
    assert network.frames == []


def test_what_no_look_reads_better_stays_as_it_was_found() -> None:
    found = track({5, 6})
    result = reread(found, Network(readable=False), SETTINGS)
    assert result.sightings.keys() == found.sightings.keys()
    np.testing.assert_allclose(result.sightings[5].pixels, found.sightings[5].pixels)


def test_another_hand_beside_it_is_no_reading_of_it() -> None:
    def other_hand(frame: int, _region: Region) -> Sighting:
        return sighting(460 + 10 * frame, 300, presence=0.99)

    result = reread(track({5, 6}), other_hand, SETTINGS)
    assert all(abs(hand.pixels.mean(axis=0)[0] - 300 - 10 * frame) < 60 for frame, hand in result.sightings.items())


def test_improbable_readings_do_not_take_the_place_of_found_ones() -> None:
    def unsure(frame: int, _region: Region) -> Sighting:
        return replace(upright(frame), presence=SETTINGS.follow_presence / 2)

    result = reread(track({5, 6}), unsure, SETTINGS)
    assert result.sightings[5].right < 0.5
