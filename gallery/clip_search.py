"""Which clips a page shows: filters by column, words anywhere, pages of a fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.schema import ClipStatus, Review, Source, Split

CLIPS_A_PAGE = 48
NO_VALUE = "none"
"""What filters call an empty cell."""

_SHOWN = ("clip_id", "source", "split", "status", "review", "action_label", "prompt", "reason", "interaction_path",
          "static_path", "scene_id", "recording_id", "flags")  # fmt: skip
_SEARCHED = ("clip_id", "prompt", "action_label", "scene_id", "recording_id", "reason")

FILTERS: dict[str, tuple[str, ...]] = {
    "status": tuple(ClipStatus),
    "split": (*Split, NO_VALUE),
    "source": tuple(Source),
    "review": (*Review, NO_VALUE),
}
"""Columns that have a list to choose from, and what it offers."""


class ClipQuery(BaseModel):
    """What somebody looks for; empty fields let everything through."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    words: str = Field(default="", description="Words that must all occur, in the id, prompt, action, scene, reason.")
    status: str = Field(default="", description="A status.")
    split: str = Field(default="", description="A split, or `none`.")
    source: str = Field(default="", description="A source.")
    review: str = Field(default="", description="A verdict, or `none`.")
    page: int = Field(default=1, description="Page, from 1.", ge=1)

    def address(self, **changes: object) -> str:
        """Query part of the address that asks this, with some fields changed; begins with ``?``."""
        fields = {**self.model_dump(), **changes}
        told = {name: value for name, value in fields.items() if value not in ("", 1)}
        return f"?{urlencode(told)}"


@dataclass(frozen=True)
class ClipCard:
    """A clip as lists show it."""

    clip_id: str
    title: str
    prompt: str
    status: str
    split: str | None
    source: str
    review: str | None
    reason: str | None
    flags: tuple[str, ...]
    has_video: bool


@dataclass(frozen=True)
class ClipPage:
    """A page of clips.

    Attributes:
        cards: the clips, ready ones first, then by id.
        found: clips that fit, on all pages.
        total: clips of the dataset.
        pages: number of pages.
    """

    cards: tuple[ClipCard, ...]
    found: int
    total: int
    pages: int


def find_clips(dataset: Dataset, query: ClipQuery) -> ClipPage:
    """The clips of a page.

    Raises:
        DwmError: the manifest cannot be read.
    """
    table = dataset.clips.read(_SHOWN)
    fitting = _sorted(table.filter(_mask(table, query)))
    start = (query.page - 1) * CLIPS_A_PAGE
    rows = fitting.slice(start, CLIPS_A_PAGE).to_pylist()
    pages = max(1, -(-len(fitting) // CLIPS_A_PAGE))
    return ClipPage(tuple(_card(row) for row in rows), len(fitting), len(table), pages)


def neighbours(dataset: Dataset, query: ClipQuery, clip_id: str) -> tuple[str | None, str | None]:
    """Ids of the clips before and after one in the list of those that fit; the clip itself need not fit.

    Raises:
        DwmError: the manifest cannot be read.
    """
    table = dataset.clips.read(_SHOWN)
    own = pc.equal(table.column("clip_id"), clip_id)
    shown = _sorted(table.filter(pc.or_(_mask(table, query), own))).column("clip_id").to_pylist()
    if clip_id not in shown:
        return None, None
    place = shown.index(clip_id)
    return (shown[place - 1] if place else None), (shown[place + 1] if place + 1 < len(shown) else None)


def _sorted(table: pa.Table) -> pa.Table:
    """In the order of lists: ready clips first, then by id."""
    return table.sort_by([("status", "descending"), ("clip_id", "ascending")])


def _mask(table: pa.Table, query: ClipQuery) -> pa.ChunkedArray:
    mask = pc.is_valid(table.column("clip_id"))
    for name in FILTERS:
        wanted = getattr(query, name)
        if wanted:
            column = table.column(name)
            chosen = pc.is_null(column) if wanted == NO_VALUE else pc.equal(column, wanted)
            mask = pc.and_(mask, pc.fill_null(chosen, False))
    words = query.words.split()
    if words:
        texts = pc.binary_join_element_wise(
            *(table.column(name) for name in _SEARCHED),
            pc.binary_join(table.column("flags"), " "), "\n", null_handling="replace",
        )  # fmt: skip
        for word in words:
            mask = pc.and_(mask, pc.match_substring(texts, word, ignore_case=True))
    return mask


def _card(row: dict[str, object]) -> ClipCard:
    prompt = str(row["prompt"] or "").strip()
    return ClipCard(
        clip_id=str(row["clip_id"]),
        title=str(row["action_label"] or row["scene_id"]),
        prompt=prompt.splitlines()[0] if prompt else "",
        status=str(row["status"]),
        split=None if row["split"] is None else str(row["split"]),
        source=str(row["source"]),
        review=None if row["review"] is None else str(row["review"]),
        reason=None if row["reason"] is None else str(row["reason"]),
        flags=tuple(row["flags"] or ()),  # type: ignore[arg-type]  # a list of strings, or null
        has_video=row["interaction_path"] is not None or row["static_path"] is not None,
    )
