"""One window of a capture's interaction as a clip: recorded, rendered, its hands found, checked (paper 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.dataset import Dataset
from manifests.hashing import code_version, short_id
from manifests.schema import Clip, ClipStatus
from render.camera import CameraPath
from render.floaters import floater_shares
from render.framing import Frames
from render.hand_estimation.estimator import HandEstimator, HandVideo, hand_jitter_px
from render.hand_mask import dilate, hand_mask
from render.hands import HandMotion
from render.mesh_renderer import MeshRenderer
from render.perceptual_hash import picture_hash
from render.registration import measure_registration
from render.resampling import ClipSampling
from render.rotations import Floats
from render.triplet import EMPTY_HANDS_FLAG, measure_triplet
from render.video import write_video
from sources.aria import AriaCapture, StraightClip
from sources.aria_hands import hands_in, recording_hands
from sources.aria_reconstruct import ReconstructedScene
from sources.aria_settings import AriaSettings
from sources.building import ready_row
from sources.captions import short_label
from sources.fixed_camera_clip import scaled_motion
from sources.official_clip import stored_name
from sources.twin_scene import DrawnScene, SplatScene

FILE_COLUMNS = ("interaction_path", "static_path", "hands_path", "camera_path", "hand_motion_path")
"""Columns whose files every ready clip has."""


def empty_row(settings: AriaSettings, capture_id: str, window: int, config_hash: str) -> Clip:
    """The row of a window before anything is read: failed, until it is made."""
    profile = settings.profile
    clip_id = short_id(
        settings.source.value,
        capture_id,
        window,
        profile.num_frames,
        profile.width,
        profile.height,
        profile.fps,
        "reconstruction",
    )
    return Clip(
        clip_id=clip_id,
        source=settings.source,
        group=settings.group,
        scene_id=f"aria/{capture_id}",
        recording_id=f"aria/{capture_id}",
        static_policy="reconstruction",
        hand_estimator=settings.hands.estimator,
        licence=settings.licence,
        status=ClipStatus.FAILED,
        reason="not made yet",
        config_hash=config_hash,
        code_version=code_version(),
    )


@dataclass(frozen=True, eq=False)
class PairingWorkshop:
    """What the clips of a capture share."""

    settings: AriaSettings
    renderer: MeshRenderer
    estimator: HandEstimator
    scene: ReconstructedScene


@dataclass(frozen=True, eq=False)
class _Pair:
    """A clip before it is written.

    Attributes:
        recorded: the interaction video and its cameras.
        drawn: the static scene along the same cameras.
        hands: the hand video.
        motion: the hands.
    """

    recorded: StraightClip
    drawn: DrawnScene
    hands: Frames
    motion: HandMotion

    @property
    def interaction(self) -> Frames:
        """The recorded frames."""
        return self.recorded.frames

    @property
    def static(self) -> Frames:
        """The rendered frames, black where the lens saw nothing, as the recorded ones are."""
        return self.drawn.frames * self.recorded.valid[..., None]


def write_clip(  # noqa: PLR0917
    dataset: Dataset,
    workshop: PairingWorkshop,
    capture: AriaCapture,
    window: int,
    sampling: ClipSampling,
    row: Clip,
) -> Clip:
    """Make a window and return its row; a clip below a gate is `dropped` with its figures and has no files.

    Args:
        dataset: where the files go.
        workshop: shared by the clips of the capture.
        capture: the capture.
        window: number of the window, from 0.
        sampling: the capture's colour frames.
        row: `empty_row` with the hashes of the inputs.

    Raises:
        CaptureLacksError: a frame has no pose.
        DwmError: a frame cannot be decoded, the estimator lacks something, or a file cannot be written.
    """
    settings, profile = workshop.settings, workshop.settings.profile
    pair = _pair(workshop, capture, window, sampling.indices)
    row = row.updated(
        start_frame=int(sampling.indices[0]),
        frame_step=sampling.frame_step,
        num_frames=profile.num_frames,
        fps=profile.fps,
        width=profile.width,
        height=profile.height,
        length_policy=None if sampling.length_policy is None else sampling.length_policy.value,
        calibration_source=capture.calibration_source,
        hand_estimator=workshop.estimator.name,
        body_model=workshop.estimator.model_name,
        first_frame_hash=picture_hash(pair.interaction[0]),
        **_prompt(capture),
    )
    row = _measured(row, workshop, pair, capture.points.positions)
    reason = gate_reason(row, settings)
    if reason is not None:
        return row.updated(status=ClipStatus.DROPPED, reason=reason)
    row = row.updated(flags=(*row.flags, *_capture_flags(workshop, capture, sampling)))
    return _with_files(dataset, row, _write_files(dataset, row, pair, settings))


def _pair(workshop: PairingWorkshop, capture: AriaCapture, window: int, frames: npt.NDArray[np.int64]) -> _Pair:
    settings, profile = workshop.settings, workshop.settings.profile
    intrinsics = settings.clip_intrinsics()
    recorded = capture.read_clip(frames, intrinsics, profile.width, profile.height)
    scale = settings.estimation_scale
    large = recorded
    if scale > 1:
        width, height = profile.width * scale, profile.height * scale
        large = capture.read_clip(frames, settings.clip_intrinsics(scale), width, height)
    name = capture.files.capture_id if window == 0 else f"{capture.files.capture_id}.{window}"
    focal = float(large.cameras.intrinsics[0, 0])
    motion = recording_hands(capture, settings)
    if motion is not None:
        motion = hands_in(motion, frames)
    else:
        found = workshop.estimator.estimate(HandVideo(name, large.frames, profile.fps, focal_px=focal))
        motion = scaled_motion(found, 1 / scale)
    hands, shares = workshop.renderer.render_hands(motion, intrinsics, profile.num_frames)
    drawn = SplatScene(workshop.scene.ply).draw(workshop.renderer, recorded.cameras)
    return _Pair(recorded, drawn, hands, motion.select(shares > 0))


def _measured(row: Clip, workshop: PairingWorkshop, pair: _Pair, points: Floats) -> Clip:
    """The row with what the gates look at; ``points`` [P,3] are the semi-dense ones."""
    unseen = (pair.drawn.unseen & pair.recorded.valid).mean(axis=(1, 2), dtype=np.float64)
    ignored = dilate(hand_mask(pair.hands)) | pair.drawn.unseen | ~pair.recorded.valid
    pictures = (pair.static, pair.interaction)
    floaters = floater_shares(points, pair.recorded.cameras, pair.drawn.depth, ignored, pictures)
    floaters = floaters[np.isfinite(floaters)]
    registration = measure_registration(pair.static, pair.interaction, ignored)
    jitter = hand_jitter_px(pair.motion)
    psnr, shift = workshop.scene.heldout_psnr_db, registration.shift_px
    return row.updated(
        reconstruction_psnr_db=None if psnr is None else round(psnr, 4),
        unseen_share=round(float(unseen.max()), 6),
        floater_share=round(float(floaters.max()), 6) if len(floaters) else None,
        registration_px=None if shift is None else round(shift, 4),
        camera_motion_px=round(_camera_motion_px(pair.recorded.cameras, pair.interaction), 4),
        hand_jitter_px=None if jitter is None else round(jitter, 4),
    )


def gate_reason(row: Clip, settings: AriaSettings) -> str | None:
    """Why a measured clip is left out; None where it reaches everything."""
    gates = settings.gates
    reasons = []
    if row.reconstruction_psnr_db is not None and row.reconstruction_psnr_db < gates.min_heldout_psnr_db:
        reasons.append(
            f"poor_reconstruction: {row.reconstruction_psnr_db:.2f} dB on held-out exploration frames, "
            f"{gates.min_heldout_psnr_db:g} are wanted"
        )
    if row.unseen_share is not None and row.unseen_share > gates.max_unseen_share:
        reasons.append(
            f"never_seen: the exploration never saw {row.unseen_share:.1%} of a frame of the interaction, "
            f"{gates.max_unseen_share:.0%} are allowed"
        )
    if row.floater_share is not None and row.floater_share > gates.max_floater_share:
        reasons.append(
            f"floaters: something that is not there stands in {row.floater_share:.1%} of the sight lines to semi-dense "
            f"points in a frame of the static video, {gates.max_floater_share:.0%} are allowed"
        )
    limit = gates.max_registration_px * settings.profile.width / 720
    if row.registration_px is not None and row.registration_px > limit:
        reasons.append(
            f"misaligned: the static render lies {row.registration_px:.2f} px off the recording, {limit:.2f} "
            "are allowed"
        )
    return "; ".join(reasons) or None


def _camera_motion_px(cameras: CameraPath, frames: Frames) -> float:
    """Mean way of the picture's middle between neighbouring frames, for something two metres away."""
    height, width = frames.shape[1:3]
    moved = []
    for index in range(len(cameras) - 1):
        point = cameras[index].unproject([width / 2, height / 2], 2.0)
        there, depth = cameras[index + 1].project(point)
        if depth > 0:
            moved.append(float(np.linalg.norm(there - [width / 2, height / 2])))
    return float(np.mean(moved)) if moved else 0.0


def _prompt(capture: AriaCapture) -> dict[str, object]:
    path = capture.files.caption
    text = "" if path is None else path.read_text(encoding="utf-8").strip()
    if not text:
        return {}
    return {"prompt": text, "prompt_origin": "sidecar", "action_label": short_label(text)}


def _capture_flags(workshop: PairingWorkshop, capture: AriaCapture, sampling: ClipSampling) -> list[str]:
    """Reasons to look that the capture itself gives."""
    profile = workshop.settings.profile
    found = (workshop.scene.phases.flag(), workshop.scene.masks.flag())
    flags = [flag for flag in found if flag is not None]
    lost = int((~capture.has_pose).sum())
    if lost:
        flags.append(f"poses_lost: {lost} of {len(capture.recording)} colour frames have no pose")
    if sampling.length_policy is not None:
        flags.append(
            f"short_source: {sampling.found} of {profile.num_frames} frames at {profile.fps:g} a second, brought to "
            f"length by {sampling.length_policy.value}"
        )
    return flags


def _write_files(dataset: Dataset, row: Clip, pair: _Pair, settings: AriaSettings) -> dict[str, Path]:
    folder = dataset.clip_folder(row.source, row.clip_id)
    fps = settings.profile.fps
    paths = {f"{role}_path": folder / stored_name(role, ".mp4") for role in ("interaction", "static", "hands")}
    paths |= {f"{role}_path": folder / stored_name(role) for role in ("camera", "hand_motion")}
    write_video(paths["interaction_path"], pair.interaction, fps)
    write_video(paths["static_path"], pair.static, fps)
    write_video(paths["hands_path"], pair.hands, fps)
    pair.recorded.cameras.save(paths["camera_path"])
    pair.motion.save(paths["hand_motion_path"])
    return paths


def _with_files(dataset: Dataset, row: Clip, paths: Mapping[str, Path]) -> Clip:
    measures = measure_triplet(paths["interaction_path"], paths["static_path"], paths["hands_path"])
    no_hands = f"no_hands: the estimator '{row.hand_estimator}' finds no hand in any frame"
    flags = [no_hands if flag == EMPTY_HANDS_FLAG else flag for flag in measures.flags]
    return ready_row(dataset, row, paths, measures, flags)
