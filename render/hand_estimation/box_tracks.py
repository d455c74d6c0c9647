"""Hand boxes over time, for estimators that look at crops: from landmark tracks or from a file of detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.arrays import read_npz
from render.hand_estimation.estimator import HandVideo
from render.hand_estimation.regions import box_overlap
from render.hand_estimation.settings import TrackSettings
from render.hand_estimation.tracking import Track
from render.rotations import Floats

_LEAST_OVERLAP = 0.05
"""Boxes of one side that overlap less are other hands, unless they lie within two box sizes."""


@dataclass
class BoxTrack:
    """One hand's boxes over time.

    Attributes:
        is_right: its side.
        boxes: [4] by frame: left, top, right, bottom, pixels.
        scores: by frame.
    """

    is_right: bool
    boxes: dict[int, Floats] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def frame(self) -> npt.NDArray[np.int64]:
        """Frames [N], rising."""
        return np.array(sorted(self.boxes), np.int64)


def boxes_of(tracks: Sequence[Track]) -> list[BoxTrack]:
    """The boxes of landmark tracks."""
    return [
        BoxTrack(
            track.is_right,
            {frame: hand.box for frame, hand in track.sightings.items()},
            {frame: hand.presence for frame, hand in track.sightings.items()},
        )
        for track in tracks
    ]


def read_box_tracks(path: Path, video: HandVideo, settings: TrackSettings) -> list[BoxTrack]:
    """Boxes from a detections file: `frame` [N], `box` [N,4] in pixels of the clip, `is_right` [N], maybe `score` [N].

    Raises:
        DwmError: the file is missing or broken, or its values do not fit the video.
    """
    arrays = read_npz(path, required=("frame", "box", "is_right"))
    count = len(arrays["frame"])
    boxes = arrays["box"].astype(np.float64)
    scores = arrays.get("score", np.ones(count)).astype(np.float64)
    if boxes.shape != (count, 4) or arrays["is_right"].shape != (count,) or scores.shape != (count,):
        raise DwmError(f"{path}: frame, box, is_right and score differ in number; give one row a hand")
    frames, sides = arrays["frame"].astype(np.int64), arrays["is_right"].astype(np.bool_)
    outside = (frames < 0) | (frames >= len(video.frames))
    if outside.any():
        raise DwmError(f"{path}: frame {frames[outside][0]} is not in the clip of {len(video.frames)} frames")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if bad.any():
        raise DwmError(f"{path}: box {boxes[bad][0].tolist()} is empty; give left, top, right, bottom in pixels")
    tracks: list[BoxTrack] = []
    for frame in np.unique(frames):
        rows = np.flatnonzero(frames == frame)
        kept: list[int] = []
        for row in rows[np.argsort(-scores[rows], kind="stable")]:
            is_new = all(box_overlap(boxes[row], boxes[other]) < settings.duplicate_iou for other in kept)
            if is_new and sum(sides[other] == sides[row] for other in kept) < settings.max_hands_per_side:
                kept.append(int(row))
        for row in kept:
            track = _continued(tracks, int(frame), boxes[row], bool(sides[row]), settings)
            track.boxes[int(frame)], track.scores[int(frame)] = boxes[row], float(scores[row])
    return [track for track in tracks if len(track.boxes) >= settings.min_track_frames]


def _continued(tracks: list[BoxTrack], frame: int, box: Floats, is_right: bool, settings: TrackSettings) -> BoxTrack:
    """The track of this side that a box goes on with, or a new one."""
    best, nearest = None, np.inf
    for track in tracks:
        last = max(track.boxes)
        if track.is_right != is_right or last >= frame or frame - last > settings.max_gap_frames + 1:
            continue
        before = track.boxes[last]
        size = float(max((box[2:] - box[:2]).max(), (before[2:] - before[:2]).max()))
        apart = float(np.linalg.norm(box.reshape(2, 2).mean(axis=0) - before.reshape(2, 2).mean(axis=0))) / size
        if (apart < 2 or box_overlap(box, before) > _LEAST_OVERLAP) and apart < nearest:
            best, nearest = track, apart
    if best is None:
        best = BoxTrack(is_right)
        tracks.append(best)
    return best
