"""Inference on one's own scene: a scene, a camera path, a hand motion -> the conditions of a clip (paper 3.1).

The clip is `conditions_only`: it has a static and a hand video, and no interaction to compare with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import code_version, hash_config, hash_file, short_id
from manifests.profiles import Profile
from manifests.schema import Clip, ClipStatus, Source
from render.body import DEFAULT_BODY_PATH, load_body
from render.mesh_renderer import MeshRenderer
from render.triplet import measure_triplet
from render.video import write_video
from sources.building import keep_decisions
from sources.official_clip import stored_name
from sources.twin_camera import TwinCamera, read_camera
from sources.twin_hands import TwinHands, read_hands
from sources.twin_scene import open_scene

NO_GROUND_TRUTH = "a scene, a camera path and a hand motion of one's own: nobody recorded the interaction"
_UNSEEN_FLAG_SHARE = 0.2
_SHADOW_MAP_SIZE = 1536


class TwinRequest(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: Path = Field(description="PLY of Gaussians, or GLB, glTF or OBJ with meshes (y up, metres).")
    camera: Path = Field(description="Camera path, npz or JSON.")
    hands: Path | None = Field(default=None, description="Hand motion, npz; none draws no hands.")
    prompt: str = Field(default="", description="What happens, in a sentence.")
    profile: Profile = Field(description="Size, length and rate of the clip.")
    body: Path = Field(default=DEFAULT_BODY_PATH, description="SMPL-X npz whose hands are moved by poses.")

    def inputs(self) -> dict[str, str]:
        """SHA-256 of the files, by role.

        Raises:
            DwmError: a file is missing.
        """
        named = {"scene": self.scene, "camera": self.camera, "hands": self.hands}
        for role, path in named.items():
            if path is not None and not path.is_file():
                raise DwmError(f"{path}: no such file; give the {role} file")
        return {role: hash_file(path) for role, path in named.items() if path is not None}


class TwinReport(BaseModel):
    """What was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_id: str = Field(description="Id of the clip.")
    made: bool = Field(description="False where it was there already, from the same files.")
    static: Path = Field(description="Its static video.")
    hands: Path = Field(description="Its hand video.")
    hand_visible_frames: int = Field(description="Frames that show a hand.")
    unseen_share: float = Field(description="Largest share of a frame in which the scene holds nothing.")
    flags: tuple[str, ...] = Field(description="Reasons to look.")

    def lines(self) -> list[str]:
        """The report for people."""
        verb = "made" if self.made else "unchanged"
        return [
            f"{self.clip_id} {verb}: {self.static} and {self.hands}",
            f"{self.hand_visible_frames} frames show a hand; up to {self.unseen_share:.1%} of a frame is no scene",
            *(f"look: {flag}" for flag in self.flags),
        ]


def build_twin(dataset_root: Path, request: TwinRequest) -> TwinReport:
    """Draw the conditions of a clip and write its row; a clip that is there stays as it is.

    Raises:
        DwmError: a file is missing or broken, the path is too short, the camera never sees the scene, there is no
            usable OpenGL, or a file cannot be written.
    """
    hashes = request.inputs()
    # What is read decides whether the request makes sense: nothing is written before.
    camera = read_camera(request.camera)
    hands = None if request.hands is None else read_hands(request.hands)
    dataset = Dataset.create_or_open(dataset_root)
    row = _empty_row(request, hashes)
    before = dataset.clips.find(row.clip_id)
    if before is not None and _is_whole(dataset, before, row):
        return _report(dataset, before, made=False)
    made = _write_clip(dataset, request, camera, hands, row)
    dataset.clips.upsert([keep_decisions(made, before)])
    return _report(dataset, made, made=True)


def _empty_row(request: TwinRequest, hashes: dict[str, str]) -> Clip:
    profile = request.profile
    clip_id = short_id(
        Source.TWIN.value,
        *(hashes.get(role, "") for role in ("scene", "camera", "hands")),
        request.prompt,
        profile.num_frames,
        profile.width,
        profile.height,
        profile.fps,
    )
    settings = request.model_copy(
        update={
            "scene": Path(request.scene.name),
            "camera": Path(request.camera.name),
            "hands": None,
            "body": Path(hash_file(request.body)),
        }
    )
    return Clip(
        clip_id=clip_id,
        source=Source.TWIN,
        scene_id=f"twin/{request.scene.stem}",
        recording_id=f"twin/{request.camera.stem}",
        num_frames=profile.num_frames,
        fps=profile.fps,
        width=profile.width,
        height=profile.height,
        prompt=request.prompt,
        prompt_origin="given" if request.prompt else None,
        calibration_source="rendered",
        static_policy="scene_initial",
        status=ClipStatus.CONDITIONS_ONLY,
        reason=NO_GROUND_TRUTH,
        input_hashes=hashes,
        code_version=code_version(),
        config_hash=hash_config(settings),
    )


def _is_whole(dataset: Dataset, before: Clip, row: Clip) -> bool:
    files = [path for column in Clip.FILE_COLUMNS if (path := getattr(before, column)) is not None]
    return (
        before.status is ClipStatus.CONDITIONS_ONLY
        and before.config_hash == row.config_hash
        and all(dataset.absolute(path).is_file() for path in files)
    )


def _write_clip(dataset: Dataset, request: TwinRequest, camera: TwinCamera, hands: TwinHands | None, row: Clip) -> Clip:
    profile = request.profile
    cameras, reshaped = camera.at(profile)
    flags = [reshaped] if reshaped else []
    body = load_body(request.body)
    motion = None if hands is None else hands.motion(body, cameras, camera.chosen(profile))
    scene = open_scene(request.scene)
    folder = dataset.clip_folder(row.source, row.clip_id)
    paths = {f"{role}_path": folder / stored_name(role, ".mp4") for role in ("static", "hands")}
    paths["camera_path"] = folder / stored_name("camera")
    with MeshRenderer(
        profile.width, profile.height, scale=profile.render_scale, samples=4, shadow_size=_SHADOW_MAP_SIZE
    ) as renderer:
        drawn = scene.draw(renderer, cameras)
        if drawn.unseen.all():
            raise DwmError(
                f"{request.camera}: no camera of the path sees anything of {request.scene.name}; give "
                "world-from-camera poses in the scene's frame (x right, y down, z forward)"
            )
        video = np.zeros((profile.num_frames, profile.height, profile.width, 3), np.uint8)
        if motion is not None:
            video, shares = renderer.render_hands(motion, cameras.intrinsics, profile.num_frames)
            motion = motion.select(shares > 0)
    share = float(drawn.unseen_share.max())
    if share > _UNSEEN_FLAG_SHARE:
        frame = int(drawn.unseen_share.argmax())
        flags.append(f"unseen: the scene holds nothing in {share:.0%} of frame {frame}")
    write_video(paths["static_path"], drawn.frames, profile.fps)
    write_video(paths["hands_path"], video, profile.fps)
    cameras.save(paths["camera_path"])
    if motion is not None:
        paths["hand_motion_path"] = folder / stored_name("hand_motion")
        motion.save(paths["hand_motion_path"])
    measures = measure_triplet(None, paths["static_path"], paths["hands_path"])
    posed = hands is not None and hands.form in {"hand_poses", "body_poses"}
    return row.updated(
        **{column: dataset.relative(path) for column, path in paths.items()},
        output_hashes={column: hash_file(path) for column, path in paths.items()},
        hand_estimator=None if hands is None else "body_model" if posed else "file",
        body_model=body.name if posed else None,
        hand_visible_frames=measures.hand_visible_frames,
        unseen_share=round(share, 6),
        flags=(*flags, *measures.flags),
    )


def _report(dataset: Dataset, row: Clip, *, made: bool) -> TwinReport:
    return TwinReport(
        clip_id=row.clip_id,
        made=made,
        static=dataset.absolute(row.static_path or ""),
        hands=dataset.absolute(row.hands_path or ""),
        hand_visible_frames=row.hand_visible_frames or 0,
        unseen_share=row.unseen_share or 0.0,
        flags=row.flags,
    )
