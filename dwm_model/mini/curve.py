"""The losses by which a base tells how it was trained: kept in the note beside its index."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwm_model.base_model import NOTE_FILE
from dwm_model.families import read_json_object
from dwm_model.run_log import LOSSES_FILE, SPEED_FILE, Journal, SpeedRecord, StepRecord
from manifests.errors import DwmError

FIRST_STEPS = 50
"""Steps whose losses are all kept; of the later ones means over so many."""

CURVE_KEY = "curve"


class TrainingCurve(BaseModel):
    """Losses of a training run, few enough to look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: tuple[float, ...] = Field(description=f"Loss of each of the first {FIRST_STEPS} steps.")
    means: tuple[float, ...] = Field(description=f"Mean loss of each {FIRST_STEPS} steps, from the first.")
    seconds: float = Field(description="Seconds of all steps, as they were on the machine that trained.")


def curve_of(run: Path) -> TrainingCurve:
    """Curve of a run's folder."""
    losses = [record.loss for record in Journal(run / LOSSES_FILE, StepRecord).records()]
    seconds = [record.seconds for record in Journal(run / SPEED_FILE, SpeedRecord).records()]
    starts = range(0, len(losses), FIRST_STEPS)
    means = tuple(round(fmean(losses[start : start + FIRST_STEPS]), 4) for start in starts)
    return TrainingCurve(
        first=tuple(round(loss, 4) for loss in losses[:FIRST_STEPS]), means=means, seconds=round(sum(seconds))
    )


def recorded_curve(base: Path) -> TrainingCurve:
    """Curve that a base was shipped with.

    Raises:
        DwmError: it has none.
    """
    path = base / NOTE_FILE
    try:
        return TrainingCurve.model_validate(read_json_object(path)[CURVE_KEY])
    except (KeyError, ValidationError) as error:
        raise DwmError(f"{path}: has no losses in '{CURVE_KEY}'; make the base with `dwm pretrain-mini`") from error
