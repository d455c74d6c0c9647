"""Journals of a run: ``losses.jsonl``, ``validation.jsonl``, ``speed.jsonl``: one object a line, no step twice.

The first two are the same, byte for byte, whether a run was interrupted or not; what depends on the clock is in the
third.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import explain_os_error, write_text

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


class Record(BaseModel):
    """A line of a journal."""

    model_config = ConfigDict(frozen=True)

    step: int = Field(description="Optimizer steps done; a validation at 0 is of the base with an untouched adapter.")


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


RecordT = TypeVar("RecordT", bound=Record)


class Journal(Generic[RecordT]):
    """A growing file of records with rising steps.

    Args:
        path: the file.
        record_class: class of its lines.
    """

    def __init__(self, path: Path, record_class: type[RecordT]) -> None:
        self.path = path
        self._record_class = record_class

    def records(self) -> list[RecordT]:
        """Whole records; a last line that a killed process left unfinished is no record."""
        if not self.path.exists():
            return []
        found: list[RecordT] = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(self._record_class.model_validate_json(line))
            except ValidationError:
                break
        return found

    def cut_after(self, step: int) -> None:
        """Drop what was written after ``step``, so that a resumed run writes each step once."""
        kept = [record for record in self.records() if record.step <= step]
        write_text(self.path, "".join(record.model_dump_json() + "\n" for record in kept))

    def append(self, record: RecordT) -> None:
        """Add a record; it is in the file when this returns.

        Raises:
            DwmError: the disk is full or the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(record.model_dump_json() + "\n")
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def flush_to_disk(self) -> None:
        """Make sure that the records survive a power cut; called before a checkpoint claims their steps."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())
