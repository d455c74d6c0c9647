"""CPU milliseconds of the `landmarks` hand estimator at 720x480, and whether its memory grows with the videos.

`detect_cpu_ms`: a frame, whole picture only; `detect_tiled_cpu_ms`: with every tile. Both look under two exposures,
with a hand in view. `fit_ms_per_hand`: inverse kinematics, smoothing and mesh of a hand in a frame. `peak_rss_mb`: of
the process after ten videos; `rss_growth_mb`: how much more it holds after the tenth than after the second.

The pictures are drawn: the shipped body's hand in a skin colour over a dim textured background.

Example:
    python benchmarks/bench_hands.py --json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from render.body import load_body
from render.hand_estimation.assembly import assemble
from render.hand_estimation.detection import HandDetector
from render.hand_estimation.estimator import HandVideo, focal_of
from render.hand_estimation.fitting import Observations, fit_track
from render.hand_estimation.hand_model import HandPose, hand_model
from render.hand_estimation.landmarks import LandmarkEstimator, smoothed, track_meshes
from render.hand_estimation.settings import DetectionSettings, HandEstimationSettings
from render.mesh_renderer import MeshRenderer
from render.rotations import frame_from_axes
from render.video import Frames

WIDTH, HEIGHT, FRAMES, FOCAL_PX = 720, 480, 6, 514.0
TARGETS = {"detect_cpu_ms": 120.0, "detect_tiled_cpu_ms": 700.0, "fit_ms_per_hand": 150.0}
SKIN = np.array([224, 172, 140])


def hand_poses(frames: int) -> HandPose:
    """A right hand, fingers up, that closes while it crosses the picture."""
    model = hand_model(load_body(), is_right=True)
    facing = frame_from_axes([0.1, -1, 0], [0.2, 0, 1]) @ frame_from_axes([-1.0, 0, 0], [0, -1.0, 0]).T
    along = np.linspace(0, 1, frames)[:, None]
    return HandPose(
        np.tile(facing, (frames, 1, 1)),
        np.array([0.0, 0.08, 0.6]) + along * (0.05, 0, 0),
        model.usual + 0.3 * along * (model.upper - model.usual),
    )


def draw_video(frames: int) -> HandVideo:
    """A dim video of that hand."""
    estimator = LandmarkEstimator(HandEstimationSettings())
    blank = HandVideo("blank", np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8), 8.0)
    track = track_meshes(estimator.models[1], hand_poses(frames), np.arange(frames), np.ones(frames))
    motion = assemble([track], estimator.faces, FOCAL_PX, blank)
    camera = np.array([[FOCAL_PX, 0, WIDTH / 2], [0, FOCAL_PX, HEIGHT / 2], [0, 0, 1]])
    with MeshRenderer(WIDTH, HEIGHT) as renderer:
        drawn, _ = renderer.render_hands(motion, camera, frames)
    noise = np.random.default_rng(0).integers(60, 160, (6, 9, 3)).astype(np.uint8)
    background = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    shown = drawn.max(axis=-1, keepdims=True)
    picture: Frames = (0.7 * np.where(shown > 20, shown / 204 * SKIN, background)).clip(0, 255).astype(np.uint8)
    return HandVideo("drawn", picture, 8.0, focal_px=FOCAL_PX)


def median_cpu_ms(measure: Callable[[], object], repeats: int, units: int) -> float:
    """Median CPU time of the whole process (all threads) for one of ``units``, milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        measure()
        times.append(1000 * (time.process_time() - start) / units)
    return statistics.median(times)


def fit_ms(repeats: int, frames: int = 49) -> float:
    """Milliseconds to fit, smooth and pose one hand of one frame, in a clip of the paper's length."""
    model = hand_model(load_body(), is_right=True)
    landmarks = model.pose(hand_poses(frames)).landmarks
    pixels = FOCAL_PX * landmarks[..., :2] / landmarks[..., 2:]
    pixels += 2.0 * np.random.default_rng(0).normal(size=pixels.shape)
    world = landmarks - landmarks.mean(axis=1, keepdims=True)
    seen = Observations(np.arange(frames), pixels, world, np.ones((frames, 21)))

    def fit_all() -> None:
        hands = fit_track(model, seen, FOCAL_PX).hands
        hands = smoothed(hands, seen.frame, np.ones(frames), 7.0)
        track_meshes(model, hands, seen.frame, np.ones(frames))

    return median_cpu_ms(fit_all, repeats, frames)


def detect_ms(video: HandVideo, settings: DetectionSettings, repeats: int) -> float:
    """CPU milliseconds to look for hands in one frame of a video, which must show a hand in most frames."""
    detector = HandDetector(settings)

    def find_all() -> list[int]:
        return [len(detector.find(detector.exposures(frame, video.box), video.box)) for frame in video.frames]

    found = find_all()
    assert sum(found) >= FRAMES // 2, f"hands found a frame: {found}"
    return median_cpu_ms(find_all, repeats, FRAMES)


def held_mb(video: HandVideo, videos: int = 10) -> list[float]:
    """What the process holds after each of some videos, MiB."""
    estimator = LandmarkEstimator(HandEstimationSettings(detection=DetectionSettings(tiles=False)))
    held = []
    for _ in range(videos):
        estimator.estimate(video)
        held.append(psutil.Process().memory_info().rss / 2**20)
    return held


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median is taken")
    arguments = parser.parse_args()
    video = draw_video(FRAMES)

    figures = {
        "detect_cpu_ms": detect_ms(video, DetectionSettings(tiles=False), arguments.repeats),
        "detect_tiled_cpu_ms": detect_ms(video, DetectionSettings(enough_hands=99), arguments.repeats),
        "fit_ms_per_hand": fit_ms(arguments.repeats),
    }
    assert focal_of(video, 70.0) == FOCAL_PX
    held = held_mb(video)
    figures["rss_growth_mb"] = held[-1] - held[1]
    figures["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in figures.items():
        print(f"{name} = {value:.1f}" + (f" (target: at most {TARGETS[name]:.0f})" if name in TARGETS else ""))
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
