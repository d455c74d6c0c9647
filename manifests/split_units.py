"""Units of a split: the scenes or recordings whose clips stay together, joined where they share more."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from manifests.unions import Unions


def unit_names(clips: pa.Table, *, by: str, with_alike: bool) -> pa.Array:
    """Unit of every clip: ``source:name``; units that share a recording are one, under the smallest name.

    Args:
        clips: ``source``, ``scene_id``, ``recording_id`` and ``near_duplicate_group`` of N clips.
        by: Column of the units' names, ``scene_id`` or ``recording_id``.
        with_alike: Units that share a near-duplicate group are one, too.

    Returns:
        Names [N].
    """
    own, recordings = (qualified_names(clips, column).combine_chunks() for column in (by, "recording_id"))
    ties = [recordings, clips.column("near_duplicate_group").combine_chunks()] if with_alike else [recordings]
    unions = Unions()
    for tie in ties:
        for first, second in _tied_pairs(own, tie):
            unions.join(first, second)
    encoded = own.dictionary_encode()
    names = [unions.find(name) for name in encoded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(encoded.indices)


def qualified_names(clips: pa.Table, column: str) -> pa.ChunkedArray:
    """Names [N] with their source before them: two sources may use the same name for different things."""
    return pc.binary_join_element_wise(clips.column("source"), clips.column(column), ":")


def _tied_pairs(units: pa.Array, ties: pa.Array) -> Iterator[tuple[str, str]]:
    """Pairs of units that have a tie in common: enough of them to join all that do."""
    table = pa.table({"unit": units, "tie": ties}).filter(ties.is_valid())
    distinct = table.group_by(["unit", "tie"]).aggregate([])
    tied = distinct.group_by("tie").aggregate([("unit", "min"), ("unit", "count")])
    several = tied.filter(pc.greater(tied.column("unit_count"), 1))
    pairs = distinct.join(several.select(["tie", "unit_min"]), "tie", join_type="inner")
    yield from zip(pairs.column("unit").to_pylist(), pairs.column("unit_min").to_pylist(), strict=True)
