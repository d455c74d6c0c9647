"""What a training step is fed: which clips, their cached tensors, and all that is random about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from dwm_model.clip_order import stable_seed
from dwm_model.condition_data import ConditionBatch
from dwm_model.conditioning import get_conditioning
from dwm_model.latents import LatentStore
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
        interaction_bcfhw: latents of what the network should make, the interaction as a rule, [B, 16, F, H, W].
        conditions: what the network is told of the clips.
        text_bld: prompt embeddings, [B, tokens, dim].
    """

    interaction_bcfhw: torch.Tensor
    conditions: ConditionBatch
    text_bld: torch.Tensor

    def expand(self, count: int) -> Batch:
        """A batch of one clip, ``count`` times."""
        return Batch(
            interaction_bcfhw=self.interaction_bcfhw.expand(count, -1, -1, -1, -1),
            conditions=self.conditions.expand(count),
            text_bld=self.text_bld.expand(count, -1, -1),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of several."""
        import torch

        return cls(
            interaction_bcfhw=torch.cat([batch.interaction_bcfhw for batch in batches]),
            conditions=ConditionBatch.concatenate([batch.conditions for batch in batches]),
            text_bld=torch.cat([batch.text_bld for batch in batches]),
        )


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
        refused: reason for each clip that the conditioning cannot use.
    """

    train: dict[str, str]
    validation: dict[str, str]
    sources: dict[str, str]
    refused: dict[str, str]


def select_clips(dataset: Dataset, config: TrainConfig) -> ClipSelection:
    """Choose the clips of a run: ready ones that nobody rejected; validation clips are never trained on.

    Clips that lack what the conditioning needs (such as hand poses) are left out.

    Raises:
        DwmError: there is no train clip, or none that the conditioning can use.
    """
    train, validation = _clips_of(dataset, Split.TRAIN), _clips_of(dataset, Split.VALIDATION)
    if not train:
        raise DwmError(f"{dataset.root}: no ready clip in the train split; run `dwm split`, or build more clips")
    everything = [clip_id for clip_id, _, _ in (*train, *validation)]
    refused = get_conditioning(config.conditioning).refused_clips(dataset, everything)
    usable = [clip for clip in train if clip[0] not in refused]
    if not usable:
        clip_id, reason = min(refused.items())
        raise DwmError(
            f"{dataset.root}: conditioning {config.conditioning} can use none of {len(train)} train clips, the first: "
            f"clip {clip_id}: {reason}"
        )
    seen = [clip for clip in validation if clip[0] not in refused][: config.num_validation_clips]
    return ClipSelection(
        train={clip_id: prompt for clip_id, prompt, _ in usable},
        validation={clip_id: prompt for clip_id, prompt, _ in seen},
        sources={clip_id: source for clip_id, _, source in usable},
        refused=refused,
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
        config: conditioning, seed and dropout rates. A clip without prompt has the empty prompt's embedding, one
            without hands has zeros in their place.
        timesteps: training timesteps of the schedule; they are drawn uniformly below it (paper equation 7).

    Raises:
        DwmError: a clip or its prompt is not encoded, or its files are damaged.
    """
    import torch

    conditioning = get_conditioning(config.conditioning)
    loaded: list[Batch] = []
    noises: list[torch.Tensor] = []
    times: list[torch.Tensor] = []
    for (clip_id, prompt), position in zip(clips, positions, strict=True):
        generator = torch.Generator().manual_seed(stable_seed("clip", config.seed, position))
        interaction, conditions = conditioning.example(store, clip_id, generator)
        prompt_draw, hand_draw = torch.rand(2, generator=generator).tolist()
        if hand_draw < config.hand_dropout:
            conditions = conditions.without_hands()
        elif conditions.has_hands and hand_draw < config.hand_dropout + config.navigation_share:
            interaction, conditions = conditions.static_bcfhw, conditions.without_hands()
        text = store.prompt_embedding("" if prompt_draw < config.prompt_dropout else prompt)[None]
        loaded.append(Batch(interaction, conditions, text))
        noises.append(torch.randn(interaction.transpose(1, 2).shape, generator=generator))
        times.append(torch.randint(0, timesteps, (1,), generator=generator))
    return TrainingBatch(Batch.concatenate(loaded), torch.cat(noises), torch.cat(times))


def load_validation_clip(store: LatentStore, clip_id: str, prompt: str, conditioning_name: str) -> Batch:
    """Load one clip with its posterior means: nothing random."""
    interaction, conditions = get_conditioning(conditioning_name).example(store, clip_id)
    return Batch(
        interaction_bcfhw=interaction,
        conditions=conditions,
        text_bld=store.prompt_embedding(prompt)[None],
    )
