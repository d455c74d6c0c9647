"""From captures to clips: reconstruct, pair, gates, rows, resume; what is wrong with a capture becomes its row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.profiles import Profile
from manifests.schema import Clip, ClipStatus, Group, Source
from render.camera import CameraPath
from render.hand_mask import hand_mask
from render.media_checks import check_clip_media
from render.reconstruction_settings import Densification, get_reconstruction_profile
from render.registration import measure_registration
from render.video import read_video
from sources.aria_build import build_aria, plan_build
from sources.aria_settings import AriaSettings, reconstruction_settings
from sources.building import BuildReport
from sources.synthetic.aria_capture import CapturePlan, generate_captures, stage_capture, static_truth
from sources.synthetic.aria_hands import write_hand_files
from sources.synthetic.aria_vrs import calibration_json, write_recording
from tests.helpers_aria import START_NS, TinyCapture, stored_frames, tiny_capture, without_poses

PROFILE = Profile(name="test", width=96, height=64, num_frames=9, fps=8.0, frame_step=6, stride=9)
QUICK = get_reconstruction_profile("aria_mini").model_copy(
    update={
        "width": 60,
        "height": 40,
        "steps": 6,
        "max_points": 500,
        "threads": 1,
        "densification": Densification(start=1000, stop=1000),
    }
)
FILE_HANDS = {"estimator": "file"}


def quick_settings(**more: object) -> AriaSettings:
    gates = {"min_heldout_psnr_db": 0.0, "max_registration_px": 500.0}
    values = {"profile": PROFILE, "reconstruction": QUICK, "hands": FILE_HANDS, "min_explore_frames": 4, "gates": gates}
    return AriaSettings.model_validate({**values, **more})


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


def write_empty_hands(path: Path) -> None:
    from render.arrays import write_npz
    from render.body import load_body

    faces = load_body().hands[0].faces
    count = int(faces.max()) + 1
    intrinsics = quick_settings().clip_intrinsics()
    write_npz(
        path,
        {
            "frame": np.zeros(0, np.int64),
            "is_right": np.zeros(0, np.bool_),
            "score": np.zeros(0),
            "track_id": np.zeros(0, np.int64),
            "pose": np.zeros((0, 45)),
            "orientation": np.zeros((0, 3)),
            "translation": np.zeros((0, 3)),
            "joints_camera": np.zeros((0, 21, 3)),
            "joints_image": np.zeros((0, 21, 2)),
            "vertices": np.zeros((0, count, 3)),
            "faces_left": faces,
            "faces_right": faces,
            "focal_px": intrinsics[0, 0],
        },
    )


# --- registration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_registration_measures_a_shift_outside_what_is_ignored(shift: int) -> None:
    import cv2

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
