"""Measurements of a triplet: in how many frames hands show, how well the static scene agrees, time offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from manifests.errors import DwmError
from manifests.schema import MaskId
from render.alignment import SIGNAL_WIDTH, OffsetEstimate, estimate_hand_offset, estimate_time_offset
from render.arrays import read_npz
from render.framing import FitPolicy, Frames, fit_frame
from render.hand_mask import Mask, dilate, hand_mask
from render.video import iter_frames

LARGEST_PSNR_DB = 99.0
"""Stands for equal pictures, whose PSNR is infinite: manifests hold finite figures."""

EMPTY_HANDS_FLAG = "empty_hands: the hand video shows no hand in any frame"


@dataclass(frozen=True, kw_only=True)
class TripletMeasures:
    """What looking at a triplet's videos tells.

    Attributes:
        hand_visible_frames: Frames of the hand video that show a hand.
        background_psnr_db: PSNR of static against interaction outside the dilated hand region, and outside what the
            masks mark where there are masks, dB; None without an interaction video or when nothing lies outside.
        time_offset_frames: Largest offset of the static or hand video that the evidence supports; None when unknown.
        flags: Reasons for a person to look.
    """

    hand_visible_frames: int
    background_psnr_db: float | None
    time_offset_frames: int | None
    flags: tuple[str, ...]


def measure_triplet(interaction: Path | None, static: Path, hands: Path, masks: Path | None = None) -> TripletMeasures:
    """Measure a triplet in one pass; only frames reduced to a small width stay in memory.

    Args:
        interaction: Interaction video; None for a clip without ground truth.
        static: Static video of the same size and length.
        hands: Hand video of the same size and length.
        masks: Masks file that fits the videos, see `MaskId`; what it says has changed is no background.

    Raises:
        DwmError: a file cannot be read, or their sizes or lengths differ.
    """
    if interaction is None:
        visible = sum(bool(hand_mask(frame).any()) for frame in iter_frames(hands))
        return _summary(visible, None, ())
    background = _BackgroundError()
    changed = None if masks is None else read_npz(masks, ["ids"])["ids"] != MaskId.BACKGROUND
    visible = 0
    small: tuple[list[Frames], ...] = ([], [], [])
    streams = [iter_frames(path) for path in (interaction, static, hands)]
    try:
        for index, frames in enumerate(zip(*streams, strict=True)):
            if len({frame.shape for frame in frames}) > 1:
                raise DwmError(f"{hands}: the triplet's videos differ in size; make them alike")
            mask = hand_mask(frames[2])
            visible += bool(mask.any())
            region = dilate(mask)
            if changed is not None:
                region |= changed[index]
            background.add(frames[0], frames[1], ~region)
            for kept, frame in zip(small, frames, strict=True):
                kept.append(_reduced(frame))
    except ValueError as error:
        raise DwmError(f"{hands}: the triplet's videos differ in length; make them alike") from error
    finally:
        for stream in streams:
            stream.close()
    interaction_small, static_small, hands_small = (np.stack(kept) for kept in small)
    offsets = (
        ("static", estimate_time_offset(interaction_small, static_small)),
        ("hands", estimate_hand_offset(interaction_small, hands_small)),
    )
    return _summary(visible, background.psnr_db(), offsets)


class _BackgroundError:
    """Adds up the squared error of two videos where a mask allows."""

    def __init__(self) -> None:
        self._squared_error = 0.0
        self._values = 0

    def add(self, a: Frames, b: Frames, mask: Mask) -> None:
        weights = mask.view(np.uint8)
        self._squared_error += cv2.norm(a, b, cv2.NORM_L2SQR, weights)
        self._values += 3 * cv2.countNonZero(weights)

    def psnr_db(self) -> float | None:
        if self._values == 0:
            return None
        if self._squared_error == 0:
            return LARGEST_PSNR_DB
        return min(LARGEST_PSNR_DB, float(10 * np.log10(255**2 * self._values / self._squared_error)))


def _reduced(frame: Frames) -> Frames:
    height, width = frame.shape[:2]
    if width <= SIGNAL_WIDTH:
        return frame
    return fit_frame(frame, SIGNAL_WIDTH, max(1, round(height * SIGNAL_WIDTH / width)), FitPolicy.STRETCH)


def _summary(
    visible: int, background_psnr_db: float | None, offsets: Sequence[tuple[str, OffsetEstimate]]
) -> TripletMeasures:
    flags = [] if visible else [EMPTY_HANDS_FLAG]
    known: list[int] = []
    for role, estimate in offsets:
        frames = estimate.offset_frames
        if frames is None:
            continue
        known.append(frames)
        if frames:
            late = f"{abs(frames)} frames {'late' if frames > 0 else 'early'}"
            flags.append(
                f"time_offset: the {role} video is {late} by its motion (correlation {estimate.correlation:.2f})"
            )
    return TripletMeasures(
        hand_visible_frames=visible,
        background_psnr_db=background_psnr_db,
        time_offset_frames=max(known, key=abs) if known else None,
        flags=tuple(flags),
    )
