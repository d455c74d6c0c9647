"""A small fingerprint of a picture: pictures that look alike have hashes that differ in few bits."""

from __future__ import annotations

import cv2
import numpy as np

from render.framing import Frames

_COLUMNS, _ROWS = 9, 8


def picture_hash(picture: Frames) -> str:
    """Difference hash of a picture uint8 RGB [H, W, 3], 64 bits as 16 hexadecimal digits.

    Each bit says whether one of 8 x 8 places is brighter than its left neighbour. Size, exposure and compression
    change few bits; of two unrelated pictures about half of the bits differ.
    """
    gray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits((np.diff(small, axis=1) > 0).ravel())
    return bits.tobytes().hex()
