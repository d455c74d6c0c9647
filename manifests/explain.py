"""Everything that a dataset knows of one clip, in reading order."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, Generation

_MEASUREMENTS = {
    "hand_visible_frames": "frames with a visible hand",
    "object_motion_m": "object motion, metres",
    "camera_motion_px": "camera motion, pixels a frame",
    "background_psnr_db": "background PSNR, dB",
    "hand_jitter_px": "hand jitter, pixels",
    "time_offset_frames": "time offset between the videos, frames",
}


@dataclass(frozen=True)
class Section:
    """A heading with its lines, each a label and a value."""

    title: str
    lines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max((len(label) for label, _ in self.lines), default=0)
        gap = "\n" + " " * (width + 4)
        body = [f"  {label:<{width}}  {value.replace(chr(10), gap)}" for label, value in self.lines]
        return "\n".join([self.title, *body])


@dataclass(frozen=True)
class ClipExplanation:
    """What is known of a clip; `str` gives the page for a terminal."""

    clip_id: str
    sections: tuple[Section, ...]

    def __str__(self) -> str:
        return "\n\n".join(str(section) for section in self.sections)


def explain_clip(dataset: Dataset, clip_id: str) -> ClipExplanation:
    """Gather everything known of a clip: state, origin, files, measurements, split, lineage, generated videos.

    Args:
        dataset: The dataset.
        clip_id: The clip's id, or as many of its first characters as make it unambiguous.

    Raises:
        DwmError: no clip has this id (the message names near ones), or several begin with it.
    """
    clip = dataset.clips.get(resolve_clip_id(dataset, clip_id))
    sections = [
        _state(clip),
        _origin(clip),
        _files(dataset, clip),
        _measurements(clip),
        _text(clip),
        _lineage(clip),
        _generations(dataset, clip.clip_id),
    ]
    return ClipExplanation(clip.clip_id, tuple(section for section in sections if section.lines))


def resolve_clip_id(dataset: Dataset, prefix: str) -> str:
    """The clip id that begins with ``prefix``.

    Raises:
        DwmError: no clip id begins with it, or several do and none is equal to it.
    """
    matches = sorted(dataset.clips.keys(pc.starts_with(ds.field("clip_id"), pattern=prefix))) if prefix else []
    if prefix in matches or len(matches) == 1:
        return prefix if prefix in matches else matches[0]
    if matches:
        shown = ", ".join(matches[:5])
        raise DwmError(f"clip '{prefix}': {len(matches)} clips begin with it ({shown}); give more characters")
    alike = sorted(dataset.clips.keys(pc.starts_with(ds.field("clip_id"), pattern=prefix[:1])))
    near = difflib.get_close_matches(prefix, alike, n=3, cutoff=0.5) or alike[:3]
    hint = f"near: {', '.join(near)}" if near else f"the dataset has {dataset.clips.count()} clips"
    raise DwmError(f"clip '{prefix}': not in {dataset.root}; {hint}")


def _section(title: str, *lines: tuple[str, Any]) -> Section:
    """A section without the lines whose value is unknown or empty."""
    return Section(title, tuple((label, str(value)) for label, value in lines if value not in (None, "")))


def _state(clip: Clip) -> Section:
    usable = clip.status in (ClipStatus.READY, ClipStatus.CONDITIONS_ONLY)
    reason = clip.reason or (None if usable else "not given")
    review = None if clip.review is None else f"{clip.review.value} ({clip.review_reason or 'no reason given'})"
    return _section(
        f"Clip {clip.clip_id}: {clip.status.value}",
        ("reason", reason),
        ("split", clip.split.value if clip.split else "none"),
        ("flags", ", ".join(clip.flags) or "none"),
        ("review", review),
        ("reviewed at", clip.review_at),
        ("near-duplicate group", clip.near_duplicate_group),
    )


def _origin(clip: Clip) -> Section:
    return _section(
        "Where it comes from",
        ("source", clip.source.value),
        ("group", clip.group.value if clip.group else None),
        ("scene", clip.scene_id),
        ("recording", clip.recording_id),
        ("official path", clip.official_path),
        ("place in the list", None if clip.list_order is None else str(clip.list_order)),
        ("source frames", f"from {clip.start_frame}, every {clip.frame_step}"),
        ("static video freezes", clip.static_policy),
        ("hands from", clip.hand_estimator),
        ("camera from", clip.calibration_source),
        ("body model", clip.body_model),
        ("licence", clip.licence),
        ("faces blurred", clip.faces_blurred),
    )


def _files(dataset: Dataset, clip: Clip) -> Section:
    geometry = f"{clip.width}x{clip.height} pixels, {clip.num_frames} frames, {clip.fps:g} frames a second"
    lines: list[tuple[str, Any]] = [("videos", geometry if clip.num_frames else "size unknown")]
    for column in Clip.FILE_COLUMNS:
        path = getattr(clip, column)
        if path is None:
            lines.append((column.removesuffix("_path"), "unknown"))
        else:
            file = dataset.absolute(path)
            size = f"{file.stat().st_size:,} bytes" if file.is_file() else "MISSING"
            lines.append((column.removesuffix("_path"), f"{path} ({size})"))
    return _section("Files", *lines)


def _measurements(clip: Clip) -> Section:
    values = ((label, getattr(clip, column)) for column, label in _MEASUREMENTS.items())
    return Section("Measurements", tuple((label, f"{value:.4g}") for label, value in values if value is not None))


def _text(clip: Clip) -> Section:
    return _section(
        "Text", ("prompt", clip.prompt.rstrip("\n")), ("prompt from", clip.prompt_origin), ("action", clip.action_label)
    )


def _lineage(clip: Clip) -> Section:
    hashes = [(f"input {role}", value) for role, value in sorted(clip.input_hashes.items())]
    hashes += [(f"output {role.removesuffix('_path')}", value) for role, value in sorted(clip.output_hashes.items())]
    return _section(
        "Lineage",
        ("made at", clip.created_at.isoformat(timespec="seconds")),
        ("code", clip.code_version),
        ("settings", clip.config_hash),
        *hashes,
    )


def _generations(dataset: Dataset, clip_id: str) -> Section:
    rows = sorted(
        dataset.generations.rows(where=ds.field("clip_id") == clip_id),
        key=lambda row: (row.method, row.checkpoint_step or 0, row.seed, row.generation_id),
    )
    return Section(
        f"Generated videos: {len(rows)}", tuple((f"{row.method}, seed {row.seed}", _figures(row)) for row in rows)
    )


def _figures(row: Generation) -> str:
    if row.reason is not None:
        return f"{row.status.value}: {row.reason}"
    step = "" if row.checkpoint_step is None else f"step {row.checkpoint_step}, "
    figures = {"PSNR": row.psnr, "SSIM": row.ssim, "LPIPS": row.lpips_vgg}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None)
    untrained = " (untrained base: not a result)" if row.base_is_untrained else ""
    return f"{step}{shown or row.status.value}, {row.path or 'no file'}{untrained}"
