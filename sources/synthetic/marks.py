"""The mark of a folder that the project's generators wrote: nobody can take its content for real data."""

from __future__ import annotations

import json
from pathlib import Path

from manifests.atomic import write_text
from manifests.errors import DwmError

MARK_FILE = "synthetic.json"


def claim_folder(raw: Path, seed: int) -> None:
    """Write the seed into ``raw``, or check that it holds the same one.

    Raises:
        DwmError: the folder holds recordings of another seed.
    """
    settings = json.dumps({"seed": seed}) + "\n"
    path = raw / MARK_FILE
    if not path.exists():
        write_text(path, settings)
    elif path.read_text(encoding="utf-8") != settings:
        raise DwmError(f"{path}: recordings of another seed than {seed} are here; choose another folder")


def is_generated(raw: Path) -> bool:
    """Whether a folder bears the mark."""
    return (raw / MARK_FILE).is_file()
