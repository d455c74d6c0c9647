"""What smoothing does to the hands found in one video: their jitter, and how well meshes lie on the key points seen.

Jitter is the mean second difference of key points in the image, pixels. The other figure is the median intersection
over union of a mesh's silhouette with the convex hull of the key points that the network sees in the same frame; the
network sees no hand's outline, so only the change between the rows means something.

Example:
    python benchmarks/eval_smoothing.py ../shared/data/dwm_realworld/realworld_fixed/pour_coke.mp4
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from manifests.profiles import get_profile
from render.framing import FitPolicy, LengthPolicy
from render.hand_estimation.detection import HandDetector
from render.hand_estimation.estimator import HandVideo, hand_jitter_px, motion_intrinsics
from render.hand_estimation.landmarks import find_tracks
from render.hand_estimation.settings import HandEstimationSettings, open_estimator
from render.hand_mask import Mask
from render.hands import HandMotion
from render.mesh_renderer import MeshRenderer
from render.resampling import picture_box, plan_windows, read_sampled, read_timing

DEFAULT_PERIOD = HandEstimationSettings().tracks.smoothing_period_frames


def first_clip(path: Path) -> HandVideo:
    """The first clip of a fixed-camera video at the paper's size, black bars around the picture."""
    profile = get_profile("paper")
    timing = read_timing(path)
    window = plan_windows(timing, profile.fps, profile.num_frames, LengthPolicy.PAD_LAST, max_windows=1)[0]
    frames = read_sampled(path, window.indices, profile.width, profile.height, FitPolicy.PAD)
    box = picture_box(timing.width, timing.height, profile.width, profile.height, FitPolicy.PAD)
    return HandVideo(path.stem, frames, profile.fps, picture_box=box)


def median_iou(motion: HandMotion, hulls: dict[int, Mask], video: HandVideo) -> float:
    """Median over the frames of ``hulls`` ([H,W] by frame)."""
    with MeshRenderer(video.width, video.height, shadows=False) as renderer:
        intrinsics = motion_intrinsics(motion, video.width, video.height)
        shown: Mask = renderer.render_hands(motion, intrinsics, len(video.frames))[0].max(axis=-1) > 0
    overlaps = [(shown[frame] & hull).sum() / (shown[frame] | hull).sum() for frame, hull in hulls.items()]
    return float(np.median(overlaps))


def seen_hulls(video: HandVideo, settings: HandEstimationSettings) -> dict[int, Mask]:
    """Hulls [H,W] of the key points of all hands in a frame, by frame."""
    hulls: dict[int, Mask] = {}
    for track in find_tracks(video, HandDetector(settings.detection), settings.tracks):
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
    video = first_clip(arguments.video)
    hulls = seen_hulls(video, settings)
    for period in arguments.periods:
        tracks = settings.tracks.model_copy(update={"smoothing_period_frames": period})
        motion = open_estimator(settings.model_copy(update={"tracks": tracks})).estimate(video)
        figures = f"jitter {hand_jitter_px(motion):.1f} px, median IoU {median_iou(motion, hulls, video):.3f}"
        print(f"smoothing over {period:g} frames: {figures}, hands in {len(set(motion.frame.tolist()))} frames")


if __name__ == "__main__":
    main()
