"""Hands in one frame: palms in the whole frame and in overlapping tiles, under two exposures, then landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from render.framing import Frames
from render.hand_estimation.estimator import PictureBox
from render.hand_estimation.networks import LANDMARK_SIDE, PALM_SIDE, LandmarkNetwork, PalmNetwork
from render.hand_estimation.regions import Region, box_overlap, landmark_box, region_from_landmarks, region_from_palm
from render.hand_estimation.settings import DetectionSettings
from render.rotations import Floats

_TILES = ((1.0, 0.3), (2 / 3, 0.5), (5 / 12, 0.7))
"""Sides of the tiles, in units of the picture's shorter side, and the largest step between them, in sides."""
_SMALLEST_TILE_PX = 110
"""Smaller tiles hold no more than the network saw already."""
_BRIGHTENED_TILE = 0.5
"""Tiles of at least this size are looked at under both exposures, smaller ones as they are."""
_SAME_PALM = 0.3
"""Palm boxes that overlap more are one proposal."""
_DIM = 110.0
"""Pictures whose mean brightness (of 255) is below this are brightened."""
_GAMMA, _CONTRAST_LIMIT, _CONTRAST_CELLS = 0.6, 3.0, (6, 4)


@dataclass(frozen=True)
class Sighting:
    """A hand in one frame, as the landmark network sees it.

    Attributes:
        points: [21,3] x and y in pixels of the frame, z in the same unit against the wrist, negative nearer.
        world: [21,3] metres, axes of the frame, centred on the hand.
        presence: probability that there is a hand.
        right: probability that it is a right one.
    """

    points: Floats
    world: Floats
    presence: float
    right: float

    @property
    def pixels(self) -> Floats:
        """Landmarks [21,2], pixels."""
        return self.points[:, :2]

    @property
    def region(self) -> Region:
        """The region of the picture that shows the hand."""
        return region_from_landmarks(self.pixels)

    @property
    def box(self) -> Floats:
        """Box [4] of the landmarks, pixels."""
        return landmark_box(self.pixels)


class HandDetector:
    """Finds hands in single frames; remembers nothing."""

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings
        self._palms, self._landmarks = PalmNetwork(), LandmarkNetwork()

    def exposures(self, frame: Frames, box: PictureBox) -> tuple[Frames, ...]:
        """The frame [H,W,3] as it is and, where it is dim, brightened."""
        left, top, right, bottom = box
        dim = float(frame[top:bottom, left:right].mean()) < _DIM
        return (frame, brightened(frame)) if dim and self._settings.brighten else (frame,)

    def find(self, exposures: Sequence[Frames], box: PictureBox) -> list[Sighting]:
        """Hands of one frame, the surest first, each once.

        Args:
            exposures: the frame as `exposures` gives it.
            box: the part of the frame that is picture.
        """
        left, top, right, bottom = box
        whole = Region((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top))
        found = self._look_in(exposures, [whole])
        sure = sum(hand.presence >= self._settings.sure_presence for hand in found)
        if self._settings.tiles and sure < self._settings.enough_hands:
            found = distinct([*found, *self._look_in(exposures, tiles(box))])
        return found

    def look_at(self, exposures: Sequence[Frames], region: Region, refinements: int = 1) -> Sighting:
        """What the landmark network sees in a region: the surest exposure, the region centred again on what it saw."""
        best = max((self._sight(picture, region) for picture in exposures), key=lambda hand: hand.presence)
        for _ in range(refinements):
            again = max((self._sight(picture, best.region) for picture in exposures), key=lambda hand: hand.presence)
            if again.presence < best.presence:
                break
            best = again
        return best

    def _look_in(self, exposures: Sequence[Frames], windows: Sequence[Region]) -> list[Sighting]:
        """Hands whose palms show in some windows of a frame."""
        boxes, regions, scores = [], [], []
        smallest = _BRIGHTENED_TILE * min(exposures[0].shape[:2])
        for window in windows:
            for picture in exposures if window.size >= smallest else exposures[:1]:
                palms = self._palms.find(window.crop(picture, PALM_SIDE), self._settings.palm_score)
                for box, points, score in zip(palms.boxes, palms.points, palms.scores, strict=True):
                    corners, places = window.to_picture(box.reshape(2, 2)).reshape(-1), window.to_picture(points)
                    boxes.append(corners)
                    regions.append(region_from_palm(corners, places[0], places[2]))
                    scores.append(score)
        chosen: list[int] = []
        for index in np.argsort(-np.array(scores), kind="stable"):
            if len(chosen) < self._settings.most_proposals and all(
                box_overlap(boxes[index], boxes[other]) < _SAME_PALM for other in chosen
            ):
                chosen.append(int(index))
        sightings = [self.look_at(exposures, regions[index]) for index in chosen]
        return distinct([hand for hand in sightings if hand.presence >= self._settings.presence])

    def _sight(self, picture: Frames, region: Region) -> Sighting:
        seen = self._landmarks.find(region.crop(picture, LANDMARK_SIDE))
        turn = np.array([[np.cos(region.angle), -np.sin(region.angle)], [np.sin(region.angle), np.cos(region.angle)]])
        world = seen.world.copy()
        world[:, :2] = world[:, :2] @ turn.T
        points = np.concatenate([region.to_picture(seen.points[:, :2]), seen.points[:, 2:] * region.size], axis=1)
        return Sighting(points, world, seen.presence, seen.right)


def tiles(box: PictureBox) -> list[Region]:
    """Overlapping square windows over a picture, large before small."""
    left, top, right, bottom = box
    windows: list[Region] = []
    for part, step in _TILES:
        side = part * min(right - left, bottom - top)
        if side < _SMALLEST_TILE_PX:
            continue
        centres = [
            np.linspace(low + side / 2, high - side / 2, 1 + int(np.ceil((high - low - side) / (side * step) - 1e-9)))
            for low, high in ((left, right), (top, bottom))
        ]
        windows += [Region(float(x), float(y), side) for y in centres[1] for x in centres[0]]
    return windows


def brightened(frame: Frames) -> Frames:
    """A frame [H,W,3] with its dark tones raised and its local contrast evened out."""
    table = (255 * (np.arange(256) / 255) ** _GAMMA).round().astype(np.uint8)
    lab = np.asarray(cv2.cvtColor(np.asarray(cv2.LUT(frame, table)), cv2.COLOR_RGB2LAB))
    lab[..., 0] = cv2.createCLAHE(_CONTRAST_LIMIT, _CONTRAST_CELLS).apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def distinct(hands: Sequence[Sighting]) -> list[Sighting]:
    """The surest sighting of each hand, the surest first."""
    kept: list[Sighting] = []
    for hand in sorted(hands, key=lambda each: -each.presence):
        if not any(same_hand(hand, other) for other in kept):
            kept.append(hand)
    return kept


def same_hand(first: Sighting, second: Sighting) -> bool:
    """Whether two sightings in one frame are of the same hand: their landmarks lie on one another."""
    sizes = hand_size(first), hand_size(second)
    apart = float(np.linalg.norm(first.pixels - second.pixels, axis=1).mean())
    centres = float(np.linalg.norm(first.pixels.mean(axis=0) - second.pixels.mean(axis=0)))
    return apart < 0.35 * min(sizes) or centres < 0.25 * sum(sizes)


def hand_size(hand: Sighting) -> float:
    """Size of a hand in its frame: the longer side of its region's palm, pixels."""
    return hand.region.size / 2
