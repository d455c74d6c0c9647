"""The frames of one window of a fixed-camera video, and which part of them is picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.profiles import Profile
from render.framing import FitPolicy, Frames
from render.resampling import PictureBox, SourceTiming, chosen_fit, picture_box, read_sampled


@dataclass(frozen=True)
class WindowPictures:
    """The frames of a window.

    Attributes:
        large: uint8 RGB [T, H, W, 3], ``scale`` times the clip's size: what is measured and looked at.
        scale: that factor.
        box: the part of ``large`` that is picture; None for all of it.
        fit: how the source's picture got its size, never ``auto``.
        indices: [T] source frames.
    """

    large: Frames
    scale: int
    box: PictureBox | None
    fit: FitPolicy
    indices: npt.NDArray[np.int64]

    def cropped_first(self) -> Frames:
        """The first frame without padding."""
        left, top, right, bottom = self.box or (0, 0, self.large.shape[2], self.large.shape[1])
        result: Frames = self.large[0, top:bottom, left:right]
        return result

    def within_picture(self, drawn: Frames) -> Frames:
        """Frames [T, H, W, 3] at the clip's size, black where the clip is padding: no hand is seen there."""
        left, top, right, bottom = (edge // self.scale for edge in self.box or (0, 0, *self.large.shape[2:0:-1]))
        result = np.zeros_like(drawn)
        result[:, top:bottom, left:right] = drawn[:, top:bottom, left:right]
        return result

    def at_clip_size(self, path: Path, profile: Profile) -> Frames:
        """The frames at the clip's size, reduced from the source itself."""
        if self.scale == 1:
            return self.large
        return read_sampled(path, self.indices, profile.width, profile.height, self.fit)


def read_pictures(
    path: Path, timing: SourceTiming, indices: npt.NDArray[np.int64], profile: Profile, *, fit: FitPolicy, scale: int
) -> WindowPictures:
    """Read a window's frames.

    Args:
        path: the video.
        timing: of its frames.
        indices: [T] source frames of the window.
        profile: size of the clip.
        fit: how the picture gets that size.
        scale: frames are read this much larger than the clip.

    Raises:
        DwmError: the video cannot be read.
    """
    chosen = chosen_fit(timing.width, timing.height, profile.width, profile.height, fit)
    width, height = profile.width * scale, profile.height * scale
    large = read_sampled(path, indices, width, height, chosen)
    box = picture_box(timing.width, timing.height, width, height, chosen)
    return WindowPictures(large, scale, box, chosen, indices)
