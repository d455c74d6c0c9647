"""Methods that only copy: what a trained model has to beat, and the best that its autoencoder allows.

A model cannot show more than its autoencoder keeps, so that the static video *through the autoencoder* is the fair
rival of a model, and the interaction video through it the ceiling. Pasting the given hands onto the static video tells
how much of a gain is the hands that the model was handed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dwm_model.geometry import ClipGeometry
from dwm_model.latents import VideoRole, posterior_mean
from dwm_model.methods import MethodDescription
from dwm_model.sampling import decode_frames
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip
from render.hand_mask import hand_mask
from render.video import Frames, read_clip_video

if TYPE_CHECKING:
    from dwm_model.base_model import BaseModel
    from dwm_model.latents import LatentStore

STATIC_COPY = "static copy"
"""Name of the method that shows the static video as it is."""

STATIC_DECODED = "static copy decoded"
"""The static video through the base's autoencoder."""

PASTED_HANDS = "pasted hands"
"""The static video through the autoencoder with the hand video's hands on it."""

TRUTH_DECODED = "truth decoded"
"""The interaction video through the autoencoder: no model of this base can be better."""

DECODED_COPIES = {
    STATIC_DECODED: VideoRole.STATIC,
    PASTED_HANDS: VideoRole.STATIC,
    TRUTH_DECODED: VideoRole.INTERACTION,
}
"""Rows that need a base's autoencoder and nothing else of it, with the video that each decodes."""


class StaticCopy:
    """Shows the static video: the identity that the inpainting prior starts from (paper section 3.2)."""

    def __init__(self, dataset: Dataset, geometry: ClipGeometry) -> None:
        """Read static videos of ``dataset`` at ``geometry``."""
        self._dataset = dataset
        self._geometry = geometry

    @property
    def description(self) -> MethodDescription:
        """What it is."""
        return MethodDescription(name=STATIC_COPY, uses_seed=False)

    def generate(self, clip: Clip, seed: int) -> Frames:  # noqa: ARG002 - the protocol has it, a copy needs no noise
        """Return the static video.

        Raises:
            DwmError: the clip has no static video, or it is broken or too short.
        """
        if clip.static_path is None:
            raise DwmError(f"clip {clip.clip_id}: has no static video; build it again")
        return read_clip_video(self._dataset.absolute(clip.static_path), **self._geometry.model_dump())


class DecodedCopy:
    """Shows a video of the clip as the base's autoencoder gives it back, perhaps with the hands pasted on it.

    Args:
        name: row of the table.
        base: the base; only its autoencoder is loaded.
        store: cached latents.
        role: which video.
        paste_hands: put the hand video's hands on top.
    """

    def __init__(
        self, name: str, base: BaseModel, store: LatentStore, role: VideoRole, *, paste_hands: bool = False
    ) -> None:
        self._name, self._base, self._store = name, base, store
        self._role, self._paste_hands = role, paste_hands

    @property
    def description(self) -> MethodDescription:
        """What it is."""
        return describe_decoded_copy(self._name, self._base.base_hash)

    def generate(self, clip: Clip, seed: int) -> Frames:  # noqa: ARG002 - nothing is drawn
        """Decode the video's latent.

        Raises:
            DwmError: the clip is not encoded, or has no hand video to paste.
        """
        latent = posterior_mean(self._store.moments(clip.clip_id, self._role))
        shown: Frames = decode_frames(self._base, latent[None])[0]
        if not self._paste_hands:
            return shown
        if clip.hands_path is None:
            raise DwmError(f"clip {clip.clip_id}: has no hand video; build it again")
        size = self._store.geometry.model_dump()
        hands = read_clip_video(self._store.dataset.absolute(clip.hands_path), **size)
        pasted: Frames = np.where(hand_mask(hands)[..., None], hands, shown)
        return pasted


def describe_decoded_copy(name: str, base_hash: str) -> MethodDescription:
    """Describe a decoded copy without loading the autoencoder."""
    return MethodDescription(name=name, uses_seed=False, base_hash=base_hash)


def load_copy(name: str, base: BaseModel, store: LatentStore) -> DecodedCopy:
    """The decoded copy of a name of this module.

    Raises:
        KeyError: no decoded copy has this name.
    """
    return DecodedCopy(name, base, store, DECODED_COPIES[name], paste_hands=name == PASTED_HANDS)
