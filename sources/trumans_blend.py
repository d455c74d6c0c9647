"""``Recordings_blend/*/*.blend`` of TRUMANS -> this project's exported form, once a scene (``docs/trumans.md``).

Blender runs in a process and a Python of its own (``make blender``): its package needs other versions of libraries
than the rest. It leaves its files in a staging folder; here they are checked, completed with motion, actions and bad
frames of the release, and moved into place folder by folder, so that a killed export continues.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import make_folder, write_bytes, write_text
from manifests.errors import DwmError
from manifests.hashing import hash_file, short_id
from render.arrays import read_npz, write_npz
from sources.trumans import SOURCE_FPS
from sources.trumans_arrays import FrameArrays
from sources.trumans_exported import (
    ACTIONS_FILE,
    BACKGROUND_FILE,
    EXPORT_FILE,
    MATRIX_PREFIX,
    MOTION_FILE,
    OBJECTS_FILE,
    OBJECTS_FOLDER,
    RECORDING_FILE,
    RECORDINGS_FOLDER,
    SCENES_FOLDER,
)
from sources.trumans_files import read_motion
from sources.trumans_release import ACTION_FOLDERS, MOTION_FOLDER, MOTION_SUFFIX

BLEND_FOLDER = "Recordings_blend"
PYTHON_VARIABLE = "DWM_BLENDER_PYTHON"
TEXTURE_SIZE = 1024
"""Larger textures are reduced to this many pixels: finer than a clip shows, and workers stay small."""

_SCRIPT = Path(__file__).parent / "blender" / "export_scene.py"
_STAGING_FOLDER = ".staging"
_LOGGER = logging.getLogger(__name__)


class SceneReport(BaseModel):
    """What Blender found in one file; the fields of `sources.blender.export_scene.Report`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blender: str = Field(description="Version of Blender.")
    recordings: dict[str, int] = Field(description="Recordings written, and their frames.")
    skipped: dict[str, str] = Field(description="Recordings of the file that were not, with the reason.")
    objects: dict[str, str] = Field(description="Name in the export of each object that can move.")
    notes: list[str] = Field(description="Reasons for a person to look.")


class SceneExport(SceneReport):
    """Content of `EXPORT_FILE`."""

    source: str = Field(description="Hash of the file, the script and the motions' lengths.")


class ExportFailure(BaseModel):
    """A file that could not be exported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene_id: str = Field(description="Name of the scene.")
    reason: str = Field(description="One line: why.")


class BlendReport(BaseModel):
    """What an export did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(description="Where the exported form lies.")
    made: int = Field(default=0, description="Scenes exported now.")
    kept: int = Field(default=0, description="Scenes exported before from the same files.")
    recordings: int = Field(default=0, description="Recordings of these scenes.")
    skipped: dict[str, str] = Field(default_factory=dict, description="Recordings left out, with the reason.")
    failures: tuple[ExportFailure, ...] = Field(default=(), description="Scenes that could not be exported.")

    def lines(self) -> list[str]:
        """The report for people."""
        counts = f"{self.made} scenes exported, {self.kept} kept, {len(self.failures)} failed"
        lines = [f"{self.folder}: {counts}; {self.recordings} recordings"]
        lines += [f"left out: {name}: {reason}" for name, reason in self.skipped.items()]
        return lines + [f"failed: {each.scene_id}: {each.reason}" for each in self.failures]


def default_export_folder(raw: Path, dataset: Path) -> Path:
    """Where an export goes unless another folder is named: beside the dataset, for raw data is not written to."""
    return dataset.absolute().parent / f"{raw.absolute().name}-exported"


def find_blender_python(python: Path | None = None) -> Path:
    """A Python that has ``bpy``: the given one, `PYTHON_VARIABLE`, or what ``make blender`` has made.

    Raises:
        DwmError: there is none.
    """
    named = python or (Path(os.environ[PYTHON_VARIABLE]) if os.environ.get(PYTHON_VARIABLE) else None)
    found = named or Path(sys.prefix).parent / ".venv-blender" / "bin" / "python"
    if not found.is_file():
        raise DwmError(
            f"{found}: no such Python; run `make blender`, or set {PYTHON_VARIABLE} to a Python in which "
            "`pip install -r requirements-blender.txt` was run"
        )
    return found


def export_blends(
    raw: Path,
    folder: Path,
    *,
    python: Path | None = None,
    only: str | None = None,
    watch: Callable[[list[Path]], Iterable[Path]] = iter,
) -> BlendReport:
    """Export the scenes of a release that have not been exported from the same files yet.

    Args:
        raw: the release, with ``Recordings_blend/<scene>/<scene>.blend`` and ``smplx_result/``.
        folder: where to write the exported form.
        python: a Python with ``bpy``; see `find_blender_python`.
        only: only scenes whose name matches this pattern; all where none does (it may be meant for recordings).
        watch: passes the files on, one by one, such as a progress bar.

    Raises:
        DwmError: there is no such file, or no Python with ``bpy``.
    """
    blends = sorted((raw / BLEND_FOLDER).glob("*/*.blend"))
    if not blends:
        raise DwmError(f"{raw / BLEND_FOLDER}: holds no <scene>/<scene>.blend; copy them from the release")
    chosen = [path for path in blends if only and fnmatch(path.parent.name, only)] or blends
    exporter = _Exporter(raw, folder, find_blender_python(python))
    report = BlendReport(folder=folder)
    for blend in watch(chosen):
        try:
            scene, is_new = exporter.export(blend)
        except DwmError as error:
            failure = ExportFailure(scene_id=blend.parent.name, reason=str(error))
            report = report.model_copy(update={"failures": (*report.failures, failure)})
            continue
        changes = {
            "made": report.made + is_new,
            "kept": report.kept + (not is_new),
            "recordings": report.recordings + len(scene.recordings),
            "skipped": report.skipped | scene.skipped,
        }
        report = report.model_copy(update=changes)
    return report


class _Exporter:
    """Exports the scenes of one release."""

    def __init__(self, raw: Path, folder: Path, python: Path) -> None:
        self._raw, self._folder, self._python = raw, folder, python
        self._arrays = FrameArrays(raw)
        motions = (raw / MOTION_FOLDER).glob(f"*{MOTION_SUFFIX}")
        self._motions = {path.name.removesuffix(MOTION_SUFFIX): path for path in sorted(motions)}

    def export(self, blend: Path) -> tuple[SceneExport, bool]:
        """Export one file unless it has been; tells which.

        Raises:
            DwmError: Blender failed, or wrote something else than it should.
        """
        scene_id = blend.parent.name
        source = short_id(hash_file(blend), hash_file(_SCRIPT), TEXTURE_SIZE, *self._motions)
        before = self._exported(scene_id)
        if before is not None and before.source == source and self._is_whole(before):
            return before, False
        make_folder(self._folder / _STAGING_FOLDER)
        with tempfile.TemporaryDirectory(dir=self._folder / _STAGING_FOLDER) as name:
            staging = Path(name)
            report = self._run(blend, staging)
            for segment, frames in report.recordings.items():
                self._place_recording(staging, scene_id, segment, frames)
            export = SceneExport(source=source, **report.model_dump())
            self._place_scene(staging, scene_id, export)
        for note in report.notes:
            _LOGGER.warning("%s: %s", blend, note)
        return export, True

    def _exported(self, scene_id: str) -> SceneExport | None:
        path = self._folder / SCENES_FOLDER / scene_id / EXPORT_FILE
        try:
            return SceneExport.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):  # not there, or of another version: exported again
            return None

    def _is_whole(self, export: SceneExport) -> bool:
        folder = self._folder / RECORDINGS_FOLDER
        return all((folder / segment / RECORDING_FILE).is_file() for segment in export.recordings)

    def _run(self, blend: Path, staging: Path) -> SceneReport:
        """Let Blender write into the staging folder.

        Raises:
            DwmError: it failed; its last words are in the message.
        """
        frames = {name: read_motion(path)[0].num_frames for name, path in self._motions.items()}
        request = staging / "request.json"
        request.write_text(json.dumps({"motions": frames, "texture_size": TEXTURE_SIZE}), encoding="utf-8")
        command = [str(self._python), "-I", str(_SCRIPT), str(blend), str(staging), str(request)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report = staging / "report.json"
        if done.returncode != 0 or not report.is_file():
            words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise DwmError(f"{blend}: Blender ended with {done.returncode} ({words}); open the file in Blender to look")
        return SceneReport.model_validate_json(report.read_bytes())

    def _place_recording(self, staging: Path, scene_id: str, segment: str, frames: int) -> None:
        folder = staging / RECORDINGS_FOLDER / segment
        tracks = read_npz(staging / f"{segment}.tracks.npz")
        write_bytes(folder / MOTION_FILE, self._motions[segment].read_bytes())
        matrices = {MATRIX_PREFIX + name: np.asarray(track, np.float64) for name, track in sorted(tracks.items())}
        write_npz(folder / OBJECTS_FILE, {"names": np.array(sorted(tracks), dtype=np.str_), **matrices})
        for actions in (self._raw / name / f"{segment}.txt" for name in ACTION_FOLDERS):
            if actions.is_file():
                write_bytes(folder / ACTIONS_FILE, actions.read_bytes())
                break
        info = {
            "scene_id": scene_id,
            "fps": SOURCE_FPS,
            "num_frames": frames,
            "bad_frames": sorted(self._arrays.bad_frames(segment)),
        }
        write_text(folder / RECORDING_FILE, json.dumps(info, indent=1) + "\n")
        _move_folder(folder, self._folder / RECORDINGS_FOLDER / segment)

    def _place_scene(self, staging: Path, scene_id: str, export: SceneExport) -> None:
        folder = staging / SCENES_FOLDER / scene_id
        make_folder(folder)
        (staging / BACKGROUND_FILE).replace(folder / BACKGROUND_FILE)
        (staging / OBJECTS_FOLDER).replace(folder / OBJECTS_FOLDER)
        write_text(folder / EXPORT_FILE, export.model_dump_json(indent=1) + "\n")
        _move_folder(folder, self._folder / SCENES_FOLDER / scene_id)


def _move_folder(source: Path, target: Path) -> None:
    """Put a whole folder in the place of another, or of none. A kill between leaves none: it is exported again."""
    make_folder(target.parent)
    if target.exists():
        shutil.rmtree(target)
    source.replace(target)
