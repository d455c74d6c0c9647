"""One reading of a hand in every frame that agrees with its side and with the frames around it.

The landmark network reads one and the same hand in several ways, depending on how its region is turned: the edge of
the index finger as a thumb, the back of the hand as its palm. A region that follows from a wrong reading keeps it. So
frames that contradict the track are looked at again in turned regions and in those of their neighbours, and the
readings that agree best along the whole track are taken (Viterbi).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from render.hand_estimation.detection import Sighting, hand_size
from render.hand_estimation.settings import TrackSettings
from render.hand_estimation.tracking import Look, Track
from render.rotations import Floats

_TURNS = (-0.8, -0.4, 0.4, 0.8)
"""By how much regions are turned, radians: about the range within which the network reads a hand as upright."""
_CHANGE = 0.15
"""Usual change of a hand's landmarks about their middle between neighbouring frames, in units of its size."""
_MOST_CHANGE = 6.0
"""Changes cost no more: a hand may turn or open at once."""
_JUMP = 2.0
"""Changes above so many usual ones are doubtful."""
_LINKED_FRAMES = 2
"""Frames at most so far apart are compared."""
_SIDE_WEIGHT = 0.5
_LEAST_CHANCE = 0.02
"""Readings of the other side are never out of the question: the network's opinion on a single frame is weak."""


def reread(track: Track, look: Look, settings: TrackSettings) -> Track:
    """A track of the same frames with the readings that agree with one another and with the track's side.

    Args:
        track: with its side.
        look: sees a region of a frame.
        settings: the least probability of a reading that takes the place of another.
    """
    frames = sorted(track.sightings)
    first = [track.sightings[frame] for frame in frames]
    candidates = [[hand] for hand in first]
    for index in _doubtful(frames, first, is_right=track.is_right):
        hand = first[index]
        regions = [replace(hand.region, angle=hand.region.angle + turn) for turn in _TURNS]
        regions += [
            replace(first[near].region, x=hand.region.x, y=hand.region.y)
            for near in (index - 1, index + 1)
            if 0 <= near < len(frames) and abs(frames[near] - frames[index]) <= _LINKED_FRAMES
        ]
        others = [look(frames[index], region) for region in regions]
        candidates[index] += [
            other for other in others if other.presence >= settings.follow_presence and _is_near(other, hand)
        ]
    chosen = _agreeing(frames, candidates, is_right=track.is_right)
    return Track(dict(zip(frames, chosen, strict=True)), track.is_right)


def _is_near(other: Sighting, hand: Sighting) -> bool:
    """Whether another reading can be of the same hand, not of the other one beside it."""
    apart = float(np.linalg.norm(other.pixels.mean(axis=0) - hand.pixels.mean(axis=0)))
    return apart < 0.5 * min(hand_size(other), hand_size(hand))


def _doubtful(frames: Sequence[int], hands: Sequence[Sighting], *, is_right: bool) -> list[int]:
    """Places in the track of readings that speak for the other side or differ much from a neighbour's."""
    doubts = {index for index, hand in enumerate(hands) if _chance(hand, is_right=is_right) < 0.5}
    for index in range(1, len(frames)):
        linked = frames[index] - frames[index - 1] <= _LINKED_FRAMES
        if linked and _change(hands[index - 1], hands[index]) > _JUMP:
            doubts |= {index - 1, index}
    return sorted(doubts)


def _agreeing(frames: Sequence[int], candidates: Sequence[list[Sighting]], *, is_right: bool) -> list[Sighting]:
    """The cheapest way through the readings of each frame."""
    total = _costs(candidates[0], is_right=is_right)
    back: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    for index in range(1, len(frames)):
        steps = np.zeros((len(candidates[index - 1]), len(candidates[index])))
        if frames[index] - frames[index - 1] <= _LINKED_FRAMES:
            steps[:] = [[_step(a, b) for b in candidates[index]] for a in candidates[index - 1]]
        through = total[:, None] + steps
        back.append(through.argmin(axis=0))
        total = through.min(axis=0) + _costs(candidates[index], is_right=is_right)
    choice = [int(total.argmin())]
    for came_from in reversed(back):
        choice.append(int(came_from[choice[-1]]))
    return [hands[place] for hands, place in zip(candidates, reversed(choice), strict=True)]


def _costs(hands: Sequence[Sighting], *, is_right: bool) -> Floats:
    """What each reading costs by itself: its improbability, and less so that of its side."""
    return np.array(
        [-np.log(max(h.presence, 1e-3)) - _SIDE_WEIGHT * np.log(_chance(h, is_right=is_right)) for h in hands]
    )


def _chance(hand: Sighting, *, is_right: bool) -> float:
    return float(max(hand.right if is_right else 1 - hand.right, _LEAST_CHANCE))


def _step(first: Sighting, second: Sighting) -> float:
    return min(_change(first, second) ** 2, _MOST_CHANGE) / 2


def _change(first: Sighting, second: Sighting) -> float:
    """How much the landmarks change about their middle between two frames, 1 = usual."""
    moved = (first.pixels - first.pixels.mean(axis=0)) - (second.pixels - second.pixels.mean(axis=0))
    size = (hand_size(first) + hand_size(second)) / 2
    return float(np.linalg.norm(moved, axis=1).mean()) / size / _CHANGE
