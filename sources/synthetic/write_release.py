"""Write generated recordings in the layout of the TRUMANS release (``docs/trumans.md``): no textures, OBJ meshes.

``smplx_result/<id>_smplx_results.pkl``, ``Object_all/Object_pose/<id>.npy``, ``Object_all/Object_mesh/<name>.obj``,
``Scene_mesh/<scene>.obj``, ``Actions/<id>.txt``, and the concatenated ``*.npy`` arrays of all recordings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.atomic import write_bytes, write_text
from render.rotations import Floats
from render.scene import SceneObject
from sources.synthetic.marks import claim_folder
from sources.synthetic.recording import RecordingPlan, SyntheticRecording, compose_recording, household_of
from sources.synthetic.write_exported import actions_text, motion_pickle
from sources.trumans_arrays import BAD_FRAMES, BODY_ARRAYS, FRAME_IDS, SCENE_FLAGS, SCENE_LIST, SEGMENT_NAMES
from sources.trumans_release import (
    ACTION_FOLDERS,
    MOTION_FOLDER,
    MOTION_SUFFIX,
    OBJECT_MESH_FOLDER,
    OBJECT_POSE_FOLDER,
    SCENE_MESH_FOLDER,
)

_GIMBAL_COSINE = 1e-6


def write_release(raw: Path, plans: Sequence[RecordingPlan]) -> None:
    """Write recordings below ``raw`` as the TRUMANS release lays them out.

    The concatenated arrays cover all recordings of one call, so that all are composed again in every call.

    Raises:
        DwmError: the folder holds recordings of another seed, or a file cannot be written.
    """
    for seed in {plan.seed for plan in plans}:
        claim_folder(raw, seed)
    recordings = [compose_recording(plan) for plan in plans]
    for recording in recordings:
        _write_recording(raw, recording)
    _write_arrays(raw, recordings)
    for plan in {plan.scene: plan for plan in plans}.values():
        household = household_of(plan.seed, plan.scene)
        write_text(raw / SCENE_MESH_FOLDER / f"{plan.scene_id}.obj", obj_text(household.background))
        for prop in household.props:
            item = SceneObject(prop.name, prop.surfaces, np.eye(4))
            path = raw / OBJECT_MESH_FOLDER / f"{_object_name(plan, prop.name)}.obj"
            write_text(path, obj_text([item]))


def obj_text(objects: Sequence[SceneObject]) -> str:
    """Wavefront OBJ of objects at their poses: positions and triangles."""
    lines = []
    count = 1
    for item in objects:
        lines.append(f"o {item.name.replace(' ', '_')}")
        for surface in item.surfaces:
            placed = surface.vertices @ item.pose[:3, :3].T + item.pose[:3, 3]
            lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in placed]
            lines += [f"f {a} {b} {c}" for a, b, c in surface.faces + count]
            count += len(placed)
    return "\n".join(lines) + "\n"


def euler_angles(rotations: Floats) -> Floats:
    """Angles [T,3] of rotations [T,3,3] about the fixed axes x, then y, then z, as the release writes them."""
    # R = Rz Ry Rx. Where y turns by a right angle, x and z are one turn: x is then 0.
    cosine = np.hypot(rotations[:, 0, 0], rotations[:, 1, 0])
    free = cosine > _GIMBAL_COSINE
    x = np.where(free, np.arctan2(rotations[:, 2, 1], rotations[:, 2, 2]), 0.0)
    z_free = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    z_locked = np.arctan2(-rotations[:, 0, 1], rotations[:, 1, 1])
    return np.stack([x, np.arctan2(-rotations[:, 2, 0], cosine), np.where(free, z_free, z_locked)], axis=1)


def _object_name(plan: RecordingPlan, name: str) -> str:
    """Objects of all scenes share a folder in the release."""
    return f"{plan.scene_id}_{name}"


def _write_recording(raw: Path, recording: SyntheticRecording) -> None:
    plan = recording.plan
    name = plan.recording_id
    write_bytes(raw / MOTION_FOLDER / f"{name}{MOTION_SUFFIX}", motion_pickle(recording.body))
    write_text(raw / ACTION_FOLDERS[0] / f"{name}.txt", actions_text(recording))
    tracks = {
        _object_name(plan, thing): {"rotation": euler_angles(poses[:, :3, :3]), "location": poses[:, :3, 3].copy()}
        for thing, poses in recording.tracks.items()
    }
    write_bytes(raw / OBJECT_POSE_FOLDER / f"{name}.npy", _npy_bytes(np.array(tracks, dtype=object)))


def _write_arrays(raw: Path, recordings: Sequence[SyntheticRecording]) -> None:
    """The arrays over all frames of all recordings."""
    lengths = [recording.body.num_frames for recording in recordings]
    scenes = sorted({recording.plan.scene_id for recording in recordings})
    arrays: dict[str, npt.ArrayLike] = {
        SEGMENT_NAMES: np.repeat([recording.plan.recording_id for recording in recordings], lengths),
        FRAME_IDS: np.concatenate([np.arange(length) for length in lengths]),
        SCENE_LIST: np.array(scenes),
        SCENE_FLAGS: np.repeat([scenes.index(recording.plan.scene_id) for recording in recordings], lengths),
        BAD_FRAMES: np.zeros(0, dtype=np.int64),
    }
    for field, file in BODY_ARRAYS.items():
        if field != "betas":
            rows = [getattr(recording.body, field) for recording in recordings]
            arrays[file] = np.concatenate(rows).astype(np.float32)
    for file, array in arrays.items():
        write_bytes(raw / file, _npy_bytes(np.asarray(array)))


def _npy_bytes(array: npt.NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=array.dtype.hasobject)
    return stream.getvalue()
