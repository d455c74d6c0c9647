"""When the interaction begins: before it the scene is explored and stands still (paper 3.3, real-world captures).

The boundary comes from a setting, else from a sidecar file, else it is proposed: by the first hand that is seen, or by
the first frames that no longer look like the reconstruction. A proposal keeps its evidence for a person to check.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.errors import DwmError
from render.rotations import Floats
from sources.aria import CaptureLacksError

RELEASE_EXPLORE_FRAMES = 100
"""Frames from which the public release reconstructs a scene, where nothing else is said."""

_HANDS_IN_A_ROW = 3
_CHANGED_IN_A_ROW = 3
_CHANGE_FLOOR = 0.02
_CHANGE_FACTOR = 3.0


class BoundaryOrigin(StrEnum):
    """Where a boundary comes from."""

    SETTING = "setting"
    SIDECAR = "sidecar"
    FIRST_HAND = "first_hand"
    SCENE_CHANGE = "scene_change"


class PhaseSplit(BaseModel):
    """The two phases of a capture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: BoundaryOrigin = Field(description="What the boundary comes from.")
    first_frame: int = Field(description="Colour frame with which the interaction begins.", ge=0)
    start_s: float = Field(description="The same in seconds from the first colour frame.")
    evidence: str = Field(description="Why there: one line for people.")

    @property
    def is_proposal(self) -> bool:
        """Whether nobody has said so."""
        return self.origin in {BoundaryOrigin.FIRST_HAND, BoundaryOrigin.SCENE_CHANGE}

    def flag(self) -> str | None:
        """A reason to look, where the boundary is a proposal."""
        return f"phase_proposed: {self.evidence}" if self.is_proposal else None


class _Sidecar(BaseModel):
    """What `phases.json` may hold: exactly one of the three."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interaction_start_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    interaction_start_ns: int | None = Field(default=None, ge=0)
    explore_frames: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> _Sidecar:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(type(self).model_fields)}, not {len(given)}")
        return self


def split_by_setting(times_s: Floats, start_s: float) -> PhaseSplit:
    """The boundary that the user gave, in seconds from the first colour frame.

    Raises:
        DwmError: the recording is over by then.
    """
    frame = _frame_at(times_s, start_s, "interaction_start_s")
    return _split(BoundaryOrigin.SETTING, times_s, frame, f"given as {start_s:g} s")


def split_by_sidecar(times_s: Floats, timestamps_ns: npt.NDArray[np.int64], path: Path) -> PhaseSplit:
    """The boundary that a sidecar file names.

    It is JSON with one of ``interaction_start_s`` (seconds from the first colour frame), ``interaction_start_ns`` (by
    the device's clock), ``explore_frames`` (colour frames before the interaction).

    Raises:
        DwmError: the file is something else, or the recording is over by then.
    """
    try:
        sidecar = _Sidecar.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DwmError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise DwmError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ').lower()}; correct it") from error
    if sidecar.explore_frames is not None:
        if sidecar.explore_frames >= len(times_s):
            raise DwmError(
                f"{path}: explore_frames is {sidecar.explore_frames}, the recording has {len(times_s)} colour frames; "
                "correct it"
            )
        told = f"{path.name}: {sidecar.explore_frames} frames"
        return _split(BoundaryOrigin.SIDECAR, times_s, sidecar.explore_frames, told)
    if sidecar.interaction_start_ns is not None:
        start_s = (sidecar.interaction_start_ns - int(timestamps_ns[0])) / 1e9
    else:
        start_s = float(sidecar.interaction_start_s or 0.0)
    frame = _frame_at(times_s, start_s, f"{path}: interaction_start")
    return _split(BoundaryOrigin.SIDECAR, times_s, frame, f"{path.name}: {start_s:.3f} s")


def propose_by_hands(
    times_s: Floats, looked_at: npt.NDArray[np.int64], hands: npt.NDArray[np.int64]
) -> PhaseSplit | None:
    """The first frame from which hands are seen in a row; None where they never are.

    Args:
        times_s: [N] times of the colour frames.
        looked_at: [n] colour frames in which hands were looked for, increasing.
        hands: [n] hands found in each of them.
    """
    start = _first_run(hands > 0, _HANDS_IN_A_ROW)
    if start is None:
        return None
    before = int((hands[:start] > 0).sum())
    after = int((hands[start:] > 0).sum())
    evidence = (
        f"first hand at {times_s[looked_at[start]]:.2f} s (colour frame {looked_at[start]}): hands in {after} of "
        f"{len(hands) - start} frames from there and in {before} of {start} before"
    )
    return _split(BoundaryOrigin.FIRST_HAND, times_s, int(looked_at[start]), evidence)


def propose_by_change(
    times_s: Floats, looked_at: npt.NDArray[np.int64], changed: Floats, usual: Floats
) -> PhaseSplit | None:
    """The first frame from which the scene no longer looks like the reconstruction; None where it always does.

    Args:
        times_s: [N] times of the colour frames.
        looked_at: [n] colour frames that were compared, increasing.
        changed: [n] share of each picture (0-1) that differs clearly from the reconstruction.
        usual: [m] the same for frames that the scene was reconstructed from or held out: how much is nothing.
    """
    level = float(np.median(usual)) if len(usual) else 0.0
    limit = max(_CHANGE_FLOOR, _CHANGE_FACTOR * level)
    start = _first_run(changed > limit, _CHANGED_IN_A_ROW)
    if start is None:
        return None
    evidence = (
        f"the scene changes at {times_s[looked_at[start]]:.2f} s (colour frame {looked_at[start]}): "
        f"{changed[start : start + _CHANGED_IN_A_ROW].mean():.1%} of the picture differ from the reconstruction, "
        f"{level:.1%} are usual"
    )
    return _split(BoundaryOrigin.SCENE_CHANGE, times_s, int(looked_at[start]), evidence)


def explored_frames(split: PhaseSplit, has_pose: npt.NDArray[np.bool_], least: int, what: str) -> npt.NDArray[np.int64]:
    """The colour frames before the interaction that have a pose.

    Args:
        split: the phases.
        has_pose: [N] which colour frames have one.
        least: fewer are too few to reconstruct a scene from.
        what: the capture, for messages.

    Raises:
        CaptureLacksError: there are too few.
    """
    frames = np.flatnonzero(has_pose[: split.first_frame]).astype(np.int64)
    if len(frames) < least:
        raise CaptureLacksError(
            f"{what}: the interaction begins at colour frame {split.first_frame} ({split.evidence}), which leaves "
            f"{len(frames)} frames with a pose to reconstruct the scene from, and {least} are needed; explore the "
            "scene first, or say in phases.json when the interaction begins"
        )
    return frames


def _frame_at(times_s: Floats, start_s: float, what: str) -> int:
    frame = int(np.searchsorted(times_s, start_s - 1e-6))
    if frame >= len(times_s):
        raise DwmError(f"{what} {start_s:g}: the recording is {times_s[-1]:.2f} s long; give a time within it")
    return frame


def _first_run(marks: npt.NDArray[np.bool_], length: int) -> int | None:
    """Where ``length`` marks in a row begin (fewer at the end of the list do not count)."""
    run = 0
    for index, mark in enumerate(marks):
        run = run + 1 if mark else 0
        if run == length:
            return index - length + 1
    return None


def _split(origin: BoundaryOrigin, times_s: Floats, frame: int, evidence: str) -> PhaseSplit:
    return PhaseSplit(origin=origin, first_frame=frame, start_s=round(float(times_s[frame]), 6), evidence=evidence)
