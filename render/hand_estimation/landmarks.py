"""The `landmarks` estimator: no licence, no GPU. Landmarks, tracks, then an articulated mesh by inverse kinematics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from render.body import load_body
from render.framing import Frames
from render.hand_estimation.assembly import TrackMeshes, as_mirrored, assemble
from render.hand_estimation.detection import HandDetector, Sighting
from render.hand_estimation.estimator import HandVideo, focal_of
from render.hand_estimation.fitting import Observations, fit_track, landmark_weights
from render.hand_estimation.hand_model import HandModel, HandPose, hand_model
from render.hand_estimation.readings import reread
from render.hand_estimation.regions import Region
from render.hand_estimation.settings import HandEstimationSettings, TrackSettings
from render.hand_estimation.smoothing import (
    filled_frames,
    interpolate,
    interpolate_rotations,
    runs,
    smooth,
    smooth_rotations,
)
from render.hand_estimation.tracking import Track, follow, link, name_sides
from render.hands import HandMotion
from render.rotations import axis_angle_from_matrix

_FILLED_SCORE = 0.5
"""Filled-in frames have at most this score."""


class LandmarkEstimator:
    """Hands by MediaPipe's networks and the hands of the shipped body."""

    def __init__(self, settings: HandEstimationSettings) -> None:
        self._settings = settings
        self._detector = HandDetector(settings.detection)
        body = load_body(settings.fit.body)
        self.models = (hand_model(body, is_right=False), hand_model(body, is_right=True))
        self._model_name = body.name
        self.faces = (body.hands[0].faces, body.hands[1].faces)

    @property
    def name(self) -> Literal["landmarks"]:
        """Value of the manifest's column ``hand_estimator``."""
        return "landmarks"

    @property
    def model_name(self) -> str:
        """The body whose hands are fitted."""
        return self._model_name

    def estimate(self, video: HandVideo) -> HandMotion:
        """Hands of every frame of a video; empty where it shows none."""
        focal_px = focal_of(video, self._settings.fit.horizontal_fov_degrees)
        meshes = []
        for track in find_tracks(video, self._detector, self._settings.tracks):
            model = self.models[int(track.is_right)]
            hands, frame, score = fitted(track, model, video, focal_px, self._settings.tracks)
            meshes.append(track_meshes(model, hands, frame, score))
        motion = assemble(meshes, self.faces, focal_px, video)
        return as_mirrored(motion) if self._settings.mirrored else motion


def find_tracks(video: HandVideo, detector: HandDetector, settings: TrackSettings) -> list[Track]:
    """The hands of a video over time, with their sides, and with readings that agree over time (`readings.reread`)."""
    box = video.box
    exposures = [detector.exposures(frame, box) for frame in video.frames]
    sightings = [detector.find(each, box) for each in exposures]
    look = _Looker(detector, exposures)
    tracks = name_sides(follow(link(sightings, settings), len(exposures), look, settings), box, settings)
    return [reread(track, look, settings) for track in tracks]


class _Looker:
    """Looks at regions of a video's frames."""

    def __init__(self, detector: HandDetector, exposures: Sequence[Sequence[Frames]]) -> None:
        self._detector, self._exposures = detector, exposures

    def __call__(self, frame: int, region: Region) -> Sighting:
        return self._detector.look_at(self._exposures[frame], region)


def fitted(
    track: Track, model: HandModel, video: HandVideo, focal_px: float, settings: TrackSettings
) -> tuple[HandPose, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The fitted, filled-in and smoothed hand of a track: its poses, their frames [N] and scores [N]."""
    seen_at = np.array(sorted(track.sightings))
    sightings = [track.sightings[int(frame)] for frame in seen_at]
    pixels = np.stack([hand.pixels for hand in sightings])
    seen = Observations(
        frame=seen_at,
        pixels=pixels - (video.width / 2, video.height / 2),
        world=np.stack([hand.world for hand in sightings]),
        weight=landmark_weights(pixels, video.box),
    )
    fit = fit_track(model, seen, focal_px)
    presence = np.array([hand.presence for hand in sightings])
    frame = filled_frames(seen_at, settings.max_gap_frames)
    score = interpolate(seen_at, presence, frame)
    score[~np.isin(frame, seen_at)] *= _FILLED_SCORE
    return smoothed(_resampled(fit.hands, seen_at, frame), frame, score, settings.smoothing_period_frames), frame, score


def _resampled(hands: HandPose, seen_at: npt.NDArray[np.int64], frame: npt.NDArray[np.int64]) -> HandPose:
    return HandPose(
        interpolate_rotations(seen_at, hands.orientation, frame),
        interpolate(seen_at, hands.translation, frame),
        interpolate(seen_at, hands.angles, frame),
    )


def smoothed(
    hands: HandPose, frame: npt.NDArray[np.int64], score: npt.NDArray[np.float64], period_frames: float
) -> HandPose:
    """Hands without jitter, every run of consecutive frames on its own: place in the image, distance, turn, hinges."""
    orientation, translation, angles = (np.array(each) for each in (hands.orientation, hands.translation, hands.angles))
    for run in runs(frame):
        weights = score[run]
        orientation[run] = smooth_rotations(orientation[run], weights, period_frames)
        angles[run] = smooth(angles[run], weights, period_frames)
        place = translation[run]
        depth = np.exp(smooth(np.log(place[:, 2:]), weights, period_frames))
        translation[run] = depth * np.concatenate(
            [smooth(place[:, :2] / place[:, 2:], weights, period_frames), np.ones_like(depth)], axis=1
        )
    return HandPose(orientation, translation, angles)


def track_meshes(
    model: HandModel, hands: HandPose, frame: npt.NDArray[np.int64], score: npt.NDArray[np.float64]
) -> TrackMeshes:
    """Meshes of a track's poses."""
    vertices, pose = model.mesh(hands)
    return TrackMeshes(
        frame=frame,
        is_right=model.is_right,
        score=score,
        pose=pose,
        orientation=axis_angle_from_matrix(hands.orientation),
        joints=model.pose(hands).points,
        vertices=vertices,
    )
