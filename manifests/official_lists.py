"""Official list files: which split each one is for, and the paths that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from manifests.errors import DwmError
from manifests.schema import Split


def list_split(name: str, list_splits: Mapping[str, Split]) -> Split:
    """Split that a list file is for: as given, else from its name (``*train*``, ``*val*``, ``*test*``).

    Raises:
        DwmError: the name says nothing, or two things.
    """
    if name in list_splits:
        return list_splits[name]
    words = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
    found = [split for word, split in words.items() if word in Path(name).stem.lower()]
    if len(found) != 1:
        says = "says no split" if not found else "says two splits"
        raise DwmError(f"list {name}: its name {says} (train, val, test); rename it or give its split in list_splits")
    return found[0]


def read_lists(folder: Path, list_splits: Mapping[str, Split]) -> dict[str, Split]:
    """Split of every path in the list files of a folder.

    Raises:
        DwmError: no lists there; a list whose name says no split; a path in lists of different splits.
    """
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DwmError(f"{folder}: no list files; import with list files, or choose policy scene-disjoint")
    splits: dict[str, Split] = {}
    named_by: dict[str, str] = {}
    for file in files:
        split = list_split(file.name, list_splits)
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            path = line.strip()
            if path and splits.setdefault(path, split) is not split:
                raise DwmError(
                    f"{file}: '{path}' is for {split.value} here and for {splits[path].value} in {named_by[path]}; "
                    "take it out of one of the lists"
                )
            named_by.setdefault(path, file.name)
    return splits
