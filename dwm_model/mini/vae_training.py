"""Training of the small autoencoder: resumes exactly from its newest checkpoint, stops when its time is over."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dwm_model.clip_order import stable_seed
from dwm_model.latent_shards import VideoRole
from dwm_model.mini.patch_pca import PatchPca, fit_patch_pca
from dwm_model.mini.vae import VaeSettings, compute_in_bfloat16, freeze_log_variance, make_vae, reconstruct
from dwm_model.mini.videos import VideoSet, draw_crops
from dwm_model.run_log import Journal, Record
from dwm_model.safe_writes import safetensors_errors_as_os_errors
from manifests.atomic import atomic_path, make_folder
from manifests.errors import DwmError
from manifests.hashing import hash_config

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKLCogVideoX

logger = logging.getLogger(__name__)

CHECKPOINT_FILE, LOSSES_FILE = "checkpoint.safetensors", "losses.jsonl"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_EVALUATION_BATCH = 4


class VaeRecord(Record):
    """A training step."""

    error: float = Field(description="Mean squared error of the pixels, which are in [-1, 1].")
    anchor: float = Field(description="Mean squared distance of the latents to principal components; 0 unused.")
    seconds: float = Field(description="CPU seconds of the step.")


class VaeTrainer:
    """An autoencoder that learns from videos.

    Args:
        settings: size and training.
        videos: training clips.
        folder: checkpoint and journal; what is there is continued.
        start: weights to begin with, of the same size; fresh ones when None.

    Raises:
        DwmError: the folder holds a training with other settings, or its checkpoint is damaged.
    """

    def __init__(
        self, settings: VaeSettings, videos: VideoSet, folder: Path, start: AutoencoderKLCogVideoX | None = None
    ) -> None:
        import torch

        make_folder(folder)
        self.settings, self.videos, self.folder = settings, videos, folder
        self.step = 0
        self.vae = make_vae(settings).train()
        if start is not None:
            self.vae.load_state_dict(start.state_dict())
        if settings.precision == "bfloat16":
            compute_in_bfloat16(self.vae)
        self._named = dict(self.vae.named_parameters())
        self._learned = {
            name: parameter
            for name, parameter in self._named.items()
            if name.startswith("decoder.") or not settings.only_decoder
        }
        self._optimizer: Any = torch.optim.Adam(
            list(self._learned.values()), lr=settings.learning_rate, betas=(0.9, 0.99)
        )
        self.journal = Journal(folder / LOSSES_FILE, VaeRecord)
        self._restore()
        self.began_at = self.step  # of this object: what was there when the folder was opened
        self.journal.cut_after(self.step)

    @cached_property
    def pca(self) -> PatchPca:
        """What the encoder is drawn to; fitted when training first asks for it."""
        return fit_clips_pca(self.settings, self.videos)

    @property
    def is_complete(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.max_steps

    def run(self, seconds: float | None = None) -> None:
        """Train to the last step, or for so long and at least one step; a checkpoint is written then."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.is_complete:
            self._train_step()
            is_over = deadline is not None and time.monotonic() > deadline
            if is_over or self.is_complete or self.step % self.settings.checkpoint_every == 0:
                self._save()
            if is_over:
                return

    def _train_step(self) -> None:
        import torch

        settings, step = self.settings, self.step + 1
        began = time.process_time()
        phase = settings.phase_at(step)
        hands_share = 1.0 - settings.interaction_share - settings.static_share
        shares = {
            VideoRole.INTERACTION: settings.interaction_share,
            VideoRole.STATIC: settings.static_share,
            VideoRole.HANDS: hands_share,
        }
        seed = stable_seed("vae", settings.seed, step)
        crops = draw_crops(self.videos, shares, phase.frames, phase.batch_size, seed)
        pixels = self.videos.batch(crops).contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            with torch.set_grad_enabled(not settings.only_decoder):
                mean = self.vae.encode(pixels).latent_dist.mean
            noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
            sample = mean + noise * math.exp(0.5 * settings.log_variance)
            decoded = self.vae.decode(sample, return_dict=False)[0]
        error = (decoded.float() - pixels).square().mean()
        anchor = torch.zeros(()) if phase.anchor == 0 else (mean.float() - self.pca.encode(pixels)).square().mean()
        (error + phase.anchor * anchor).backward()
        freeze_log_variance(self.vae)
        torch.nn.utils.clip_grad_norm_(list(self._learned.values()), settings.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(settings, step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step = step
        seconds = round(time.process_time() - began, 3)
        self.journal.append(VaeRecord(step=step, error=error.item(), anchor=anchor.item(), seconds=seconds))

    def _save(self) -> None:
        from safetensors.torch import save_file

        tensors = {f"weight.{name}": parameter.detach().contiguous() for name, parameter in self._named.items()}
        for name, parameter in self._learned.items():
            for moment in _MOMENTS:
                tensors[f"{moment}.{name}"] = self._optimizer.state[parameter][moment].contiguous()
        self.journal.flush_to_disk()
        metadata = {"step": str(self.step), "settings": hash_config(self.settings)}
        with atomic_path(self.folder / CHECKPOINT_FILE) as temporary, safetensors_errors_as_os_errors():
            save_file(tensors, temporary, metadata)

    def _restore(self) -> None:
        import torch
        from safetensors import SafetensorError, safe_open

        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata()
                if metadata["settings"] != hash_config(self.settings):
                    raise DwmError(f"{path}: was made with other settings; train in another folder")
                step = int(metadata["step"])
                with torch.no_grad():
                    for name, parameter in self._named.items():
                        parameter.copy_(opened.get_tensor(f"weight.{name}"))
                    for name, parameter in self._learned.items():
                        state = {
                            moment: torch.empty_like(parameter).copy_(opened.get_tensor(f"{moment}.{name}"))
                            for moment in _MOMENTS
                        }
                        self._optimizer.state[parameter] = {"step": torch.tensor(float(step)), **state}
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DwmError(f"{path}: damaged ({error}); remove it to begin again") from error
        self.step = step
        logger.info("autoencoder: continuing from step %d", step)


def train_stages(
    stages: Sequence[VaeSettings], videos: VideoSet, folder: Path, seconds: float | None = None
) -> VaeTrainer:
    """Train all stages, or for so long and at least one step; each begins where the one before ended.

    Args:
        stages: settings of one size, at least one.
        videos: training clips.
        folder: has a folder for each stage; what is finished there is only opened.
        seconds: when to stop; None trains to the end.

    Returns:
        The training that was reached; complete only if it is the last.

    Raises:
        DwmError: as `VaeTrainer`.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    start = None
    for number, settings in enumerate(stages, 1):
        trainer = VaeTrainer(settings, videos, folder / f"stage_{number}", start=start)
        if not trainer.is_complete:
            trainer.run(None if deadline is None else deadline - time.monotonic())
        if not trainer.is_complete:
            break
        start = trainer.vae
    return trainer


def learning_rate_at(settings: VaeSettings, step: int) -> float:
    """Rate of a step (from 1): linear warm-up, then a cosine to zero."""
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.max_steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def fit_clips_pca(settings: VaeSettings, videos: VideoSet) -> PatchPca:
    """Principal components of interaction and static videos of evenly spread clips."""
    import torch

    roles = cycle((VideoRole.INTERACTION, VideoRole.INTERACTION, VideoRole.STATIC))
    whole = videos.whole(VideoRole.INTERACTION, settings.pca_clips)
    crops = [replace(crop, role=role) for crop, role in zip(whole, roles, strict=False)]
    return fit_patch_pca(torch.cat([videos.batch([crop]) for crop in crops]), 16, settings.whitening)


def reconstruction_psnr(
    model: AutoencoderKLCogVideoX | PatchPca, videos: VideoSet, role: VideoRole, limit: int | None = None
) -> float:
    """Mean PSNR over clips of whole videos through an autoencoder, dB, of 8-bit pixels as they would be written.

    Args:
        model: an autoencoder, or the linear yardstick.
        videos: clips.
        role: which of their videos.
        limit: evenly spread clips; all when None.
    """
    import torch

    chosen = videos.whole(role, limit)
    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(chosen), _EVALUATION_BATCH):
            truth = videos.batch(chosen[start : start + _EVALUATION_BATCH])
            again = model.decode(model.encode(truth)) if isinstance(model, PatchPca) else reconstruct(model, truth)
            difference = (to_bytes(again) - to_bytes(truth)).square().flatten(1).mean(dim=1)
            found += (10.0 * torch.log10(255.0**2 / difference.clamp_min(1e-3))).tolist()
    return sum(found) / len(found)


def to_bytes(videos: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1] as the whole numbers 0-255, float."""
    return ((videos.float() + 1.0) * 127.5).round().clamp(0, 255)
