"""One TRUMANS window as a clip: drawn, checked, written, described by a row (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.dataset import Dataset
from manifests.errors import UsageError
from manifests.hashing import code_version, hash_config, hash_file, short_id
from manifests.profiles import Profile
from manifests.schema import Clip, ClipStatus, Group, Source
from render.arrays import write_npz
from render.body import DEFAULT_BODY_PATH, BodyModel
from render.camera import CameraPath
from render.ego_camera import HORIZONTAL_FOV_DEGREES, ego_cameras
from render.hands import HandMotion, hand_motion_from_body
from render.mesh_renderer import MeshRenderer
from render.scene import Actor, ObjectTrack
from render.triplet import measure_triplet
from render.video import write_video
from sources.building import ready_row
from sources.official_clip import stored_name
from sources.trumans import TrumansRecording
from sources.trumans_checks import (
    MOVED_M,
    MovingObject,
    check_alignment,
    ground_flag,
    object_flags,
    path_length_m,
    view_flag,
)
from sources.trumans_clips import ClipWindow, describe_clip
from sources.trumans_scene import Dress, SceneLibrary, body_motion, first_pose, unused_betas_note

StaticPolicy = Literal["clip_first", "scene_initial"]

_SHADOW_MAP_SIZE = 1536
"""7 mm a texel over a room of 10 m; each of the three maps takes 9 MB."""
_COMPRESSION = 1
"""zlib level of masks and depth: level 6 takes five times as long to save a tenth."""


class TrumansSettings(BaseModel):
    """What decides how a clip is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile = Field(description="Size, length and sampling of the clips.")
    source: Source = Field(default=Source.TRUMANS, description="`synthetic` for generated recordings in this format.")
    licence: str | None = Field(default=None, description="Licence of the source data.")
    static_policy: StaticPolicy = Field(
        default="clip_first",
        description="Where the static video freezes objects: the clip's first frame, or the recording's.",
    )
    samples: Literal[0, 4] = Field(default=4, description="Samples a pixel (MSAA).")
    shadows: bool = Field(default=True, description="Whether the sun casts shadows.")
    actor_shadows: bool = Field(default=True, description="Whether the actor casts one.")
    horizontal_fov_degrees: float = Field(
        default=HORIZONTAL_FOV_DEGREES, description="Field of view over the image's width.", gt=10, lt=150
    )
    flat_hand_mean: bool = Field(default=True, description="Finger poses are relative to a flat hand.")
    body: Path = Field(default=DEFAULT_BODY_PATH, description="SMPL-X npz; the stand-in body by default.")

    def config_hash(self) -> str:
        """Hash of everything that the pixels depend on, wherever the body's file lies."""
        content = self.model_copy(update={"body": Path(hash_file(self.body))})
        return hash_config(content)

    def open_renderer(self) -> MeshRenderer:
        """A renderer for these settings.

        Raises:
            DwmError: there is no usable OpenGL.
        """
        return MeshRenderer(
            self.profile.width,
            self.profile.height,
            scale=self.profile.render_scale,
            samples=self.samples,
            shadows=self.shadows,
            actor_shadows=self.actor_shadows,
            shadow_size=_SHADOW_MAP_SIZE,
        )


def settings_from(profile: Profile, values: Mapping[str, object]) -> TrumansSettings:
    """Settings from what a user gave.

    Raises:
        UsageError: a value that its setting cannot take; the message names both.
    """
    try:
        return TrumansSettings.model_validate({"profile": profile, **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]} '{first['input']}': {first['msg'].lower()}") from error


def clip_id_of(settings: TrumansSettings, recording_id: str, window: ClipWindow) -> str:
    """Id of a clip: the same for the same window of the same recording at the same size, wherever the raw data lies."""
    profile = settings.profile
    return short_id(
        settings.source.value,
        recording_id,
        window.start_frame,
        window.frame_step,
        profile.num_frames,
        profile.width,
        profile.height,
        profile.fps,
        settings.static_policy,
    )


def empty_row(
    settings: TrumansSettings, scene_id: str, recording_id: str, window: ClipWindow, config_hash: str
) -> Clip:
    """The row of a window before anything is drawn: failed, until it is."""
    return Clip(
        clip_id=clip_id_of(settings, recording_id, window),
        source=settings.source,
        group=Group.SYNTHETIC_DYNAMIC,
        scene_id=scene_id,
        recording_id=recording_id,
        start_frame=window.start_frame,
        frame_step=window.frame_step,
        static_policy=settings.static_policy,
        licence=settings.licence,
        status=ClipStatus.FAILED,
        reason="not drawn yet",
        config_hash=config_hash,
        code_version=code_version(),
    )


@dataclass(frozen=True)
class Studio:
    """What the clips of a scene share: renderer, body and its dress, meshes."""

    renderer: MeshRenderer
    body: BodyModel
    dress: Dress
    library: SceneLibrary
    settings: TrumansSettings


def write_clip(dataset: Dataset, studio: Studio, recording: TrumansRecording, window: ClipWindow, row: Clip) -> Clip:
    """Draw a window, check it, write its files and return its row; nothing is written unless the check holds.

    Args:
        dataset: where the files go.
        studio: shared by the clips of the scene.
        recording: the recording.
        window: its source frames.
        row: `empty_row` with the hashes of the inputs.

    Raises:
        DwmError: a mesh is missing, the images disagree outside the mask, or a file cannot be written.
    """
    settings = studio.settings
    frames = window.source_frames
    motion = body_motion(studio.body, recording.body, frames, flat_hand_mean=settings.flat_hand_mean)
    skinned = studio.body.skin(motion)
    profile = settings.profile
    cameras = ego_cameras(
        studio.body,
        skinned,
        profile.width,
        profile.height,
        betas=motion.betas,
        horizontal_fov_degrees=settings.horizontal_fov_degrees,
    )
    moving, tracks = _tracks(studio, recording, window)
    seen = (unused_betas_note(studio.body, recording), ground_flag(studio.body, skinned))
    flags = [*recording.notes, *(flag for flag in seen if flag)]
    flags += object_flags(moving, skinned, studio.library.scene)

    folder = dataset.clip_folder(settings.source, row.clip_id)
    paths = {f"{role}_path": folder / stored_name(role, ".mp4") for role in ("interaction", "static", "hands")}
    paths |= {f"{role}_path": folder / stored_name(role) for role in ("camera", "masks", "depth", "hand_motion")}
    flags += _write_views(studio, tracks, studio.dress.actor(studio.body, skinned), cameras, paths)
    _write_hands(studio, hand_motion_from_body(studio.body, skinned, cameras), cameras, paths)
    measures = measure_triplet(*(paths[f"{role}_path"] for role in ("interaction", "static", "hands", "masks")))
    prompt = describe_clip(recording, window)
    described = row.updated(
        num_frames=profile.num_frames,
        fps=profile.fps,
        width=profile.width,
        height=profile.height,
        prompt=prompt.text,
        prompt_origin=prompt.origin,
        action_label=prompt.action_label,
        hand_estimator="body_model",
        calibration_source="rendered",
        body_model=studio.body.name,
        object_motion_m=round(max((path_length_m(each) for each in moving), default=0.0), 6),
        moved_objects=tuple(each.name for each in moving),
        flags=flags,
    )
    return ready_row(dataset, described, paths, measures, measures.flags)


def _write_views(
    studio: Studio, tracks: Sequence[ObjectTrack], actor: Actor, cameras: CameraPath, paths: Mapping[str, Path]
) -> list[str]:
    """Draw, check and write all but the hands; reasons to look. Each array is let go when it is written.

    Raises:
        DwmError: the images disagree outside the mask (nothing is written then), or a file cannot be written.
    """
    views = studio.renderer.render_views(studio.library.scene, tracks, actor, cameras)
    check_alignment(views)
    flag = view_flag(views)
    cameras.save(paths["camera_path"])
    write_npz(paths["masks_path"], {"ids": views.ids}, compress_level=_COMPRESSION)
    depth, videos = views.depth, {"static_path": views.static, "interaction_path": views.interaction}
    del views
    for column in tuple(videos):
        write_video(paths[column], videos.pop(column), studio.settings.profile.fps)
    write_npz(paths["depth_path"], {"depth": depth}, compress_level=_COMPRESSION)
    return [flag] if flag else []


def _write_hands(studio: Studio, hands: HandMotion, cameras: CameraPath, paths: Mapping[str, Path]) -> None:
    """Draw and write the hand video, and the motion of the hands that it shows."""
    video, shares = studio.renderer.render_hands(hands, cameras.intrinsics, len(cameras))
    write_video(paths["hands_path"], video, studio.settings.profile.fps)
    hands.select(shares > 0).save(paths["hand_motion_path"])


def _tracks(
    studio: Studio, recording: TrumansRecording, window: ClipWindow
) -> tuple[list[MovingObject], list[ObjectTrack]]:
    """The recording's drawable objects over a window, and which of them move in it."""
    moving, tracks = [], []
    for tracked in recording.objects:
        if tracked.mesh_path is None:
            continue
        poses = tracked.world_from_object[window.source_frames]
        if not np.isfinite(poses).all():
            continue  # it stands still without a pose: the reader drops windows of those that move
        scene_object = studio.library.rigid_object(tracked.name, tracked.mesh_path)
        initial = studio.settings.static_policy == "scene_initial"
        rest = first_pose(tracked.world_from_object) if initial else None
        track = ObjectTrack(scene_object, poses, rest)
        is_still = bool(track.departures().max() <= MOVED_M)
        if not is_still:
            source_poses = tracked.world_from_object[window.start_frame : window.end_frame]
            moving.append(MovingObject(tracked.name, track, source_poses))
        tracks.append(ObjectTrack(scene_object, poses, rest, is_still=is_still))
    return moving, tracks
