"""A dataset: a folder that can be moved, with its manifest tables, clips, latents and generated videos."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import write_text
from manifests.errors import DwmError
from manifests.hashing import hash_json
from manifests.schema import SCHEMA_VERSION, Clip, ClipStatus, Decision, Generation, Run, Source, utc_now
from manifests.store import Table

DATASET_FILE = "dataset.json"
"""The file that makes a folder a dataset."""

_CONTENT_COLUMNS = ("clip_id", "prompt", "num_frames", "fps", "input_hashes", "output_hashes")


class DatasetInfo(BaseModel):
    """What ``dataset.json`` holds."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = Field(description="Schema version of the program that made the dataset.", ge=1)
    created_at: datetime = Field(default_factory=utc_now, description="When the dataset was made, UTC.")


def leaves_folder(path: str) -> bool:
    """Tell whether a path of a row leads out of the dataset folder by what is written in it."""
    return PurePosixPath(path).is_absolute() or bool(PureWindowsPath(path).drive) or ".." in PurePosixPath(path).parts


class Dataset:
    """A dataset folder (``dataset.json``, ``manifest/``, ``clips/``, ``latents/``, ``generations/``, ``lists/``).

    Use `open` or `create_or_open`; the constructor itself checks nothing.

    Attributes:
        root: The folder.
        clips: Table of clips.
        generations: Table of generated videos.
        runs: Table of training runs.
        decisions: Table of what was decided about which run is in use.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        manifest = self.root / "manifest"
        self.clips = Table(manifest, Clip)
        self.generations = Table(manifest, Generation)
        self.runs = Table(manifest, Run)
        self.decisions = Table(manifest, Decision)

    @classmethod
    def create_or_open(cls, root: Path) -> Dataset:
        """Open the dataset in ``root``, or make an empty one there.

        Raises:
            DwmError: as `open`; the folder cannot be written.
        """
        info_path = Path(root) / DATASET_FILE
        if not info_path.exists():
            write_text(info_path, DatasetInfo(schema_version=SCHEMA_VERSION).model_dump_json(indent=2) + "\n")
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Dataset:
        """Open the dataset in ``root``; nothing is read but ``dataset.json``.

        Raises:
            DwmError: there is no dataset, ``dataset.json`` is damaged, or a newer dwm-pipeline made it.
        """
        info_path = Path(root) / DATASET_FILE
        try:
            info = DatasetInfo.model_validate_json(info_path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DwmError(f"{root}: no dataset here (no {DATASET_FILE}); make one with `dwm build`") from error
        except ValidationError as error:
            raise DwmError(
                f'{info_path}: damaged; write {{"schema_version": {SCHEMA_VERSION}}} into it to use the dataset again'
            ) from error
        if info.schema_version > SCHEMA_VERSION:
            raise DwmError(
                f"{info_path}: schema version {info.schema_version} is newer than {SCHEMA_VERSION}, which this program "
                "reads; upgrade dwm-pipeline"
            )
        return cls(root)

    @property
    def tables(self) -> tuple[Table[Clip], Table[Generation], Table[Run], Table[Decision]]:
        """All tables of the manifest."""
        return self.clips, self.generations, self.runs, self.decisions

    @property
    def lists_folder(self) -> Path:
        """Verbatim copies of imported official list files."""
        return self.root / "lists"

    @property
    def latents_folder(self) -> Path:
        """Cached latents: ``latents/<base>/<shard>.safetensors``."""
        return self.root / "latents"

    @property
    def generations_folder(self) -> Path:
        """Generated videos."""
        return self.root / "generations"

    @property
    def benchmarks_path(self) -> Path:
        """The frozen benchmarks."""
        return self.root / "benchmarks.json"

    def clip_folder(self, source: Source, clip_id: str) -> Path:
        """Folder of a clip's files; not made by this call."""
        return self.root / "clips" / source.value / clip_id

    def absolute(self, relative: str) -> Path:
        """Where a path of a row is on this machine."""
        return self.root / relative

    def inside(self, relative: str) -> Path:
        """A file that a row names, for those who hand it on to others: it lies in the dataset folder for sure.

        Raises:
            DwmError: the path leads out of the folder, by itself or by a link, or there is no such file.
        """
        path = self.absolute(relative)
        if leaves_folder(relative) or not path.resolve().is_relative_to(self.root.resolve()):
            raise DwmError(f"{relative}: leads out of the dataset folder; build the clip again")
        if not path.is_file():
            raise DwmError(f"{path}: does not exist; copy it back or build the clip again")
        return path

    def relative(self, path: Path) -> str:
        """Path as rows hold it: relative to the dataset folder with ``/``, ``../<name>`` for what lies beside it.

        Raises:
            DwmError: the path is neither inside the dataset folder nor beside it.
        """
        root, target = self.root.resolve(), Path(path).resolve()
        if target.is_relative_to(root):
            return target.relative_to(root).as_posix()
        if target.is_relative_to(root.parent):
            return f"../{target.relative_to(root.parent).as_posix()}"
        raise DwmError(
            f"{path}: neither in the dataset {self.root} nor beside it; a dataset must stay movable, copy it in"
        )

    def content_hash(self, clip_ids: Iterable[str] | None = None) -> str:
        """Hash of clips and their content: ids, prompts, lengths and the hashes of their files.

        Args:
            clip_ids: The clips, in any order; None for all that are ready or conditions-only.

        Raises:
            DwmError: a clip is not in the manifest.
        """
        if clip_ids is None:
            where = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
            return hash_json(self._content(where))
        wanted = sorted(set(clip_ids))
        content = self._content(ds.field("clip_id").isin(wanted))
        missing = set(wanted) - {str(clip[0]) for clip in content}
        if missing:
            raise DwmError(
                f"{self.root}: no clip '{min(missing)}' in the manifest ({len(missing)} such ids); build it again"
            )
        return hash_json(content)

    def _content(self, where: ds.Expression) -> list[list[object]]:
        table = self.clips.read(_CONTENT_COLUMNS, where)
        columns = [table.column(name).to_pylist() for name in _CONTENT_COLUMNS]
        return [
            [sorted(value) if isinstance(value, list) else value for value in clip]
            for clip in zip(*columns, strict=True)
        ]
