"""Principal components of video patches in the geometry of CogVideoX latents: a linear autoencoder.

It is the yardstick for the small autoencoder and its first teacher. A latent frame is the first frame alone or four
frames; a cell is 8 x 8 pixels of it. Both kinds of patch share one basis: the first frame counts as four equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FRAMES, SIDE = 4, 8
"""Frames and pixels a side of a patch."""


@dataclass(frozen=True)
class PatchPca:
    """A linear autoencoder of patches.

    Attributes:
        mean: mean patch, [3 * 4 * 8 * 8].
        basis: orthonormal components, largest variance first, [C, 3 * 4 * 8 * 8].
        scale: what each component is divided by, [C].
    """

    mean: torch.Tensor
    basis: torch.Tensor
    scale: torch.Tensor

    def encode(self, videos_bcthw: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, F, H/8, W/8] of videos [B, 3, T, H, W] in [-1, 1], T = 4 (F - 1) + 1."""
        patches = _patches(videos_bcthw)
        coordinates = (patches - self.mean) @ self.basis.T / self.scale
        return coordinates.movedim(-1, 1)

    def decode(self, latents_bcfhw: torch.Tensor) -> torch.Tensor:
        """Videos [B, 3, T, H, W] of latents."""
        coordinates = latents_bcfhw.movedim(1, -1) * self.scale
        return _videos(coordinates @ self.basis + self.mean)


def fit_patch_pca(videos_bcthw: torch.Tensor, channels: int, whitening: float) -> PatchPca:
    """Fit to videos.

    Args:
        videos_bcthw: videos in [-1, 1], [B, 3, T, H, W].
        channels: components that are kept.
        whitening: 1 gives all components unit variance, 0 leaves them as they are up to one common factor; between,
            a component with standard deviation s gets s ** (1 - whitening), scaled so that the mean square is 1.
    """
    import torch

    patches = _patches(videos_bcthw).flatten(0, -2).double()
    mean = patches.mean(dim=0)
    centred = patches - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    basis = vectors.flip(-1)[:, :channels].T
    # The sign of a component is arbitrary: its largest entry is made positive, so that equal data give equal bytes.
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign()
    deviations = variances.flip(-1)[:channels].clamp_min(1e-12).sqrt()
    wanted = deviations ** (1.0 - whitening)
    wanted = wanted / wanted.square().mean().sqrt()
    return PatchPca(mean.float(), basis.float().contiguous(), (deviations / wanted).float())


def _patches(videos_bcthw: torch.Tensor) -> torch.Tensor:
    """Patches of videos, [B, F, H/8, W/8, 3 * 4 * 8 * 8]; the first frame is repeated four times."""
    import torch

    videos = torch.cat([videos_bcthw[:, :, :1].expand(-1, -1, FRAMES - 1, -1, -1), videos_bcthw], dim=2)
    batch, colours, frames, height, width = videos.shape
    cells = videos.reshape(batch, colours, frames // FRAMES, FRAMES, height // SIDE, SIDE, width // SIDE, SIDE)
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def _videos(patches: torch.Tensor) -> torch.Tensor:
    """Videos of patches; the first latent frame gives its last frame."""
    batch, frames, rows, columns, _ = patches.shape
    cells = patches.reshape(batch, frames, rows, columns, 3, FRAMES, SIDE, SIDE).permute(0, 4, 1, 5, 2, 6, 3, 7)
    videos = cells.reshape(batch, 3, frames * FRAMES, rows * SIDE, columns * SIDE)
    return videos[:, :, FRAMES - 1 :]
