"""Sampling: from the conditions of a clip to the interaction video (paper section 3.2).

Classifier-free guidance weighs the text only: both branches see the static scene and the hands. The conditions are the
means of their posteriors and the initial noise follows from clip and seed alone, so that a video does not depend on
what was generated before it or with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_conditioning import TEXT_ONLY
from dwm_model.base_model import BaseDescription, default_device, load_base
from dwm_model.base_model import BaseModel as DiffusionBase
from dwm_model.checkpoints import RunIdentity, checkpoint_steps, load_weights, read_identity
from dwm_model.condition_data import ConditionBatch, conditions_from_files
from dwm_model.conditioning import Conditioning
from dwm_model.denoiser import Denoiser, make_denoiser
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import LatentStore, encode_frames
from dwm_model.prompts import embed_prompt
from dwm_model.schedules import kept_steps
from manifests.errors import DwmError
from manifests.hashing import short_id
from render.video import Frames

if TYPE_CHECKING:
    import torch


class SamplerConfig(BaseModel):
    """Settings of the sampler that a video depends on, with the paper's values as defaults (section 4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_inference_steps: int = Field(default=50, description="Denoising steps; 4 to 8 give a quick look.", gt=0)
    guidance_scale: float = Field(default=6.0, description="Weight of the text; 1 turns guidance off.", ge=1)
    use_text: bool = Field(default=True, description="Whether the prompt is used, or the empty one (Appendix E).")
    use_hands: bool = Field(default=True, description="Whether the hands are used, or none: navigation only.")
    strength: float = Field(
        default=1.0,
        description="Below 1, start from the static video noised this far and do this share of the steps (SDEdit).",
        gt=0,
        le=1,
    )
    use_average: bool = Field(
        default=False, description="Whether the moving average of the weights is used, of a run with ema_decay."
    )


class SamplerOptions(BaseModel):
    """How the sampler works, which changes memory and speed and not what a video shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=1, description="Videos of one clip that are denoised together.", gt=0)
    vae_tiling: bool = Field(default=False, description="Decode and encode in overlapping tiles: less memory.")
    vae_slicing: bool = Field(default=False, description="Decode and encode video by video.")
    offload: bool = Field(default=False, description="Keep each part on the GPU only while it works.")


def require_base_of_run(base: BaseDescription, run_folder: Path) -> None:
    """Refuse a base that a run was not trained on.

    Raises:
        DwmError: no run there, or it was trained on another base.
    """
    identity = read_identity(run_folder)
    if base.base_hash != identity.base_hash:
        raise DwmError(
            f"{run_folder}: trained on base {identity.base_name} ({identity.base_hash[:8]}), not on {base.path} "
            f"({base.base_hash[:8]}); give the base that it was trained on"
        )


def require_average(run_folder: Path, identity: RunIdentity) -> None:
    """Refuse a run that kept no moving average of its weights.

    Raises:
        DwmError: it was trained without ``ema_decay``.
    """
    if identity.config.ema_decay is None:
        raise DwmError(f"{run_folder}: kept no moving average of its weights; train with ema_decay, or do without it")


class Sampler:
    """A base model with the weights of a training run; make it with `from_run`, or with `from_base` for SDEdit.

    Attributes:
        base: the base model.
        geometry: size and length of the videos, those of the run.
        run_id: the run; None without one.
        checkpoint_step: step of the weights; None without a run.
        uses_average: the weights are their moving average.
    """

    def __init__(
        self,
        base: DiffusionBase,
        denoiser: Denoiser,
        geometry: ClipGeometry,
        *,
        run_id: str | None = None,
        checkpoint_step: int | None = None,
        uses_average: bool = False,
        store: LatentStore | None = None,
        options: SamplerOptions | None = None,
    ) -> None:
        self.base = base
        self.geometry = geometry
        self.run_id = run_id
        self.checkpoint_step = checkpoint_step
        self.uses_average = uses_average
        self.options = options or SamplerOptions()
        self._denoiser = denoiser
        self._store = store
        base.tile_autoencoder(tiling=self.options.vae_tiling, slicing=self.options.vae_slicing)

    @classmethod
    def from_run(
        cls,
        base_path: Path,
        run_folder: Path,
        checkpoint_step: int | None = None,
        *,
        use_average: bool = False,
        store: LatentStore | None = None,
        options: SamplerOptions | None = None,
    ) -> Sampler:
        """Load a base and the weights of a run's checkpoint.

        Args:
            base_path: base model that the run was trained on.
            run_folder: folder of the run.
            checkpoint_step: step of the checkpoint; the newest when None.
            use_average: take the moving average of the weights.
            store: where prompt embeddings are looked up before the text encoder is loaded.
            options: batch size and memory.

        Raises:
            DwmError: no run, no such checkpoint, the run was trained on another base, or kept no average.
        """
        import torch

        identity = read_identity(run_folder)
        if use_average:
            require_average(run_folder, identity)
        step = choose_checkpoint(run_folder, checkpoint_step)
        base = _open_base(base_path, options)
        require_base_of_run(base.description, run_folder)
        autocast = torch.bfloat16 if base.dtype == torch.bfloat16 else None
        denoiser = make_denoiser(base, identity.config.conditioning, autocast)
        load_weights(run_folder, step, denoiser.transformer, identity.config, averaged=use_average)
        denoiser.transformer.eval().requires_grad_(requires_grad=False)
        return cls(
            base,
            denoiser,
            identity.config.geometry,
            run_id=identity.run_id,
            checkpoint_step=step,
            uses_average=use_average,
            store=store,
            options=options,
        )

    @classmethod
    def from_base(
        cls,
        base_path: Path,
        geometry: ClipGeometry,
        conditioning: Conditioning = TEXT_ONLY,
        *,
        store: LatentStore | None = None,
        options: SamplerOptions | None = None,
    ) -> Sampler:
        """Load a base alone, told of nothing but the text (what SDEdit edits the static video with), or otherwise.

        Raises:
            DwmError: the base is missing or incomplete.
        """
        base = _open_base(base_path, options)
        return cls(base, make_denoiser(base, conditioning), geometry, store=store, options=options)

    def load_conditions(self, store: LatentStore, clip_id: str) -> ConditionBatch:
        """Conditions of a clip of a dataset: the means of its cached posteriors, its poses.

        Raises:
            DwmError: the clip is not encoded, or lacks what the run's conditioning needs.
        """
        return self._denoiser.conditioning.load(store, [clip_id])

    def encode_conditions(self, static: Frames, hands: Frames | None, poses: Path | None = None) -> ConditionBatch:
        """Conditions from videos that are in no dataset, uint8 RGB [T, H, W, 3] of the run's geometry.

        Args:
            static: static-scene video.
            hands: hand-mesh video; None for no hands.
            poses: npz file of the ``hand_motion_path`` form, for runs that take poses.

        Raises:
            DwmError: a video has another size or length, or the run needs poses and none are given.
        """
        expected = [self.geometry.num_frames, self.geometry.height, self.geometry.width, 3]
        for video in (static,) if hands is None else (static, hands):
            if list(video.shape) != expected:
                raise DwmError(f"video of {list(video.shape)}: the run needs {expected}; resize or cut it first")
        return conditions_from_files(self._denoiser.conditioning.hand_data, self._encode, static, hands, poses)

    def generate(
        self,
        conditions: ConditionBatch,
        prompt: str,
        seeds: Sequence[int],
        config: SamplerConfig | None = None,
        *,
        clip_id: str = "",
        on_step: Callable[[int], None] = lambda _: None,
    ) -> list[Frames]:
        """Generate interaction videos of one clip, one a seed; the conditions are prepared once.

        Args:
            conditions: what is known of the clip, a batch of one.
            prompt: text prompt.
            seeds: another seed gives another video.
            config: settings; the paper's when None.
            clip_id: goes into the initial noise beside the seed.
            on_step: told the number of video steps done, of ``len(seeds)`` times the steps of a video.

        Returns:
            uint8 RGB [T, H, W, 3] a seed. A seed's video is the same on the same machine whatever was generated before
            it; with other seeds in its batch (``options.batch_size``) matrix products are rounded in another order.

        Raises:
            DwmError: a latent has another size than the run's, the sampler was loaded with other weights than
                ``config.use_average`` says, or the network gives values that are not finite.
        """
        config = config or SamplerConfig(use_average=self.uses_average)
        if config.use_average != self.uses_average:
            raise DwmError(
                f"run {self.run_id}: use_average is {config.use_average}, the sampler's weights were loaded with "
                f"{self.uses_average}; load it with the same"
            )
        self._check_size(conditions)
        if not config.use_hands:
            conditions = conditions.without_hands()
        texts = self._texts(prompt if config.use_text else "", config)
        videos: list[Frames] = []
        for start in range(0, len(seeds), self.options.batch_size):
            batch = list(seeds[start : start + self.options.batch_size])
            latents = self._denoise(conditions, texts, clip_id, batch, config, on_step=on_step, done=start)
            videos.extend(self._decode(latents))
        return videos

    def num_steps(self, config: SamplerConfig) -> int:
        """Network steps of one video."""
        return kept_steps(config.num_inference_steps, config.strength)

    def _denoise(
        self,
        conditions: ConditionBatch,
        texts_bld: torch.Tensor,
        clip_id: str,
        seeds: list[int],
        config: SamplerConfig,
        *,
        on_step: Callable[[int], None],
        done: int,
    ) -> torch.Tensor:
        """Run the solver from noise to clean, scaled latents [B, F, C, H, W]; ``done`` videos are finished already."""
        import torch

        with self.base.placed("transformer"), torch.inference_mode():
            denoiser = self._denoiser
            solver = denoiser.schedule.solver(config.num_inference_steps, config.strength, denoiser.device)
            branches = len(texts_bld)
            known = denoiser.conditions(conditions.expand(len(seeds)))
            noise = torch.cat([self._noise(known.static_bfchw, clip_id, seed) for seed in seeds])
            latents = solver.start(noise, known.static_bfchw if config.strength < 1.0 else None)
            known, texts = known.repeat(branches), texts_bld.to(denoiser.device).repeat_interleave(len(seeds), dim=0)
            for index, timestep in enumerate(solver.timesteps):
                timesteps = timestep.expand(branches * len(seeds))
                velocity = denoiser.predict(latents.repeat(branches, 1, 1, 1, 1), known, texts, timesteps)
                if branches == 2:
                    without_text, with_text = velocity.chunk(2)
                    velocity = without_text + config.guidance_scale * (with_text - without_text)
                latents = solver.step(index, velocity, latents)
                on_step(done * len(solver.timesteps) + (index + 1) * len(seeds))
        if not bool(torch.isfinite(latents).all()):
            raise DwmError(
                f"run {self.run_id}, step {self.checkpoint_step}: gave values that are not finite; train again"
            )
        return latents

    def _noise(self, like_bfchw: torch.Tensor, clip_id: str, seed: int) -> torch.Tensor:
        import torch

        noise = torch.randn((1, *like_bfchw.shape[1:]), generator=noise_generator(clip_id, seed))
        return noise.to(like_bfchw.device)

    def _texts(self, prompt: str, config: SamplerConfig) -> torch.Tensor:
        """Embeddings [B, tokens, dim]: the empty prompt and the prompt, or the prompt alone without guidance."""
        import torch

        is_guided = config.guidance_scale > 1.0 and prompt != ""  # guiding the empty prompt by itself changes nothing
        prompts = ["", prompt] if is_guided else [prompt]
        embedded = []
        for text in prompts:
            cached = self._store.cached_prompt_embedding(text) if self._store else None
            if cached is None:
                with self.base.placed("text_encoder"):
                    cached = embed_prompt(self.base, text)
            embedded.append(cached)
        return torch.stack(embedded)

    def _encode(self, videos: Sequence[Frames]) -> torch.Tensor:
        import torch

        with self.base.placed("vae"):
            return encode_frames(self.base, videos).to(torch.float16).float()  # as the cache stores them

    def _decode(self, latents_bfchw: torch.Tensor) -> list[Frames]:
        """One video after another: less memory, and the same whatever the batch."""
        with self.base.placed("vae"):
            return [
                decode_frames(self.base, self._denoiser.scaling.to_autoencoder(latents[None]))[0]
                for latents in latents_bfchw
            ]

    def _check_size(self, conditions: ConditionBatch) -> None:
        description = self.base.description
        size = (self.geometry.latent_frames(description), *self.geometry.latent_size(description))
        expected = [1, description.latent_channels, *size]
        for latents in (conditions.static_bcfhw, conditions.hands_bcfhw):
            if latents is not None and list(latents.shape) != expected:
                raise DwmError(
                    f"latents of {list(latents.shape)}: the run needs {expected} ({self.geometry}); encode at that size"
                )


def _open_base(base_path: Path, options: SamplerOptions | None) -> DiffusionBase:
    """Open a base where sampling takes place, bfloat16 on a GPU."""
    import torch

    device = default_device()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return load_base(base_path, device=device, dtype=dtype, offload=options is not None and options.offload)


def choose_checkpoint(run_folder: Path, step: int | None) -> int:
    """The given step, or the newest of a run.

    Raises:
        DwmError: the run has no checkpoint, or none of this step.
    """
    steps = checkpoint_steps(run_folder)
    if not steps:
        raise DwmError(f"{run_folder}: has no checkpoint yet; continue its training")
    if step is not None and step not in steps:
        raise DwmError(f"{run_folder}: no checkpoint at step {step}; there are {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def noise_generator(clip_id: str, seed: int) -> torch.Generator:
    """Source of a video's initial noise: depends on clip and seed, not on order or batch."""
    import torch

    return torch.Generator().manual_seed(int(short_id(clip_id, seed)[:15], 16))


def decode_frames(base: DiffusionBase, latents_bcfhw: torch.Tensor) -> Frames:
    """Decode unscaled latents [B, C, F, H, W] to uint8 RGB [B, T, H, W, 3], T = temporal ratio * (F - 1) + 1."""
    import torch

    with torch.inference_mode():
        pixels = base.vae.decode(latents_bcfhw.to(base.device, base.dtype)).sample
    scaled: Any = ((pixels.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    frames: Frames = np.ascontiguousarray(scaled.permute(0, 2, 3, 4, 1).cpu().numpy())
    return frames
