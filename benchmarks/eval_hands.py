"""How well the `landmarks` estimator finds hands in real video, against the hand videos of the public DWM release.

Reads clips in the official folder layout (`videos/<name>.mp4`, `videos_hands/<name>.mp4`); only `videos` is shown to
the estimator. For each clip the settings are those that do best on the other clips (leave one out). The release's hands
are HaMeR's own estimates: agreement with them is no proof of being right.

A found hand counts where at least a quarter of its silhouette lies on a hand of the release; its side is right where
that hand has the same colour. Intersection over union is of the mesh's whole silhouette with that hand.

Example:
    python benchmarks/eval_hands.py ../shared/data/dwm_realworld/realworld_dynamic --sheets out/hands
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from render.hand_estimation.assembly import assemble
from render.hand_estimation.detection import HandDetector, Sighting
from render.hand_estimation.estimator import HandVideo, focal_of, hand_jitter_px, motion_intrinsics
from render.hand_estimation.landmarks import LandmarkEstimator, fitted, track_meshes
from render.hand_estimation.readings import reread
from render.hand_estimation.regions import Region
from render.hand_estimation.settings import DetectionSettings, HandEstimationSettings, TrackSettings
from render.hand_estimation.tracking import Look, Track, follow, link, name_sides
from render.hand_mask import Mask, hand_mask
from render.hands import HandMotion
from render.mesh_renderer import MeshRenderer
from render.video import Frames, read_video

LEAST_PIXELS = 100
LEAST_SHARE = 0.25
GRID = tuple(product((0.0, 1.0, 2.0, 3.0, 4.0), (0.5, 0.6, 0.7, 0.8), (0.4, 0.5, 0.6)))
"""View weight, least surest sighting of a track, least presence of a followed hand."""


@dataclass(frozen=True)
class Reference:
    """The release's hands: left and right [2,T,H,W]."""

    hands: Mask

    @property
    def visible(self) -> Mask:
        """[2,T] whether a side's hand shows."""
        return np.asarray(self.hands.sum(axis=(2, 3)) >= LEAST_PIXELS)


@dataclass
class Score:
    """Counts of one clip, or of several."""

    reference_frames: int = 0
    found_frames: int = 0
    reference_hands: int = 0
    found_hands: int = 0
    right_sides: int = 0
    false_hands: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def merit(self) -> float:
        """What the settings are chosen by: hands found with their right side, less those that are none, a hand."""
        return (self.right_sides - self.false_hands) / max(1, self.reference_hands)


@dataclass
class Clip:
    """One clip: what the estimator sees, the reference, how its regions are looked at, and what the networks found."""

    video: HandVideo
    reference: Reference
    look: Look
    followed: dict[float, list[Track]]


def read_clip(folder: Path, name: str) -> tuple[HandVideo, Reference]:
    """A clip of a folder in the official layout."""
    video = read_video(folder / "videos" / f"{name}.mp4")
    drawn = read_video(folder / "videos_hands" / f"{name}.mp4").frames
    green = drawn[..., 1].astype(np.int16) > drawn[..., 0]
    mask = hand_mask(drawn)
    return HandVideo(name, video.frames, video.fps), Reference(np.stack([mask & green, mask & ~green]))


def look(video: HandVideo, reference: Reference, detection: DetectionSettings) -> Clip:
    """Run the networks over a clip, once for every presence at which a hand is followed."""
    detector = HandDetector(detection)
    exposures = [detector.exposures(frame, video.box) for frame in video.frames]
    sightings = [detector.find(each, video.box) for each in exposures]

    def look_at(frame: int, region: Region) -> Sighting:
        return detector.look_at(exposures[frame], region)

    followed = {}
    for presence in sorted({values[2] for values in GRID}):
        settings = TrackSettings(follow_presence=presence, sure_track=min(values[1] for values in GRID))
        followed[presence] = follow(link(sightings, settings), len(exposures), look_at, settings)
    return Clip(video, reference, look_at, followed)


def settings_of(values: tuple[float, float, float]) -> TrackSettings:
    """Track settings of a point of the grid."""
    return TrackSettings(view_weight=values[0], sure_track=values[1], follow_presence=values[2])


def tracks_of(clip: Clip, values: tuple[float, float, float]) -> list[Track]:
    """The named tracks of a clip at a point of the grid, with their first readings."""
    return name_sides(deepcopy(clip.followed[values[2]]), clip.video.box, settings_of(values))


def score_masks(masks: Sequence[tuple[int, bool, Mask]], reference: Reference) -> tuple[Score, list[float]]:
    """Score silhouettes (frame, side, mask [H,W]) and give the overlap of each that lies on a reference hand."""
    visible = reference.visible
    found, overlaps = set(), []
    score = Score(reference_frames=int(visible.any(axis=0).sum()), reference_hands=int(visible.sum()))
    for frame, is_right, mask in masks:
        inside = [(mask & reference.hands[side, frame]).sum() for side in (0, 1)]
        if max(inside) < LEAST_SHARE * mask.sum() or not mask.any():
            score.false_hands += 1
            continue
        side = int(np.argmax(inside))
        found.add(frame)
        score.found_hands += 1
        score.right_sides += side == int(is_right)
        target = reference.hands[side, frame]
        overlaps.append(float((mask & target).sum() / (mask | target).sum()))
    score.found_frames = len(found & set(np.flatnonzero(visible.any(axis=0)).tolist()))
    return score, overlaps


def hull_masks(clip: Clip, values: tuple[float, float, float]) -> list[tuple[int, bool, Mask]]:
    """Silhouettes as the hulls of the landmarks: quick enough to try every point of the grid."""
    masks = []
    for track in tracks_of(clip, values):
        for frame, hand in track.sightings.items():
            mask = np.zeros((clip.video.height, clip.video.width), np.uint8)
            cv2.fillConvexPoly(mask, cv2.convexHull(hand.pixels.astype(np.int32)), 1)
            masks.append((frame, track.is_right, mask.astype(np.bool_)))
    return masks


def fit(
    clip: Clip,
    tracks: Sequence[Track],
    estimator: LandmarkEstimator,
    values: tuple[float, float, float],
    period: float,
) -> HandMotion:
    """The meshes of a clip's tracks at a point of the grid."""
    settings = settings_of(values).model_copy(update={"smoothing_period_frames": period})
    focal_px = focal_of(clip.video, HandEstimationSettings().fit.horizontal_fov_degrees)
    meshes = []
    for track in tracks:
        model = estimator.models[int(track.is_right)]
        meshes.append(track_meshes(model, *fitted(track, model, clip.video, focal_px, settings)))
    return assemble(meshes, estimator.faces, focal_px, clip.video)


def mesh_masks(motion: HandMotion, renderer: MeshRenderer) -> list[tuple[int, bool, Mask]]:
    """Silhouettes of a motion's entries, each drawn alone."""
    alone = replace(motion, frame=np.arange(len(motion)))
    camera = motion_intrinsics(motion, renderer.width, renderer.height)
    drawn, _ = renderer.render_hands(alone, camera, len(motion))
    return list(zip(motion.frame.tolist(), motion.is_right.tolist(), hand_mask(drawn), strict=True))


def choose(clips: Mapping[str, Clip], left_out: str) -> tuple[float, float, float]:
    """The point of the grid that does best on all clips but one; of equals the one in the middle of the grid."""
    merits = {}
    for values in GRID:
        others = [
            score_masks(hull_masks(clip, values), clip.reference)[0] for name, clip in clips.items() if name != left_out
        ]
        merits[values] = sum(others, Score()).merit
    best = max(merits.values())
    equals = [values for values in GRID if merits[values] >= best - 1e-9]
    return equals[len(equals) // 2]


def draw_sheet(clip: Clip, motion: HandMotion, renderer: MeshRenderer, path: Path) -> None:
    """Every third frame: the picture, and the meshes on it with the outline of the release's hands."""
    drawn, _ = renderer.render_hands(
        motion, motion_intrinsics(motion, renderer.width, renderer.height), len(clip.video.frames)
    )
    rows: list[Frames] = []
    for frame in range(0, len(clip.video.frames), 3):
        picture = clip.video.frames[frame].copy()
        on = hand_mask(drawn[frame])
        picture[on] = (picture[on] * 0.3 + drawn[frame][on] * 0.7).astype(np.uint8)
        outline = np.asarray(clip.reference.hands[:, frame].any(axis=0), np.uint8)
        contours = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(picture, contours, -1, (255, 255, 0))
        rows.append(np.asarray(cv2.resize(picture, (480, 320), interpolation=cv2.INTER_AREA), np.uint8))
    while len(rows) % 4:
        rows.append(np.zeros_like(rows[0]))
    sheet = np.concatenate([np.concatenate(rows[start : start + 4], axis=1) for start in range(0, len(rows), 4)])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1])


def report(title: str, score: Score, overlaps: Sequence[float], rest: str) -> None:
    """Print one row of the table."""

    def share(part: int, whole: int) -> str:
        return f"{part}/{whole} ({part / max(1, whole):.0%})"

    print(
        f"| {title} | {share(score.found_frames, score.reference_frames)} "
        f"| {share(score.right_sides, score.found_hands)} "
        f"| {score.false_hands} | {np.median(overlaps) if len(overlaps) else float('nan'):.2f} | {rest} |",
        flush=True,
    )


def evaluate(clips: Mapping[str, Clip], title: str, sheets: Path | None) -> None:
    """Score every clip with the settings that the others choose, and print the rows."""
    estimator = LandmarkEstimator(HandEstimationSettings())
    total, pooled, pooled_raw = Score(), list[float](), list[float]()
    for name, clip in clips.items():
        values = choose(clips, name)
        tracks = [reread(track, clip.look, settings_of(values)) for track in tracks_of(clip, values)]
        with MeshRenderer(clip.video.width, clip.video.height) as renderer:
            smooth, raw = (fit(clip, tracks, estimator, values, period) for period in (7.0, 0.0))
            score, overlaps = score_masks(mesh_masks(smooth, renderer), clip.reference)
            _, raw_overlaps = score_masks(mesh_masks(raw, renderer), clip.reference)
            if sheets is not None:
                draw_sheet(clip, smooth, renderer, sheets / f"{title}_{name}.png")
        jitter = [f"{hand_jitter_px(each) or float('nan'):.1f}" for each in (raw, smooth)]
        report(f"{title} {name}", score, overlaps, f"{jitter[0]} -> {jitter[1]} | {values}")
        total, pooled, pooled_raw = total + score, pooled + overlaps, pooled_raw + raw_overlaps
    report(f"{title} pooled", total, pooled, f"IoU unsmoothed {np.median(pooled_raw or [np.nan]):.2f} |")


def main() -> None:
    """Evaluate three ways of looking and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clips in the official layout")
    parser.add_argument("--sheets", type=Path, help="folder for one picture a clip")
    parser.add_argument("--only-full", action="store_true", help="only the default way of looking")
    arguments = parser.parse_args()
    names = sorted(path.stem for path in (arguments.folder / "videos").glob("*.mp4"))
    sources = {name: read_clip(arguments.folder, name) for name in names}
    ways = {"tiles+brightened": DetectionSettings()}
    if not arguments.only_full:
        ways |= {
            "tiles": DetectionSettings(brighten=False),
            "whole frame": DetectionSettings(tiles=False, brighten=False),
        }
    print("| clip | frames found | sides right | false hands | median IoU | jitter px | view, sure, follow |")
    print("|---|---|---|---|---|---|---|")
    for title, detection in ways.items():
        clips = {name: look(*source, detection) for name, source in sources.items()}
        evaluate(clips, title, arguments.sheets)


if __name__ == "__main__":
    main()
