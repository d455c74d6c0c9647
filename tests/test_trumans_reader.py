from __future__ import annotations

import dataclasses
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manifests.errors import DwmError
from manifests.profiles import PROFILES, Profile
from render.arrays import write_npz
from render.scene import Lighting, SpotLight
from sources.trumans import (
    ActionInterval,
    RecordingEntry,
    TrumansRecording,
    open_trumans,
)
from sources.trumans_clips import (
    FALLBACK_PROMPT,
    PROMPT_FALLBACK,
    PROMPT_FROM_ANNOTATION,
    PROMPT_FROM_OBJECTS,
    ClipWindow,
    describe_clip,
    plan_clips,
    short_label,
)
from sources.trumans_release import euler_matrices
from sources.trumans_scene import read_lights
from tests.helpers_trumans import (
    OTHER_SCENE,
    OTHER_SEGMENT,
    REAL_SEGMENT,
    SCENE,
    SEGMENT,
    make_arrays,
    make_exported,
    make_meshes,
    make_motion,
    make_object_poses,
    make_release,
    motion_arrays,
    object_track,
    pose_matrices,
    real_data,
)

PAPER = PROFILES["paper"]
"""49 frames, every 3rd, a clip every 25: a clip spans 145 source frames, starts lie 75 apart."""


# --- the release -------------------------------------------------------------------------------------------------


def test_a_release_lists_its_recordings_with_scene_and_length_and_skips_augmented_copies(tmp_path: Path) -> None:
    raw = open_trumans(make_release(tmp_path))
    assert raw.recordings() == [
        RecordingEntry(SEGMENT, SCENE, 400, "release"),
        RecordingEntry(OTHER_SEGMENT, OTHER_SCENE, 400, "release"),
    ]
    (skipped,) = raw.skipped()
    assert skipped.recording_id == f"{SEGMENT}_augment1"
    assert f"augmented copy of '{SEGMENT}'" in skipped.reason
    with pytest.raises(DwmError, match=r"_augment1' is no recording: augmented copy of"):
        raw.load(skipped.recording_id)


def test_a_release_recording_has_its_motion_objects_scene_and_actions(tmp_path: Path) -> None:
    recording = open_trumans(make_release(tmp_path)).load(SEGMENT)
    written = motion_arrays(400)
    for name in ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "expression", "transl"):
        assert np.array_equal(getattr(recording.body, name), written[name].astype(np.float64)), name
    assert recording.body.betas.shape == (0,)
    assert recording.fps == 30.0
    chair, cup = recording.objects
    assert (cup.name, cup.is_moving, chair.is_moving) == ("cup_01", True, False)
    assert cup.mesh_path == tmp_path / "Object_all" / "Object_mesh" / "cup.obj"
    assert cup.world_from_object.shape == (400, 4, 4)
    assert cup.world_from_object[-1] @ [0, 0, 1, 1] == pytest.approx([2.0, 0.8, 0.0, 1.0])  # turned 90 degrees about y
    assert recording.scene_meshes == (tmp_path / "Scene_mesh" / f"{SCENE}.obj",)
    assert recording.actions[1] == ActionInterval(90, 200, "Pick up the cup from the table")
    assert set(recording.input_files) == {"motion", "scene", "objects", "actions", "mesh/cup_01", "mesh/chair_02"}
    assert all(path.is_file() for path in recording.input_files.values())
    assert recording.notes == ()
    assert recording.faults == ()


def test_bad_frames_are_rows_of_all_segments_and_become_frames_of_theirs(tmp_path: Path) -> None:
    root = make_release(tmp_path)
    np.save(root / "bad_frames.npy", np.array([399, 400, 405]))
    raw = open_trumans(root)
    assert [entry.bad_frames for entry in raw.recordings()] == [{399}, {0, 5}]
    assert raw.load(OTHER_SEGMENT).bad_frames == {0, 5}
    # Rows that begin in the middle of the motion: frame_id says which frame a row is.
    make_arrays(root, {SEGMENT: 300}, bad_rows=[2], frame_id=np.arange(100, 400))
    recording = open_trumans(root).load(SEGMENT)
    assert recording.bad_frames == {102}
    assert any("hold 300 frames, 100 to 399, of the motion's 400" in note for note in recording.notes)


def test_segments_are_found_across_chunks_of_the_name_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sources.trumans_arrays._CHUNK", 10)
    root = make_release(tmp_path)
    for first in (9, 10, 11, 1):
        make_arrays(root, {SEGMENT: first, OTHER_SEGMENT: 25})
        assert [entry.num_frames for entry in open_trumans(root).recordings()] == [first, 25]


def test_the_motion_folder_alone_with_a_scene_is_enough(tmp_path: Path) -> None:
    make_motion(tmp_path / "raw" / "smplx_result" / f"{SEGMENT}_smplx_results.pkl", 200)
    make_meshes(tmp_path, "kitchen")
    raw = open_trumans(tmp_path / "raw", scene_mesh=tmp_path / "kitchen.obj")
    assert raw.recordings() == [RecordingEntry(SEGMENT, "kitchen", 200, "release")]
    recording = raw.load(SEGMENT)
    assert recording.scene_meshes == (tmp_path / "kitchen.obj",)
    assert recording.objects == ()
    for missing in ("bad frames", "Object_pose", "Actions"):
        assert any(missing in note for note in recording.notes), missing
    with pytest.raises(DwmError, match=r"its scene is unknown \(seg_name.npy is missing\); add seg_name.npy"):
        open_trumans(tmp_path / "raw").recordings()


def test_the_motion_comes_from_the_concatenated_arrays_when_its_pickle_is_missing(tmp_path: Path) -> None:
    root = make_release(tmp_path)
    (root / "smplx_result" / f"{OTHER_SEGMENT}_smplx_results.pkl").unlink()
    both = {name: np.concatenate([array, 2 * array]) for name, array in motion_arrays(400).items() if name != "gender"}
    make_arrays(
        root,
        {SEGMENT: 400, OTHER_SEGMENT: 400},
        human_pose=both["body_pose"],
        human_orient=both["global_orient"],
        human_transl=both["transl"],
        left_hand_pose=both["left_hand_pose"],
        right_hand_pose=both["right_hand_pose"],
    )
    recording = open_trumans(root).load(OTHER_SEGMENT)
    assert np.array_equal(recording.body.body_pose, 2 * motion_arrays(400)["body_pose"].astype(np.float64))
    assert any("comes from the concatenated arrays" in note for note in recording.notes)


def test_action_labels_stand_in_for_a_missing_action_file(tmp_path: Path) -> None:
    root = make_release(tmp_path)
    (root / "Actions" / f"{SEGMENT}.txt").unlink()
    numbers = np.full(1200, -1)
    numbers[50:80] = 5
    columns = np.zeros((1200, 10))
    columns[50:80, 5] = 1
    for labels in (numbers, columns):
        np.save(root / "action_label.npy", labels)
        assert open_trumans(root).load(SEGMENT).actions == (ActionInterval(50, 80, "use the phone"),)


def test_flagged_objects_without_a_track_are_noted(tmp_path: Path) -> None:
    root = make_release(tmp_path)
    flags = np.full((1200, 2), -1)
    flags[10:20, 0] = flags[10:20, 1] = 1
    np.save(root / "object_flag.npy", flags)
    np.save(root / "object_list.npy", np.array(["chair_02", "stool"]))
    assert any("objects without a track: stool;" in note for note in open_trumans(root).load(SEGMENT).notes)


def test_released_angles_turn_about_the_fixed_axes_x_then_y_then_z() -> None:
    angles = np.random.default_rng(0).uniform(-3, 3, (20, 3))
    assert np.allclose(euler_matrices(angles), Rotation.from_euler("xyz", angles).as_matrix())
    quarter = euler_matrices(np.array([[np.pi / 2, 0.0, np.pi / 2]]))[0]
    assert np.allclose(quarter @ [0, 1, 0], [0, 0, 1])  # x turns it up, z then leaves it
    assert np.allclose(quarter @ [1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seg_name": np.repeat([SEGMENT, OTHER_SEGMENT, SEGMENT], 10)}, r"seg_name\.npy: the frames of .* lie apart"),
        ({"seg_name": np.arange(30)}, r"seg_name\.npy: is int64 \(30,\), not one name a frame"),
        ({"scene_flag": np.ones(29, int)}, r"scene_flag\.npy: has shape \(29,\) but seg_name\.npy names 30 frames"),
        ({"scene_flag": np.full(30, 7)}, r"has the scenes \[7\], not one of the 2 in scene_list\.npy"),
        ({"scene_flag": np.arange(30) % 2}, r"has the scenes \[0, 1\], not one"),
        ({"scene_flag": None}, r"scene_flag\.npy: no such file; download"),
        ({"bad_frames": np.array([0.5])}, r"bad_frames\.npy: is float64 \(1,\), not a list of frame numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_named_with_their_figures(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    make_motion(tmp_path / "smplx_result" / f"{SEGMENT}_smplx_results.pkl", 10)
    make_arrays(tmp_path, {SEGMENT: 10, OTHER_SEGMENT: 10, "third": 10}, **changes)
    with pytest.raises(DwmError, match=message):
        open_trumans(tmp_path).recordings()


def test_a_segment_in_two_scenes_does_not_hide_the_others(tmp_path: Path) -> None:
    root = make_release(tmp_path)
    make_arrays(root, {SEGMENT: 400, OTHER_SEGMENT: 400}, scene_flag=np.arange(800) // 200 % 2)
    flags = np.zeros(800, int)
    flags[:10] = 1
    np.save(root / "scene_flag.npy", flags)
    raw = open_trumans(root)
    assert [entry.recording_id for entry in raw.recordings()] == [OTHER_SEGMENT]
    assert "has the scenes [0, 1]" in raw.skipped()[0].reason


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([1, 2], r"holds object \(2,\), not one track a name"),
        ({"cup": {"location": np.zeros((5, 3))}}, r"'cup' is not \{rotation: \[T,3\], location: \[T,3\]\}"),
        (
            {"cup": {"rotation": np.zeros((5, 3)), "location": np.zeros((4, 3))}},
            r"'cup' has rotation \(5, 3\) and location \(4, 3\)",
        ),
        ({"cup": {"rotation": [[1, 2], [3]], "location": [[1, 2], [3]]}}, r"'cup' is not"),
    ],
)
def test_object_poses_of_another_form_are_named(tmp_path: Path, tracks: Any, message: str) -> None:
    root = make_release(tmp_path)
    make_object_poses(root, tracks)
    with pytest.raises(DwmError, match=rf"Object_pose.*\.npy: {message}.*download it again"):
        open_trumans(root).load(SEGMENT)


def test_a_malicious_motion_or_object_file_is_refused_by_name(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "marker"),))

    root = make_release(tmp_path)
    make_object_poses(root, {"cup": Hostile()})
    with pytest.raises(DwmError, match=r"\.npy: refused.*mkdir"):
        open_trumans(root).load(SEGMENT)
    motion = root / "smplx_result" / f"{SEGMENT}_smplx_results.pkl"
    motion.write_bytes(pickle.dumps({"transl": Hostile()}))
    with pytest.raises(DwmError, match=r"_smplx_results\.pkl: refused.*mkdir"):
        open_trumans(root).load(SEGMENT)
    assert not (tmp_path / "marker").exists()


def test_missing_files_of_a_recording_are_named(tmp_path: Path) -> None:
    root = make_release(tmp_path)
    with pytest.raises(DwmError, match="no motion 'nobody'"):
        open_trumans(root).load("nobody")
    (root / "Scene_mesh" / f"{SCENE}.obj").unlink()
    with pytest.raises(DwmError, match=rf"{SCENE}\.obj: no such file, scene of recording {SEGMENT}"):
        open_trumans(root).load(SEGMENT)
    with pytest.raises(DwmError, match=r"none\.glb: no such file"):
        open_trumans(root, scene_mesh=tmp_path / "none.glb")


def test_other_folders_are_no_trumans_folder(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="no TRUMANS folder; it needs"):
        open_trumans(tmp_path)
    with pytest.raises(DwmError, match="no such folder"):
        open_trumans(tmp_path / "none")


# --- the motion, in both layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transl": None}, "lacks transl"),
        ({"left_hand_pose": None, "right_hand_pose": None}, "lacks left_hand_pose, right_hand_pose"),
        (
            {"body_pose": np.zeros((149, 63))},
            r"body_pose has shape \(149, 63\), not \(150, 63\) as transl's 150 frames",
        ),
        (
            {"left_hand_pose": np.zeros((150, 12))},
            r"left_hand_pose has shape \(150, 12\), not \(150, 45\).*principal components",
        ),
        ({"transl": "nothing"}, "transl holds no plain array of numbers"),
        ({"transl": np.zeros((0, 3))}, r"global_orient has shape \(150, 3\), not \(0, 3\)"),
        ({"betas": np.full(10, np.nan)}, r"betas are not finite"),
    ],
)
def test_a_motion_of_other_shapes_is_named_with_its_figures(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = make_exported(tmp_path, num_frames=150)
    make_motion(root / "recordings" / "rec_1" / "motion.pkl", 150, **changes)
    with pytest.raises(DwmError, match=rf"motion\.pkl: {message}.*export the recording again"):
        open_trumans(root).load("rec_1")


@pytest.mark.parametrize(
    "betas", [np.arange(10.0), np.arange(10.0)[None], np.tile(np.arange(10.0), (150, 1))], ids=["B", "1B", "TB"]
)
def test_shape_coefficients_are_one_vector_however_they_are_stored(tmp_path: Path, betas: Any) -> None:
    root = make_exported(tmp_path, num_frames=150)
    make_motion(root / "recordings" / "rec_1" / "motion.pkl", 150, betas=betas)
    assert open_trumans(root).load("rec_1").body.betas.tolist() == list(range(10))


def test_empty_or_absent_shape_coefficients_are_the_mean_body(tmp_path: Path) -> None:
    root = make_exported(tmp_path, num_frames=150)
    for betas in (np.zeros(0, np.float32), np.zeros((1, 0)), None):
        make_motion(root / "recordings" / "rec_1" / "motion.pkl", 150, betas=betas)
        assert open_trumans(root).load("rec_1").body.betas.shape == (0,)


def test_frames_without_a_finite_pose_cost_only_their_windows(tmp_path: Path) -> None:
    root = make_exported(tmp_path)
    pose = motion_arrays(400)["body_pose"]
    pose[300:302, 7] = np.nan
    make_motion(root / "recordings" / "rec_1" / "motion.pkl", 400, body_pose=pose)
    plan = plan_clips(open_trumans(root).load("rec_1"), PAPER)
    assert [window.start_frame for window in plan.windows] == [0, 75, 150]
    (dropped,) = [each for each in plan.dropped if each.window.num_frames == 49]
    assert (dropped.window.start_frame, dropped.reason) == (225, "frames 300 to 301: no finite body pose in motion.pkl")


# --- the exported form -------------------------------------------------------------------------------------------


def test_an_exported_recording_is_read_whole(tmp_path: Path) -> None:
    raw = open_trumans(make_exported(tmp_path))
    assert raw.recordings() == [RecordingEntry("rec_1", SCENE, 400, "exported")]
    assert raw.skipped() == []
    recording = raw.load("rec_1")
    cup, chair = recording.objects
    assert (cup.name, cup.is_moving, chair.is_moving) == ("cup", True, False)
    assert np.array_equal(cup.world_from_object, pose_matrices(400, moves=(100, 160)))
    assert cup.mesh_path == tmp_path / "scenes" / SCENE / "objects" / "cup.glb"
    assert recording.scene_meshes == (tmp_path / "scenes" / SCENE / "background.glb",)
    assert [action.text for action in recording.actions] == ["Walk to the table", "Pick up the cup"]
    assert (recording.form, recording.notes, recording.faults) == ("exported", (), ())
    roles = {"recording", "motion", "objects", "actions", "scene", "mesh/cup", "mesh/chair"}
    assert set(recording.input_files) == roles


def test_optional_files_and_bad_frames_of_an_exported_recording(tmp_path: Path) -> None:
    folder = make_exported(tmp_path) / "recordings" / "rec_1"
    for name in ("actions.txt", "objects.npz"):
        (folder / name).unlink()
    info = {"scene_id": SCENE, "fps": 30, "num_frames": 400, "bad_frames": [3], "made_by": "someone"}
    (folder / "recording.json").write_text(json.dumps(info))
    raw = open_trumans(tmp_path)
    recording = raw.load("rec_1")
    assert raw.recordings()[0].bad_frames == recording.bad_frames == {3}
    assert recording.objects == ()
    assert [note.split(";")[0] for note in recording.notes] == ["actions.txt is missing", "objects.npz is missing"]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"fps": 30, "num_frames": 400}, "scene_id: field required"),
        ({"scene_id": SCENE, "fps": 25, "num_frames": 400}, "25 frames a second; resample"),
        ({"scene_id": SCENE, "fps": 30, "num_frames": 0}, "num_frames: input should be greater than 0"),
        ({"scene_id": "../x", "fps": 30, "num_frames": 400}, "scene_id: string should match"),
        ({"scene_id": "elsewhere", "fps": 30, "num_frames": 400}, r"background\.glb: no such file"),
        ({"scene_id": SCENE, "fps": 30, "num_frames": 399}, r"motion\.pkl: has 400 frames, recording\.json says 399"),
        (None, "invalid json"),
    ],
)
def test_a_wrong_description_of_a_recording_is_named(tmp_path: Path, info: Any, message: str) -> None:
    path = make_exported(tmp_path) / "recordings" / "rec_1" / "recording.json"
    path.write_text("{" if info is None else json.dumps(info))
    with pytest.raises(DwmError, match=message):
        open_trumans(tmp_path).load("rec_1")


@pytest.mark.parametrize("name", ["none", "", "..", "rec_1/../rec_1"])
def test_an_unknown_exported_recording_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DwmError, match=r"no such recording; the folder holds rec_1$|no such file"):
        open_trumans(make_exported(tmp_path)).load(name)


def _write_tracks(root: Path, **poses: Any) -> None:
    arrays = {"names": np.array(list(poses)), **{f"matrix_world/{name}": array for name, array in poses.items()}}
    write_npz(root / "recordings" / "rec_1" / "objects.npz", arrays)


def test_wrong_matrices_are_named(tmp_path: Path) -> None:
    root = make_exported(tmp_path)
    _write_tracks(root, cup=np.swapaxes(pose_matrices(400, moves=(100, 160)), 1, 2))
    with pytest.raises(DwmError, match=r"objects\.npz: the pose of 'cup' in frame 0 has the last row .*column vectors"):
        open_trumans(root).load("rec_1")
    _write_tracks(root, cup=np.zeros((400, 3, 4)))
    with pytest.raises(DwmError, match=r"'matrix_world/cup' is float64 \(400, 3, 4\), not numbers \[T,4,4\]"):
        open_trumans(root).load("rec_1")
    write_npz(root / "recordings" / "rec_1" / "objects.npz", {"names": np.array(["cup"])})
    with pytest.raises(DwmError, match=r"names 'cup' but has no array 'matrix_world/cup'"):
        open_trumans(root).load("rec_1")


def test_a_track_shorter_than_the_motion_costs_only_the_windows_past_its_end(tmp_path: Path) -> None:
    root = make_exported(tmp_path)
    _write_tracks(root, cup=pose_matrices(230), chair=pose_matrices(450))
    recording = open_trumans(root).load("rec_1")
    assert "'cup' has poses for 230 of 400 frames in rec_1/objects.npz" in recording.notes
    assert any("'chair' has 450 poses for 400 frames" in note for note in recording.notes)
    assert all(len(tracked.world_from_object) == 400 for tracked in recording.objects)
    plan = plan_clips(recording, PAPER)
    assert [window.start_frame for window in plan.windows] == [0, 75]
    assert [each.window.start_frame for each in plan.dropped] == [150, 225, 300]
    assert plan.dropped[0].reason == "frames 230 to 399: 'cup' has poses for 230 of 400 frames in rec_1/objects.npz"


def test_a_pose_that_is_not_finite_costs_only_its_windows(tmp_path: Path) -> None:
    root = make_exported(tmp_path)
    poses = pose_matrices(400)
    poses[10, 0, 3] = np.nan
    _write_tracks(root, cup=poses)
    recording = open_trumans(root).load("rec_1")
    assert not recording.objects[0].is_moving
    plan = plan_clips(recording, PAPER)
    assert [window.start_frame for window in plan.windows] == [75, 150, 225]
    assert plan.dropped[0].reason == "frame 10: no finite pose of 'cup' in rec_1/objects.npz"


def test_an_object_without_a_mesh_costs_the_windows_in_which_it_moves(tmp_path: Path) -> None:
    root = make_exported(tmp_path, num_frames=600)
    (root / "scenes" / SCENE / "objects" / "cup.glb").unlink()
    (root / "scenes" / SCENE / "objects" / "lamp.glb").write_bytes(b"glTF")
    recording = open_trumans(root).load("rec_1")
    assert recording.objects[0].mesh_path is None
    assert "'cup' has no mesh; it is not drawn" in recording.notes
    assert any(note.startswith("'lamp' of the scene has no poses") for note in recording.notes)
    plan = plan_clips(recording, PAPER)
    assert [window.start_frame for window in plan.windows] == [225, 300, 375, 450]
    assert all("'cup' moves but has no mesh" in each.reason for each in plan.dropped[:3])


def test_an_object_moves_when_it_turns_also_with_scaled_axes(tmp_path: Path) -> None:
    root = make_exported(tmp_path)
    turned = pose_matrices(400)
    turned[200:, :3, :3] = Rotation.from_rotvec([0.0, 0.2, 0.0]).as_matrix()
    scaled = pose_matrices(400)
    scaled[:, :3, :3] *= [0.1, -0.2, 0.3]
    _write_tracks(root, cup=turned, chair=scaled)
    cup, chair = open_trumans(root).load("rec_1").objects
    assert (cup.is_moving, chair.is_moving) == (True, False)


# --- actions and prompts -----------------------------------------------------------------------------------------


def _with_actions(tmp_path: Path, text: str, num_frames: int = 400) -> TrumansRecording:
    root = make_exported(tmp_path, num_frames=num_frames)
    (root / "recordings" / "rec_1" / "actions.txt").write_text(text, encoding="utf-8")
    return open_trumans(root).load("rec_1")


def test_reversed_overlapping_and_foreign_lines_of_an_action_file_are_noted(tmp_path: Path) -> None:
    recording = _with_actions(
        tmp_path,
        "\ufeff0\t100\tWalk\n\n90\t120\tReach\n150\t140\tDrop\n380\t900\tSit down\n"
        "500\t600\tLeave\n95\t97\tBlink\nrest\n",
    )
    assert [(each.start, each.end, each.text) for each in recording.actions] == [
        (0, 100, "Walk"),
        (90, 120, "Reach"),
        (95, 97, "Blink"),
        (380, 400, "Sit down"),
    ]
    assert recording.notes == (
        "rec_1/actions.txt, line 4: 'Drop' ends at frame 140, not after its start at 150; left out",
        "rec_1/actions.txt, line 6: 'Leave' lies at frames 500 to 600, outside the motion's 400; left out",
        "rec_1/actions.txt, line 8: is not start<tab>end<tab>description; left out",
        "rec_1/actions.txt: 'Reach' starts at frame 90, before 'Walk' ends at 100",
        "rec_1/actions.txt: 'Blink' starts at frame 95, before 'Reach' ends at 120",
    )
    assert len(plan_clips(recording, PAPER).windows) == 4


def test_a_file_that_holds_no_actions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match=r"actions\.txt: no line has the form"):
        _with_actions(tmp_path, "once upon a time\nthere was\n")
    path = tmp_path / "recordings" / "rec_1" / "actions.txt"
    path.write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(DwmError, match=r"actions\.txt: cannot be read as text"):
        open_trumans(tmp_path).load("rec_1")
    path.write_text("")
    assert open_trumans(tmp_path).load("rec_1").actions == ()


def test_a_prompt_tells_the_actions_of_the_clip_in_their_order_and_is_named_after_the_longest(tmp_path: Path) -> None:
    recording = _with_actions(
        tmp_path,
        "0\t40\twalk to the table\n40\t45\tlook\n45\t130\tthe person picks up the cup from the table,\n"
        "130\t400\tDrink!\n",
    )
    prompt = describe_clip(recording, ClipWindow(0, 3, 49))
    # "Look" is short but seen whole; "Drink" fills just over a tenth of this clip and less of the shorter one below.
    assert prompt.text == "Walk to the table. Look. The person picks up the cup from the table. Drink!"
    assert describe_clip(recording, ClipWindow(0, 3, 45)).text.endswith("cup from the table.")
    assert (prompt.origin, prompt.action_label) == (PROMPT_FROM_ANNOTATION, "picks up cup")
    assert describe_clip(recording, ClipWindow(200, 3, 49)).text == "Drink!"


def test_an_action_told_twice_is_said_once(tmp_path: Path) -> None:
    recording = _with_actions(tmp_path, "0\t50\tWalk\n50\t90\tSit down\n90\t140\tWalk\n")
    assert describe_clip(recording, ClipWindow(0, 3, 49)).text == "Walk. Sit down."


def test_without_an_annotation_the_moved_objects_are_told(tmp_path: Path) -> None:
    recording = _with_actions(tmp_path, "")
    moved = describe_clip(recording, ClipWindow(75, 3, 49))
    assert (moved.text, moved.origin, moved.action_label) == ("I move the cup.", PROMPT_FROM_OBJECTS, "move cup")
    still = describe_clip(recording, ClipWindow(225, 3, 49))
    assert (still.text, still.origin, still.action_label) == (FALLBACK_PROMPT, PROMPT_FALLBACK, None)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Open the oven door", "open oven door"),
        ("Pick up a cup from the table with the right hand.", "pick up cup"),
        ("The person sits on the chair", "sits"),
        ("To the door", "to door"),
        ("...", None),
    ],
)
def test_a_label_is_the_action_without_its_circumstances(text: str, label: str | None) -> None:
    assert short_label(text) == label


# --- windows -----------------------------------------------------------------------------------------------------


def _entry(num_frames: int, bad: frozenset[int] = frozenset()) -> RecordingEntry:
    return RecordingEntry("r", "s", num_frames, "release", bad)


def test_windows_of_the_paper() -> None:
    plan = plan_clips(_entry(400), PAPER)
    assert [window.start_frame for window in plan.windows] == [0, 75, 150, 225]
    assert plan.windows[1].source_frames.tolist() == list(range(75, 220, 3))
    assert plan.windows[1].end_frame == 220
    (tail,) = plan.dropped
    assert (tail.window.start_frame, tail.reason) == (300, "incomplete tail: 34 of 49 frames")


@pytest.mark.parametrize(("num_frames", "clips"), [(1, 0), (144, 0), (145, 1), (147, 1), (219, 1), (220, 2)])
def test_a_clip_needs_its_frames(num_frames: int, clips: int) -> None:
    plan = plan_clips(_entry(num_frames), PAPER)
    assert len(plan.windows) == clips
    if not clips:
        (dropped,) = plan.dropped
        assert dropped.reason == (
            f"recording of {num_frames} frames is shorter than a clip, which needs 145 (49 frames, every 3)"
        )


def test_a_bad_frame_between_two_sampled_ones_costs_its_windows_too() -> None:
    plan = plan_clips(_entry(400, frozenset({76, 77})), PAPER)
    assert [window.start_frame for window in plan.windows] == [150, 225]
    assert plan.dropped[0].reason == "frames 76 to 77: marked as bad in the data set"
    assert [w.start_frame for w in plan_clips(_entry(400, frozenset({145})), PAPER).windows] == [0, 150, 225]


def test_many_faults_are_told_in_one_line() -> None:
    plan = plan_clips(_entry(145, frozenset({1, 5, 9, 20})), PAPER)
    assert plan.dropped[0].reason == (
        "frame 1: marked as bad in the data set; frame 5: marked as bad in the data set; and 2 more"
    )


@st.composite
def _profiles(draw: st.DrawFn) -> Profile:
    small = st.integers(1, 12)
    return Profile(
        name="p", width=8, height=8, fps=8.0, num_frames=draw(small), frame_step=draw(small), stride=draw(small)
    )


@settings(max_examples=200, deadline=None)
@given(profile=_profiles(), num_frames=st.integers(1, 300), bad=st.frozensets(st.integers(0, 299), max_size=8))
def test_windows_lie_in_the_recording_on_the_grid_and_span_no_bad_frame(
    profile: Profile, num_frames: int, bad: frozenset[int]
) -> None:
    plan = plan_clips(_entry(num_frames, bad), profile)
    grid = profile.stride * profile.frame_step
    for window in plan.windows:
        assert window.num_frames == profile.num_frames
        assert window.start_frame % grid == 0
        assert len(window.source_frames) == profile.num_frames
        assert window.source_frames[-1] + 1 == window.end_frame <= num_frames
        assert not bad & set(range(window.start_frame, window.end_frame))
    for dropped in plan.dropped:
        assert dropped.reason
        assert "\n" not in dropped.reason
        spanned = set(range(dropped.window.start_frame, dropped.window.end_frame))
        assert spanned <= set(range(num_frames))
        assert dropped.window.num_frames < profile.num_frames or bad & spanned


@settings(max_examples=200, deadline=None)
@given(profile=_profiles(), num_frames=st.integers(1, 300), bad=st.frozensets(st.integers(0, 299), max_size=8))
def test_every_sampled_frame_and_every_start_is_accounted_for(
    profile: Profile, num_frames: int, bad: frozenset[int]
) -> None:
    plan = plan_clips(_entry(num_frames, bad), profile)
    everything = [*plan.windows, *(each.window for each in plan.dropped)]
    starts = sorted(window.start_frame for window in everything)
    grid = profile.stride * profile.frame_step
    assert starts == list(range(0, len(starts) * grid, grid))
    if profile.stride <= profile.num_frames:
        covered = {frame for window in everything for frame in window.source_frames.tolist()}
        assert covered == set(range(0, num_frames, profile.frame_step))


def test_faults_of_the_loaded_recording_count_beside_its_bad_frames(tmp_path: Path) -> None:
    recording = open_trumans(make_exported(tmp_path)).load("rec_1")
    assert plan_clips(recording, PAPER) == plan_clips(_entry(400), PAPER)
    marked = replace(recording, bad_frames=frozenset({0}))
    assert [window.start_frame for window in plan_clips(marked, PAPER).windows] == [75, 150, 225]


# --- the real motion ---------------------------------------------------------------------------------------------


def test_the_real_motion_is_read(tmp_path: Path) -> None:
    folder = real_data()
    raw = open_trumans(folder, scene_mesh=folder / "scene_glb" / "room.glb")
    assert raw.recordings() == [RecordingEntry(REAL_SEGMENT, "room", 2660, "release")]
    recording = raw.load(REAL_SEGMENT)
    assert recording.body.betas.shape == (0,)
    assert recording.body.left_hand_pose.shape == (2660, 45)
    assert recording.body.left_hand_pose.std() > 0.05
    assert (np.abs(recording.body.transl) < 4).all()  # inside the room, metres
    assert recording.faults == ()
    plan = plan_clips(recording, PAPER)
    assert len(plan.windows) == 34
    assert [each.reason for each in plan.dropped] == ["incomplete tail: 37 of 49 frames"]
    assert len(plan_clips(recording, PROFILES["mini"]).windows) == 48


def test_the_real_motion_fits_a_release_around_it(tmp_path: Path) -> None:
    motion = real_data() / "smplx_result" / f"{REAL_SEGMENT}_smplx_results.pkl"
    root = make_release(tmp_path)
    (root / "smplx_result" / motion.name).write_bytes(motion.read_bytes())
    make_arrays(root, {OTHER_SEGMENT: 400, REAL_SEGMENT: 2660}, bad_rows=[400 + 100])
    make_object_poses(root, {"cup_01": object_track(2660, moves=(500, 560))}, REAL_SEGMENT)
    recording = open_trumans(root).load(REAL_SEGMENT)
    assert recording.bad_frames == {100}
    assert [window.start_frame for window in plan_clips(recording, PAPER).windows][:2] == [150, 225]
    assert describe_clip(recording, ClipWindow(450, 3, 49)).text == "I move the cup."


def test_scene_has_the_lights_of_its_file_else_sunlight(tmp_path: Path) -> None:
    lighting = Lighting((0.1,) * 3, (0.2,) * 3, SpotLight((0, 2, 0), (0, 0, 0), (3.0, 2.0, 1.0)), (1, 2, 3), (0.4,) * 3)
    root = make_exported(tmp_path)
    assert open_trumans(root).load("rec_1").lights is None
    path = root / "scenes" / SCENE / "lights.json"
    path.write_text(json.dumps(dataclasses.asdict(lighting)))
    recording = open_trumans(root).load("rec_1")
    assert (recording.lights, recording.input_files["lights"]) == (path, path)
    assert read_lights(path) == lighting


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"lights.json: sky: field required; correct it, or remove the file for sunlight"),
        ("no json", r"lights.json: content: invalid json"),
    ],
)
def test_broken_lights_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "lights.json"
    path.write_text(content)
    with pytest.raises(DwmError, match=message):
        read_lights(path)
