"""Where the interaction is: hand, moved-object and remaining pixels of a clip, for PSNR by region.

The three regions are disjoint and cover every pixel. The first two together are the interaction region: the hand
mask, dilated, joined with the moved objects' mask where one is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.errors import DwmError
from manifests.schema import Clip, MaskId
from render.arrays import read_npz
from render.hand_mask import Mask, dilate, hand_mask
from render.video import FitPolicy, Frames, fit_frames, read_clip_video


@dataclass(frozen=True)
class RegionMasks:
    """Disjoint regions of a video, bool [T, H, W] each."""

    hands: Mask
    """Dilated hand mask without the moved objects' pixels."""
    object: Mask | None
    """Pixels where a moved object is, or was in the static video, and no hand; None when unknown."""

    @property
    def interaction(self) -> Mask:
        """Hands and moved objects: inside of the interaction region."""
        return self.hands if self.object is None else self.hands | self.object

    @property
    def rest(self) -> Mask:
        """Everything outside the interaction region."""
        return ~self.interaction


def split_regions(hands: Frames, moved: Mask | None = None, real_hands: Mask | None = None) -> RegionMasks:
    """Divide a clip into hand, moved-object and remaining pixels.

    Args:
        hands: Hand video, uint8 [T, H, W, 3].
        moved: Pixels of moved objects, bool [T, H, W]; None when unknown.
        real_hands: Pixels where the interaction video itself shows hands, bool [T, H, W]; None when unknown.

    Raises:
        DwmError: they differ in length or size.
    """
    visible = hand_mask(hands)
    for mask in (moved, real_hands):
        if mask is not None and mask.shape != visible.shape:
            raise DwmError(f"regions: hand video {visible.shape} and mask {mask.shape} differ; build the clip again")
    if real_hands is not None:
        visible |= real_hands
    if moved is None:
        return RegionMasks(hands=dilate(visible), object=None)
    moved = moved & ~visible
    return RegionMasks(hands=dilate(visible) & ~moved, object=moved)


def load_regions(dataset_root: Path, clip: Clip, *, width: int, height: int, num_frames: int) -> RegionMasks | None:
    """Regions of a clip at a size, fitted as ``read_clip_video`` fits its videos; None without a hand video.

    Raises:
        DwmError: the hand video or the masks file is broken or too short.
    """
    if clip.hands_path is None:
        return None
    hands = read_clip_video(dataset_root / clip.hands_path, width=width, height=height, num_frames=num_frames)
    if clip.masks_path is None:
        return split_regions(hands)
    path = dataset_root / clip.masks_path
    ids = read_npz(path, ["ids"])["ids"][:num_frames]
    if ids.ndim != 3 or len(ids) < num_frames:
        raise DwmError(f"{path}: ids {ids.shape} should be [at least {num_frames}, H, W]; build the clip again")
    moved, real_hands = (_fit_mask(ids == kind, width, height) for kind in (MaskId.MOVED_OBJECT, MaskId.HANDS))
    return split_regions(hands, moved, real_hands)


def _fit_mask(mask: Mask, width: int, height: int) -> Mask:
    """Give a mask the size of a fitted video: a pixel belongs to it when at least half of its area does."""
    picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
    return np.asarray(fit_frames(picture, width, height, FitPolicy.PAD)[..., 0] >= 128)
