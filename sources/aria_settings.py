"""What decides how Aria captures become clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.errors import UsageError
from manifests.hashing import hash_file, hash_json
from manifests.profiles import Profile
from manifests.schema import Group, Source
from render.camera import intrinsics_from_fov
from render.framing import LengthPolicy
from render.hand_estimation.settings import HandEstimationSettings
from render.mesh_renderer import MeshRenderer
from render.reconstruction_settings import Densification, ReconstructionSettings, get_reconstruction_profile
from render.rotations import Floats
from sources.aria import POSE_TOLERANCE_S, RELEASE_FOV_DEGREES

RELEASE_SQUARE_FOV_DEGREES = float(np.degrees(2 * np.arctan(1024 / 2 / 300)))
"""Field of view of the release's square pictures of 1024 pixels, from which it reconstructs: 119.3 degrees."""
_ESTIMATION_WIDTH = 480
_SAME_SHAPE = 0.02


class AriaGates(BaseModel):
    """What a clip must reach; below, it is dropped and its row says by how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_heldout_psnr_db: float = Field(
        default=20.0, description="Least PSNR of the reconstruction on exploration frames that were held out, dB."
    )
    max_unseen_share: float = Field(
        default=0.3, ge=0, le=1, description="Largest share of a frame that the exploration never saw."
    )
    max_floater_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share of a frame's sight lines to semi-dense points in which a floater stands.",
    )
    max_registration_px: float = Field(
        default=4.0, gt=0, description="Largest shift between static render and recording, pixels at 720 of width."
    )


class AriaSettings(BaseModel):
    """How captures are reconstructed and paired."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile = Field(description="Size, length and frame rate of the clips.")
    source: Source = Field(default=Source.ARIA, description="`synthetic` for generated captures.")
    licence: str | None = Field(default=None, description="Licence of the captures.")
    horizontal_fov_degrees: float = Field(
        default=RELEASE_FOV_DEGREES, gt=20, lt=120, description="Field of view of the clips over their width."
    )
    pose_tolerance_s: float = Field(
        default=POSE_TOLERANCE_S, gt=0, description="A frame whose nearest pose is farther away in time has none."
    )
    interaction_start_s: float | None = Field(
        default=None, ge=0, description="Where the interaction begins, seconds from the first frame, in every capture."
    )
    min_explore_frames: int = Field(default=8, ge=3, description="Fewer frames before the interaction are too few.")
    max_explore_frames: int | None = Field(
        default=None, ge=3, description="At most so many frames, evenly chosen; the release takes the first 100."
    )
    mask_hands: bool = Field(
        default=True,
        description="Leave hands that show in the exploration out of the scene, as the estimator finds them.",
    )
    explore_masks: Path | None = Field(
        default=None,
        description="Folder of `<capture>/<colour frame, 6 digits>.png`: what is not black in a stored frame of the "
        "exploration is no part of the scene. In place of `mask_hands`.",
    )
    windows: int = Field(default=1, ge=1, description="Clips of one interaction at most, one after the other.")
    short: LengthPolicy = Field(
        default=LengthPolicy.PAD_LAST, description="What is done about an interaction shorter than a clip."
    )
    reconstruction: ReconstructionSettings = Field(description="How the scene is reconstructed.")
    hands: HandEstimationSettings = Field(default_factory=HandEstimationSettings, description="The hand estimator.")
    gates: AriaGates = Field(default_factory=AriaGates, description="What a clip must reach.")

    def config_hash(self) -> str:
        """Hash of everything that a clip depends on besides its capture; not on where files lie, nor on threads."""
        content = self.model_dump(
            mode="json", exclude={"hands": True, "reconstruction": {"threads"}, "explore_masks": True}
        )
        return hash_json({"settings": content, "hands": self.hands.config_hash(), "masks": self._masks_hash()})

    def scene_hash(self) -> str:
        """Hash of what the reconstructed scene depends on besides its capture."""
        names = ("pose_tolerance_s", "interaction_start_s", "min_explore_frames", "max_explore_frames")
        content = {name: getattr(self, name) for name in names}
        fitting = self.reconstruction.model_dump(mode="json", exclude={"threads"})
        looks = self.interaction_start_s is None or (self.mask_hands and self.explore_masks is None)
        hands = self.hands.config_hash() if looks else None
        masks = {"files": self._masks_hash(), "hands": self.mask_hands}
        fov = self.horizontal_fov_degrees
        return hash_json({**content, "reconstruction": fitting, "fov": fov, "hands": hands, "masks": masks})

    def _masks_hash(self) -> str | None:
        """Hash of the masks of the exploration by their relative names; None where none are given."""
        folder = self.explore_masks
        if folder is None:
            return None
        if not folder.is_dir():
            raise UsageError(f"explore_masks {folder}: no such folder; give the folder of <capture>/<frame>.png")
        return hash_json(
            {path.relative_to(folder).as_posix(): hash_file(path) for path in sorted(folder.rglob("*.png"))}
        )

    @property
    def group(self) -> Group:
        """Column group of Table 1: generated captures never claim to be real."""
        return Group.SYNTHETIC_DYNAMIC if self.source is Source.SYNTHETIC else Group.REAL_DYNAMIC

    def clip_intrinsics(self, scale: int = 1) -> Floats:
        """Camera [3,3] of the clips, for pictures ``scale`` times as large."""
        profile = self.profile
        return intrinsics_from_fov(profile.width * scale, profile.height * scale, self.horizontal_fov_degrees)

    def reconstruction_intrinsics(self) -> Floats:
        """Camera [3,3] of the pictures that the scene is reconstructed from.

        Pictures of the clips' shape have their field of view; squarer ones that of the release's square pictures.
        """
        width, height = self.reconstruction.width, self.reconstruction.height
        shape = (width / height) / (self.profile.width / self.profile.height)
        fov = self.horizontal_fov_degrees if abs(shape - 1.0) < _SAME_SHAPE else RELEASE_SQUARE_FOV_DEGREES
        return intrinsics_from_fov(width, height, fov)

    @property
    def estimation_scale(self) -> int:
        """How much larger than the clip the pictures are in which hands are looked for."""
        if self.hands.estimator == "file":
            return 1  # the files hold pixels of the clip
        return max(1, -(-_ESTIMATION_WIDTH // self.profile.width))

    def open_renderer(self) -> MeshRenderer:
        """A renderer of hand videos.

        Raises:
            DwmError: there is no usable OpenGL.
        """
        profile = self.profile
        return MeshRenderer(profile.width, profile.height, scale=profile.render_scale, samples=4, shadows=False)


def settings_from(profile: Profile, values: Mapping[str, object]) -> AriaSettings:
    """Settings from what a user gave.

    Raises:
        UsageError: a value that its setting cannot take; the message names both.
    """
    try:
        return AriaSettings.model_validate({"profile": profile, **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        shown = "" if isinstance(first["input"], dict) else f" '{first['input']}'"
        raise UsageError(f"{name}{shown}: {first['msg'].removeprefix('Value error, ').lower()}") from error


DEMO_RECONSTRUCTION = get_reconstruction_profile("aria_mini").model_copy(
    update={
        "width": 120,
        "height": 80,
        "steps": 450,
        "max_points": 3000,
        "exposure_start": 100,
        "densification": Densification(
            start=100, stop=350, every=50, reset_every=1_000_000, gradient=4e-4, max_gaussians=6000
        ),
    }
)
"""A short fit of small pictures, for the demo: enough for clips of 96x64."""


def reconstruction_settings(name: str, steps: int | None = None) -> ReconstructionSettings:
    """Settings of the fit by name: `paper`, `aria_mini`, `demo`, or `auto` (`paper` where there is CUDA).

    Raises:
        UsageError: no such settings.
    """
    if name == "auto":
        import torch

        name = "paper" if torch.cuda.is_available() else "aria_mini"
    chosen = DEMO_RECONSTRUCTION if name == "demo" else get_reconstruction_profile(name)
    return chosen if steps is None else chosen.model_copy(update={"steps": steps})


def hand_files_of(raw: Path) -> Path | None:
    """The folder of hand motions that a generated data set carries beside its captures; None where there is none."""
    folder = raw / "hands"
    return folder if folder.is_dir() else None
