"""The small video autoencoder: stock `AutoencoderKLCogVideoX`, x4 in time and x8 in space, 16 latent channels.

Trained at its defaults it would need days. What makes minutes enough: the encoder is drawn to the principal components
of patches (`patch_pca`), single frames come before videos, and the spatial norms begin as plain ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.families import LATENT_CHANNELS

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKLCogVideoX

_NARROW = 32
"""Channels up to which a convolution that changes their number computes in float32, see `compute_in_bfloat16`."""


class VaePhase(BaseModel):
    """A part of the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(description="Frames of a piece of video: 1, 9 or 17.", gt=0)
    batch_size: int = Field(description="Pieces a step.", gt=0)
    steps: int = Field(description="Optimizer steps.", gt=0)
    anchor: float = Field(description="Weight of the distance between latents and principal components.", ge=0)


class VaeSettings(BaseModel):
    """Size and training of the small autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: tuple[int, int, int, int] = Field(default=(16, 32, 64, 96), description="Channels of the four levels.")
    layers_per_block: int = Field(default=1, description="Residual layers a level of the encoder.", gt=0)
    norm_groups: int = Field(default=2, description="Groups of the norms.", gt=0)
    log_variance: float = Field(default=-6.0, description="Log-variance of the posterior, the same everywhere.")
    whitening: float = Field(default=0.5, description="See `patch_pca.fit_patch_pca`.", ge=0, le=1)
    pca_clips: int = Field(default=200, description="Clips that the principal components are fitted to.", gt=0)
    phases: tuple[VaePhase, ...] = Field(
        default=(
            VaePhase(frames=1, batch_size=16, steps=700, anchor=1.0),
            VaePhase(frames=9, batch_size=4, steps=200, anchor=0.1),
            VaePhase(frames=9, batch_size=4, steps=1300, anchor=1.0),
            VaePhase(frames=17, batch_size=2, steps=1400, anchor=0.1),
        ),
        description="From single frames to whole clips.",
    )
    only_decoder: bool = Field(
        default=False, description="Leave the encoder as it is, so that latents encoded with it stay valid."
    )
    interaction_share: float = Field(default=0.6, description="Share of pieces from interaction videos.", ge=0, le=1)
    static_share: float = Field(
        default=0.25, description="Share of pieces from static videos; the rest shows hands.", ge=0, le=1
    )
    learning_rate: float = Field(default=2e-3, description="Peak rate; a cosine takes it to zero.", gt=0)
    warmup_steps: int = Field(default=50, description="Steps of linear warm-up.", ge=0)
    max_grad_norm: float = Field(default=1.0, description="Gradients are scaled down to this norm.", gt=0)
    precision: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="Arithmetic of convolutions.")
    seed: int = Field(default=0, description="Seed of weights, pieces and posterior samples.")
    checkpoint_every: int = Field(default=100, description="Steps between checkpoints.", gt=0)

    @property
    def max_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> VaePhase:
        """Phase of optimizer step ``step`` (from 1)."""
        before = 0
        for phase in self.phases:
            before += phase.steps
            if step <= before:
                return phase
        raise ValueError(f"step {step} is beyond the last, {self.max_steps}")


VAE_STAGES = (
    VaeSettings(),
    VaeSettings(
        phases=(
            VaePhase(frames=9, batch_size=4, steps=1500, anchor=0.0),
            VaePhase(frames=17, batch_size=2, steps=500, anchor=0.0),
        ),
        only_decoder=True,
        learning_rate=1.5e-3,
    ),
)
"""First the whole, then the decoder alone, while a transformer may already learn. The first stage of the autoencoder
that ships was stopped 400 steps before its end."""


def make_vae(settings: VaeSettings) -> AutoencoderKLCogVideoX:
    """An untrained autoencoder that is ready to learn fast.

    Spatial norms begin as plain norms (factor 1, small dependence on the latent), and the posterior's log-variance is a
    constant.
    """
    import torch
    from diffusers import AutoencoderKLCogVideoX
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSpatialNorm3D

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        vae = AutoencoderKLCogVideoX(
            block_out_channels=settings.widths,
            latent_channels=LATENT_CHANNELS,
            layers_per_block=settings.layers_per_block,
            norm_num_groups=settings.norm_groups,
            temporal_compression_ratio=4,
            sample_height=64,
            sample_width=96,
            scaling_factor=1.0,
        )
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, CogVideoXSpatialNorm3D):
                module.conv_y.conv.weight.mul_(0.1)
                module.conv_y.conv.bias.fill_(1.0)
                module.conv_b.conv.weight.mul_(0.1)
                module.conv_b.conv.bias.zero_()
        last = vae.encoder.conv_out.conv
        last.weight[LATENT_CHANNELS:] = 0.0
        last.bias[LATENT_CHANNELS:] = settings.log_variance
    return vae


def freeze_log_variance(vae: AutoencoderKLCogVideoX) -> None:
    """Forget the gradient of the posterior's log-variance, so that it stays constant."""
    for parameter in vae.encoder.conv_out.conv.parameters():
        if parameter.grad is not None:
            parameter.grad[LATENT_CHANNELS:] = 0.0


def compute_in_bfloat16(vae: AutoencoderKLCogVideoX) -> None:
    """Prepare an autoencoder for training under bfloat16 autocast on the CPU, where it is 1.7 times as fast.

    Kernels are laid out with channels last. Narrow convolutions that change the number of channels keep computing in
    float32: torch 2.13 writes beyond its buffers in the backward pass of some of them (16 and 32 channels, 3 x 3 x 3).
    """
    import torch
    from torch import nn

    for module in vae.modules():
        if not isinstance(module, nn.Conv3d):
            continue
        module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        inside, outside = module.in_channels, module.out_channels
        if inside != outside and min(inside, outside) <= _NARROW and module.kernel_size[0] > 1:
            setattr(module, "forward", _in_float32(module.forward))  # noqa: B010 - a method of one object


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same without autocast."""
    import torch

    def call(values: torch.Tensor) -> torch.Tensor:
        with torch.autocast(values.device.type, enabled=False):
            return forward(values.float())

    return call


def reconstruct(vae: AutoencoderKLCogVideoX, videos_bcthw: torch.Tensor) -> torch.Tensor:
    """Videos through encoder and decoder, by the posterior's mean, [B, 3, T, H, W]."""
    decoded: torch.Tensor = vae.decode(vae.encode(videos_bcthw).latent_dist.mean, return_dict=False)[0]
    return decoded
