"""What a training step is fed: which clips, in which order, and their cached tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from dwm_model.latents import LatentStore, posterior_mean, sample_posterior
from dwm_model.train_config import TrainConfig
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import ClipStatus, Review, Split

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """Cached tensors of some clips, on the CPU, unscaled.

    Attributes:
        interaction_bcfhw: latents of the ground truth, [B, 16, F, H, W].
        static_bcfhw: latents of the static-scene videos.
        hands_bcfhw: latents of the hand-mesh videos.
        text_bld: prompt embeddings, [B, tokens, dim].
    """

    interaction_bcfhw: torch.Tensor
    static_bcfhw: torch.Tensor
    hands_bcfhw: torch.Tensor
    text_bld: torch.Tensor


@dataclass(frozen=True)
class ClipSelection:
    """Clips of a run, with their prompts, sorted by id.

    Attributes:
        train: prompt of each clip that is trained on.
        validation: prompt of each clip that the validation loss uses.
    """

    train: dict[str, str]
    validation: dict[str, str]


def select_clips(dataset: Dataset, config: TrainConfig) -> ClipSelection:
    """Choose the clips of a run: ready ones that nobody rejected; validation clips are never trained on.

    Raises:
        DwmError: there is no train clip.
    """
    train = _clips_of(dataset, Split.TRAIN)
    if not train:
        raise DwmError(f"{dataset.root}: no ready clip in the train split; run `dwm split`, or build more clips")
    validation = _clips_of(dataset, Split.VALIDATION)
    return ClipSelection(train, dict(list(validation.items())[: config.num_validation_clips]))


def _clips_of(dataset: Dataset, split: Split) -> dict[str, str]:
    field = ds.field
    accepted = field("review").is_null() | (field("review") != Review.REJECTED.value)
    where = (field("status") == ClipStatus.READY.value) & (field("split") == split.value) & accepted
    table = dataset.clips.read(["clip_id", "prompt"], where)
    return dict(zip(table.column("clip_id").to_pylist(), table.column("prompt").to_pylist(), strict=True))


class ClipOrder:
    """The endless sequence of clips that training visits: a new seeded permutation each epoch.

    The clip at a position depends on seed and position only, so that a position is all that resuming needs, and
    ranks can share one sequence by taking positions in turn.
    """

    def __init__(self, clip_ids: list[str], seed: int) -> None:
        self._clip_ids = clip_ids
        self._seed = seed
        self._permutation = lru_cache(maxsize=2)(self._make_permutation)

    def at(self, position: int) -> str:
        """Clip at a position (from 0)."""
        epoch, index = divmod(position, len(self._clip_ids))
        return self._clip_ids[self._permutation(epoch)[index]]

    def _make_permutation(self, epoch: int) -> list[int]:
        import torch

        generator = torch.Generator().manual_seed(stable_seed("order", self._seed, epoch))
        return [int(index) for index in torch.randperm(len(self._clip_ids), generator=generator)]


def load_training_batch(
    store: LatentStore, clips: list[tuple[str, str]], config: TrainConfig, generator: torch.Generator
) -> Batch:
    """Load clips and draw their posterior samples and dropout.

    Args:
        store: cached latents.
        clips: id and prompt of each clip.
        config: dropout rates. A clip without prompt has the empty prompt's embedding, one without hands a zero latent.
        generator: randomness of the rank. The same numbers are drawn whatever the rates are.
    """
    import torch

    columns: tuple[list[torch.Tensor], ...] = ([], [], [], [])
    for clip_id, prompt in clips:
        latents = store.load(clip_id)
        if latents.interaction is None:
            raise DwmError(f"clip {clip_id}: its latents have no interaction video; run `dwm encode` again")
        samples = [sample_posterior(one, generator) for one in (latents.interaction, latents.static, latents.hands)]
        prompt_draw, hand_draw = torch.rand(2, generator=generator).tolist()
        if hand_draw < config.hand_dropout:
            samples[2] = torch.zeros_like(samples[2])
        embedding = store.prompt_embedding("" if prompt_draw < config.prompt_dropout else prompt)
        for column, tensor in zip(columns, [*samples, embedding], strict=True):
            column.append(tensor)
    interaction, static, hands, text = (torch.stack(column) for column in columns)
    return Batch(interaction, static, hands, text)


def load_validation_clip(store: LatentStore, clip_id: str, prompt: str) -> Batch:
    """Load one clip with its posterior means: nothing random."""
    latents = store.load(clip_id)
    if latents.interaction is None:
        raise DwmError(f"clip {clip_id}: its latents have no interaction video; run `dwm encode` again")
    return Batch(
        interaction_bcfhw=posterior_mean(latents.interaction)[None],
        static_bcfhw=posterior_mean(latents.static)[None],
        hands_bcfhw=posterior_mean(latents.hands)[None],
        text_bld=store.prompt_embedding(prompt)[None],
    )


def stable_seed(*parts: str | int) -> int:
    """Seed of a generator from what defines it; the same on every machine."""
    return int(short_id(*parts), 16) % 2**63
