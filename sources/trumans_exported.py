"""TRUMANS in this project's exported form: textured GLB meshes and true object poses (see ``docs/trumans.md``).

``scenes/<scene_id>/{background.glb,objects/<name>.glb}`` and
``recordings/<recording_id>/{recording.json,motion.pkl,objects.npz,actions.txt}``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.errors import DwmError
from render.arrays import read_npz
from sources.trumans import (
    SOURCE_FPS,
    RecordingEntry,
    SkippedRecording,
    TrumansRaw,
    TrumansRecording,
)
from sources.trumans_files import CheckedTrack, body_faults, check_track, read_actions, read_motion

SCENES_FOLDER = "scenes"
RECORDINGS_FOLDER = "recordings"
BACKGROUND_FILE = "background.glb"
OBJECTS_FOLDER = "objects"
LIGHTS_FILE = "lights.json"
RECORDING_FILE = "recording.json"
MOTION_FILE = "motion.pkl"
OBJECTS_FILE = "objects.npz"
ACTIONS_FILE = "actions.txt"
EXPORT_FILE = "export.json"
"""In a scene's folder that came from a Blender file, written last: what it was exported from."""
MATRIX_PREFIX = "matrix_world/"

_REMEDY = "export the recording again"


class RecordingInfo(BaseModel):
    """Content of a ``recording.json``; further fields are ignored."""

    model_config = ConfigDict(frozen=True)

    scene_id: str = Field(description="Folder below scenes/.", pattern=r"^[^/\\]+$")
    fps: float = Field(description="Frames a second; 30.")
    num_frames: int = Field(description="Frames of the motion.", gt=0)
    bad_frames: tuple[int, ...] = Field(default=(), description="Frames that the dataset marks as erroneous.")


class ExportedTrumans(TrumansRaw):
    """A folder in the exported form."""

    def recordings(self) -> list[RecordingEntry]:
        """The recordings, in order of their names.

        Raises:
            DwmError: there are none, or a ``recording.json`` is missing or wrong.
        """
        folders = sorted(path for path in (self.root / RECORDINGS_FOLDER).iterdir() if path.is_dir())
        if not folders:
            raise DwmError(f"{self.root / RECORDINGS_FOLDER}: holds no recordings; {_REMEDY}")
        entries = []
        for folder in folders:
            info = _read_info(folder / RECORDING_FILE)
            entries.append(
                RecordingEntry(folder.name, info.scene_id, info.num_frames, "exported", frozenset(info.bad_frames))
            )
        return entries

    def skipped(self) -> list[SkippedRecording]:
        """Recordings of Blender files that could not be exported, with the reasons."""
        reasons: dict[str, str] = {}
        for path in sorted((self.root / SCENES_FOLDER).glob(f"*/{EXPORT_FILE}")):
            reasons |= _read_export(path).skipped
        return [SkippedRecording(name, reason) for name, reason in sorted(reasons.items())]

    def load(self, recording_id: str) -> TrumansRecording:
        """Read one recording whole.

        Raises:
            DwmError: no such recording, or a file of it is missing, refused or wrong.
        """
        folder = self.root / RECORDINGS_FOLDER / recording_id
        if not recording_id or Path(recording_id).name != recording_id or not folder.is_dir():
            raise DwmError(f"{folder}: no such recording; the folder holds {_names(self.root / RECORDINGS_FOLDER)}")
        info = _read_info(folder / RECORDING_FILE)
        body, notes = read_motion(folder / MOTION_FILE, remedy=_REMEDY)
        if body.num_frames != info.num_frames:
            raise DwmError(
                f"{folder / MOTION_FILE}: has {body.num_frames} frames, {RECORDING_FILE} says {info.num_frames}; "
                f"{_REMEDY}"
            )
        scene = self.root / SCENES_FOLDER / info.scene_id
        background = scene / BACKGROUND_FILE
        if not background.is_file():
            raise DwmError(f"{background}: no such file, scene of recording {recording_id}; export the scene again")
        tracks, track_notes = _read_tracks(folder / OBJECTS_FILE, scene / OBJECTS_FOLDER, body.num_frames)
        files = {"recording": folder / RECORDING_FILE, "motion": folder / MOTION_FILE, "scene": background}
        lights = scene / LIGHTS_FILE if (scene / LIGHTS_FILE).is_file() else None
        if lights is not None:
            files["lights"] = lights
        actions_path = folder / ACTIONS_FILE
        actions, action_notes = read_actions(actions_path, body.num_frames) if actions_path.is_file() else ((), [])
        if actions_path.is_file():
            files["actions"] = actions_path
        else:
            notes.append(f"{ACTIONS_FILE} is missing; prompts come from the moved objects only")
        if (folder / OBJECTS_FILE).is_file():
            files["objects"] = folder / OBJECTS_FILE
        files |= {f"mesh/{t.tracked.name}": t.tracked.mesh_path for t in tracks if t.tracked.mesh_path is not None}
        return TrumansRecording(
            recording_id=recording_id,
            scene_id=info.scene_id,
            body=body,
            objects=tuple(track.tracked for track in tracks),
            scene_meshes=(background,),
            lights=lights,
            actions=actions,
            bad_frames=frozenset(info.bad_frames),
            form="exported",
            input_files=files,
            notes=(*notes, *track_notes, *(note for track in tracks for note in track.notes), *action_notes),
            faults=(
                *body_faults(body, MOTION_FILE),
                *(fault for track in tracks for fault in track.faults),
            ),
        )


class ExportInfo(BaseModel):
    """What is read of a scene's ``export.json``; further fields are ignored."""

    model_config = ConfigDict(frozen=True)

    skipped: dict[str, str] = Field(default_factory=dict, description="Recordings left out, with the reason.")


def _read_export(path: Path) -> ExportInfo:
    try:
        return ExportInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DwmError(f"{path}: is no list of what was exported; {_REMEDY}") from error


def _read_info(path: Path) -> RecordingInfo:
    try:
        info = RecordingInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such file; {_REMEDY}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise DwmError(f"{path}: {field}: {first['msg'].lower()}; {_REMEDY}") from error
    if info.fps != SOURCE_FPS:
        raise DwmError(f"{path}: {info.fps:g} frames a second; resample the recording to {SOURCE_FPS:g} and {_REMEDY}")
    return info


def _read_tracks(path: Path, meshes: Path, num_frames: int) -> tuple[list[CheckedTrack], list[str]]:
    """Object tracks of an ``objects.npz`` in order of the names, and notes on objects without a track."""
    if not path.is_file():
        return [], [f"{path.name} is missing; no object is drawn"]
    arrays = read_npz(path, required=("names",))
    names = [str(name) for name in np.atleast_1d(arrays["names"])]
    tracks = []
    for name in names:
        key = MATRIX_PREFIX + name
        if key not in arrays:
            raise DwmError(f"{path}: names '{name}' but has no array '{key}'; {_REMEDY}")
        poses = arrays[key]
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or poses.dtype.kind not in "fiu":
            raise DwmError(f"{path}: '{key}' is {poses.dtype} {poses.shape}, not numbers [T,4,4]; {_REMEDY}")
        mesh = meshes / f"{name}.glb"
        tracks.append(check_track(name, poses.astype(np.float64), mesh if mesh.is_file() else None, num_frames, path))
    untracked = [mesh.stem for mesh in sorted(meshes.glob("*.glb")) if mesh.stem not in names]
    notes = [f"'{name}' of the scene has no poses in {path.name}; it is not drawn" for name in untracked]
    return tracks, notes


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
