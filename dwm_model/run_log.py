"""Journals of a run: ``losses.jsonl`` and ``validation.jsonl``, one object a line, no step twice."""

from __future__ import annotations

from pydantic import Field

from manifests.journal import Journal, Record

__all__ = ["LOSSES_FILE", "VALIDATION_FILE", "Journal", "Record", "StepRecord", "ValidationRecord"]

LOSSES_FILE = "losses.jsonl"
VALIDATION_FILE = "validation.jsonl"


class StepRecord(Record):
    """A training step."""

    loss: float = Field(description="Mean velocity error of the step's clips.")
    lr: float = Field(description="Learning rate of the step.")
    grad_norm: float = Field(description="Norm of the gradient before it was scaled down.")


class ValidationRecord(Record):
    """A validation."""

    loss: float = Field(description="Mean velocity error over the fixed clips, noise and timesteps.")
