"""What a conditioning is told of clips: static-scene latents, and the hands as latents or as poses.

Where the data come from - cached latents, the manifest's pose files, a user's own videos - is decided here; how the
network takes them is decided in `conditioning`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from dwm_model.hand_poses import clips_without_poses, load_hand_poses
from dwm_model.latents import LatentStore, VideoRole, posterior_mean, sample_posterior
from manifests.dataset import Dataset
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

    from render.framing import Frames


class HandData(StrEnum):
    """What a conditioning needs to know of the hands."""

    NONE = "none"
    MESH_LATENTS = "hand-mesh latents"
    MASK_LATENTS = "hand-mask latents"
    POSES = "hand poses"

    @property
    def role(self) -> VideoRole | None:
        """The cached video that holds it; None where it is no video."""
        return {HandData.MESH_LATENTS: VideoRole.HANDS, HandData.MASK_LATENTS: VideoRole.HAND_MASK}.get(self)


@dataclass(frozen=True)
class ConditionBatch:
    """What is known of B clips, on the CPU, latents as the autoencoder gives them (unscaled).

    Attributes:
        static_bcfhw: static-scene videos, [B, 16, F, H, W].
        hands_bcfhw: hand-mesh or hand-mask videos, [B, 16, F, H, W]; None where no video tells of the hands. Zero
            stands for "no hands".
        poses_btd: hand poses, [B, T, 104] (see `hand_poses`); None where none are used.
        known_bfhw: where the static-scene latent is known (1) and where not (0), [B, F, H, W]; None: everywhere.
    """

    static_bcfhw: torch.Tensor
    hands_bcfhw: torch.Tensor | None = None
    poses_btd: torch.Tensor | None = None
    known_bfhw: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.static_bcfhw)

    @property
    def has_hands(self) -> bool:
        """Whether anything tells of hands, be it that there are none."""
        return self.hands_bcfhw is not None or self.poses_btd is not None

    def without_hands(self, which: Sequence[bool] | None = None) -> ConditionBatch:
        """The same with zeros in place of the hands of the marked clips (all of them when None)."""
        import torch

        kept = 1.0 - torch.tensor([float(one) for one in ([True] * len(self) if which is None else which)])
        hands, poses = self.hands_bcfhw, self.poses_btd
        return replace(
            self,
            hands_bcfhw=None if hands is None else torch.where(kept.view(-1, 1, 1, 1, 1) > 0, hands, 0.0),
            poses_btd=None if poses is None else torch.where(kept.view(-1, 1, 1) > 0, poses, 0.0),
        )

    def expand(self, count: int) -> ConditionBatch:
        """A batch of one clip, ``count`` times."""
        hands, poses, known = self.hands_bcfhw, self.poses_btd, self.known_bfhw
        return ConditionBatch(
            self.static_bcfhw.expand(count, -1, -1, -1, -1),
            None if hands is None else hands.expand(count, -1, -1, -1, -1),
            None if poses is None else poses.expand(count, -1, -1),
            None if known is None else known.expand(count, -1, -1, -1),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[ConditionBatch]) -> ConditionBatch:
        """One batch of several, made by the same conditioning."""
        import torch

        hands = [batch.hands_bcfhw for batch in batches if batch.hands_bcfhw is not None]
        poses = [batch.poses_btd for batch in batches if batch.poses_btd is not None]
        known = [batch.known_bfhw for batch in batches if batch.known_bfhw is not None]
        return cls(
            torch.cat([batch.static_bcfhw for batch in batches]),
            torch.cat(hands) if hands else None,
            torch.cat(poses) if poses else None,
            torch.cat(known) if known else None,
        )


def load_conditions(
    needed: HandData, store: LatentStore, clip_ids: Sequence[str], generator: torch.Generator | None
) -> ConditionBatch:
    """Read the conditions of clips from the dataset.

    Args:
        needed: what is needed of the hands.
        store: cached latents of the dataset.
        clip_ids: B clips.
        generator: randomness of the posterior samples, static then hands, clip after clip; None takes the means.

    Raises:
        DwmError: a clip is not encoded, or its poses are unknown.
    """
    import torch

    static, hands, poses = [], [], []
    for clip_id in clip_ids:
        static.append(latent_of(store, clip_id, VideoRole.STATIC, generator))
        if needed.role is not None:
            hands.append(latent_of(store, clip_id, needed.role, generator))
        elif needed is HandData.POSES:
            poses.append(store.hand_poses(clip_id))
    return ConditionBatch(
        torch.stack(static), torch.stack(hands) if hands else None, torch.stack(poses) if poses else None
    )


def refused_clips(needed: HandData, dataset: Dataset, clip_ids: Sequence[str]) -> dict[str, str]:
    """Clips that lack what is needed, with the reason of each."""
    return clips_without_poses(dataset, clip_ids) if needed is HandData.POSES else {}


def conditions_from_files(
    needed: HandData,
    encode: Callable[[Sequence[Frames]], torch.Tensor],
    static: Frames,
    hands: Frames | None,
    poses: Path | None,
) -> ConditionBatch:
    """Conditions from a user's own videos instead of a dataset.

    Args:
        needed: what is needed of the hands.
        encode: moments [N, 2C, F, H, W] of N videos.
        static: static-scene video, uint8 RGB [T, H, W, 3].
        hands: hand-mesh video of the same camera path; None for no hands.
        poses: npz file of the ``hand_motion_path`` form; needed by pose conditionings only.

    Raises:
        DwmError: poses are needed and not given.
    """
    import torch

    from dwm_model.hand_poses import POSE_FEATURES
    from dwm_model.latents import mask_video

    if needed is HandData.POSES:
        if hands is not None and poses is None:
            raise DwmError("this run takes hand poses, not a hand video; give a pose file with --hand-motion")
        known = torch.zeros(len(static), POSE_FEATURES) if poses is None else load_hand_poses(poses, len(static))
        return ConditionBatch(posterior_mean(encode([static])), poses_btd=known[None])
    if needed is HandData.NONE or hands is None:
        means = posterior_mean(encode([static]))
        return ConditionBatch(means, None if needed is HandData.NONE else torch.zeros_like(means))
    shown = mask_video(hands) if needed is HandData.MASK_LATENTS else hands
    means = posterior_mean(encode([static, shown]))
    return ConditionBatch(means[:1], means[1:])


def latent_of(store: LatentStore, clip_id: str, role: VideoRole, generator: torch.Generator | None) -> torch.Tensor:
    """One video of a clip, [16, F, H, W]: a posterior sample, or the mean without a generator.

    Raises:
        DwmError: it is not encoded.
    """
    moments = store.moments(clip_id, role)
    return posterior_mean(moments) if generator is None else sample_posterior(moments, generator)
