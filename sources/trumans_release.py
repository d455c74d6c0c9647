"""TRUMANS as released: motion pickles, concatenated arrays, object poses, meshes, action text (``docs/trumans.md``).

Any part may be absent: what cannot be done without it is an error, the rest a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import DwmError
from manifests.restricted_pickle import read_npy
from render.rotations import Floats, matrix_from_axis_angle
from sources.trumans import (
    ActionInterval,
    BodyParameters,
    RecordingEntry,
    SkippedRecording,
    TrumansRaw,
    TrumansRecording,
)
from sources.trumans_arrays import (
    ACTION_LABELS,
    BAD_FRAMES,
    BODY_ARRAYS,
    SCENE_FLAGS,
    SCENE_LIST,
    SEGMENT_NAMES,
    FrameArrays,
)
from sources.trumans_files import (
    RELEASE_REMEDY,
    CheckedTrack,
    body_faults,
    body_from_arrays,
    check_track,
    read_actions,
    read_motion,
    short_name,
)

MOTION_FOLDER = "smplx_result"
MOTION_SUFFIX = "_smplx_results.pkl"
ACTION_FOLDERS = ("Actions", "Action")
OBJECT_POSE_FOLDER = Path("Object_all", "Object_pose")
OBJECT_MESH_FOLDER = Path("Object_all", "Object_mesh")
SCENE_MESH_FOLDER = "Scene_mesh"

_AUGMENTED = re.compile(r"^(?P<base>.+?)_augment")
_NUMBERED = re.compile(r"_\d+$")


class ReleasedTrumans(TrumansRaw):
    """A folder as released, or a part of one."""

    def __init__(self, root: Path, scene_mesh: Path | None = None) -> None:
        """Open the folder; `scene_mesh` is the scene of motions whose own the arrays do not name."""
        super().__init__(root)
        if scene_mesh is not None and not scene_mesh.is_file():
            raise DwmError(f"{scene_mesh}: no such file; give the OBJ or GLB of the scene")
        self._scene_mesh = scene_mesh
        self._arrays = FrameArrays(root)

    def recordings(self) -> list[RecordingEntry]:
        """The recordings, in order of their names; see `skipped` for what is left out.

        Raises:
            DwmError: an array or motion is broken, or nothing in the folder can be used.
        """
        entries = [self._entry(name) for name in self._names if self._skip_reasons[name] is None]
        if not entries:
            reasons = "; ".join(f"{each.recording_id}: {each.reason}" for each in self.skipped()[:2])
            raise DwmError(f"{self.root}: no usable recordings ({reasons or 'no motions'}); {RELEASE_REMEDY}")
        return entries

    def skipped(self) -> list[SkippedRecording]:
        """Augmented copies and motions without a scene, with their reasons."""
        return [SkippedRecording(name, reason) for name, reason in self._skip_reasons.items() if reason is not None]

    def load(self, recording_id: str) -> TrumansRecording:
        """Read one recording whole.

        Raises:
            DwmError: no such recording, an augmented copy, or a file of it is missing, refused or wrong.
        """
        if recording_id not in self._skip_reasons:
            raise DwmError(f"{self.root}: no motion '{recording_id}'; copy its {MOTION_FOLDER} file or check the name")
        reason = self._skip_reasons[recording_id]
        if reason is not None:
            raise DwmError(f"{self.root}: '{recording_id}' is no recording: {reason}")
        body, files, notes = self._body(recording_id)
        scene_id = self._scene_id(recording_id)
        mesh = files["scene"] = self._mesh_of_scene(scene_id, recording_id)
        tracks, track_notes = self._tracks(recording_id, body.num_frames, files)
        actions, action_notes = self._actions(recording_id, body.num_frames, files)
        return TrumansRecording(
            recording_id=recording_id,
            scene_id=scene_id,
            body=body,
            objects=tuple(track.tracked for track in tracks),
            scene_meshes=(mesh,),
            actions=actions,
            bad_frames=self._arrays.bad_frames(recording_id),
            form="release",
            input_files=files,
            notes=(*notes, *track_notes, *(note for track in tracks for note in track.notes), *action_notes),
            faults=(*body_faults(body, "the motion"), *(fault for track in tracks for fault in track.faults)),
        )

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Names of all motions, from the pickles and (where the body's arrays are there) the concatenated arrays."""
        folder = self.root / MOTION_FOLDER
        names = {path.name.removesuffix(MOTION_SUFFIX) for path in folder.glob(f"*{MOTION_SUFFIX}")}
        if self._arrays.has(BODY_ARRAYS["body_pose"]):
            names |= set(self._arrays.segments)
        return tuple(sorted(names))

    @cached_property
    def _skip_reasons(self) -> dict[str, str | None]:
        """Why each motion is no recording; None where it is one."""
        return {name: self._skip_reason(name) for name in self._names}

    def _skip_reason(self, name: str) -> str | None:
        augmented = _AUGMENTED.match(name)
        if augmented is not None:
            return f"augmented copy of '{augmented['base']}' without object tracks; only the original is used"
        if self._scene_mesh is None and name not in self._arrays.segments:
            where = f"not in {SEGMENT_NAMES}" if self._arrays.segments else f"{SEGMENT_NAMES} is missing"
            return f"its scene is unknown ({where}); add {SEGMENT_NAMES}, {SCENE_FLAGS}, {SCENE_LIST} or a scene mesh"
        try:
            self._scene_id(name)
        except DwmError as error:
            return str(error)
        return None

    def _entry(self, name: str) -> RecordingEntry:
        segment = self._arrays.segments.get(name)
        num_frames = len(segment) if segment else read_motion(self._motion_path(name))[0].num_frames
        return RecordingEntry(name, self._scene_id(name), num_frames, "release", self._arrays.bad_frames(name))

    def _motion_path(self, name: str) -> Path:
        return self.root / MOTION_FOLDER / f"{name}{MOTION_SUFFIX}"

    def _scene_id(self, name: str) -> str:
        """Scene of a segment by the arrays, else the name of the given mesh."""
        known = name in self._arrays.segments and self._arrays.has(SCENE_FLAGS) and self._arrays.has(SCENE_LIST)
        if self._scene_mesh is not None and not known:
            return self._scene_mesh.stem
        return self._arrays.scene_id(name)

    def _mesh_of_scene(self, scene_id: str, name: str) -> Path:
        if self._scene_mesh is not None and scene_id == self._scene_mesh.stem:
            return self._scene_mesh
        path = self.root / SCENE_MESH_FOLDER / f"{scene_id}.obj"
        if not path.is_file():
            raise DwmError(f"{path}: no such file, scene of recording {name}; {RELEASE_REMEDY}")
        return path

    def _body(self, name: str) -> tuple[BodyParameters, dict[str, Path], list[str]]:
        """Motion of a segment, the files it comes from, and notes."""
        path, arrays = self._motion_path(name), self._arrays
        has_segment = name in arrays.segments
        notes = [] if has_segment and arrays.has(BAD_FRAMES) else ["bad frames are unknown"]
        if path.is_file():
            body, motion_notes = read_motion(path)
            frames = arrays.frame_ids(name) if has_segment else np.arange(body.num_frames)
            if not np.array_equal(frames, np.arange(body.num_frames)):
                notes.append(
                    f"the concatenated arrays hold {len(frames)} frames, {frames[0]} to {frames[-1]}, "
                    f"of the motion's {body.num_frames}"
                )
            return body, {"motion": path}, notes + motion_notes
        paths = {key: self.root / file for key, file in BODY_ARRAYS.items() if arrays.has(file)}
        columns = {key: arrays.rows(file.name, name) for key, file in paths.items()}
        body, motion_notes = body_from_arrays(columns, f"{self.root}: motion '{name}'", remedy=RELEASE_REMEDY)
        notes.append(f"{short_name(path)} is missing; the motion comes from the concatenated arrays")
        return body, paths, notes + motion_notes

    def _tracks(self, name: str, num_frames: int, files: dict[str, Path]) -> tuple[list[CheckedTrack], list[str]]:
        """Object tracks of a segment, by name, and notes on objects without one."""
        path = self.root / OBJECT_POSE_FOLDER / f"{name}.npy"
        checked: list[CheckedTrack] = []
        notes = []
        if path.is_file():
            files["objects"] = path
            for object_name, poses in _read_object_poses(path).items():
                mesh = self._object_mesh(object_name)
                if mesh is not None:
                    files[f"mesh/{object_name}"] = mesh
                checked.append(check_track(object_name, poses, mesh, num_frames, path))
        else:
            notes.append(f"{short_name(path)} is missing; no object is drawn")
        tracked = {track.tracked.name for track in checked}
        untracked = [flagged for flagged in self._arrays.flagged_objects(name) if flagged not in tracked]
        if untracked:
            notes.append(f"object_flag.npy marks objects without a track: {', '.join(untracked)}; they are not drawn")
        return checked, notes

    def _object_mesh(self, object_name: str) -> Path | None:
        """``<name>.obj``, or that of the name without its number (``cup_01`` -> ``cup``)."""
        folder = self.root / OBJECT_MESH_FOLDER
        for stem in (object_name, _NUMBERED.sub("", object_name)):
            path = folder / f"{stem}.obj"
            if path.is_file():
                return path
        return None

    def _actions(
        self, name: str, num_frames: int, files: dict[str, Path]
    ) -> tuple[tuple[ActionInterval, ...], list[str]]:
        """Annotated actions of a segment: its text file, else runs of a class in ``action_label.npy``."""
        for folder in ACTION_FOLDERS:
            path = self.root / folder / f"{name}.txt"
            if path.is_file():
                files["actions"] = path
                return read_actions(path, num_frames)
        note = f"{ACTION_FOLDERS[0]}/{name}.txt is missing"
        if name not in self._arrays.segments or not self._arrays.has(ACTION_LABELS):
            return (), [f"{note}; prompts come from the moved objects only"]
        files["action_labels"] = self.root / ACTION_LABELS
        return self._arrays.labelled_actions(name), [f"{note}; {ACTION_LABELS} is used"]


def euler_matrices(angles: Floats) -> Floats:
    """Rotations [T,3,3] of Euler angles [T,3] (x, y, z, radians) about the fixed axes in this order: Rz Ry Rx.

    That is Blender's ``XYZ`` mode. Whether the released angles mean this is unverified (``docs/trumans.md``).
    """
    x, y, z = (matrix_from_axis_angle(angles[:, axis, None] * np.eye(3)[axis]) for axis in range(3))
    result: Floats = z @ y @ x
    return result


def _read_object_poses(path: Path) -> dict[str, Floats]:
    """Poses [N,4,4] a name, in order of the names, of a pickled ``{name: {rotation: [N,3], location: [N,3]}}``.

    Raises:
        DwmError: the file is refused, or holds something else.
    """
    content = read_npy(path, remedy=RELEASE_REMEDY)
    tracks = content.item() if content.shape == () else None
    if not isinstance(tracks, Mapping):
        raise DwmError(f"{path}: holds {content.dtype} {content.shape}, not one track a name; {RELEASE_REMEDY}")
    return {str(name): _track_poses(tracks[name], str(name), path) for name in sorted(tracks, key=str)}


def _track_poses(track: Any, name: str, path: Path) -> Floats:
    try:
        rotation, location = (np.asarray(track[key], dtype=np.float64) for key in ("rotation", "location"))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DwmError(
            f"{path}: '{name}' is not {{rotation: [T,3], location: [T,3]}} in numbers; {RELEASE_REMEDY}"
        ) from error
    if rotation.ndim != 2 or rotation.shape[1] != 3 or location.shape != rotation.shape:
        raise DwmError(
            f"{path}: '{name}' has rotation {rotation.shape} and location {location.shape}, not [T,3] both; "
            f"{RELEASE_REMEDY}"
        )
    poses = np.tile(np.eye(4), (len(rotation), 1, 1))
    poses[:, :3, :3] = euler_matrices(rotation)
    poses[:, :3, 3] = location
    return poses
