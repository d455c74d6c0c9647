"""Which keys a part file holds, remembered: parts never change, so that each is read for its keys once a process."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

REMEMBERED_PARTS = 256
"""Parts whose keys are kept in memory: some megabytes for each of the largest."""

_FEW = 64
"""Up to one key wanted in so many held is searched for by halving; more are looked up together."""


class _Stamp(NamedTuple):
    """What tells a file from another of the same name."""

    inode: int
    size: int
    changed_ns: int


_remembered: OrderedDict[Path, tuple[_Stamp, pa.Array]] = OrderedDict()


def held_keys(path: Path, read: Callable[[], pa.ChunkedArray]) -> pa.Array:
    """The keys of a part, sorted, as often as it holds them.

    Args:
        path: the part.
        read: reads its key column; called where the part is new or another file than before.
    """
    status = path.stat()
    stamp = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
    known = _remembered.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    keys = read().combine_chunks().cast(pa.string())
    if len(keys) > 1 and not pc.all(pc.less_equal(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py():
        keys = keys.take(pc.sort_indices(keys))  # our own parts are sorted, somebody else's need not be
    _remembered[path] = stamp, keys
    while len(_remembered) > REMEMBERED_PARTS:
        _remembered.popitem(last=False)
    return keys


def keys_among(held: pa.Array, wanted: Collection[str]) -> list[str]:
    """Which of some keys are among sorted ones, as often as they are there."""
    if len(wanted) * _FEW > len(held):
        found = held.filter(pc.is_in(held, value_set=pa.array(list(wanted), type=pa.string())))
        return list(found.to_pylist())
    return [key for one in wanted for key in _equal_to(held, one)]


def _equal_to(held: pa.Array, key: str) -> list[str]:
    start = bisect_left(range(len(held)), key, key=lambda place: held[place].as_py())
    end = start
    while end < len(held) and held[end].as_py() == key:
        end += 1
    return [key] * (end - start)
