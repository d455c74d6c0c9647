"""What published train and test lists share, from paths alone: scenes, recordings, neighbours in time or number.

A dataset's own splits are audited on its manifest (`manifests.leaks`); lists of the official layout can be audited
before any media is there. Recordings of TRUMANS are named after the second in which they began, clips of TASTE-Rob are
numbered in the order in which they were taken: both tell which test clips were taken next to a training clip.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from manifests.leaks import LeakLevel
from sources.official_layout import list_lines, scene_and_recording

NEAR_MINUTES = 5.0
"""Recordings of one scene that began within this time are called near."""

NEAR_NUMBERS = (1, 2)
"""Distances of clip numbers that are counted."""

_START = re.compile(r"\d{4}-\d{2}-\d{2}@\d{2}-\d{2}-\d{2}")


class Shared(BaseModel):
    """How much of the test list something holds for."""

    model_config = ConfigDict(frozen=True)

    what: str = Field(description="What is counted.")
    level: LeakLevel | None = Field(default=None, description="Level of the split policies; null for a neighbourhood.")
    shared: int = Field(description="How many of them are shared with, or near to, training.")
    total: int = Field(description="How many there are in the test list.")
    examples: tuple[str, ...] = Field(default=(), description="The first few, sorted.")

    def line(self) -> str:
        """The row for people."""
        examples = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.what}: {self.shared} of {self.total}{examples}"


class ListAudit(BaseModel):
    """What two lists share."""

    model_config = ConfigDict(frozen=True)

    train_clips: int = Field(description="Clips in the training lists.")
    test_clips: int = Field(description="Clips in the test lists.")
    train_scenes: int = Field(description="Scenes in the training lists.")
    train_recordings: int = Field(description="Recordings in the training lists.")
    shared: tuple[Shared, ...] = Field(description="What the test list shares with training, from the gravest.")

    def broken(self, forbidden: Collection[LeakLevel]) -> list[Shared]:
        """What the lists share although they must not; see `manifests.splits.forbidden_levels`."""
        return [one for one in self.shared if one.shared and one.level in forbidden]

    def lines(self) -> list[str]:
        """The report for people."""
        sizes = f"{self.train_scenes} scenes and {self.train_recordings} recordings"
        head = f"{self.train_clips} training clips of {sizes}, {self.test_clips} test clips"
        return [head, *(one.line() for one in self.shared)]


class _Listed(BaseModel):
    """A clip of a list."""

    model_config = ConfigDict(frozen=True)

    path: str
    scene: str
    recording: str

    @property
    def start(self) -> datetime | None:
        """When its recording began; None where the name does not say."""
        found = _START.fullmatch(self.recording)
        return datetime.strptime(found.group(), "%Y-%m-%d@%H-%M-%S") if found else None  # noqa: DTZ007 - a local clock

    @property
    def number(self) -> int | None:
        """Number of a clip that is a recording of its own; None for others."""
        return int(self.recording) if self.recording.isdigit() else None


def audit_lists(train: Sequence[Path], test: Sequence[Path]) -> ListAudit:
    """Audit list files against each other.

    Args:
        train: training lists.
        test: test lists.

    Raises:
        DwmError: a list is missing, empty, or a line is no official path.
    """
    known, held_out = _read(train), _read(test)
    return ListAudit(
        train_clips=len(known),
        test_clips=len(held_out),
        train_scenes=len({clip.scene for clip in known}),
        train_recordings=len({clip.recording for clip in known}),
        shared=tuple(_shared(known, held_out)),
    )


def _shared(known: Sequence[_Listed], held_out: Sequence[_Listed]) -> Iterable[Shared]:
    names: dict[LeakLevel, Callable[[_Listed], str]] = {
        LeakLevel.CLIP: lambda clip: clip.path,
        LeakLevel.RECORDING: lambda clip: clip.recording,
        LeakLevel.SCENE: lambda clip: clip.scene,
    }
    for level, name in names.items():
        test_names = {name(clip) for clip in held_out}
        common = _near(f"{level.value}s", sorted({name(clip) for clip in known} & test_names), len(test_names))
        yield common.model_copy(update={"level": level})
    if timed := [(clip, start) for clip in held_out if (start := clip.start) is not None]:
        starts = _sorted_by_scene((clip.scene, start.timestamp()) for clip in known if (start := clip.start))
        gaps = ((clip, _distance(starts.get(clip.scene, []), start.timestamp())) for clip, start in timed)
        what = f"clips of recordings that began under {NEAR_MINUTES:g} minutes from a training one in the same scene"
        yield _near(what, [clip.path for clip, gap in gaps if gap < 60.0 * NEAR_MINUTES], len(timed))
    if numbered := [(clip, number) for clip in held_out if (number := clip.number) is not None]:
        numbers = _sorted_by_scene(("", float(number)) for clip in known if (number := clip.number) is not None)
        for reach in NEAR_NUMBERS:
            near = [clip.path for clip, number in numbered if _distance(numbers.get("", []), number) <= reach]
            yield _near(f"clips whose number is within {reach} of a training clip's", near, len(numbered))


def _near(what: str, names: Sequence[str], total: int) -> Shared:
    return Shared(what=what, shared=len(names), total=total, examples=tuple(sorted(names)[:2]))


def _read(paths: Sequence[Path]) -> list[_Listed]:
    listed = []
    for path in paths:
        for entry in list_lines(path):
            scene, recording = scene_and_recording("", entry)
            listed.append(_Listed(path=entry, scene=scene, recording=recording))
    return listed


def _sorted_by_scene(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Values of each scene, ascending."""
    found: dict[str, list[float]] = {}
    for scene, value in values:
        found.setdefault(scene, []).append(value)
    return {scene: sorted(each) for scene, each in found.items()}


def _distance(ascending: Sequence[float], value: float) -> float:
    """Distance to the nearest of some numbers; infinite without any."""
    place = bisect_left(ascending, value)
    return min((abs(near - value) for near in ascending[max(0, place - 1) : place + 1]), default=float("inf"))
