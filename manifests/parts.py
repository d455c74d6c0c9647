"""The part files of a table: a lock, and changes that are whole or absent whenever the process is killed.

A table is every ``manifest/<table>/*.parquet``; nothing else says what belongs to it, so any Parquet reader can read
the folder. What the writers need lies beside it in ``manifest/.<table>/``:

* ``lock``: an empty file under ``flock``; writers hold it alone, readers share it, the kernel frees it when its
  process ends.
* ``aside/``: finished part files that do not belong to the table yet.
* ``journal.json``: names of the parts to add and to remove. Once it exists the change *will* happen: whoever opens
  the table next carries it out before anything else.

A reader that does not know the lock (pandas, duckdb) may see the old and the new part of a row for the few
milliseconds in which a journal is carried out, and never misses one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from manifests.atomic import atomic_path, explain_os_error, fsync_folder, write_text
from manifests.errors import DwmError
from manifests.locks import exclusive_lock, shared_lock

ROW_GROUP_ROWS = 8_192
"""Rows a Parquet row group: parts are sorted by key, so that looking a key up skips most groups."""


class _Journal(BaseModel):
    """A change that has been decided: names of part files, without folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    add: tuple[str, ...]
    remove: tuple[str, ...]


class PartChange(NamedTuple):
    """One step of a change: a part that goes (or None) and the rows that come instead (or None)."""

    old: Path | None
    new: pa.Table | None


class PartFolder:
    """The part files of one table.

    Args:
        manifest_folder: ``<dataset>/manifest``.
        table_name: Name of the table's folder in it.
    """

    def __init__(self, manifest_folder: Path, table_name: str) -> None:
        self.folder = manifest_folder / table_name
        self._state_folder = manifest_folder / f".{table_name}"
        self._aside = self._state_folder / "aside"
        self._lock_path = self._state_folder / "lock"
        self._journal_path = self._state_folder / "journal.json"

    @contextmanager
    def reading(self) -> Iterator[list[Path]]:
        """The paths of the parts, sorted, with a promise that no writer of ours changes them meanwhile.

        A read-only dataset is read without the promise: nobody can write there.

        Raises:
            DwmError: a killed process left a change that must be finished, in a folder that cannot be written.
        """
        while True:
            with shared_lock(self._lock_path) as can_write:
                if not self._journal_path.exists():
                    yield self.paths()
                    return
            if not can_write:
                raise DwmError(
                    f"{self._journal_path}: an interrupted change waits to be finished, but the folder cannot be "
                    "written; open the dataset once with write permission"
                )
            with self.writing():
                pass  # entering has finished the interrupted change

    @contextmanager
    def writing(self) -> Iterator[list[Path]]:
        """The paths of the parts, sorted, under the exclusive lock, after any interrupted change is finished.

        Raises:
            DwmError: the folder cannot be written.
        """
        with exclusive_lock(self._lock_path):
            try:
                self._aside.mkdir(exist_ok=True)
                self.folder.mkdir(exist_ok=True)
            except OSError as error:
                raise explain_os_error(error, self.folder) from error
            self._finish_interrupted()
            yield self.paths()

    def change(self, steps: Iterable[PartChange]) -> None:
        """Replace parts, all or none; only inside `writing`.

        New parts are written aside one after the other, so ``steps`` may be a generator over more rows than memory
        holds.

        Raises:
            DwmError: the disk is full or the folder is read-only; the table is as before, or, once the journal is
                written, the next opening finishes the change.
        """
        added: list[str] = []
        removed: list[str] = []
        decided = False
        try:
            for step in steps:
                if step.new is not None and step.new.num_rows > 0:
                    added.append(f"part-{uuid.uuid4().hex}.parquet")
                    write_part(self._aside / added[-1], step.new)
                if step.old is not None:
                    removed.append(step.old.name)
            journal = _Journal(add=tuple(added), remove=tuple(removed))
            if len(added) + len(removed) > 1:  # a single rename is atomic by itself
                write_text(self._journal_path, journal.model_dump_json())
            decided = True
        finally:
            if not decided:
                self._discard_aside(added)
        self._carry_out(journal)

    def paths(self) -> list[Path]:
        """Paths of the part files as they are now, sorted; call it inside `reading` or `writing`."""
        return sorted(path for path in self.folder.glob("*.parquet") if not path.name.startswith("."))

    def _finish_interrupted(self) -> None:
        """Carry out the journal of a killed process, and drop what it wrote aside without deciding."""
        if self._journal_path.exists():
            text = self._journal_path.read_text(encoding="utf-8")
            try:
                journal = _Journal.model_validate_json(text)
            except ValidationError as error:
                raise DwmError(
                    f"{self._journal_path}: damaged ({error.error_count()} faults); restore the manifest folder from "
                    "a copy"
                ) from error
            self._carry_out(journal)
        self._discard_aside([path.name for path in self._aside.iterdir()])

    def _carry_out(self, journal: _Journal) -> None:
        """Do what the journal says; doing it again after a kill at any point ends in the same."""
        try:
            for name in journal.add:
                if (self._aside / name).exists():
                    (self._aside / name).replace(self.folder / name)
            fsync_folder(self.folder)
            for name in journal.remove:
                (self.folder / name).unlink(missing_ok=True)
            if journal.remove:
                fsync_folder(self.folder)
            if self._journal_path.exists():
                self._journal_path.unlink()
                fsync_folder(self._state_folder)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error

    def _discard_aside(self, names: Sequence[str]) -> None:
        for name in names:
            with suppress(OSError):
                (self._aside / name).unlink(missing_ok=True)


def write_part(path: Path, table: pa.Table) -> None:
    """Write one part file atomically; the same rows give the same bytes.

    Raises:
        DwmError: the disk is full or the folder is read-only.
    """
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS)
