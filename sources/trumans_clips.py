"""Which windows of a recording become clips, and what their prompts say (paper section 4 and Appendix A)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.profiles import Profile
from sources.captions import short_label
from sources.trumans import FrameFault, RecordingEntry, TrumansRecording, poses_differ
from sources.trumans_files import faults_of_frames

PROMPT_FROM_ANNOTATION = "action_annotation"
PROMPT_FROM_OBJECTS = "moved_objects"
PROMPT_FALLBACK = "fallback"
FALLBACK_PROMPT = "I move through a room."

_SHARE_OF_CLIP = 0.1
_SHARE_OF_ACTION = 0.5
_REASONS_SHOWN = 2


@dataclass(frozen=True)
class ClipWindow:
    """The source frames of a clip: every ``frame_step``-th from ``start_frame``, ``num_frames`` of them."""

    start_frame: int
    frame_step: int
    num_frames: int

    @property
    def source_frames(self) -> npt.NDArray[np.int64]:
        """[num_frames] numbers of the source frames."""
        return self.start_frame + self.frame_step * np.arange(self.num_frames)

    @property
    def end_frame(self) -> int:
        """One past the last source frame that is taken."""
        return self.start_frame + self.frame_step * (self.num_frames - 1) + 1


@dataclass(frozen=True)
class DroppedWindow:
    """A window that becomes no clip, and why. An incomplete tail has fewer frames than a clip."""

    window: ClipWindow
    reason: str


@dataclass(frozen=True)
class ClipPlan:
    """The windows of a recording, in order."""

    windows: tuple[ClipWindow, ...]
    dropped: tuple[DroppedWindow, ...]


@dataclass(frozen=True)
class ClipPrompt:
    """Prompt of a clip, where it comes from, and a short name of its main action (None when unknown)."""

    text: str
    origin: str
    action_label: str | None


def plan_clips(recording: RecordingEntry | TrumansRecording, profile: Profile) -> ClipPlan:
    """Cut a recording into windows of ``profile.num_frames`` frames, every ``frame_step``-th source frame.

    Windows start every ``stride`` sampled frames, from the first frame on. One that spans a bad or faulty source
    frame (also one between two sampled frames) is dropped with the reason, as are frames at the end that fill no
    window. Of an entry that is not loaded only the bad frames are known; plan again with the loaded recording.
    """
    step, length = profile.frame_step, profile.num_frames
    sampled = -(-recording.num_frames // step)
    if sampled < length:
        tail = ClipWindow(0, step, sampled)
        return ClipPlan((), (DroppedWindow(tail, _too_short(recording, profile)),))
    faults = _faults(recording)
    windows: list[ClipWindow] = []
    dropped: list[DroppedWindow] = []
    starts = range(0, sampled - length + 1, profile.stride)
    for start in starts:
        window = ClipWindow(start * step, step, length)
        touched = [fault for fault in faults if fault.start < window.end_frame and fault.end > window.start_frame]
        if touched:
            dropped.append(DroppedWindow(window, _reason(touched)))
        else:
            windows.append(window)
    next_start = starts[-1] + profile.stride
    left = sampled - max(next_start, 0)
    if sampled > starts[-1] + length and left > 0:
        tail = ClipWindow(next_start * step, step, left)
        dropped.append(DroppedWindow(tail, f"incomplete tail: {left} of {length} frames"))
    return ClipPlan(tuple(windows), tuple(dropped))


def describe_clip(recording: TrumansRecording, window: ClipWindow) -> ClipPrompt:
    """Prompt of a clip from the annotated actions that it shows, in their order.

    An action counts when it fills a tenth of the clip, or when half of it lies in the clip; the one with the largest
    overlap always counts and gives the label. Without any, the moved objects are named, else a plain sentence is used.
    """
    overlaps = [
        (action, min(action.end, window.end_frame) - max(action.start, window.start_frame))
        for action in recording.actions
    ]
    overlaps = [(action, overlap) for action, overlap in overlaps if overlap > 0]
    if not overlaps:
        return _prompt_from_objects(recording, window)
    main, most = max(overlaps, key=lambda each: each[1])
    clip_length = window.end_frame - window.start_frame
    told = [
        action.text
        for action, overlap in overlaps
        if overlap == most
        or overlap >= _SHARE_OF_CLIP * clip_length
        or overlap >= _SHARE_OF_ACTION * (action.end - action.start)
    ]
    sentences = [_sentence(text) for text in dict.fromkeys(told)]
    return ClipPrompt(" ".join(sentences), PROMPT_FROM_ANNOTATION, short_label(main.text))


def _too_short(recording: RecordingEntry | TrumansRecording, profile: Profile) -> str:
    needed = (profile.num_frames - 1) * profile.frame_step + 1
    return (
        f"recording of {recording.num_frames} frames is shorter than a clip, which needs {needed} "
        f"({profile.num_frames} frames, every {profile.frame_step})"
    )


def _faults(recording: RecordingEntry | TrumansRecording) -> list[FrameFault]:
    bad = faults_of_frames(recording.bad_frames, "marked as bad in the data set")
    return bad + (list(recording.faults) if isinstance(recording, TrumansRecording) else [])


def _reason(faults: list[FrameFault]) -> str:
    first = [
        f"frame {fault.start}: {fault.reason}"
        if fault.end == fault.start + 1
        else f"frames {fault.start} to {fault.end - 1}: {fault.reason}"
        for fault in faults[:_REASONS_SHOWN]
    ]
    more = len(faults) - len(first)
    return "; ".join(first) + (f"; and {more} more" if more else "")


def _sentence(text: str) -> str:
    stripped = text.strip().rstrip(",;")
    closed = stripped if stripped[-1:] in {".", "!", "?"} else f"{stripped}."
    return closed[:1].upper() + closed[1:]


def _prompt_from_objects(recording: TrumansRecording, window: ClipWindow) -> ClipPrompt:
    frames = window.source_frames
    frames = frames[frames < recording.num_frames]
    moved = []
    for tracked in recording.objects:
        poses = tracked.world_from_object[frames]
        if len(poses) and poses_differ(poses, poses[:1]).any():
            moved.append(re.sub(r"[_\W]*\d*$", "", tracked.name).replace("_", " ").strip().lower() or tracked.name)
    names = list(dict.fromkeys(moved))
    if not names:
        return ClipPrompt(FALLBACK_PROMPT, PROMPT_FALLBACK, None)
    listed = " and ".join(f"the {name}" for name in names)
    return ClipPrompt(f"I move {listed}.", PROMPT_FROM_OBJECTS, f"move {names[0]}")
