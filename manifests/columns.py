"""Rows as Arrow columns: the one place where the row classes become Parquet types, and back."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from manifests.errors import DwmError
from manifests.schema import SCHEMA_VERSION, Row

RowT = TypeVar("RowT", bound=Row)


class NewerSchemaError(DwmError):
    """A part file was written by a newer dwm-pipeline."""


VERSION_KEY = b"dwm_schema_version"
"""Key of the schema version in the metadata of every part file."""

_SCALARS: tuple[tuple[type, pa.DataType], ...] = (
    (bool, pa.bool_()),  # before int: a bool is an int in Python
    (str, pa.string()),  # enums of text are text
    (int, pa.int64()),
    (float, pa.float64()),
    (datetime, pa.timestamp("ms", tz="UTC")),
)


def _split_optional(annotation: Any) -> tuple[Any, bool]:
    """Take ``| None`` off an annotation; tell whether it was there."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (inner,) = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        return inner, True
    return annotation, False


def _arrow_type(annotation: Any) -> pa.DataType:
    inner, _ = _split_optional(annotation)
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    if origin is dict:
        return pa.map_(_arrow_type(arguments[0]), _arrow_type(arguments[1]))
    if origin is tuple:
        return pa.list_(_arrow_type(arguments[0]))
    return next(arrow for python, arrow in _SCALARS if issubclass(inner, python))


@cache
def arrow_schema(row_class: type[Row]) -> pa.Schema:
    """Arrow schema of a table: a column a field with its description as metadata, and the schema version."""
    fields = [
        pa.field(name, _arrow_type(info.annotation), metadata={"description": info.description or ""})
        for name, info in row_class.model_fields.items()
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION), b"dwm_table": row_class.table_name})


def to_arrow_value(value: Any) -> Any:
    """A field's value as Arrow takes it: maps as pairs sorted by key."""
    return sorted(value.items()) if isinstance(value, dict) else value


def rows_to_table(row_class: type[Row], rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table with `arrow_schema`, in the given order; maps are sorted by key."""
    schema = arrow_schema(row_class)
    columns = []
    for field in schema:
        values = map(attrgetter(field.name), rows)
        is_map = pa.types.is_map(field.type)
        columns.append(pa.array(list(map(to_arrow_value, values) if is_map else values), type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def table_to_rows(row_class: type[RowT], table: pa.Table) -> Iterator[RowT]:
    """Validated rows of an Arrow table, in its order.

    Raises:
        DwmError: a row does not fit the row class; the message names its key and column.
    """
    optional = {name for name, info in row_class.model_fields.items() if _split_optional(info.annotation)[1]}
    for batch in table.to_batches(max_chunksize=4096):
        for values in batch.to_pylist(maps_as_pydicts="strict"):
            known = {name: value for name, value in values.items() if value is not None or name in optional}
            try:
                yield row_class.model_validate(known)
            except ValidationError as error:
                first = error.errors()[0]
                column = ".".join(str(part) for part in first["loc"])
                key = values.get(row_class.key_column)
                raise DwmError(
                    f"table {row_class.table_name}, row '{key}': column {column} {first['msg'].lower()} "
                    f"(value {first['input']!r}); delete the row and build it again"
                ) from error


def read_part_schema(path: Path, row_class: type[Row]) -> pa.Schema:
    """Arrow schema of a part file, once its version is known to be readable.

    A file without a version (somebody else's writer made it) counts as version 0.

    Raises:
        DwmError: the file is no Parquet file; as `NewerSchemaError`, a newer dwm-pipeline wrote it.
    """
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise DwmError(f"{path}: no readable Parquet file ({error}); remove it or copy it again") from error
    version = int((schema.metadata or {}).get(VERSION_KEY, b"0"))
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path}: schema version {version} of table {row_class.table_name} is newer than {SCHEMA_VERSION}, which "
            "this program reads; upgrade dwm-pipeline"
        )
    return schema


def is_current(schema: pa.Schema, row_class: type[Row]) -> bool:
    """Tell whether a part has every column of the table with its exact type (unknown columns may be there too)."""
    return all(
        (index := schema.get_field_index(field.name)) >= 0 and schema.field(index).type == field.type
        for field in arrow_schema(row_class)
    )


def unknown_columns(schema: pa.Schema, row_class: type[Row]) -> list[str]:
    """Columns of a part that the row class does not know (a later version added them, or a person did)."""
    return sorted(set(schema.names) - set(row_class.model_fields))


def _default_column(info: FieldInfo, arrow_type: pa.DataType, length: int) -> pa.Array:
    """The value that a row has when an older file lacks the column, ``length`` times."""
    if info.is_required() or info.default_factory not in (None, dict):
        return pa.nulls(length, arrow_type)
    default = to_arrow_value(info.get_default(call_default_factory=True, validated_data={}))
    return pa.array([default] * length, type=arrow_type)


def completed(table: pa.Table, row_class: type[Row], path: Path) -> pa.Table:
    """A part's table with exactly the columns of `arrow_schema`: missing ones hold their default or null.

    Raises:
        DwmError: the key column is missing, or a column has a type that cannot be converted.
    """
    schema = arrow_schema(row_class)
    if row_class.key_column not in table.column_names:
        raise DwmError(f"{path}: no column {row_class.key_column}; remove the file or write it again with that column")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(_default_column(row_class.model_fields[field.name], field.type, table.num_rows))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise DwmError(
                f"{path}: column {field.name} holds {table.schema.field(field.name).type}, expected {field.type}; "
                "write the file again with that type"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)
