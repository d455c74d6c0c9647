"""Aria captures on disk: recordings (`*.vrs`) and what Aria's Machine Perception Services (MPS) made of them.

A capture is a VRS file with a closed-loop trajectory, semi-dense points and, where there is one, an online
calibration. The folders that are searched are those of the MPS command line (``mps_<name>_vrs/slam``), of the published
data sets (``mps/slam``, ``slam``, ``trajectory``) and the recording's own. `docs/aria.md` says where this comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from manifests.errors import DwmError

TRAJECTORY_NAMES = ("closed_loop_trajectory.csv", "aria_trajectory.csv")
POINTS_NAMES = ("semidense_points.csv.gz", "semidense_points.csv", "global_points.csv.gz", "global_points.csv")
ONLINE_CALIBRATION_NAME = "online_calibration.jsonl"
PHASES_NAME = "phases.json"
CAPTION_NAME = "caption.txt"


@dataclass(frozen=True)
class CaptureFiles:
    """The files of one capture.

    Attributes:
        capture_id: its path below the raw folder without suffix: unique there.
        vrs: the recording.
        trajectory: closed-loop trajectory; None where there is none (the capture cannot be used then).
        points: semi-dense points; None where there are none.
        online_calibration: None where there is none: the factory calibration is used then.
        phases: sidecar that says when the interaction begins; None where there is none.
        caption: text of the action; None where there is none.
    """

    capture_id: str
    vrs: Path
    trajectory: Path | None
    points: Path | None
    online_calibration: Path | None
    phases: Path | None
    caption: Path | None

    def inputs(self) -> dict[str, Path]:
        """The files that exist, by role: what a clip's ``input_hashes`` are made of."""
        named = {
            "vrs": self.vrs,
            "trajectory": self.trajectory,
            "points": self.points,
            "online_calibration": self.online_calibration,
            "phases": self.phases,
            "caption": self.caption,
        }
        return {role: path for role, path in named.items() if path is not None}

    def required(self, role: str) -> Path:
        """The path of ``trajectory`` or ``points``.

        Raises:
            DwmError: the capture has none.
        """
        path: Path | None = getattr(self, role)
        if path is None:
            wanted = TRAJECTORY_NAMES[0] if role == "trajectory" else POINTS_NAMES[0]
            raise DwmError(
                f"{self.vrs}: has no {wanted}; let Aria's Machine Perception Services process the recording and put "
                f"the result into mps_{self.vrs.stem}_vrs/slam beside it"
            )
        return path


def find_captures(raw: Path) -> tuple[CaptureFiles, ...]:
    """The captures of a folder, at any depth, by name; or the one of a VRS file.

    Raises:
        DwmError: no such folder, or no VRS file in it.
    """
    raw = raw.resolve()
    if raw.is_file() and raw.suffix.lower() == ".vrs":
        return (capture_files(raw, raw.parent),)
    if not raw.is_dir():
        raise DwmError(f"{raw}: no such folder; give the folder that holds the recordings (*.vrs)")
    found = sorted(path for path in raw.rglob("*") if path.suffix.lower() == ".vrs" and path.is_file())
    recordings = [path for path in found if not path.name.startswith(".")]
    if not recordings:
        raise DwmError(f"{raw}: holds no recording (*.vrs); give the folder that holds Aria captures")
    return tuple(capture_files(path, raw) for path in recordings)


def capture_files(vrs: Path, raw: Path) -> CaptureFiles:
    """What belongs to a recording."""
    folders = _result_folders(vrs)
    alone = len(list(vrs.parent.glob("*.vrs"))) == 1
    return CaptureFiles(
        capture_id=vrs.relative_to(raw).with_suffix("").as_posix(),
        vrs=vrs,
        trajectory=_first(folders, TRAJECTORY_NAMES),
        points=_first(folders, POINTS_NAMES),
        online_calibration=_first(folders, (ONLINE_CALIBRATION_NAME,)),
        phases=_sidecar(vrs, PHASES_NAME, alone=alone),
        caption=_sidecar(vrs, CAPTION_NAME, alone=alone),
    )


def _result_folders(vrs: Path) -> list[Path]:
    """Where results of the services may lie, the surest place first."""
    beside = vrs.parent
    own = beside / f"mps_{vrs.stem}_vrs"
    if own.is_dir() or len(list(beside.glob("*.vrs"))) > 1:
        return [own / "slam", own]
    return [beside / "mps" / "slam", beside / "mps", beside / "slam", beside / "trajectory", beside]


def _first(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    paths = (folder / name for folder in folders for name in names)
    return next((path for path in paths if path.is_file()), None)


def _sidecar(vrs: Path, name: str, *, alone: bool) -> Path | None:
    """``<recording>.<name>`` beside the recording, or plain ``<name>`` where it is the folder's only one."""
    own = vrs.with_name(f"{vrs.stem}.{name}")
    if own.is_file():
        return own
    shared = vrs.with_name(name)
    return shared if alone and shared.is_file() else None
