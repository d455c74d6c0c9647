"""Size and length of the clips that the model sees, and the latents that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError

if TYPE_CHECKING:
    from dwm_model.base_model import BaseDescription

_PATCH = 2


class ClipGeometry(BaseModel):
    """Size and length of a clip as the model sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(description="Width, pixels.", gt=0)
    height: int = Field(description="Height, pixels.", gt=0)
    num_frames: int = Field(description="Frames.", gt=0)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"

    def latent_frames(self, base: BaseDescription) -> int:
        """Latent frames of a clip: the first frame alone, then one for every ``temporal_ratio`` frames."""
        return (self.num_frames - 1) // base.temporal_ratio + 1

    def latent_size(self, base: BaseDescription) -> tuple[int, int]:
        """Rows and columns of a latent."""
        return self.height // base.spatial_ratio, self.width // base.spatial_ratio

    def moments_shape(self, base: BaseDescription) -> tuple[int, int, int, int]:
        """Shape [2C, F, H, W] of a video's cached latent: mean, then log-variance."""
        return (2 * base.latent_channels, self.latent_frames(base), *self.latent_size(base))

    def check(self, base: BaseDescription) -> None:
        """Refuse sizes that the base's autoencoder and patches cannot hold.

        Raises:
            DwmError: a side is no multiple of a patch, or the autoencoder would decode another number of frames
                (CogVideoX decodes an even latent count n to ``temporal_ratio * n`` frames: 13 frames come back as 16;
                Wan's decodes any count right).
        """
        step = base.spatial_ratio * _PATCH
        if self.width % step or self.height % step:
            raise DwmError(f"geometry {self}: width and height must be multiples of {step} for base {base.name}")
        group = base.temporal_ratio if base.family.is_wan else 2 * base.temporal_ratio
        if (self.num_frames - 1) % group:
            raise DwmError(
                f"geometry {self}: num_frames must be 1 more than a multiple of {group} (such as 9, 17, 49); "
                f"base {base.name} would decode another number of frames"
            )
