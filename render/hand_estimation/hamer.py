"""The `hamer` estimator: the user's own HaMeR and MANO files; boxes from landmarks or a file; tracks, smoothing.

Never needed: detectron2, mmcv, Lightning. Runs on CUDA or on the CPU. The network sees single frames; the shape of a
hand is one for its whole track, and pose and place are smoothed over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError, UsageError
from render.hand_estimation.assembly import TrackMeshes, as_mirrored, assemble
from render.hand_estimation.box_tracks import BoxTrack, boxes_of, read_box_tracks
from render.hand_estimation.detection import HandDetector
from render.hand_estimation.estimator import HandVideo
from render.hand_estimation.hamer_geometry import (
    CropCameras,
    crop_region,
    hand_translations,
    left_faces,
    mirrored_back,
    mirrored_rotations,
    picture_focal_px,
)
from render.hand_estimation.landmarks import find_tracks
from render.hand_estimation.mano import NUM_JOINTS, ManoHand, load_mano
from render.hand_estimation.motion_files import named_file
from render.hand_estimation.settings import HandEstimationSettings
from render.hand_estimation.smoothing import (
    filled_frames,
    interpolate,
    interpolate_rotations,
    runs,
    smooth,
    smooth_rotations,
)
from render.hands import HandMotion
from render.rotations import Floats, axis_angle_from_matrix

if TYPE_CHECKING:
    from render.hand_estimation.hamer_network import HamerNetwork

_FILLED_SCORE = 0.5
"""Filled-in frames have at most this share of their neighbours' score."""


def open_hamer(settings: HandEstimationSettings) -> HamerEstimator:
    """Load HaMeR from the paths of the settings.

    Raises:
        DwmError: a path is not given, a file is missing or broken, or CUDA is asked for and not there.
    """
    import torch

    from render.hand_estimation.hamer_network import HamerNetwork

    paths: dict[str, Path] = {}
    for name in ("hamer_root", "checkpoint", "mano", "mean_params"):
        path: Path | None = getattr(settings, name)
        if path is None:
            raise UsageError(f"hand estimator 'hamer': the setting '{name}' is missing; give its path")
        if not path.exists():
            raise DwmError(f"{name} {path}: no such file or folder; check the path")
        paths[name] = path
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise DwmError("hand estimator 'hamer': device 'cuda' is not there; use 'cpu' or 'auto'")
    device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    hand = load_mano(paths["mano"])
    network = HamerNetwork(paths["hamer_root"], paths["checkpoint"], paths["mean_params"], device)
    return HamerEstimator(settings, network, hand)


class HamerEstimator:
    """Hands by HaMeR and MANO."""

    def __init__(self, settings: HandEstimationSettings, network: HamerNetwork, hand: ManoHand) -> None:
        self._settings, self._network, self._hand = settings, network, hand
        self._boxes_from = settings.detections or HandDetector(settings.detection)

    @property
    def name(self) -> Literal["hamer"]:
        """Value of the manifest's column ``hand_estimator``."""
        return "hamer"

    @property
    def model_name(self) -> str:
        """The MANO file."""
        return self._hand.name

    def estimate(self, video: HandVideo) -> HandMotion:
        """Hands of every frame of a video; empty where it shows none.

        Raises:
            DwmError: the video's detections file is missing or broken.
        """
        tracks = self._boxes(video)
        focal_px = video.focal_px or picture_focal_px(video.width, video.height, self._network.crop_side)
        meshes = [self._track_meshes(track, video, focal_px) for track in tracks]
        faces = (left_faces(self._hand.faces), self._hand.faces)
        motion = assemble(meshes, faces, focal_px, video)
        return as_mirrored(motion) if self._settings.mirrored else motion

    def _boxes(self, video: HandVideo) -> list[BoxTrack]:
        if isinstance(self._boxes_from, HandDetector):
            return boxes_of(find_tracks(video, self._boxes_from, self._settings.tracks))
        return read_box_tracks(named_file(self._boxes_from, video.name), video, self._settings.tracks)

    def _track_meshes(self, track: BoxTrack, video: HandVideo, focal_px: float) -> TrackMeshes:
        """Run the network on a track's crops; fill in, smooth and pose what it says."""
        settings = self._settings.tracks
        seen_at = track.frame
        regions = [crop_region(track.boxes[int(frame)]) for frame in seen_at]
        side, batch = self._network.crop_side, self._settings.batch_size
        outputs = []
        for start in range(0, len(seen_at), batch):
            crops = [
                region.crop(video.frames[int(frame)], side, flip=not track.is_right)
                for frame, region in zip(seen_at[start : start + batch], regions[start : start + batch], strict=True)
            ]
            outputs.append(self._network.predict(np.stack(crops)))
        cameras = CropCameras(
            scale_shift=np.concatenate([output.camera for output in outputs]),
            centre=np.array([(region.x, region.y) for region in regions]),
            size=np.array([region.size for region in regions]),
            is_right=np.full(len(seen_at), track.is_right),
        )
        presence = np.array([track.scores[int(frame)] for frame in seen_at])
        frame = filled_frames(seen_at, settings.max_gap_frames)
        score = interpolate(seen_at, presence, frame)
        score[~np.isin(frame, seen_at)] *= _FILLED_SCORE
        rotations = interpolate_rotations(seen_at, np.concatenate([output.rotations for output in outputs]), frame)
        places = interpolate(seen_at, hand_translations(cameras, video.width, video.height, focal_px), frame)
        betas = np.average(np.concatenate([output.betas for output in outputs]), axis=0, weights=presence + 1e-6)
        for run in runs(frame):
            rotations[run] = smooth_rotations(rotations[run], score[run], settings.smoothing_period_frames)
            places[run] = smooth(places[run], score[run], settings.smoothing_period_frames)
        return posed_track(self._hand, Seen(track.is_right, frame, score, rotations, places, betas))


@dataclass(frozen=True)
class Seen:
    """One track as HaMeR sees it: every hand as a right one.

    Attributes:
        is_right: the track's side.
        frame: [N].
        score: [N].
        rotations: [N,16,3,3] of the wrist and finger joints of the right hand that was seen.
        places: [N,3] origin of the hand's frame in the camera's frame, metres.
        betas: [10] shape.
    """

    is_right: bool
    frame: npt.NDArray[np.int64]
    score: Floats
    rotations: Floats
    places: Floats
    betas: Floats


def posed_track(hand: ManoHand, seen: Seen) -> TrackMeshes:
    """Meshes of one track in the camera's frame, those of a left hand mirrored back."""
    count = len(seen.rotations)
    sides = np.full(count, seen.is_right)
    vertices, joints = hand.pose(seen.rotations, seen.betas)
    vertices, joints = (mirrored_back(points, sides) + seen.places[:, None] for points in (vertices, joints))
    turned = axis_angle_from_matrix(mirrored_rotations(seen.rotations, sides))
    return TrackMeshes(
        frame=seen.frame,
        is_right=seen.is_right,
        score=seen.score,
        pose=turned[:, 1:].reshape(count, 3 * (NUM_JOINTS - 1)),
        orientation=turned[:, 0],
        joints=joints,
        vertices=vertices,
    )
