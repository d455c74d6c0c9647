"""Settings of a reconstruction and the profiles that ship: ``paper`` for a GPU, ``aria_mini`` for two CPU cores."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import UsageError


class LearningRates(BaseModel):
    """Adam's learning rates (those of 3D Gaussian Splatting, as gsplat's trainer has them)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    means: float = Field(default=1.6e-4, description="Of the centres, times the scene's scale, at the first step.")
    means_last: float = Field(default=0.01, description="Share of it that is left at the last step (exponential).")
    scales: float = Field(default=5e-3, description="Of the logarithms of the sizes.")
    quats: float = Field(default=1e-3, description="Of the rotations.")
    opacities: float = Field(default=5e-2, description="Of the opacities' logits.")
    sh_constant: float = Field(default=2.5e-3, description="Of the constant spherical harmonic.")
    sh_others: float = Field(default=1.25e-4, description="Of the other harmonics.")


class Densification(BaseModel):
    """How Gaussians are added and removed: gsplat's strategies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["default", "mcmc"] = Field(
        default="default", description="`default`: split and prune by gradients; `mcmc`: relocate (CUDA only)."
    )
    start: int = Field(default=500, description="First step that may add or remove.", ge=0)
    stop: int = Field(default=15_000, description="No step from here on does.", ge=0)
    every: int = Field(default=100, description="Steps between.", gt=0)
    reset_every: int = Field(
        default=3000, description="Steps between resets of the opacities (default strategy).", gt=0
    )
    gradient: float = Field(default=2e-4, description="Image gradient beyond which a Gaussian is split.", gt=0)
    max_gaussians: int = Field(default=1_000_000, description="No Gaussians are added at or beyond this number.", gt=0)


class ReconstructionSettings(BaseModel):
    """How to fit a scene to posed images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(description="Width of the images, pixels.", gt=0)
    height: int = Field(description="Height of the images, pixels.", gt=0)
    steps: int = Field(description="Optimizer steps, one image each.", gt=0)
    device: Literal["cpu", "cuda"] = Field(description="Where to compute.")
    seed: int = Field(default=0, description="Seed of the order of images and of the densification.", ge=0)
    threads: int | None = Field(default=None, description="CPU threads; as many as torch uses when null.", ge=1)
    sh_degree: int = Field(default=3, description="Highest degree of the spherical harmonics.", ge=0, le=4)
    sh_every: int = Field(default=1000, description="Steps after which the next degree joins.", gt=0)
    initial_opacity: float = Field(default=0.1, description="Opacity of the first Gaussians.", gt=0, lt=1)
    initial_scale: float = Field(default=1.0, description="Their size in mean distances to three neighbours.", gt=0)
    max_points: int = Field(default=500_000, description="More points than these are thinned out at random.", ge=2)
    structure_weight: float = Field(default=0.2, description="Share of D-SSIM in the loss; the rest is L1.", ge=0, le=1)
    opacity_weight: float = Field(default=0.0, description="Weight of the mean opacity in the loss (MCMC).", ge=0)
    scale_weight: float = Field(default=0.0, description="Weight of the mean size in the loss (MCMC), 1 / metre.", ge=0)
    fit_exposure: bool = Field(default=True, description="Fit a gain to each frame and colour channel.")
    exposure_start: int = Field(default=500, description="First step that moves gains.", ge=0)
    exposure_rate: float = Field(default=0.2, description="Share of the way that a visit moves a gain.", gt=0, le=1)
    exposure_ridge: float = Field(
        default=0.02, description="Pull of each gain to 1, as a share of the image's energy.", ge=0
    )
    held_out_every: int = Field(default=8, description="Every n-th frame is only measured; 0 for none.", ge=0)
    evaluate_every: int = Field(default=5000, description="Steps between measurements on held-out frames.", gt=0)
    checkpoint_every: int = Field(default=2000, description="Steps between checkpoints.", gt=0)
    rates: LearningRates = Field(default_factory=LearningRates, description="Learning rates.")
    densification: Densification = Field(default_factory=Densification, description="Adding and removing.")


RECONSTRUCTION_PROFILES: dict[str, ReconstructionSettings] = {
    "paper": ReconstructionSettings(width=1024, height=1024, steps=30_000, device="cuda"),
    "aria_mini": ReconstructionSettings(
        width=180,
        height=120,
        steps=2000,
        device="cpu",
        sh_degree=1,
        sh_every=800,
        initial_opacity=0.5,
        max_points=12_000,
        exposure_start=300,
        evaluate_every=1000,
        checkpoint_every=500,
        rates=LearningRates(means=3.2e-4, scales=1e-2, quats=2e-3, sh_constant=5e-3, sh_others=5e-4),
        densification=Densification(
            start=300, stop=1300, every=100, reset_every=1_000_000, gradient=4e-4, max_gaussians=20_000
        ),
    ),
}
"""The settings that ship with the project, by name."""


def get_reconstruction_profile(name: str) -> ReconstructionSettings:
    """Look settings up by their name.

    Raises:
        UsageError: no such profile.
    """
    if name not in RECONSTRUCTION_PROFILES:
        raise UsageError(
            f"reconstruction profile '{name}': unknown; choose one of {', '.join(RECONSTRUCTION_PROFILES)}"
        )
    return RECONSTRUCTION_PROFILES[name]
