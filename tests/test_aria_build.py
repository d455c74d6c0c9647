"""From captures to clips: reconstruct, pair, gates, rows, resume; what is wrong with a capture becomes its row."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, Group, Source
from render.camera import CameraPath
from render.gaussian_ply import read_ply, write_ply
from render.gaussian_scene import SH_DC, GaussianScene, render_path
from render.hand_mask import hand_mask
from render.hands import HandMotion
from render.media_checks import check_clip_media
from render.reconstruction_settings import ReconstructionSettings
from render.registration import measure_registration
from render.video import read_video
from sources.aria import open_capture
from sources.aria_build import build_aria, plan_build
from sources.aria_files import find_captures
from sources.aria_masks import MaskRecord, exploration_masks, frame_name
from sources.aria_reconstruct import reconstruct_scene
from sources.aria_settings import AriaSettings, reconstruction_settings
from sources.building import BuildReport
from sources.synthetic.aria_capture import CapturePlan, generate_captures, stage_capture, static_truth
from sources.synthetic.aria_hands import write_hand_files, write_recording_hands
from sources.synthetic.aria_vrs import calibration_json, write_recording
from tests.helpers_aria import (
    FILE_HANDS,
    PROFILE,
    START_NS,
    TinyCapture,
    quick_settings,
    stored_frames,
    tiny_capture,
    without_poses,
    write_empty_hands,
)

# --- a whole capture ----------------------------------------------------------------------------------------------

PLAN = CapturePlan(seed=0, number=0, explore_frames=20, act_frames=12, source_step=8)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captures")
    generate_captures(folder, [PLAN])
    write_hand_files(folder, [PLAN], PROFILE)
    return folder


@pytest.mark.slow
def test_generated_capture_becomes_a_triplet(raw: Path, tmp_path: Path) -> None:
    fit = reconstruction_settings("demo", 320).model_copy(update={"threads": 1, "max_points": 2500})
    settings = AriaSettings.model_validate({"profile": PROFILE, "reconstruction": fit, "hands": FILE_HANDS})
    plan = plan_build(raw, settings)
    assert plan.figures().clips == 1
    report = build_aria(tmp_path / "dataset", plan)
    dataset = Dataset.open(tmp_path / "dataset")
    (clip,) = dataset.clips.rows()
    assert report.ready == 1, clip.reason
    assert (clip.source, clip.group) == (Source.SYNTHETIC, Group.SYNTHETIC_DYNAMIC)
    assert (clip.static_policy, clip.calibration_source, clip.hand_estimator) == ("reconstruction", "online", "file")
    assert clip.start_frame == PLAN.explore_frames
    assert clip.prompt_origin == "sidecar"
    assert not check_clip_media(dataset.root, clip)
    assert clip.reconstruction_psnr_db is not None
    assert clip.registration_px is not None
    assert clip.unseen_share is not None
    assert clip.reconstruction_psnr_db > 22
    assert clip.registration_px < 0.6
    assert clip.unseen_share < 0.1
    static = read_video(dataset.absolute(clip.static_path or "")).frames
    hands = read_video(dataset.absolute(clip.hands_path or "")).frames
    cameras = CameraPath.load(dataset.absolute(clip.camera_path or ""))
    truth = static_truth(stage_capture(PLAN), cameras, PROFILE.width, PROFILE.height)
    error = np.mean((static.astype(float) - truth) ** 2)
    assert 10 * np.log10(255**2 / error) > 24
    assert hand_mask(hands).any(axis=(1, 2)).sum() == clip.hand_visible_frames
    assert build_aria(tmp_path / "dataset", plan).unchanged == 1
    # A clip that has gone is made again from the scene that is there, and is the same.
    before = dataset.absolute(clip.static_path or "").read_bytes()
    dataset.absolute(clip.static_path or "").unlink()
    assert build_aria(tmp_path / "dataset", plan).ready == 1
    assert dataset.absolute(clip.static_path or "").read_bytes() == before
    assert clip.floater_share is not None
    assert clip.floater_share < 0.02
    sheet = cv2.imread(str(dataset.root / "contact_sheets" / f"aria-{PLAN.capture_id}-{PLAN.capture_id}.png"))
    assert sheet.shape[0] > 4 * 160  # four rows: recording, static, hands, overlay
    # Blobs before the cameras, where nothing is: what a bad fit leaves behind.
    add_floaters(dataset.root, cameras)
    dataset.absolute(clip.static_path or "").unlink()
    assert build_aria(tmp_path / "dataset", plan).dropped == 1
    (clip,) = dataset.clips.rows()
    assert clip.floater_share is not None
    assert clip.floater_share > 0.1
    assert clip.reason is not None
    assert f"floaters: something that is not there stands in {clip.floater_share:.1%} of the sight lines" in clip.reason


def add_floaters(dataset: Path, cameras: CameraPath) -> None:
    """Put black blobs into the only scene of a dataset, before every third camera of a path."""
    (ply,) = (dataset / "reconstructions").glob("*/scene.ply")
    scene = read_ply(ply)
    poses = cameras.world_from_camera[::3]
    places = torch.from_numpy((poses[:, :3, 3] + 0.35 * poses[:, :3, 2]).astype(np.float32))
    count = len(places)
    extra = {
        "means": places,
        "log_scales": torch.full((count, 3), float(np.log(0.1))),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        "opacity_logits": torch.full((count,), 4.0),
        "sh": torch.zeros((count, *scene.sh.shape[1:])),
    }
    extra["sh"][:, 0] = -0.5 / SH_DC
    write_ply(ply, GaussianScene(**{name: torch.cat([getattr(scene, name), added]) for name, added in extra.items()}))


@pytest.mark.slow
def test_boundary_is_proposed_by_change_where_nobody_names_it(raw: Path, tmp_path: Path) -> None:
    (raw / PLAN.capture_id / "phases.json").rename(tmp_path / "kept.json")
    try:
        fit = reconstruction_settings("demo", 120).model_copy(update={"threads": 1, "max_points": 2000})
        settings = AriaSettings.model_validate({"profile": PROFILE, "reconstruction": fit, "hands": FILE_HANDS})
        build_aria(tmp_path / "dataset", plan_build(raw, settings))
    finally:
        (tmp_path / "kept.json").rename(raw / PLAN.capture_id / "phases.json")
    (stored,) = (tmp_path / "dataset" / "reconstructions").glob("*/phases.json")
    phases = json.loads(stored.read_text())
    assert phases["origin"] == "scene_change"
    assert abs(phases["first_frame"] - PLAN.explore_frames) <= 4
    assert "differ from the reconstruction" in phases["evidence"]


@pytest.mark.slow
def test_first_hand_is_proposed_and_the_clip_made_from_hands_of_the_recording(raw: Path, tmp_path: Path) -> None:
    write_recording_hands(tmp_path / "hands", PLAN, PROFILE)
    bare = tmp_path / "bare"
    shutil.copytree(raw / PLAN.capture_id, bare / PLAN.capture_id, ignore=shutil.ignore_patterns("phases.json"))
    plan = plan_build(bare, quick_settings(hands={**FILE_HANDS, "files": tmp_path / "hands"}))
    assert plan.figures().without_phases == 1
    build_aria(tmp_path / "dataset", plan)
    (clip,) = Dataset.open(tmp_path / "dataset").clips.rows()
    assert clip.status is ClipStatus.READY, clip.reason
    (stored,) = (tmp_path / "dataset" / "reconstructions").glob("*/phases.json")
    phases = json.loads(stored.read_text())
    assert phases["origin"] == "first_hand"
    assert 0 <= phases["first_frame"] - PLAN.explore_frames <= 3
    assert clip.start_frame == phases["first_frame"]
    assert f"phase_proposed: {phases['evidence']}" in clip.flags
    assert "first hand at" in phases["evidence"]
    # The clip's hands are those of its own frames: the truth of the recording, frame by frame.
    motion = HandMotion.load(tmp_path / "dataset" / (clip.hand_motion_path or ""))
    truth = HandMotion.load(tmp_path / "hands" / f"{PLAN.capture_id}.recording.npz")
    assert len(motion)
    first = motion.select(motion.frame == 0)
    expected = truth.select(truth.frame == clip.start_frame)
    assert np.array_equal(first.vertices, expected.vertices)


@pytest.mark.slow
def test_hands_in_the_exploration_do_not_enter_the_scene(tmp_path: Path) -> None:
    plan = CapturePlan(seed=0, number=0, explore_frames=16, act_frames=4, source_step=25, explore_hands=True)
    raw = tmp_path / "raw"
    generate_captures(raw, [plan])
    write_recording_hands(raw / "hands", plan, PROFILE)
    capture = open_capture(find_captures(raw)[0])
    fit = reconstruction_settings("demo", 400).model_copy(
        update={"width": 60, "height": 40, "threads": 1, "max_points": 1500}
    )
    with_hands, without, with_folder = _mask_variants(raw, fit)
    assert len({settings.scene_hash() for settings in (with_hands, without, with_folder)}) == 3
    assert with_folder.config_hash() != with_hands.config_hash()
    frames = np.arange(plan.explore_frames)
    shown = [frame_name(frame) for frame in range(plan.explore_frames) if plan.shows_actor(frame)]
    actor = exploration_masks(capture, with_folder, frames, None)
    assert (actor.record.origin, list(actor.record.shares)) == ("folder", shown)
    assert actor.ignored is not None
    found = exploration_masks(capture, with_hands, frames, None).ignored
    assert found is not None
    assert (found & actor.ignored).sum() > 0.75 * actor.ignored.sum()  # feet are not of a hand's arm
    cameras = CameraPath(with_hands.reconstruction_intrinsics(), capture.poses(frames))
    truth = static_truth(stage_capture(plan), cameras, fit.width, fit.height)
    quality = {}
    for name, settings in (("none", without), ("file", with_hands)):
        scene = reconstruct_scene(capture, settings, tmp_path / name, None)
        record = MaskRecord.model_validate_json((tmp_path / name / "explored_masks.json").read_bytes())
        assert (record.origin, list(record.shares)) == (name, [] if name == "none" else shown)
        assert scene.masks == record
        flag = scene.masks.flag()
        assert flag is None if name == "none" else flag is not None and "8 of 16 explored frames show hands" in flag
        drawn = render_path(read_ply(scene.ply), cameras, fit.width, fit.height)
        error = np.mean((drawn.frames.astype(float) - truth)[actor.ignored] ** 2)
        quality[name] = 10 * np.log10(255**2 / error)
    # Where the arm hid the room, the scene shows the room.
    assert quality["file"] > quality["none"] + 3.0


def _mask_variants(raw: Path, fit: ReconstructionSettings) -> list[AriaSettings]:
    def with_masks(**more: object) -> AriaSettings:
        return quick_settings(hands={**FILE_HANDS, "files": raw / "hands"}, reconstruction=fit, **more)

    return [with_masks(), with_masks(mask_hands=False), with_masks(explore_masks=raw / "masks")]


def test_masks_that_do_not_fit_are_refused(tmp_path: Path, tiny: TinyCapture) -> None:
    masks = tmp_path / "masks" / "walk"
    masks.mkdir(parents=True)
    _, clip = build_tiny(tiny, tmp_path, explore_masks=tmp_path / "masks")
    assert clip.reason is not None
    assert "masks/walk: holds no mask (*.png)" in clip.reason
    cv2.imwrite(str(masks / "000002.png"), np.zeros((10, 20), np.uint8))
    _, clip = build_tiny(tiny, tmp_path, explore_masks=tmp_path / "masks")
    assert clip.reason is not None
    assert "000002.png: is 20x10; give a mask of the stored frame, 704x704" in clip.reason


# --- what is wrong with a capture ---------------------------------------------------------------------------------


def build_tiny(tiny: TinyCapture, tmp_path: Path, **more: object) -> tuple[BuildReport, Clip]:
    (tmp_path / "hands").mkdir(exist_ok=True)
    settings = quick_settings(hands={**FILE_HANDS, "files": tmp_path / "hands"}, **more)
    report = build_aria(tmp_path / "dataset", plan_build(tiny.root, settings))
    (clip,) = Dataset.open(tmp_path / "dataset").clips.rows()
    return report, clip


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCapture:
    tiny = tiny_capture(tmp_path / "raw", frames=20)
    tiny.vrs.with_name("phases.json").write_text('{"explore_frames": 10}')
    return tiny


def _truncated(tiny: TinyCapture) -> None:
    tiny.vrs.write_bytes(tiny.vrs.read_bytes()[:-1000])


def _without_calibration(tiny: TinyCapture) -> None:
    frames = stored_frames(tiny.timestamps_ns)
    write_recording(tiny.vrs, frames, 10.0, calibration=calibration_json(with_camera=False))
    (tiny.slam / "online_calibration.jsonl").unlink()


def _other_clock(tiny: TinyCapture) -> None:
    write_recording(tiny.vrs, stored_frames(tiny.timestamps_ns + 10**12), 10.0)


def _empty_points(tiny: TinyCapture) -> None:
    path = tiny.slam / "semidense_points.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).splitlines()[0] + b"\n"))


def _without_exploration(tiny: TinyCapture) -> None:
    tiny.vrs.with_name("phases.json").write_text('{"explore_frames": 2}')


def _gap(tiny: TinyCapture) -> None:
    without_poses(tiny.slam / "closed_loop_trajectory.csv", START_NS + 1_250_000_000, START_NS + 1_450_000_000)


def _broken_phases(tiny: TinyCapture) -> None:
    tiny.vrs.with_name("phases.json").write_text('{"start": 3}')


@pytest.mark.parametrize(
    ("damage", "status", "reason"),
    [
        (_truncated, ClipStatus.FAILED, "walk.vrs: is cut short"),
        (_without_calibration, ClipStatus.FAILED, "walk.vrs: carries no calibration of the colour camera"),
        (_other_clock, ClipStatus.FAILED, "no colour frame has a pose"),
        (_empty_points, ClipStatus.FAILED, "holds no semi-dense point"),
        (_broken_phases, ClipStatus.FAILED, "phases.json: start: extra inputs"),
        (_without_exploration, ClipStatus.DROPPED, "leaves 2 frames with a pose to reconstruct the scene from"),
        (_gap, ClipStatus.DROPPED, "has no pose within 0.02 s of colour frame 14"),
    ],
)
def test_damage_becomes_the_row(
    tiny: TinyCapture, tmp_path: Path, damage: Callable[[TinyCapture], None], status: ClipStatus, reason: str
) -> None:
    damage(tiny)
    report, clip = build_tiny(tiny, tmp_path)
    assert clip.status is status
    assert clip.reason is not None
    assert reason in clip.reason
    assert str(tmp_path) not in clip.reason
    assert (len(report.failures), report.dropped) == ((1, 0) if status is ClipStatus.FAILED else (0, 1))
    if status is ClipStatus.DROPPED:
        assert build_tiny(tiny, tmp_path)[0].dropped == 1


def test_view_that_was_never_explored_is_dropped_with_its_share(tmp_path: Path) -> None:
    tiny = tiny_capture(tmp_path / "raw", frames=20, turned_from=10)
    tiny.vrs.with_name("phases.json").write_text('{"explore_frames": 10}')
    write_empty_hands(tmp_path / "hands" / "walk.npz")
    report, clip = build_tiny(tiny, tmp_path)
    assert report.dropped == 1, clip.reason
    assert clip.unseen_share is not None
    assert clip.unseen_share > 0.9
    assert clip.reason is not None
    assert f"never_seen: the exploration never saw {clip.unseen_share:.1%}" in clip.reason
    assert clip.static_path is None


def test_poor_reconstruction_is_dropped_with_its_figure(tiny: TinyCapture, tmp_path: Path) -> None:
    write_empty_hands(tmp_path / "hands" / "walk.npz")
    gates = {"min_heldout_psnr_db": 90.0, "max_unseen_share": 1.0, "max_registration_px": 500.0}
    report, clip = build_tiny(tiny, tmp_path, gates=gates)
    assert report.dropped == 1
    assert clip.reason is not None
    assert f"poor_reconstruction: {clip.reconstruction_psnr_db:.2f} dB on held-out" in clip.reason


def test_one_bad_capture_does_not_end_the_batch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny = tiny_capture(tmp_path / "raw" / name, frames=20, name=name)
        tiny.vrs.with_name("phases.json").write_text('{"explore_frames": 1}')
    (tmp_path / "raw" / "a" / "a.vrs").write_bytes(b"nothing")
    (tmp_path / "hands").mkdir()
    settings = quick_settings(hands={**FILE_HANDS, "files": tmp_path / "hands"})
    report = build_aria(tmp_path / "dataset", plan_build(tmp_path / "raw", settings))
    assert (len(report.failures), report.dropped) == (1, 1)
    assert {clip.group for clip in Dataset.open(tmp_path / "dataset").clips.rows()} == {Group.REAL_DYNAMIC}
    assert len(plan_build(tmp_path / "raw", settings, only="b*").captures) == 1
    with pytest.raises(DwmError, match="none of 2 captures fits"):
        plan_build(tmp_path / "raw", settings, only="c")


# --- registration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_registration_measures_a_shift_outside_what_is_ignored(shift: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 90, 140, 3), np.uint8)
    texture = cv2.GaussianBlur(noise[0], (0, 0), 1.5)
    first = texture[None, 10:74, 20:116]
    second = texture[None, 10:74, 20 - shift : 116 - shift].copy()
    second[:, 20:50, 30:70] = 255
    ignored = np.zeros((1, 64, 96), np.bool_)
    ignored[:, 16:54, 26:74] = True
    measured = measure_registration(first, second, ignored)
    assert measured.shift_px == pytest.approx(shift, abs=0.15)
    assert measure_registration(first, second, np.ones_like(ignored)).shift_px is None
