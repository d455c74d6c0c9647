"""TRUMANS recordings: what one holds, and the reader of both of its layouts (paper section 3.3).

A folder is either the dataset **as released** (``smplx_result/``, concatenated ``*.npy`` arrays, ``Object_all/``,
``Scene_mesh/``) or this project's **exported form** (``scenes/`` and ``recordings/``, with textured GLB meshes).
`open_trumans` tells them apart. ``docs/trumans.md`` says where each assumption about the files comes from.

World: y up, metres. Time: source frames at 30 a second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.rotations import Floats

SOURCE_FPS = 30.0
"""Frames a second of TRUMANS recordings, in both layouts."""

MOVED_METRES = 0.005
"""An object counts as moving when its origin travels farther than this from where it starts."""

MOVED_RADIANS = np.deg2rad(2.0)
"""Or when it turns farther than this."""

Form = Literal["release", "exported"]


@dataclass(frozen=True)
class BodyParameters:
    """SMPL-X parameters of the actor over T frames: axis-angle radians, y up, metres (data in float64).

    Attributes:
        global_orient: [T,3] orientation of the pelvis.
        body_pose: [T,63] 21 body joints.
        left_hand_pose: [T,45] 15 finger joints, relative to a flat hand, not principal components.
        right_hand_pose: [T,45].
        jaw_pose: [T,3].
        expression: [T,10] face coefficients.
        transl: [T,3] metres.
        betas: [B] shape coefficients; B may be 0 (the mean body).
    """

    global_orient: Floats
    body_pose: Floats
    left_hand_pose: Floats
    right_hand_pose: Floats
    jaw_pose: Floats
    expression: Floats
    transl: Floats
    betas: Floats

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.transl)


@dataclass(frozen=True)
class TrackedObject:
    """A rigid object with a pose a frame.

    Attributes:
        name: name in the recording (``cup_01``).
        mesh_path: OBJ or GLB with its rest geometry; None when the data has none (a note of the recording says so).
        world_from_object: [T,4,4] y up, metres; NaN where the data has no pose.
    """

    name: str
    mesh_path: Path | None
    world_from_object: Floats

    @property
    def is_moving(self) -> bool:
        """Whether it ever leaves its first pose by more than `MOVED_METRES` or `MOVED_RADIANS`."""
        poses = self.world_from_object[np.isfinite(self.world_from_object).all(axis=(1, 2))]
        return len(poses) > 0 and bool(poses_differ(poses, poses[:1]).any())


def poses_differ(first: Floats, second: Floats) -> npt.NDArray[np.bool_]:
    """[N] whether pairs of poses [N,4,4] are apart by more than `MOVED_METRES` or `MOVED_RADIANS`; False for NaN."""
    distance = np.linalg.norm(first[:, :3, 3] - second[:, :3, 3], axis=1)
    # For rotations, trace(A^T B) is 1 + 2 cos(angle between them); scaled axes (Blender's matrices) are made unit.
    cosine = (np.einsum("nij,nij->n", _unit_axes(first), _unit_axes(second)) - 1.0) / 2.0
    result: npt.NDArray[np.bool_] = (distance > MOVED_METRES) | (cosine < np.cos(MOVED_RADIANS))
    return result


def _unit_axes(poses: Floats) -> Floats:
    axes = poses[:, :3, :3]
    result: Floats = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)
    return result


@dataclass(frozen=True)
class ActionInterval:
    """An annotated action: source frames ``start`` up to ``end`` (exclusive) and its description."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class FrameFault:
    """Source frames ``start`` up to ``end`` (exclusive) that no clip may span, and why."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class RecordingEntry:
    """What is known of a recording before it is loaded.

    Attributes:
        bad_frames: source frames that the dataset marks as erroneous, as far as known without loading.
    """

    recording_id: str
    scene_id: str
    num_frames: int
    form: Form
    bad_frames: frozenset[int] = frozenset()


@dataclass(frozen=True)
class SkippedRecording:
    """A motion of the folder that is no recording, and why."""

    recording_id: str
    reason: str


@dataclass(frozen=True)
class TrumansRecording:
    """A loaded recording.

    Attributes:
        recording_id: name of the motion segment.
        scene_id: name of the scene.
        body: the actor's motion; its length is the recording's.
        objects: objects with a track, by name; tracks are as long as the motion.
        scene_meshes: GLB or OBJ files of what never moves.
        lights: the scene's lights (JSON); None for sunlight.
        actions: annotated actions by start.
        bad_frames: source frames that the dataset marks as erroneous.
        form: layout that it was read from.
        input_files: the files it was read from, by role.
        notes: reasons for a person to look; not errors.
        faults: further source frames that no clip may span (no pose, no mesh), with the reason of each.
    """

    recording_id: str
    scene_id: str
    body: BodyParameters
    objects: tuple[TrackedObject, ...]
    scene_meshes: tuple[Path, ...]
    actions: tuple[ActionInterval, ...]
    bad_frames: frozenset[int]
    form: Form
    input_files: dict[str, Path]
    notes: tuple[str, ...] = ()
    faults: tuple[FrameFault, ...] = ()
    fps: float = SOURCE_FPS
    lights: Path | None = None

    @property
    def num_frames(self) -> int:
        """Source frames."""
        return self.body.num_frames


class TrumansRaw(ABC):
    """An opened TRUMANS folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def recordings(self) -> list[RecordingEntry]:
        """The recordings, in order of their names.

        Raises:
            DwmError: a file that lists them is missing or broken.
        """

    @abstractmethod
    def skipped(self) -> list[SkippedRecording]:
        """Motions that are left out (augmented copies), with their reasons."""

    @abstractmethod
    def load(self, recording_id: str) -> TrumansRecording:
        """Read one recording whole.

        Raises:
            DwmError: no such recording, or a file of it is missing, refused or wrong.
        """


def open_trumans(raw: Path, *, scene_mesh: Path | None = None) -> TrumansRaw:
    """Open a TRUMANS folder in either layout.

    Args:
        raw: folder as released, or in the exported form.
        scene_mesh: OBJ or GLB of the scene for recordings whose scene the released arrays do not name (a folder that
            holds motions only); its name becomes their scene id.

    Raises:
        DwmError: the folder is missing or is neither.
    """
    if not raw.is_dir():
        raise DwmError(f"{raw}: no such folder; give the TRUMANS folder")
    from sources.trumans_exported import ExportedTrumans
    from sources.trumans_release import ReleasedTrumans

    if (raw / "recordings").is_dir():
        return ExportedTrumans(raw)
    if any((raw / name).exists() for name in ("smplx_result", "seg_name.npy")):
        return ReleasedTrumans(raw, scene_mesh)
    raise DwmError(
        f"{raw}: no TRUMANS folder; it needs smplx_result/ or seg_name.npy (as released), or recordings/ (exported)"
    )
