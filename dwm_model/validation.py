"""Validation loss: fixed clips, fixed noise, fixed timesteps, so that two values differ only by the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dwm_model.clip_order import stable_seed
from dwm_model.latents import LatentStore
from dwm_model.ranks import Ranks
from dwm_model.train_config import TrainConfig
from dwm_model.training_data import TrainingBatch, load_validation_clip

if TYPE_CHECKING:
    import torch


def validation_loss(
    losses: Callable[[TrainingBatch], torch.Tensor],
    store: LatentStore,
    clips: dict[str, str],
    config: TrainConfig,
    ranks: Ranks,
    *,
    num_timesteps: int,
) -> float | None:
    """Mean velocity error over clips and timesteps, with the live network and posterior means.

    The timesteps lie in the middles of equal parts of the schedule; the noise of each clip and timestep comes from the
    run's seed and the clip's id. The training's randomness is not touched. The ranks take the clips in turn; one that
    has no clip left does another's once more and forgets it, since a sharded network needs all of them.

    Args:
        losses: the live network's loss of each clip of a batch.
        store: cached latents.
        clips: prompt of each validation clip.
        config: seed, number of timesteps, batch size.
        ranks: the processes; all call this.
        num_timesteps: training timesteps of the schedule.

    Returns:
        The loss, the same in every process; None without validation clips.

    Raises:
        DwmError: a clip cannot be read.
    """
    import torch

    if not clips:
        return None
    ids = sorted(clips)
    rounds = -(-len(ids) // ranks.count)
    mine = [ids[(turn * ranks.count + ranks.rank) % len(ids)] for turn in range(rounds)]
    found: list[float] = []
    for clip_id in mine:
        parts = ranks.all_do(lambda: _parts(store, clip_id, clips[clip_id], num_timesteps, config))  # noqa: B023 - now
        with torch.no_grad():
            errors = torch.cat([losses(part).cpu() for part in parts])
        found.append(float(errors.double().mean()))
    everything = [one for turn in zip(*ranks.gather(found), strict=True) for one in turn]
    return float(torch.tensor(everything[: len(ids)], dtype=torch.float64).mean())


def _parts(
    store: LatentStore, clip_id: str, prompt: str, num_timesteps: int, config: TrainConfig
) -> list[TrainingBatch]:
    """A clip at several timesteps, in batches of the size that training has memory for."""
    import torch

    clip = load_validation_clip(store, clip_id, prompt, config.conditioning)
    count = config.num_validation_timesteps
    timesteps = torch.tensor([int((index + 0.5) * num_timesteps / count) for index in range(count)])
    generator = torch.Generator().manual_seed(stable_seed("validation", config.seed, clip_id))
    noise = torch.randn((count, *clip.interaction_bcfhw.shape[1:]), generator=generator).transpose(1, 2)
    parts = (slice(start, start + config.batch_size) for start in range(0, count, config.batch_size))
    return [TrainingBatch(clip.expand(len(timesteps[part])), noise[part], timesteps[part]) for part in parts]
