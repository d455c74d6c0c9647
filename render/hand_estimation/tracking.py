"""Hands over time: sightings of single frames become tracks, and each track becomes a left or a right hand.

A network's opinion of one small dim hand is often wrong, the mean over a track less often; in egocentric video the
side from which the arm comes says more than either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment

from render.hand_estimation.detection import Sighting, hand_size, same_hand
from render.hand_estimation.estimator import PictureBox
from render.hand_estimation.regions import MIDDLE_BASE, WRIST, Region, box_overlap
from render.hand_estimation.settings import TrackSettings

Look = Callable[[int, Region], Sighting]
"""Looks at a region of a frame."""

_REACH, _REACH_A_FRAME = 1.0, 0.5
"""How far a hand may move between frames, and more for every frame in between, in units of its size."""
_MOST_COST = 1.5
_SLACK = 0.2
"""What a step that goes on as the last one did costs against none, in units of the hand's size."""
_SIDE_COST, _COURSE_COST = 0.3, 0.2
"""What another opinion on the side and another course cost: they decide where two hands meet."""
_LARGEST_GROWTH = 1.7
"""A hand does not change its size more between neighbouring frames."""
_AROUND, _FAR_REACH = 0.6, 1.5
"""How far around a lost hand it is looked for, in sides of its region, and how far it may have gone, in its sizes."""
_ESTABLISHED = 5
"""Only hands that were found in so many frames are looked for around their place: specks are led astray."""
_MOST_LOG_ODDS = 3.0
_MOST_FREE_TRACKS = 10
"""Up to so many tracks that meet one another, every way to name their sides is tried."""


@dataclass
class Track:
    """One hand over time.

    Attributes:
        sightings: by frame.
        is_right: its side, once it is decided.
    """

    sightings: dict[int, Sighting] = field(default_factory=dict)
    is_right: bool = False

    @property
    def first(self) -> int:
        """Its first frame."""
        return min(self.sightings)

    @property
    def last(self) -> int:
        """Its last frame."""
        return max(self.sightings)

    @property
    def confidence(self) -> float:
        """The surest of its sightings."""
        return max(hand.presence for hand in self.sightings.values())

    @property
    def weight(self) -> float:
        """What it counts against other tracks: the sum of its sightings' probabilities."""
        return sum(hand.presence for hand in self.sightings.values())

    @property
    def size(self) -> float:
        """Usual size of the hand in its frames, pixels."""
        return float(np.median([hand_size(hand) for hand in self.sightings.values()]))


def link(sightings: Sequence[Sequence[Sighting]], settings: TrackSettings) -> list[Track]:
    """Tracks through the sightings of T frames, in the order in which they begin."""
    tracks: list[Track] = []
    for frame, hands in enumerate(sightings):
        open_tracks = [track for track in tracks if frame - track.last <= settings.max_gap_frames + 1]
        taken: set[int] = set()
        if open_tracks and hands:
            costs = np.array([[_distance(track, frame, hand) for hand in hands] for track in open_tracks])
            for row, column in zip(*linear_sum_assignment(np.minimum(costs, 10.0)), strict=True):
                if costs[row, column] < _MOST_COST:
                    open_tracks[row].sightings[frame] = hands[column]
                    taken.add(int(column))
        tracks += [Track({frame: hand}) for number, hand in enumerate(hands) if number not in taken]
    return tracks


def _distance(track: Track, frame: int, hand: Sighting) -> float:
    """How far a hand is from where a track can be, 1 = out of reach."""
    before = track.sightings[track.last]
    size = max(hand_size(before), hand_size(hand))
    growth = size / max(1e-6, min(hand_size(before), hand_size(hand)))
    if growth > _LARGEST_GROWTH * (1 + 0.2 * (frame - track.last - 1)):
        return np.inf
    here = before.pixels.mean(axis=0)
    expected = here
    earlier = track.sightings.get(track.last - 1)
    if earlier is not None:
        expected = here + (here - earlier.pixels.mean(axis=0)) * (frame - track.last)
    place = hand.pixels.mean(axis=0)
    moved = min(float(np.linalg.norm(place - here)), float(np.linalg.norm(place - expected)) + _SLACK * size)
    opinions = [each.right for each in track.sightings.values()]
    doubt = _SIDE_COST * abs(float(np.mean(opinions)) - hand.right)
    unexpected = _COURSE_COST * float(np.linalg.norm(place - expected)) / size
    reach = _REACH + _REACH_A_FRAME * (frame - track.last - 1)
    return moved / size / reach + min(doubt + unexpected, 0.5)


def follow(tracks: list[Track], num_frames: int, look: Look, settings: TrackSettings) -> list[Track]:
    """Look for each hand in the frames before, after and between its sightings; tracks that meet become one.

    Args:
        tracks: of `link`; only those that are sure are followed.
        num_frames: T.
        look: sees a region of a frame.
        settings: least probabilities.
    """
    result: list[Track] = []
    for track in sorted(tracks, key=lambda each: (-each.weight, each.first)):
        if any(_is_part(track, other, settings) for other in result):
            continue
        if track.confidence >= settings.sure_track:
            established = len(track.sightings) >= _ESTABLISHED
            others = [other for other in tracks if other is not track] if established else None
            for step in (1, -1):
                for frame in sorted(track.sightings, reverse=step < 0):
                    _extend(track, range(frame, num_frames if step > 0 else -1, step), look, settings, others)
        if not any(_is_part(track, other, settings) for other in result):  # it may have been led to another's hand
            result.append(track)
    return sorted(result, key=lambda each: each.first)


def _extend(track: Track, ahead: range, look: Look, settings: TrackSettings, others: Sequence[Track] | None) -> None:
    """Follow a track from a frame through those behind it (``ahead``, its own first) until it is seen again or lost.

    Where it is lost it is looked for around its place, once, unless ``others``, the tracks it may not take, is None.
    """
    frame, step = ahead.start, ahead.step
    while frame + step in ahead and frame + step not in track.sightings:
        here = track.sightings[frame]
        region = here.region
        before = track.sightings.get(frame - step)
        tries = [region]
        if before is not None:
            move = here.pixels.mean(axis=0) - before.pixels.mean(axis=0)
            tries.append(Region(region.x + float(move[0]), region.y + float(move[1]), region.size, region.angle))
        seen = max((look(frame + step, each) for each in tries), key=lambda hand: hand.presence)
        if seen.presence < settings.follow_presence or not _can_be(here, seen, _REACH):
            gone = None if others is None else _look_around(here, frame + step, look, settings, others)
            if gone is None:
                return
            seen, others = gone, None
        frame += step
        track.sightings[frame] = seen


def _can_be(here: Sighting, seen: Sighting, reach: float) -> bool:
    """Whether a hand can have moved so far and changed its size so much between neighbouring frames."""
    growth = hand_size(seen) / max(1e-6, hand_size(here))
    moved = float(np.linalg.norm(seen.pixels.mean(axis=0) - here.pixels.mean(axis=0)))
    return 1 / _LARGEST_GROWTH < growth < _LARGEST_GROWTH and moved <= reach * max(hand_size(seen), hand_size(here))


def _look_around(
    here: Sighting, frame: int, look: Look, settings: TrackSettings, others: Sequence[Track]
) -> Sighting | None:
    """A hand that left its place at once, as where it leaves the picture: only if it is sure and no other track's."""
    region = here.region
    away = _AROUND * region.size
    around = [
        replace(region, x=region.x + away * float(np.cos(turn)), y=region.y + away * float(np.sin(turn)))
        for turn in np.arange(8) * np.pi / 4
    ]
    seen = max((look(frame, each) for each in around), key=lambda hand: hand.presence)
    taken = [other.sightings[frame] for other in others if frame in other.sightings]
    if (
        seen.presence < settings.sure_track
        or (seen.right > 0.5) != (here.right > 0.5)
        or not _can_be(here, seen, _FAR_REACH)
        or any(is_duplicate(seen, hand, settings) for hand in taken)
    ):
        return None
    return seen


def _is_part(track: Track, other: Track, settings: TrackSettings) -> bool:
    """Whether another track sees the same hand in most frames of a track; it then gains the rest."""
    shared = track.sightings.keys() & other.sightings.keys()
    same = sum(is_duplicate(track.sightings[frame], other.sightings[frame], settings) for frame in shared)
    if not same or 2 * same < len(shared) + 1:
        return False
    for frame in track.sightings.keys() - shared:
        other.sightings[frame] = track.sightings[frame]
    return True


def is_duplicate(first: Sighting, second: Sighting, settings: TrackSettings) -> bool:
    """Whether two sightings of a frame are one hand."""
    return same_hand(first, second) or box_overlap(first.box, second.box) > settings.duplicate_iou


def name_sides(tracks: list[Track], box: PictureBox, settings: TrackSettings) -> list[Track]:
    """Decide each track's side over all of its frames, then keep at most the allowed hands of a side a frame.

    Args:
        tracks: of one video.
        box: the part of the frames that is picture.
        settings: the viewpoint and the limit.
    """
    kept = [
        track
        for track in tracks
        if track.confidence >= settings.sure_track and len(track.sightings) >= settings.min_track_frames
    ]
    usual_size = max(kept, key=lambda track: track.weight).size if kept else 0.0
    kept = [track for track in kept if track.size >= settings.least_size_share * usual_size]
    odds = {id(track): _log_odds(track, box, settings) for track in kept}
    for group in _meeting(kept):
        if len(group) <= _MOST_FREE_TRACKS:
            choices: Iterable[tuple[bool, ...]] = product((False, True), repeat=len(group))
            best = max(choices, key=lambda sides: _agreement(group, sides, odds, settings))
        else:
            best = tuple(odds[id(track)] > 0 for track in group)
        for track, is_right in zip(group, best, strict=True):
            track.is_right = is_right
    _limit(kept, settings.max_hands_per_side)
    return [track for track in kept if track.sightings]


def _log_odds(track: Track, box: PictureBox, settings: TrackSettings) -> float:
    """Evidence for a right hand, summed over a track's sightings by their probability."""
    left, _, right, _ = box
    total = 0.0
    for hand in track.sightings.values():
        chance = np.clip(hand.right, 1e-6, 1 - 1e-6)
        odds = float(np.clip(np.log(chance / (1 - chance)), -_MOST_LOG_ODDS, _MOST_LOG_ODDS))
        if settings.viewpoint == "egocentric":
            arm = hand.pixels[WRIST] - hand.pixels[MIDDLE_BASE]
            place = 2 * (hand.pixels[WRIST, 0] - left) / (right - left) - 1
            odds += settings.view_weight * float(arm[0] / (np.linalg.norm(arm) + 1e-6) + np.clip(place, -1, 1))
        total += hand.presence * odds
    return total


def _agreement(
    group: Sequence[Track], sides: tuple[bool, ...], odds: dict[int, float], settings: TrackSettings
) -> float:
    """How well sides fit the evidence; hands above the limit count for nothing."""
    score = 0.0
    for track, is_right in zip(group, sides, strict=True):
        score += odds[id(track)] if is_right else -odds[id(track)]
    for is_right in (False, True):
        same = [track for track, side in zip(group, sides, strict=True) if side == is_right]
        for frame in {frame for track in same for frame in track.sightings}:
            weights = sorted((t.sightings[frame].presence for t in same if frame in t.sightings), reverse=True)
            score -= 2 * _MOST_LOG_ODDS * sum(weights[settings.max_hands_per_side :])
    return score


def _meeting(tracks: Sequence[Track]) -> list[list[Track]]:
    """Groups of tracks that share frames with one another, directly or through others."""
    groups: list[list[Track]] = []
    for track in tracks:
        touched = [g for g in groups if any(track.sightings.keys() & other.sightings.keys() for other in g)]
        groups = [g for g in groups if all(g is not other for other in touched)]
        groups.append([*(each for g in touched for each in g), track])
    return groups


def _limit(tracks: Sequence[Track], most: int) -> None:
    """Take the hands above the limit of a side out of each frame: those of the lightest tracks go."""
    weights = {id(track): track.weight for track in tracks}
    for is_right in (False, True):
        same = [track for track in tracks if track.is_right == is_right]
        for frame in sorted({frame for track in same for frame in track.sightings}):
            present = [track for track in same if frame in track.sightings]
            for track in sorted(present, key=lambda each: -weights[id(each)])[most:]:
                del track.sightings[frame]
