"""What a training step is fed: which clips, their cached tensors, and all that is random about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from dwm_model.clip_order import stable_seed
from dwm_model.latents import LatentStore, posterior_mean, sample_posterior
from dwm_model.train_config import TrainConfig
from manifests.dataset import Dataset
from manifests.errors import DwmError
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

    def expand(self, count: int) -> Batch:
        """A batch of one clip, ``count`` times."""
        return Batch(
            interaction_bcfhw=self.interaction_bcfhw.expand(count, -1, -1, -1, -1),
            static_bcfhw=self.static_bcfhw.expand(count, -1, -1, -1, -1),
            hands_bcfhw=self.hands_bcfhw.expand(count, -1, -1, -1, -1),
            text_bld=self.text_bld.expand(count, -1, -1),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of several."""
        import torch

        columns = ("interaction_bcfhw", "static_bcfhw", "hands_bcfhw", "text_bld")
        return cls(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in columns})


@dataclass(frozen=True)
class TrainingBatch:
    """Clips with what is drawn for them, on the CPU.

    Attributes:
        clips: their tensors.
        noise_bfchw: noise for the interaction latents as the network takes them, [B, F, 16, H, W].
        timesteps_b: training timesteps, [B].
    """

    clips: Batch
    noise_bfchw: torch.Tensor
    timesteps_b: torch.Tensor


@dataclass(frozen=True)
class ClipSelection:
    """Clips of a run, with their prompts, sorted by id.

    Attributes:
        train: prompt of each clip that is trained on.
        validation: prompt of each clip that the validation loss uses.
        sources: source of each clip that is trained on, such as ``trumans``.
    """

    train: dict[str, str]
    validation: dict[str, str]
    sources: dict[str, str]


def select_clips(dataset: Dataset, config: TrainConfig) -> ClipSelection:
    """Choose the clips of a run: ready ones that nobody rejected; validation clips are never trained on.

    Raises:
        DwmError: there is no train clip.
    """
    train = _clips_of(dataset, Split.TRAIN)
    if not train:
        raise DwmError(f"{dataset.root}: no ready clip in the train split; run `dwm split`, or build more clips")
    validation = _clips_of(dataset, Split.VALIDATION)[: config.num_validation_clips]
    return ClipSelection(
        train={clip_id: prompt for clip_id, prompt, _ in train},
        validation={clip_id: prompt for clip_id, prompt, _ in validation},
        sources={clip_id: source for clip_id, _, source in train},
    )


def _clips_of(dataset: Dataset, split: Split) -> list[tuple[str, str, str]]:
    """Id, prompt and source of a split's usable clips, sorted by id."""
    field = ds.field
    accepted = field("review").is_null() | (field("review") != Review.REJECTED.value)
    where = (field("status") == ClipStatus.READY.value) & (field("split") == split.value) & accepted
    columns = ["clip_id", "prompt", "source"]
    table = dataset.clips.read(columns, where)
    return list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))


def load_training_batch(
    store: LatentStore, clips: Sequence[tuple[str, str]], positions: Sequence[int], config: TrainConfig, timesteps: int
) -> TrainingBatch:
    """Load clips and draw all that is random about them: posterior samples, dropout, noise, timestep.

    What is drawn for a clip depends on the run's seed and the clip's position in the data order only, so that it is the
    same whichever process takes the clip, and whatever the dropout rates are.

    Args:
        store: cached latents.
        clips: id and prompt of each clip.
        positions: position of each in the data order.
        config: seed and dropout rates. A clip without prompt has the empty prompt's embedding, one without hands a
            zero latent.
        timesteps: training timesteps of the schedule; they are drawn uniformly below it (paper equation 7).

    Raises:
        DwmError: a clip or its prompt is not encoded, or its files are damaged.
    """
    import torch

    loaded: list[Batch] = []
    noises: list[torch.Tensor] = []
    times: list[torch.Tensor] = []
    for (clip_id, prompt), position in zip(clips, positions, strict=True):
        generator = torch.Generator().manual_seed(stable_seed("clip", config.seed, position))
        clip = _load_clip(store, clip_id, prompt, config, generator)
        loaded.append(clip)
        noises.append(torch.randn(clip.interaction_bcfhw.transpose(1, 2).shape, generator=generator))
        times.append(torch.randint(0, timesteps, (1,), generator=generator))
    return TrainingBatch(Batch.concatenate(loaded), torch.cat(noises), torch.cat(times))


def _load_clip(store: LatentStore, clip_id: str, prompt: str, config: TrainConfig, generator: torch.Generator) -> Batch:
    """One clip with its posterior samples and dropout."""
    import torch

    latents = store.load(clip_id)
    if latents.interaction is None:
        raise DwmError(f"clip {clip_id}: its latents have no interaction video; run `dwm encode` again")
    interaction, static, hands = (
        sample_posterior(one, generator)[None] for one in (latents.interaction, latents.static, latents.hands)
    )
    prompt_draw, hand_draw = torch.rand(2, generator=generator).tolist()
    if hand_draw < config.hand_dropout:
        hands = torch.zeros_like(hands)
    text = store.prompt_embedding("" if prompt_draw < config.prompt_dropout else prompt)[None]
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
