"""What decides how hands are estimated, and opening the estimator that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import UsageError
from manifests.hashing import hash_file, hash_json
from render.body import DEFAULT_BODY_PATH
from render.hand_estimation.estimator import EstimatorName, HandEstimator


class DetectionSettings(BaseModel):
    """How the landmark detector looks at a frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    palm_score: float = Field(default=0.2, gt=0, lt=1, description="Least score of a palm to look closer.")
    presence: float = Field(default=0.4, gt=0, lt=1, description="Least probability that a region shows a hand.")
    sure_presence: float = Field(
        default=0.8, gt=0, lt=1, description="Probability from which a hand of the whole frame is taken for sure."
    )
    enough_hands: int = Field(
        default=2, ge=1, description="With so many sure hands in the whole frame, tiles are not looked at."
    )
    most_proposals: int = Field(default=6, ge=1, description="Most palms a look that are looked at closer.")
    tiles: bool = Field(
        default=True, description="Look again in overlapping tiles where the whole frame shows fewer hands than wanted."
    )
    brighten: bool = Field(default=True, description="Look at brightened frames too, where the picture is dim.")
    follow: bool = Field(
        default=True, description="Look for a hand where the frames before and after show one (regions of interest)."
    )


class TrackSettings(BaseModel):
    """How detections become hands over time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_hands_per_side: int = Field(
        default=1, ge=1, le=8, description="Most left and most right hands a frame; the surest are kept."
    )
    viewpoint: Literal["egocentric", "any"] = Field(
        default="egocentric",
        description="`egocentric`: arms come from the viewer's own side, which helps to tell left from right.",
    )
    view_weight: float = Field(
        default=3.0, ge=0, description="Weight of the arms' side against the network's opinion, in log-odds."
    )
    duplicate_iou: float = Field(
        default=0.6, gt=0, le=1, description="Boxes of two hands that overlap more (intersection over union) are one."
    )
    follow_presence: float = Field(
        default=0.4, gt=0, lt=1, description="Least probability that a followed region shows the hand."
    )
    sure_track: float = Field(
        default=0.7, gt=0, lt=1, description="Tracks of which no frame shows a hand with this probability are dropped."
    )
    min_track_frames: int = Field(default=2, ge=1, description="Tracks that are seen in fewer frames are dropped.")
    least_size_share: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="Tracks whose hand is smaller than this share of the longest-seen hand are dropped: a hand far in "
        "the background, or none at all.",
    )
    max_gap_frames: int = Field(default=4, ge=0, description="Longest gap of a track that is filled in, frames.")
    smoothing_period_frames: float = Field(
        default=7.0,
        ge=0,
        description="Motions that repeat in fewer frames are damped, single fast swings less; 0 turns smoothing off.",
    )


class FitSettings(BaseModel):
    """How a mesh is fitted to landmarks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body: Path = Field(default=DEFAULT_BODY_PATH, description="SMPL-X npz whose hands are fitted; the stand-in body.")
    horizontal_fov_degrees: float = Field(
        default=70.0, gt=10, lt=150, description="Field of view over the picture's width where the camera is unknown."
    )


class HandEstimationSettings(BaseModel):
    """Which estimator, its files, and what is done with what it finds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: EstimatorName = Field(
        default="landmarks", description="`landmarks` (no licence needed), `hamer` (your own files), `file` (npz)."
    )
    mirrored: bool = Field(
        default=False,
        description="The videos are mirrored (selfie cameras): what looks like a left hand is the person's right.",
    )
    detection: DetectionSettings = Field(
        default_factory=DetectionSettings, description="How hands are looked for in a frame."
    )
    tracks: TrackSettings = Field(
        default_factory=TrackSettings, description="How detections become tracks of hands over time."
    )
    fit: FitSettings = Field(default_factory=FitSettings, description="How a hand model is fitted to landmarks.")
    files: Path | None = Field(
        default=None, description="`file`: folder of `<video name>.npz`, each in the format of a clip's hand motion."
    )
    hamer_root: Path | None = Field(default=None, description="`hamer`: checkout of the HaMeR repository.")
    checkpoint: Path | None = Field(
        default=None, description="`hamer`: `hamer.ckpt`; `model_config.yaml` lies beside it or one folder above."
    )
    mano: Path | None = Field(default=None, description="`hamer`: `MANO_RIGHT.pkl`, or the same arrays as npz.")
    mean_params: Path | None = Field(default=None, description="`hamer`: `mano_mean_params.npz`.")
    detections: Path | None = Field(
        default=None,
        description="`hamer`: folder of `<video name>.npz` with `frame`, `box`, `is_right`; else landmarks give boxes.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="`hamer`: where the network runs.")
    batch_size: int = Field(default=16, ge=1, description="`hamer`: crops a forward pass.")

    def config_hash(self) -> str:
        """Hash of everything that the meshes depend on: contents of the files, not where they lie or the device.

        Raises:
            UsageError: a file that is named does not exist.
        """
        content = {
            "settings": self.model_copy(update=dict.fromkeys(_LOCATIONS)).model_dump(
                mode="json", exclude={"fit": {"body"}, "device": True, "batch_size": True}
            ),
            "body": hash_file(self.fit.body),
            "contents": {name: _hash_contents(getattr(self, name), name) for name in _LOCATIONS},
        }
        return hash_json(content)


def open_estimator(settings: HandEstimationSettings) -> HandEstimator:
    """The estimator that the settings name; its packages and files are loaded here, once.

    Raises:
        DwmError: a package or file that it needs is missing; the message says what to install or give.
    """
    if settings.estimator == "file":
        from render.hand_estimation.motion_files import FileEstimator

        return FileEstimator(_given(settings, "files"))
    if settings.estimator == "hamer":
        from render.hand_estimation.hamer import open_hamer

        return open_hamer(settings)
    from render.hand_estimation.landmarks import LandmarkEstimator

    return LandmarkEstimator(settings)


def _given(settings: HandEstimationSettings, name: str) -> Path:
    path: Path | None = getattr(settings, name)
    if path is None:
        raise UsageError(f"hand estimator '{settings.estimator}': the setting '{name}' is missing; give its path")
    return path


_LOCATIONS = ("files", "hamer_root", "checkpoint", "mano", "mean_params", "detections")


def _hash_contents(path: Path | None, name: str) -> str | None:
    """Hash of a file, or of the files of a folder by their relative names (of a checkout: its Python files)."""
    if path is None:
        return None
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise UsageError(f"{name} {path}: no such file or folder; check the path")
    pattern = "*.py" if name == "hamer_root" else "*.npz"
    return hash_json({found.relative_to(path).as_posix(): hash_file(found) for found in sorted(path.rglob(pattern))})
