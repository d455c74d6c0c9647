"""One window of a fixed-camera video as a clip: read, checked, hands estimated and drawn, written (paper 3.3, eq. 8).

The camera does not move, so the static video is the first frame, repeated. The hand video shows the estimated meshes in
the camera that the estimator assumes, at the origin and without rotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.hashing import code_version, hash_json, short_id
from manifests.profiles import Profile
from manifests.schema import Clip, ClipStatus, Group, Source
from render.camera import CameraPath
from render.camera_motion import CameraMotion, find_scene_cuts, measure_camera_motion
from render.framing import FitPolicy, Frames, LengthPolicy
from render.hand_estimation.estimator import HandEstimator, HandVideo, hand_jitter_px, motion_intrinsics
from render.hand_estimation.settings import HandEstimationSettings
from render.hand_mask import hand_mask
from render.hands import HandMotion
from render.mesh_renderer import MeshRenderer
from render.perceptual_hash import picture_hash
from render.resampling import ClipSampling, SourceTiming
from render.triplet import EMPTY_HANDS_FLAG, measure_triplet
from render.video import write_video
from sources.building import ready_row
from sources.captions import Caption, Captioner, CaptionSettings, length_flag, short_label
from sources.fixed_camera_pictures import WindowPictures, read_pictures
from sources.official_clip import stored_name
from sources.taste_rob import FixedVideo

FILE_COLUMNS = ("interaction_path", "static_path", "hands_path", "camera_path", "hand_motion_path")
"""Columns whose files a ready clip has. What is masked, and how deep it is, nobody knows."""

ESTIMATION_WIDTH = 720
"""Hands are looked for in pictures at least this wide: those of small profiles show none to a detector."""


class FixedCameraSettings(BaseModel):
    """What decides how a fixed-camera clip is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile = Field(description="Size, length and frame rate of the clips; its step and stride are not used.")
    source: Source = Field(default=Source.TASTE_ROB, description="`synthetic` for generated videos.")
    licence: str | None = Field(default=None, description="Licence of the source data.")
    fit: FitPolicy = Field(default=FitPolicy.PAD, description="How a picture gets the clip's size.")
    short: LengthPolicy = Field(
        default=LengthPolicy.PAD_LAST, description="What is done about a video that is shorter than a clip."
    )
    windows: int = Field(
        default=1, ge=1, description="Clips of one video at most, one after the other; the paper takes the first."
    )
    moving_camera: Literal["flag", "drop"] = Field(
        default="flag", description="What is done about a clip whose background moves."
    )
    camera_step_px: float = Field(
        default=0.5,
        gt=0,
        description="Background motion between neighbouring frames, at 720 pixels of width, above "
        "which the camera moves.",
    )
    camera_drift_px: float = Field(
        default=3.0, gt=0, description="The same for the largest motion from the first frame."
    )
    scene_cut: Literal["flag", "drop"] = Field(default="drop", description="What is done about a clip with a cut.")
    no_hands: Literal["flag", "drop"] = Field(
        default="flag", description="What is done about a clip in which no hand is found."
    )
    hands: HandEstimationSettings = Field(default_factory=HandEstimationSettings, description="The hand estimator.")
    captions: CaptionSettings = Field(default_factory=CaptionSettings, description="Where prompts come from.")

    def config_hash(self) -> str:
        """Hash of everything that a clip depends on besides its video: contents of files, not where they lie."""
        content = self.model_dump(mode="json", exclude={"hands", "captions"})
        return hash_json(
            {"settings": content, "hands": self.hands.config_hash(), "captions": self.captions.config_hash()}
        )

    @property
    def group(self) -> Group:
        """Column group of Table 1: generated videos never claim to be real."""
        return Group.SYNTHETIC_STATIC if self.source is Source.SYNTHETIC else Group.REAL_STATIC

    @property
    def estimation_scale(self) -> int:
        """How much larger than the clip the pictures are in which hands are looked for."""
        if self.hands.estimator == "file":
            return 1  # the files hold pixels of the clip
        return max(1, -(-ESTIMATION_WIDTH // self.profile.width))

    def open_renderer(self) -> MeshRenderer:
        """A renderer of hand videos.

        Raises:
            DwmError: there is no usable OpenGL.
        """
        return MeshRenderer(
            self.profile.width, self.profile.height, scale=self.profile.render_scale, samples=4, shadows=False
        )


def clip_id_of(settings: FixedCameraSettings, video: FixedVideo, window: int) -> str:
    """Id of a clip: the same for the same window of the same video at the same size, wherever the raw data lies."""
    profile = settings.profile
    suffix = Path(video.path).suffix
    return short_id(
        settings.source.value,
        f"{video.recording_id}{suffix}",
        window,
        profile.num_frames,
        profile.width,
        profile.height,
        profile.fps,
        "first_frame",
    )


def empty_row(settings: FixedCameraSettings, video: FixedVideo, window: int, config_hash: str) -> Clip:
    """The row of a window before anything is read: failed, until it is made."""
    return Clip(
        clip_id=clip_id_of(settings, video, window),
        source=settings.source,
        group=settings.group,
        scene_id=video.scene_id,
        recording_id=video.recording_id,
        official_path=video.official_path if window == 0 else None,
        static_policy="first_frame",
        hand_estimator=settings.hands.estimator,
        licence=settings.licence,
        status=ClipStatus.FAILED,
        reason="not made yet",
        config_hash=config_hash,
        code_version=code_version(),
    )


@dataclass(frozen=True)
class Workshop:
    """What the clips of a chunk share; nothing in it remembers a video."""

    renderer: MeshRenderer
    estimator: HandEstimator
    captioner: Captioner
    settings: FixedCameraSettings


@dataclass(frozen=True)
class WindowRequest:
    """A window to be made.

    Attributes:
        video: its video.
        path: where that is.
        window: number of the window in the video, from 0.
        caption: what the data says about the video.
        timing: when the video's frames are shown.
        sampling: the source frames of the window.
    """

    video: FixedVideo
    path: Path
    window: int
    caption: Caption
    timing: SourceTiming
    sampling: ClipSampling


def write_clip(dataset: Dataset, workshop: Workshop, request: WindowRequest, row: Clip) -> Clip:
    """Make a window and return its row; a clip that a rule leaves out is `dropped` and has no files.

    Args:
        dataset: where the files go.
        workshop: shared by the clips of the chunk.
        request: the window.
        row: `empty_row` with the hashes of the inputs.

    Raises:
        DwmError: the video cannot be read, the estimator lacks something, or a file cannot be written.
    """
    settings, profile = workshop.settings, workshop.settings.profile
    pictures = read_pictures(
        request.path,
        request.timing,
        request.sampling.indices,
        profile,
        fit=settings.fit,
        scale=settings.estimation_scale,
    )
    row = row.updated(
        **_geometry(request, profile),
        fit_policy=pictures.fit.value,
        first_frame_hash=picture_hash(pictures.cropped_first()),
        flags=_source_flags(request, settings),
    )
    row = _judged(row, _cut_reason(pictures, request), settings.scene_cut)
    if row.status is ClipStatus.DROPPED:
        return row
    name = request.video.name if request.window == 0 else f"{request.video.name}.{request.window}"
    found = workshop.estimator.estimate(HandVideo(name, pictures.large, profile.fps, picture_box=pictures.box))
    motion = scaled_motion(found, 1 / pictures.scale)
    row = _judged(_with_motion(row, motion, workshop.estimator), _no_hands_reason(motion, row), settings.no_hands)
    if row.status is ClipStatus.DROPPED:
        return row
    cameras = _still_camera(motion, profile)
    drawn, shares = workshop.renderer.render_hands(motion, cameras.intrinsics, profile.num_frames)
    hands = pictures.within_picture(drawn)
    moved = _measured_camera(pictures, hands)
    row = row.updated(camera_motion_px=None if moved.step_px is None else round(moved.step_px, 4))
    row = _judged(row, _camera_reason(settings, moved), settings.moving_camera)
    if row.status is ClipStatus.DROPPED:
        return row
    row = _captioned(row, workshop.captioner.caption(request.caption, pictures.large))
    interaction = pictures.at_clip_size(request.path, profile)
    media = _Media(interaction, hands, motion.select(shares > 0), cameras)
    return _with_files(dataset, row, _write_files(dataset, row, media, profile))


def _judged(row: Clip, reason: str | None, policy: Literal["flag", "drop"]) -> Clip:
    """The row with a reason as a flag, or dropped for it; as it is without one."""
    if reason is None:
        return row
    if policy == "drop":
        return row.updated(status=ClipStatus.DROPPED, reason=reason)
    return row.updated(flags=(*row.flags, reason))


def _cut_reason(pictures: WindowPictures, request: WindowRequest) -> str | None:
    cuts = find_scene_cuts(pictures.large, pictures.box)
    if not cuts:
        return None
    frames = ", ".join(map(str, cuts))
    times = ", ".join(f"{request.timing.times_s[pictures.indices[cut]]:.1f} s" for cut in cuts)
    return f"scene_cut: another scene begins at frame {frames} of the clip ({times} into the video)"


def _no_hands_reason(motion: HandMotion, row: Clip) -> str | None:
    if len(motion):
        return None
    return f"no_hands: the estimator '{row.hand_estimator}' finds no hand in any frame"


def scaled_motion(motion: HandMotion, factor: float) -> HandMotion:
    """The same hands for pictures ``factor`` times as wide and high; metres stay what they are."""
    if factor == 1.0:
        return motion
    image = (motion.joints_image * factor).astype(motion.joints_image.dtype)
    return replace(motion, joints_image=image, focal_px=motion.focal_px * factor)


@dataclass(frozen=True)
class _Media:
    """What is written of a clip."""

    interaction: Frames
    hands: Frames
    motion: HandMotion
    cameras: CameraPath


def _geometry(request: WindowRequest, profile: Profile) -> dict[str, object]:
    policy = request.sampling.length_policy
    return {
        "start_frame": int(request.sampling.indices[0]),
        "frame_step": request.sampling.frame_step,
        "num_frames": profile.num_frames,
        "fps": profile.fps,
        "width": profile.width,
        "height": profile.height,
        "length_policy": None if policy is None else policy.value,
    }


def _source_flags(request: WindowRequest, settings: FixedCameraSettings) -> tuple[str, ...]:
    """Reasons to look that the source's own form gives."""
    timing, sampling, profile = request.timing, request.sampling, settings.profile
    flags = []
    if settings.hands.mirrored:
        flags.append("mirrored: the video was said to be mirrored; its hands bear the person's own sides")
    if sampling.length_policy is not None:
        flags.append(
            f"short_source: {sampling.found} of {profile.num_frames} frames at {profile.fps:g} a second, "
            f"brought to length by {sampling.length_policy.value}"
        )
    if timing.is_variable:
        steps = np.diff(timing.times_s) * 1000
        flags.append(
            f"variable_frame_rate: frames are {steps.min():.0f} to {steps.max():.0f} ms apart, taken by their times"
        )
    elif 0 < timing.fps < profile.fps * 0.95:
        flags.append(f"slow_source: {timing.fps:.2f} frames a second, frames are repeated to {profile.fps:g}")
    if timing.rotation_degrees:
        flags.append(f"rotated: by {timing.rotation_degrees} degrees, as the file asks")
    return tuple(flags)


def _still_camera(motion: HandMotion, profile: Profile) -> CameraPath:
    poses = np.tile(np.eye(4), (profile.num_frames, 1, 1))
    return CameraPath(motion_intrinsics(motion, profile.width, profile.height), poses)


def _measured_camera(pictures: WindowPictures, hands: Frames) -> CameraMotion:
    """Background motion in pixels of the clip."""
    scale = pictures.scale
    visible = hand_mask(hands).repeat(scale, axis=1).repeat(scale, axis=2)
    moved = measure_camera_motion(pictures.large, visible, pictures.box)
    return CameraMotion(
        step_px=None if moved.step_px is None else moved.step_px / scale,
        drift_px=None if moved.drift_px is None else moved.drift_px / scale,
        tracked_share=moved.tracked_share,
    )


def _camera_reason(settings: FixedCameraSettings, moved: CameraMotion) -> str | None:
    to_limit = settings.profile.width / 720
    step, drift = moved.step_px, moved.drift_px
    if step is None and drift is None:
        return "camera_unknown: too little of the background can be followed to tell whether the camera stands still"
    fast = step is not None and step > settings.camera_step_px * to_limit
    far = drift is not None and drift > settings.camera_drift_px * to_limit
    if not fast and not far:
        return None
    told = [f"{step:.2f} px a frame"] if step is not None else []
    told += [f"{drift:.2f} px from the first frame"] if drift is not None else []
    return f"camera_moves: the background moves {', up to '.join(told)}"


def _write_files(dataset: Dataset, row: Clip, media: _Media, profile: Profile) -> dict[str, Path]:
    folder = dataset.clip_folder(row.source, row.clip_id)
    paths = {f"{role}_path": folder / stored_name(role, ".mp4") for role in ("interaction", "static", "hands")}
    paths |= {f"{role}_path": folder / stored_name(role) for role in ("camera", "hand_motion")}
    write_video(paths["interaction_path"], media.interaction, profile.fps)
    write_video(paths["static_path"], repeat(media.interaction[0], profile.num_frames), profile.fps)
    write_video(paths["hands_path"], media.hands, profile.fps)
    media.cameras.save(paths["camera_path"])
    media.motion.save(paths["hand_motion_path"])
    return paths


def _with_motion(row: Clip, motion: HandMotion, estimator: HandEstimator) -> Clip:
    jitter = hand_jitter_px(motion)
    most = int(np.bincount(motion.frame).max()) if len(motion) else 0
    flags = (
        [f"more_than_two_hands: up to {most} in a frame: another person, or something taken for a hand"]
        if most > 2
        else []
    )
    return row.updated(
        hand_jitter_px=None if jitter is None else round(jitter, 4),
        hand_estimator=estimator.name,
        body_model=estimator.model_name,
        calibration_source="assumed",
        flags=(*row.flags, *flags),
    )


def _captioned(row: Clip, caption: Caption) -> Clip:
    length = length_flag(caption.text)
    return row.updated(
        prompt=caption.text,
        prompt_origin=caption.origin,
        action_label=short_label(caption.text),
        flags=(*row.flags, *caption.flags, *([length] if length else [])),
    )


def _with_files(dataset: Dataset, row: Clip, paths: Mapping[str, Path]) -> Clip:
    measures = measure_triplet(paths["interaction_path"], paths["static_path"], paths["hands_path"])
    known = any(flag.startswith("no_hands") for flag in row.flags)
    flags = [flag for flag in measures.flags if not (known and flag == EMPTY_HANDS_FLAG)]
    return ready_row(dataset, row, paths, measures, flags)
