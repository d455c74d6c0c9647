"""The static scene of a capture: phases found, exploration frames fitted (paper 3.3, Appendix C)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import write_text
from manifests.errors import DwmError
from render.camera import intrinsics_from_fov
from render.gaussian_ply import read_ply
from render.gaussian_scene import render_path
from render.hand_estimation.estimator import HandEstimator, HandVideo
from render.hands import HandMotion
from render.reconstruction import RESULT_FILE, SCENE_FILE, ReconstructionResult, reconstruct
from render.reconstruction_views import ReconstructionView
from render.registration import changed_share
from sources.aria import AriaCapture
from sources.aria_hands import recording_hands
from sources.aria_masks import ExplorationMasks, MaskRecord, exploration_masks, frame_name
from sources.aria_phases import (
    RELEASE_EXPLORE_FRAMES,
    BoundaryOrigin,
    PhaseSplit,
    explored_frames,
    propose_by_change,
    propose_by_hands,
    split_by_setting,
    split_by_sidecar,
)
from sources.aria_settings import AriaSettings

PHASES_FILE, MASKS_FILE = "phases.json", "explored_masks.json"
_LOOKS_A_SECOND = 4.0
"""How often hands and changes are looked for."""
_LOOK_WIDTH, _LOOK_HEIGHT = 480, 320
_MOST_MASKED = 0.9
"""A frame of which more is masked shows nothing of the scene."""

_LOGGER = logging.getLogger(__name__)


class ReconstructedScene(BaseModel):
    """A capture's static scene."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(description="Folder of the reconstruction.")
    phases: PhaseSplit = Field(description="When the interaction begins, and why there.")
    heldout_psnr_db: float | None = Field(description="PSNR on exploration frames that were held out, dB.")
    num_gaussians: int = Field(description="Gaussians of the scene.")
    explored_frames: int = Field(description="Colour frames that the scene was fitted to or measured on.")
    masks: MaskRecord = Field(description="What was left out of them.")

    @property
    def ply(self) -> Path:
        """The scene's Gaussians."""
        return self.folder / SCENE_FILE


def find_phases(capture: AriaCapture, settings: AriaSettings, estimator: HandEstimator | None) -> PhaseSplit | None:
    """The boundary by setting, sidecar or first hand; None where it takes a reconstruction to find one.

    Raises:
        DwmError: the sidecar is broken, or names a time beyond the recording.
    """
    if settings.interaction_start_s is not None:
        return split_by_setting(capture.times_s, settings.interaction_start_s)
    if capture.files.phases is not None:
        return split_by_sidecar(capture.times_s, capture.recording.timestamps_ns, capture.files.phases)
    looked_at = _looks(capture, 0)
    known = recording_hands(capture, settings)
    if known is not None:
        return propose_by_hands(capture.times_s, looked_at, _hands_a_frame(known, len(capture.recording))[looked_at])
    if estimator is None or estimator.name == "file":
        return None  # hands from files are given for a clip's frames, which are not known yet
    clip = capture.read_clip(looked_at, _look_intrinsics(settings), _LOOK_WIDTH, _LOOK_HEIGHT)
    focal = float(clip.cameras.intrinsics[0, 0])
    motion = estimator.estimate(HandVideo(capture.files.capture_id, clip.frames, _LOOKS_A_SECOND, focal_px=focal))
    return propose_by_hands(capture.times_s, looked_at, _hands_a_frame(motion, len(looked_at)))


def reconstruct_scene(
    capture: AriaCapture, settings: AriaSettings, folder: Path, estimator: HandEstimator | None
) -> ReconstructedScene:
    """Fit the scene to the exploration frames, or go on with it; what is whole is only read.

    Args:
        capture: the capture.
        settings: how.
        folder: of the reconstruction: one for each capture and each `AriaSettings.scene_hash`.
        estimator: finds the first hand where nobody says when the interaction begins, and hands in the exploration;
            None looks for neither.

    Raises:
        DwmError: too few frames come before the interaction, there are no points, or the fit fails.
    """
    phases_path = folder / PHASES_FILE
    known = _stored_phases(phases_path)
    split = known or find_phases(capture, settings, estimator)
    # Where the boundary is still open, the release's number of frames is taken for still: half of a short recording.
    count = min(RELEASE_EXPLORE_FRAMES, len(capture.recording) // 2)
    provisional = PhaseSplit(
        origin=BoundaryOrigin.SCENE_CHANGE,
        first_frame=count,
        start_s=round(float(capture.times_s[count]), 6),
        evidence=f"nothing says where, {count} frames were taken for still",
    )
    basis = split or provisional
    if known is not None and known.origin is BoundaryOrigin.SCENE_CHANGE:
        basis = provisional  # what the fit was made from
    frames = explored_frames(basis, capture.has_pose, settings.min_explore_frames, capture.files.vrs.name)
    frames = _thinned(frames, settings.max_explore_frames)
    masks = _masks(capture, settings, folder, frames, estimator)
    result = _fit(capture, settings, folder, masks, frames)
    if split is None:
        split = _find_change(capture, settings, folder, frames) or provisional
    if known is None:
        write_text(phases_path, split.model_dump_json(indent=2) + "\n")
    evaluation = result.evaluation
    return ReconstructedScene(
        folder=folder,
        phases=split,
        heldout_psnr_db=None if evaluation is None else evaluation.psnr_db,
        num_gaussians=result.num_gaussians,
        explored_frames=len(frames),
        masks=masks.record,
    )


def _masks(
    capture: AriaCapture,
    settings: AriaSettings,
    folder: Path,
    frames: npt.NDArray[np.int64],
    estimator: HandEstimator | None,
) -> ExplorationMasks:
    """What is left out of the scene; of a scene that is whole the record alone."""
    path = folder / MASKS_FILE
    if _is_whole(folder) and path.is_file():
        try:
            return ExplorationMasks(None, MaskRecord.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise _damaged(path) from error
    masks = exploration_masks(capture, settings, frames, estimator)
    write_text(path, masks.record.model_dump_json(indent=2) + "\n")
    return masks


def _is_whole(folder: Path) -> bool:
    return (folder / RESULT_FILE).is_file() and (folder / SCENE_FILE).is_file()


def _damaged(path: Path) -> DwmError:
    return DwmError(f"{path}: is damaged; remove its folder to reconstruct the scene again")


def _fit(
    capture: AriaCapture,
    settings: AriaSettings,
    folder: Path,
    masks: ExplorationMasks,
    frames: npt.NDArray[np.int64],
) -> ReconstructionResult:
    done = folder / RESULT_FILE
    if _is_whole(folder):
        try:
            return ReconstructionResult.model_validate_json(done.read_bytes())
        except ValidationError as error:
            raise _damaged(done) from error
    fitting = settings.reconstruction
    intrinsics = settings.reconstruction_intrinsics()
    views = []
    for number, frame in enumerate(frames):
        ignored = None if masks.ignored is None else masks.ignored[number]
        if ignored is not None and ignored.mean() > _MOST_MASKED:
            continue
        straight = capture.read(int(frame), intrinsics, fitting.width, fitting.height)
        views.append(
            ReconstructionView(
                name=frame_name(int(frame)),
                image=straight.image,
                intrinsics=intrinsics,
                world_from_camera=straight.camera.world_from_camera,
                valid=straight.valid,
                ignored=ignored,
            )
        )
    _LOGGER.info("%s: reconstructing from %d frames", capture.files.capture_id, len(views))
    return reconstruct(views, capture.points.positions, folder, fitting, resume=True)


def _find_change(
    capture: AriaCapture, settings: AriaSettings, folder: Path, frames: npt.NDArray[np.int64]
) -> PhaseSplit | None:
    """The first change against the reconstruction, after the frames that it was made from."""
    fitting = settings.reconstruction
    usual = frames[:: max(1, len(frames) // 8)]
    looked_at = _looks(capture, int(frames[-1]) + 1)
    shares = []
    for chosen in (usual, looked_at):
        clip = capture.read_clip(chosen, settings.reconstruction_intrinsics(), fitting.width, fitting.height)
        drawn = render_path(read_ply(folder / SCENE_FILE), clip.cameras, fitting.width, fitting.height)
        hidden = ~clip.valid | (drawn.alphas < 0.5)
        shares.append(changed_share(drawn.frames, clip.frames, hidden))
    return propose_by_change(capture.times_s, looked_at, shares[1], shares[0])


def _stored_phases(path: Path) -> PhaseSplit | None:
    if not path.is_file():
        return None
    try:
        return PhaseSplit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _damaged(path) from error


def _hands_a_frame(motion: HandMotion, count: int) -> npt.NDArray[np.int64]:
    """[count] hands of each frame."""
    return np.bincount(motion.frame, minlength=count).astype(np.int64)


def _looks(capture: AriaCapture, first: int) -> npt.NDArray[np.int64]:
    """Colour frames with a pose from ``first`` on, at most `_LOOKS_A_SECOND`."""
    frames = np.flatnonzero(capture.has_pose)
    frames = frames[frames >= first]
    times = capture.times_s[frames]
    slots = np.floor((times - times[0]) * _LOOKS_A_SECOND) if len(times) else np.empty(0)
    return np.asarray(frames[np.unique(slots, return_index=True)[1]], np.int64)


def _look_intrinsics(settings: AriaSettings) -> npt.NDArray[np.float64]:
    return intrinsics_from_fov(_LOOK_WIDTH, _LOOK_HEIGHT, settings.horizontal_fov_degrees)


def _thinned(frames: npt.NDArray[np.int64], most: int | None) -> npt.NDArray[np.int64]:
    """At most ``most`` of the frames, evenly."""
    if most is None or len(frames) <= most:
        return frames
    return frames[np.linspace(0, len(frames) - 1, most).round().astype(np.int64)]
