"""Tables of the manifest: typed rows in, typed rows or Arrow tables out, safe for many writers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from manifests.columns import (
    arrow_schema,
    completed,
    is_current,
    read_part_schema,
    rows_to_table,
    table_to_rows,
    to_arrow_value,
    unknown_columns,
)
from manifests.errors import DwmError
from manifests.part_keys import held_keys, keys_among
from manifests.parts import PartChange, PartFolder
from manifests.schema import Row

RowT = TypeVar("RowT", bound=Row)

MAX_PART_ROWS = 65_536
"""Rows that one part holds at most after compaction: what an upsert of one row has to rewrite."""

MAX_SMALL_PARTS = 32
"""More parts than this with fewer than half of `MAX_PART_ROWS` rows are merged by the next append or upsert."""


class Table(Generic[RowT]):
    """One table of the manifest: every ``manifest/<table>/*.parquet``, with one row a key.

    Any number of processes may read and write it. A method that changes the table does so entirely or not at all,
    also when its process is killed at any moment.

    Args:
        manifest_folder: ``<dataset>/manifest``.
        row_class: Class of the rows; names the table and the key column.
    """

    def __init__(self, manifest_folder: Path, row_class: type[RowT]) -> None:
        self.row_class = row_class
        self.schema: pa.Schema = arrow_schema(row_class)
        self.parts = PartFolder(manifest_folder, row_class.table_name)
        self._key = row_class.key_column

    def read(self, columns: Sequence[str] | None = None, where: ds.Expression | None = None) -> pa.Table:
        """Arrow table of the rows that fit, sorted by key.

        Args:
            columns: Columns to read, all when None. Name only what is needed: others are not read from disk.
            where: Filter such as ``ds.field("status") == "ready"``; row groups that cannot fit are skipped.

        Raises:
            DwmError: a part is damaged or was written by a newer dwm-pipeline; a key of the rows occurs twice.
        """
        wanted = list(columns) if columns is not None else self.schema.names
        with self.parts.reading() as paths:
            table = self._scan(paths, list(dict.fromkeys([*wanted, self._key])), where)
        table = table.take(pc.sort_indices(table.column(self._key)))
        self._refuse_duplicates(table.column(self._key))
        return table.select(wanted)

    def rows(self, where: ds.Expression | None = None) -> Iterator[RowT]:
        """Rows that fit, sorted by key. The table may be changed while iterating: the rows are those of the start.

        Raises:
            DwmError: as `read`; a row does not fit the row class.
        """
        yield from table_to_rows(self.row_class, self.read(where=where))

    def get(self, key: str) -> RowT:
        """The row with this key.

        Raises:
            DwmError: no such row, or two of them.
        """
        row = self.find(key)
        if row is None:
            raise self._no_such_row(key)
        return row

    def find(self, key: str) -> RowT | None:
        """The row with this key; None when there is none. Reads only the part that holds it.

        Raises:
            DwmError: two rows have it.
        """
        with self.parts.reading() as paths:
            located = self._locate(paths, [key])
            rows = [row for path in located for row in table_to_rows(self.row_class, self._load(path, [key]))]
        if len(rows) > 1:
            raise self._duplicate_error(key, list(located))
        return rows[0] if rows else None

    def keys(self, where: ds.Expression | None = None) -> set[str]:
        """Keys of the rows that fit."""
        with self.parts.reading() as paths:
            return set(self._scan(paths, [self._key], where).column(self._key).to_pylist())

    def count(self, where: ds.Expression | None = None) -> int:
        """Number of rows that fit."""
        with self.parts.reading() as paths:
            return sum(dataset.count_rows(filter=where) for dataset in self._datasets(paths))

    def files_with(self, key: str) -> list[Path]:
        """Part files that hold a row with this key: one, or several when somebody copied a part."""
        with self.parts.reading() as paths:
            return [path for path in paths if self._keys_in(path, [key])]

    def duplicate_keys(self) -> list[str]:
        """Keys that occur more than once, sorted; empty in a sound table."""
        with self.parts.reading() as paths:
            counts = pc.value_counts(self._scan(paths, [self._key], None).column(self._key))
        return sorted(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())

    def append(self, rows: Iterable[RowT]) -> int:
        """Add rows; those that are there already, equal but for ``created_at``, are skipped.

        Returns:
            Number of rows added.

        Raises:
            DwmError: a row with the same key and other content exists (nothing is added then); the disk is full.
        """
        wanted = self._by_key(rows)
        with self.parts.writing() as paths:
            for path, keys in self._locate(paths, wanted).items():
                for existing in table_to_rows(self.row_class, self._load(path, keys)):
                    if not _same_but_for_time(existing, wanted.get(existing.key, existing)):
                        raise DwmError(
                            f"{path}: a row with {self._key} '{existing.key}' and other content exists; "
                            "use upsert to replace it, or delete it first"
                        )
                    wanted.pop(existing.key, None)
            if wanted:
                self.parts.change([PartChange(None, self._to_part(wanted.values()))])
                self._merge_small_parts(paths, more_than=MAX_SMALL_PARTS)
        return len(wanted)

    def upsert(self, rows: Iterable[RowT]) -> None:
        """Add rows, or replace those with the same keys. A row that is equal but for ``created_at`` stays as it is.

        Only the parts that hold a replaced key are written again.

        Raises:
            DwmError: the disk is full or the folder is read-only; nothing is lost then.
        """
        wanted = self._by_key(rows)
        with self.parts.writing() as paths:
            replaced: dict[Path, list[str]] = {}
            found: set[str] = set()
            for path, keys in self._locate(paths, wanted).items():
                found.update(keys)
                changed = [
                    existing.key
                    for existing in table_to_rows(self.row_class, self._load(path, keys))
                    if not _same_but_for_time(existing, wanted[existing.key])
                ]
                if changed:
                    replaced[path] = changed
            new_keys = wanted.keys() - found
            if replaced or new_keys:
                self.parts.change(self._upsert_steps(wanted, replaced, new_keys))
                self._merge_small_parts(paths, more_than=MAX_SMALL_PARTS)

    def update(self, key: str, **changes: Any) -> RowT:
        """Change some fields of one row; what others write meanwhile into its other fields stays.

        Args:
            key: The row's key.
            changes: New values by field, not of the key.

        Returns:
            The row as it is now.

        Raises:
            DwmError: no such row, or two of them; a value does not fit; the disk is full.
        """
        with self.parts.writing() as paths:
            located = self._locate(paths, {key})
            rows = [row for path in located for row in table_to_rows(self.row_class, self._load(path, [key]))]
            if not rows:
                raise self._no_such_row(key)
            if len(rows) > 1:
                raise self._duplicate_error(key, list(located))
            changed = rows[0].updated(**changes)
            self.parts.change(self._upsert_steps({key: changed}, located, ()))
        return changed

    def set_values(self, column: str, values: Mapping[str, Any]) -> int:
        """Change one column of many rows at once, without going through row objects.

        Args:
            column: Any column but the key.
            values: New value of each key, as the row class has it; keys that do not exist are refused.

        Returns:
            Number of rows whose value changed.

        Raises:
            DwmError: a key is not in the table; the disk is full.
        """
        return self.set_column(column, pa.array(list(values), pa.string()), self._to_values(column, values.values()))

    def set_column(self, column: str, keys: pa.Array, values: pa.Array) -> int:
        """`set_values` for Arrow arrays, such as columns of `read`: a million rows take seconds.

        Args:
            column: Any column but the key.
            keys: Keys [N], each once.
            values: New values [N], of the column's type.

        Returns:
            Number of rows whose value changed; parts without one are not written again.

        Raises:
            DwmError: a key is not in the table; the disk is full.
        """
        changed_rows = 0
        with self.parts.writing() as paths:
            held = [self._scan([path], [self._key], None).column(self._key) for path in paths]
            all_keys = pa.chunked_array([chunk for one in held for chunk in one.chunks], pa.string())
            positions = pc.index_in(all_keys, value_set=keys)
            self._refuse_missing(keys, positions)
            changes = []
            start = 0
            for path, part_keys in zip(paths, held, strict=True):
                count, new = self._changed_column(path, column, positions.slice(start, len(part_keys)), values)
                start += len(part_keys)
                if count:
                    changed_rows += count
                    changes.append((path, new))
            if changes:
                self.parts.change(PartChange(path, self._with_column(path, column, new)) for path, new in changes)
        return changed_rows

    def delete(self, keys: Iterable[str]) -> int:
        """Remove the rows with these keys; keys that do not exist are no error.

        Returns:
            Number of rows removed.
        """
        with self.parts.writing() as paths:
            located = self._locate(paths, set(keys))
            if located:
                self.parts.change(PartChange(path, self._without(path, found)) for path, found in located.items())
        return sum(len(found) for found in located.values())

    def compact(self) -> None:
        """Merge small parts now; appends and upserts do it by themselves when there are many."""
        with self.parts.writing() as paths:
            self._merge_small_parts(paths, more_than=1)

    def _datasets(self, paths: Iterable[Path]) -> list[ds.Dataset]:
        """Scannable views of parts: current ones straight from disk, others completed in memory."""
        current: list[str] = []
        others: list[ds.Dataset] = []
        for path in paths:
            if is_current(read_part_schema(path, self.row_class), self.row_class):
                current.append(str(path))
            else:
                others.append(ds.dataset(completed(pq.read_table(path, partitioning=None), self.row_class, path)))
        if current:
            others.append(ds.dataset(current, schema=self.schema, format="parquet"))
        return others

    def _scan(self, paths: Iterable[Path], columns: list[str], where: ds.Expression | None) -> pa.Table:
        tables = [dataset.to_table(columns=columns, filter=where) for dataset in self._datasets(paths)]
        if tables:
            return pa.concat_tables(tables)
        return self.schema.empty_table().select(columns)

    def _keys_in(self, path: Path, keys: Collection[str]) -> list[str]:
        """Which of ``keys`` a part holds, as often as it holds them."""
        return keys_among(held_keys(path, lambda: self._scan([path], [self._key], None).column(self._key)), keys)

    def _locate(self, paths: Iterable[Path], keys: Collection[str]) -> dict[Path, list[str]]:
        """Parts that hold any of ``keys``, with those that they hold."""
        located = {path: self._keys_in(path, keys) for path in paths}
        return {path: found for path, found in located.items() if found}

    def _load(self, path: Path, keys: Collection[str]) -> pa.Table:
        return self._scan([path], self.schema.names, ds.field(self._key).isin(pa.array(list(keys), type=pa.string())))

    def _load_to_rewrite(self, path: Path) -> pa.Table:
        """All of a part, which is about to be replaced.

        Raises:
            DwmError: the part has columns that this program does not know and would lose.
        """
        part_schema = read_part_schema(path, self.row_class)
        unknown = unknown_columns(part_schema, self.row_class)
        if unknown:
            raise DwmError(
                f"{path}: column {unknown[0]} is unknown to this version and would be lost; upgrade dwm-pipeline, or "
                "write the file without it"
            )
        if not is_current(part_schema, self.row_class):
            return self._scan([path], self.schema.names, None)
        with pq.ParquetFile(path) as part:  # half the time of a scan
            table = part.read(columns=self.schema.names)
        return pa.Table.from_arrays(table.select(self.schema.names).columns, schema=self.schema)

    def _without(self, path: Path, keys: Collection[str]) -> pa.Table:
        table = self._load_to_rewrite(path)
        return table.filter(pc.invert(pc.is_in(table.column(self._key), pa.array(list(keys), type=pa.string()))))

    def _to_values(self, column: str, values: Iterable[Any]) -> pa.Array:
        return pa.array([to_arrow_value(value) for value in values], type=self.schema.field(column).type)

    def _refuse_missing(self, keys: pa.Array, positions: pa.ChunkedArray) -> None:
        """Refuse keys that no row has; ``positions`` are those of the rows' keys in ``keys``, null for other rows."""
        found = pc.unique(positions.drop_null())
        if len(found) < len(keys):
            is_found = pc.is_in(pa.array(range(len(keys)), pa.int32()), value_set=found)
            missing = keys.filter(pc.invert(is_found))
            raise DwmError(
                f"{self.parts.folder}: no row with {self._key} '{pc.min(missing)}' ({len(missing)} such keys); "
                "read the table again before changing it"
            )

    def _changed_column(
        self, path: Path, column: str, positions: pa.ChunkedArray, values: pa.Array
    ) -> tuple[int, pa.ChunkedArray]:
        """A part's column after a change, and in how many rows that differs.

        Args:
            path: The part, P rows.
            column: The column.
            positions: Place of each row's new value in ``values`` [P], null for rows that keep theirs.
            values: New values [N].
        """
        old = self._scan([path], [column], None).column(column)
        touched = positions.is_valid()
        before, after = old.filter(touched), values.take(positions.drop_null().combine_chunks())
        if pa.types.is_nested(old.type):
            count = sum(one != other for one, other in zip(before.to_pylist(), after.to_pylist(), strict=True))
        else:
            equal = pc.fill_null(pc.equal(before, after), fill_value=False)
            count = pc.sum(pc.invert(pc.or_(equal, pc.and_(before.is_null(), after.is_null())))).as_py() or 0
        if count == 0:
            return 0, old
        places = np.arange(len(old))
        chosen = touched.to_numpy()
        places[chosen] = len(old) + np.arange(len(after))
        return count, pa.chunked_array([*old.chunks, after]).take(pa.array(places))

    def _with_column(self, path: Path, column: str, new: pa.ChunkedArray) -> pa.Table:
        index = self.schema.get_field_index(column)
        return self._load_to_rewrite(path).set_column(index, self.schema.field(index), new)

    def _upsert_steps(
        self, wanted: Mapping[str, RowT], replaced: Mapping[Path, list[str]], new_keys: Collection[str]
    ) -> Iterator[PartChange]:
        written: set[str] = set()  # a key in two copied parts is written once
        for path, keys in replaced.items():
            rows = [wanted[key] for key in sorted(set(keys) - written)]
            written.update(keys)
            yield PartChange(path, self._sorted(pa.concat_tables([self._without(path, keys), self._to_part(rows)])))
        if new_keys:
            yield PartChange(None, self._to_part([wanted[key] for key in new_keys]))

    def _merge_small_parts(self, paths: Sequence[Path], more_than: int) -> None:
        """Merge the parts with fewer than half of `MAX_PART_ROWS` rows if there are more than ``more_than``."""
        if len(paths) < more_than:
            return
        current = [path for path in self.parts.paths() if not self._has_unknown_columns(path)]
        small = [path for path in current if pq.read_metadata(path).num_rows < MAX_PART_ROWS // 2]
        if len(small) > more_than:
            merged = self._sorted(pa.concat_tables([self._load_to_rewrite(path) for path in small]))
            slices = [merged.slice(start, MAX_PART_ROWS) for start in range(0, merged.num_rows, MAX_PART_ROWS)]
            self.parts.change(
                [*(PartChange(path, None) for path in small), *(PartChange(None, part) for part in slices)]
            )

    def _has_unknown_columns(self, path: Path) -> bool:
        return bool(unknown_columns(read_part_schema(path, self.row_class), self.row_class))

    def _to_part(self, rows: Iterable[RowT]) -> pa.Table:
        return rows_to_table(self.row_class, sorted(rows, key=lambda row: row.key))

    def _sorted(self, table: pa.Table) -> pa.Table:
        return table.take(pc.sort_indices(table.column(self._key)))

    def _by_key(self, rows: Iterable[RowT]) -> dict[str, RowT]:
        by_key: dict[str, RowT] = {}
        for row in rows:
            if not _same_but_for_time(by_key.setdefault(row.key, row), row):
                raise DwmError(
                    f"{self.parts.folder}: two different rows with {self._key} '{row.key}' in one call; give each "
                    "its own id"
                )
        return by_key

    def _refuse_duplicates(self, sorted_keys: pa.ChunkedArray) -> None:
        """Refuse sorted keys of which two are equal: somebody copied a part, and no row may count twice."""
        if len(sorted_keys) > 1:
            twice = pc.equal(sorted_keys.slice(1), sorted_keys.slice(0, len(sorted_keys) - 1))
            if pc.any(twice).as_py():
                key = sorted_keys.slice(1).filter(twice)[0].as_py()
                raise self._duplicate_error(key, self.files_with(key))

    def _no_such_row(self, key: str) -> DwmError:
        return DwmError(
            f"{self.parts.folder}: no row with {self._key} '{key}'; see the ids with "
            f"pandas.read_parquet('{self.parts.folder}')['{self._key}']"
        )

    def _duplicate_error(self, key: str, paths: Sequence[Path]) -> DwmError:
        names = ", ".join(path.name for path in paths)
        return DwmError(
            f"{self.parts.folder}: {self._key} '{key}' occurs more than once (in {names}); remove the copied file"
        )


def _same_but_for_time(first: Row, second: Row) -> bool:
    """Tell whether two rows are equal, whenever they were made."""
    return first is second or first.model_dump(exclude={"created_at"}) == second.model_dump(exclude={"created_at"})
