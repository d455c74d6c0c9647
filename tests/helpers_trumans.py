"""Makers of tiny TRUMANS folders, as released and in the exported form, and the real motion's place."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from render.arrays import write_npz

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "trumans"
REAL_SEGMENT = "2023-02-12@22-16-01"
SEGMENT = "2023-01-01@10-00-00"
OTHER_SEGMENT = "2023-01-01@11-00-00"
SCENE = "11111111-aaaa"
OTHER_SCENE = "22222222-bbbb"
CUBE_OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"

Arrays = dict[str, Any]


def real_data() -> Path:
    """The folder with the real motion, or a skip with the reason."""
    if not (REAL_DATA / "smplx_result").is_dir():
        pytest.skip(f"the real TRUMANS motion is not on this machine ({REAL_DATA})")
    return REAL_DATA


def motion_arrays(num_frames: int) -> Arrays:
    """SMPL-X arrays of a walk along x with moving arms and fingers, as a released pickle holds them."""
    time = np.arange(num_frames, dtype=np.float32)[:, None] / 30.0
    return {
        "betas": np.zeros(0, np.float32),
        "global_orient": np.tile(np.array([0.0, 0.3, 0.0], np.float32), (num_frames, 1)),
        "body_pose": (0.2 * np.sin(time + np.arange(63))).astype(np.float32),
        "left_hand_pose": (0.1 * np.sin(2 * time + np.arange(45))).astype(np.float32),
        "right_hand_pose": (0.1 * np.cos(2 * time + np.arange(45))).astype(np.float32),
        "jaw_pose": np.zeros((num_frames, 3), np.float32),
        "expression": np.zeros((num_frames, 10), np.float32),
        "transl": np.concatenate([0.5 * time, np.ones_like(time), 0 * time], axis=1),
        "gender": "",
    }


def object_track(num_frames: int, *, moves: Sequence[int] = (0, 0)) -> Arrays:
    """Released track of an object that slides 1 m along x and turns 90 degrees about y between two frames."""
    share = np.clip((np.arange(num_frames) - moves[0]) / max(1, moves[1] - moves[0]), 0, 1)
    if moves[0] == moves[1]:
        share[:] = 0
    location = np.stack([share, np.full(num_frames, 0.8), np.zeros(num_frames)], axis=1)
    rotation = np.stack([np.zeros(num_frames), share * np.pi / 2, np.zeros(num_frames)], axis=1)
    return {"rotation": list(rotation), "location": list(location)}  # lists of vectors, as users report


def make_motion(path: Path, num_frames: int, **changes: Any) -> Path:
    """Write a motion pickle; a change of None leaves the array out."""
    arrays = {key: value for key, value in {**motion_arrays(num_frames), **changes}.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(arrays, protocol=4))
    return path


def make_object_poses(root: Path, tracks: Arrays, segment: str = SEGMENT) -> Path:
    """Write an object pose file of a release, as ``np.save`` of a dictionary does."""
    path = root / "Object_all" / "Object_pose" / f"{segment}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(tracks, dtype=object), allow_pickle=True)
    return path


def make_meshes(folder: Path, *names: str) -> None:
    """Write small OBJ meshes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.obj").write_text(CUBE_OBJ)


def make_arrays(root: Path, lengths: dict[str, int], *, bad_rows: Sequence[int] = (), **changes: Any) -> None:
    """Write the concatenated arrays of segments of these lengths, in two scenes that take turns.

    ``changes`` replaces or adds arrays by name; None leaves one out.
    """
    root.mkdir(parents=True, exist_ok=True)
    names, counts = list(lengths), list(lengths.values())
    arrays: Arrays = {
        "seg_name": np.repeat(names, counts),
        "frame_id": np.concatenate([np.arange(count) for count in counts]),
        "scene_list": np.array([OTHER_SCENE, SCENE]),
        "scene_flag": np.repeat([(index + 1) % 2 for index in range(len(names))], counts),
        "bad_frames": np.array(bad_rows, dtype=np.int64),
        **changes,
    }
    for name, array in arrays.items():
        if array is not None:
            np.save(root / f"{name}.npy", array)


def make_release(root: Path, *, num_frames: int = 400) -> Path:
    """A release with two recordings of `num_frames` in two scenes and an augmented copy of the first one.

    A cup moves in frames 100-160 of the first one; a chair stands still.
    """
    augmented = f"{SEGMENT}_augment1"
    lengths = {SEGMENT: num_frames, OTHER_SEGMENT: num_frames, augmented: num_frames}
    for segment in lengths:
        make_motion(root / "smplx_result" / f"{segment}_smplx_results.pkl", num_frames)
    make_arrays(root, lengths)
    make_object_poses(
        root, {"cup_01": object_track(num_frames, moves=(100, 160)), "chair_02": object_track(num_frames)}
    )
    make_object_poses(root, {}, OTHER_SEGMENT)
    make_meshes(root / "Object_all" / "Object_mesh", "cup", "chair_02")
    make_meshes(root / "Scene_mesh", SCENE, OTHER_SCENE)
    actions = root / "Actions" / f"{SEGMENT}.txt"
    actions.parent.mkdir()
    actions.write_text("0\t90\tWalk to the table\n90\t200\tPick up the cup from the table\n")
    (actions.parent / f"{OTHER_SEGMENT}.txt").write_text("0\t400\tStand still\n")
    return root


def pose_matrices(num_frames: int, *, moves: Sequence[int] = (0, 0)) -> npt.NDArray[np.float64]:
    """World-from-object matrices [T,4,4] of a translation by 1 m along x between two frames."""
    poses = np.tile(np.eye(4), (num_frames, 1, 1))
    poses[:, :3, 3] = np.asarray(object_track(num_frames, moves=moves)["location"])
    return poses


def make_exported(root: Path, *, num_frames: int = 400, recording: str = "rec_1") -> Path:
    """A folder in the exported form with one recording: a cup that moves in frames 100-160, a chair that stands."""
    folder, scene = root / "recordings" / recording, root / "scenes" / SCENE
    make_motion(folder / "motion.pkl", num_frames)
    poses = {"cup": pose_matrices(num_frames, moves=(100, 160)), "chair": pose_matrices(num_frames)}
    write_npz(
        folder / "objects.npz",
        {"names": np.array(list(poses)), **{f"matrix_world/{name}": array for name, array in poses.items()}},
    )
    (folder / "actions.txt").write_text("0\t90\tWalk to the table\n90\t200\tPick up the cup\n")
    (folder / "recording.json").write_text(json.dumps({"scene_id": SCENE, "fps": 30.0, "num_frames": num_frames}))
    (scene / "objects").mkdir(parents=True)
    for path in (scene / "background.glb", scene / "objects" / "cup.glb", scene / "objects" / "chair.glb"):
        path.write_bytes(b"glTF")  # the reader hands meshes on by path; it does not open them
    return root
