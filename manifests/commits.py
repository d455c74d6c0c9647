"""Commits: what a dataset was when a build of it had come to its end."""

from __future__ import annotations

from datetime import datetime

import pyarrow.compute as pc
import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import code_version
from manifests.schema import ClipStatus, Split, utc_now

COMMIT_FILE = "commit.json"
"""File of a dataset that says what its last whole build left."""


class DatasetCommit(BaseModel):
    """What ``commit.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_hash: str = Field(description="`Dataset.content_hash` of all ready and conditions-only clips.")
    ready_clips: dict[Split, int] = Field(description="Ready clips of each split.")
    code_version: str = Field(description="Version of the code that built it.")
    committed_at: datetime = Field(default_factory=utc_now, description="When the build ended, UTC.")


def commit(dataset: Dataset) -> DatasetCommit:
    """Write down what the dataset is now; a build that changed nothing leaves the commit as it was.

    Raises:
        DwmError: the dataset cannot be read or written.
    """
    ready = dataset.clips.read(["split"], where=ds.field("status") == ClipStatus.READY.value).column("split")
    now = DatasetCommit(
        dataset_hash=dataset.content_hash(),
        ready_clips={split: pc.sum(pc.equal(ready, split.value)).as_py() or 0 for split in Split},
        code_version=code_version(),
    )
    before = last_commit(dataset)
    if before is not None and before.model_dump(exclude={"committed_at"}) == now.model_dump(exclude={"committed_at"}):
        return before
    write_text(dataset.root / COMMIT_FILE, now.model_dump_json(indent=2) + "\n")
    return now


def last_commit(dataset: Dataset) -> DatasetCommit | None:
    """What the last whole build left; None before the first.

    Raises:
        DwmError: ``commit.json`` is damaged.
    """
    path = dataset.root / COMMIT_FILE
    if not path.exists():
        return None
    try:
        return DatasetCommit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DwmError(f"{path}: damaged; remove it, the next build writes it again") from error
