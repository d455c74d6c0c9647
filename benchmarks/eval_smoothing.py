"""What smoothing does to the hands found in one video: their jitter, and how well meshes lie on the key points seen.

Jitter is the mean second difference of key points in the image, pixels. Register is the distance in pixels between the
places where the network would see the mesh's key points and those where it saw them, the mean over a hand's key points
inside the picture: its median and its worst over the frames. The last figure is the median intersection over union of
a mesh's silhouette with the convex hull of the key points that the network sees in the same frame; the network sees no
hand's outline, so only the change between the rows means something.

Example:
    python benchmarks/eval_smoothing.py ../shared/data/dwm_realworld/realworld_fixed/pour_coke.mp4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from manifests.profiles import get_profile
from render.framing import FitPolicy, LengthPolicy
from render.hand_estimation.assembly import assemble
from render.hand_estimation.detection import HandDetector
from render.hand_estimation.estimator import HandVideo, focal_of, hand_jitter_px, motion_intrinsics
from render.hand_estimation.fitting import landmark_weights
from render.hand_estimation.landmarks import LandmarkEstimator, find_tracks, fitted, track_meshes
from render.hand_estimation.settings import HandEstimationSettings
from render.hand_estimation.tracking import Track
from render.hand_mask import Mask
from render.hands import HandMotion
from render.mesh_renderer import MeshRenderer
from render.resampling import picture_box, plan_windows, read_sampled, read_timing
from render.rotations import Floats

DEFAULT_PERIOD = HandEstimationSettings().tracks.smoothing_period_frames


def first_clip(path: Path) -> HandVideo:
    """The first clip of a fixed-camera video at the paper's size, black bars around the picture."""
    profile = get_profile("paper")
    timing = read_timing(path)
    window = plan_windows(timing, profile.fps, profile.num_frames, LengthPolicy.PAD_LAST, max_windows=1)[0]
    frames = read_sampled(path, window.indices, profile.width, profile.height, FitPolicy.PAD)
    box = picture_box(timing.width, timing.height, profile.width, profile.height, FitPolicy.PAD)
    return HandVideo(path.stem, frames, profile.fps, picture_box=box)


@dataclass(frozen=True)
class Fitted:
    """The hands of a video at one strength of smoothing.

    Attributes:
        motion: their meshes.
        register_px: [M] mean distance of a hand's key points from those seen, for every hand seen in a frame.
    """

    motion: HandMotion
    register_px: Floats


def fit_tracks(
    tracks: Sequence[Track], video: HandVideo, estimator: LandmarkEstimator, settings: HandEstimationSettings
) -> Fitted:
    """Fit and smooth the tracks of a video, and measure how far meshes lie from what was seen."""
    focal_px = focal_of(video, settings.fit.horizontal_fov_degrees)
    meshes, distances = [], []
    for track in tracks:
        model = estimator.models[int(track.is_right)]
        hands, frame, score = fitted(track, model, video, focal_px, settings.tracks)
        meshes.append(track_meshes(model, hands, frame, score))
        landmarks = model.pose(hands).landmarks
        shown = focal_px * landmarks[..., :2] / landmarks[..., 2:] + (video.width / 2, video.height / 2)
        for points, number in zip(shown, frame.tolist(), strict=True):
            if number in track.sightings:
                seen = track.sightings[number].pixels
                inside = landmark_weights(seen[None], video.box)[0] == 1
                distances.append(float(np.linalg.norm(points - seen, axis=-1)[inside].mean()))
    return Fitted(assemble(meshes, estimator.faces, focal_px, video), np.array(distances))


def median_iou(motion: HandMotion, hulls: dict[int, Mask], video: HandVideo) -> float:
    """Median over the frames of ``hulls`` ([H,W] by frame)."""
    with MeshRenderer(video.width, video.height, shadows=False) as renderer:
        intrinsics = motion_intrinsics(motion, video.width, video.height)
        shown: Mask = renderer.render_hands(motion, intrinsics, len(video.frames))[0].max(axis=-1) > 0
    overlaps = [(shown[frame] & hull).sum() / (shown[frame] | hull).sum() for frame, hull in hulls.items()]
    return float(np.median(overlaps))


def seen_hulls(video: HandVideo, tracks: Sequence[Track]) -> dict[int, Mask]:
    """Hulls [H,W] of the key points of all hands in a frame, by frame."""
    hulls: dict[int, Mask] = {}
    for track in tracks:
        for frame, hand in track.sightings.items():
            hull = np.zeros((video.height, video.width), np.uint8)
            cv2.fillConvexPoly(hull, cv2.convexHull(np.round(hand.pixels[:, :2]).astype(np.int32)), 1)
            seen: Mask = hull > 0
            hulls[frame] = hulls[frame] | seen if frame in hulls else seen
    return hulls


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="a video whose camera stands still")
    parser.add_argument("--periods", type=float, nargs="+", default=[0.0, DEFAULT_PERIOD], help="frames; 0 is none")
    arguments = parser.parse_args()
    settings = HandEstimationSettings()
    video, estimator = first_clip(arguments.video), LandmarkEstimator(settings)
    tracks = find_tracks(video, HandDetector(settings.detection), settings.tracks)
    hulls = seen_hulls(video, tracks)
    for period in arguments.periods:
        smoothing = settings.tracks.model_copy(update={"smoothing_period_frames": period})
        result = fit_tracks(tracks, video, estimator, settings.model_copy(update={"tracks": smoothing}))
        print(
            f"smoothing over {period:g} frames: jitter {hand_jitter_px(result.motion):.1f} px, "
            f"register {np.median(result.register_px):.1f} px (worst {result.register_px.max():.1f}), "
            f"median IoU {median_iou(result.motion, hulls, video):.3f}, "
            f"hands in {len(set(result.motion.frame.tolist()))} frames"
        )


if __name__ == "__main__":
    main()
