"""Journals of a run: ``losses.jsonl``, ``validation.jsonl``, ``speed.jsonl``: one object a line, no step twice.

The first two are the same, byte for byte, whether a run was interrupted or not; what depends on the clock is in the
third.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from manifests.journal import Journal, Record

__all__ = [
    "LOSSES_FILE",
    "SPEED_FILE",
    "VALIDATION_FILE",
    "Journal",
    "Record",
    "SpeedRecord",
    "StepRecord",
    "ValidationRecord",
]

LOSSES_FILE = "losses.jsonl"
VALIDATION_FILE = "validation.jsonl"
SPEED_FILE = "speed.jsonl"


def last_step(path: Path) -> int:
    """Step of the last whole line of a journal that may be growing; 0 when there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 4096))
        whole_lines = [line for line in stream.read().split(b"\n")[:-1] if line.startswith(b"{")]
    return int(json.loads(whole_lines[-1])["step"]) if whole_lines else 0


class StepRecord(Record):
    """A training step."""

    loss: float = Field(description="Mean velocity error of the step's clips.")
    lr: float = Field(description="Learning rate of the step.")
    grad_norm: float = Field(description="Norm of the gradient before it was scaled down.")


class ValidationRecord(Record):
    """A validation."""

    loss: float = Field(description="Mean velocity error over the fixed clips, noise and timesteps.")


class SpeedRecord(Record):
    """How long a training step took."""

    seconds: float = Field(description="Wall-clock seconds of the step, with its data, without validation.")
    samples_per_s: float = Field(description="Clips of all processes a second.")
