"""The files of a dataset folder, and which of them the manifest names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from manifests.atomic import TEMPORARY_MARK
from manifests.dataset import Dataset
from manifests.schema import Clip

COMPANION_FILES = {
    "prompts": "prompts/prompts.txt",
    "prompts_rewrite": "prompts/prompts_rewrite.txt",
    "metadata": "metadata.json",
}
"""Original files in a clip's folder that no column names, by the role under which ``input_hashes`` has them."""


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """A file on disk.

    Attributes:
        path: Path relative to the dataset folder, with ``/``.
        size: Bytes.
        modified_at: Time of the last change, seconds since 1970.
    """

    path: str
    size: int
    modified_at: float

    @property
    def unfinished(self) -> str | None:
        """Path of the unfinished file or folder that this belongs to; None for a finished file."""
        parts = PurePosixPath(self.path).parts
        marked = next((index for index, part in enumerate(parts) if TEMPORARY_MARK in part), None)
        return None if marked is None else "/".join(parts[: marked + 1])


def files_under(dataset: Dataset, folder: str = "") -> Iterator[DatasetFile]:
    """Files below a folder of the dataset (all by default), sorted by folder and name; none when it is absent.

    What tables have set aside (``manifest/.<table>/aside``) is left out: it is theirs, the next writer clears it.
    """
    for current, folders, names in os.walk(dataset.root / folder):
        in_table_state = Path(current).parent == dataset.root / "manifest" and Path(current).name.startswith(".")
        folders[:] = sorted(name for name in folders if not (in_table_state and name == "aside"))
        for name in sorted(names):
            path = Path(current, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # a running build has just finished or removed it
            relative = path.relative_to(dataset.root).as_posix()
            yield DatasetFile(path=relative, size=status.st_size, modified_at=status.st_mtime)


def named_files(dataset: Dataset) -> set[str]:
    """Relative paths of all files that a clip or a generation names.

    Raises:
        DwmError: the manifest cannot be read.
    """
    clips = dataset.clips.read([*Clip.FILE_COLUMNS, "clip_id", "source", "input_hashes"])
    generations = dataset.generations.read(["path"])
    columns = [*clips.select(Clip.FILE_COLUMNS).columns, *generations.columns]
    named = {path for column in columns for path in column.drop_null().to_pylist()}
    for clip in clips.select(["clip_id", "source", "input_hashes"]).to_pylist():
        folder = f"clips/{clip['source']}/{clip['clip_id']}"
        named.update(f"{folder}/{COMPANION_FILES[role]}" for role, _ in clip["input_hashes"] if role in COMPANION_FILES)
    return named


def shard_clip_ids(path: Path) -> set[str]:
    """Clip ids of a latent shard: its tensors are called ``<clip_id>.<role>``; only the file's header is read.

    Raises:
        ValueError: the file is no safetensors file.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path}: no safetensors file")
        header = json.loads(stream.read(length))
    return {name.partition(".")[0] for name in header if name != "__metadata__"}
