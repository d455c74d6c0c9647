"""Generated triplets for the demo: a person seated at a table pushes a box with one hand.

Every recording is one push in one room, rendered once as an aligned triplet (paper section 3.3) and written in the
official layout with our sidecar files. A recording depends only on the seed and its two numbers, so that recordings
can be made in any order, in any process, and again after a kill.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.atomic import write_text
from manifests.errors import DwmError
from manifests.profiles import Profile
from manifests.schema import Group, Source
from render.arrays import write_npz
from render.body import BodyModel, Joint, load_body
from render.camera import CameraPath, intrinsics_from_fov
from render.hands import HandMotion, hand_motion_from_body
from render.mesh_renderer import ClipImages, MeshRenderer
from render.rotations import Floats
from render.scene import (
    Actor,
    Colour,
    FloatArray,
    Material,
    ObjectTrack,
    SceneObject,
    Surface,
    box_surface,
    translated,
)
from render.video import write_video
from sources.official_layout import ClipMetadata
from sources.synthetic import textures
from sources.synthetic.push_motion import Action, PushMotion, PushPlan, make_push_motion
from sources.synthetic.rooms import Room, make_room

LOGGER = logging.getLogger(__name__)

SOURCE_FRAME_RATE = 30.0
"""Frames a second of the recordings that a profile samples."""

HORIZONTAL_FOV_DEGREES = 75.0

_SETTINGS_FILE = "settings.json"
_ACTIONS = tuple(Action)
_BOX_COLOURS: tuple[tuple[str, Colour], ...] = (
    ("red", (0.55, 0.05, 0.04)),
    ("blue", (0.04, 0.14, 0.50)),
    ("green", (0.06, 0.32, 0.10)),
    ("yellow", (0.72, 0.50, 0.05)),
    ("cardboard", (0.46, 0.29, 0.15)),
    ("white", (0.78, 0.77, 0.74)),
    ("purple", (0.28, 0.08, 0.36)),
    ("orange", (0.70, 0.24, 0.03)),
)
_TRIMS: tuple[tuple[str, Colour], ...] = (
    ("a cream", (0.66, 0.60, 0.45)),
    ("a dark red", (0.30, 0.03, 0.04)),
    ("a black", (0.03, 0.03, 0.035)),
    ("a pink", (0.62, 0.22, 0.30)),
)
_SKINS: tuple[Colour, ...] = ((0.62, 0.38, 0.28), (0.72, 0.48, 0.37), (0.40, 0.22, 0.14), (0.20, 0.10, 0.06))
_SLEEVES: tuple[Colour, ...] = ((0.16, 0.20, 0.30), (0.42, 0.40, 0.38), (0.30, 0.08, 0.08), (0.10, 0.22, 0.18))
_MOVES = {
    Action.PUSH_LEFT: "push {box} to the left",
    Action.PUSH_RIGHT: "push {box} to the right",
    Action.PUSH_AWAY: "push {box} away from me",
    Action.PULL_BACK: "pull {box} towards me",
}


@dataclass(frozen=True)
class RecordingPlan:
    """Names one recording: everything about it follows from these numbers."""

    seed: int
    scene: int
    recording: int

    @property
    def scene_id(self) -> str:
        """Name of the scene."""
        return f"scene_{self.scene:03d}"

    @property
    def recording_id(self) -> str:
        """Name of the recording, unique over scenes."""
        return f"{self.scene_id}_recording_{self.recording:03d}"

    @property
    def action(self) -> Action:
        """The actions take turns, beginning with another one in each scene."""
        return _ACTIONS[(self.scene + self.recording) % len(_ACTIONS)]


@dataclass(frozen=True)
class GenerationReport:
    """What a call of the generator did."""

    folder: Path
    made: int
    kept: int
    gl_renderer: str | None
    """Description of the OpenGL that drew, None when nothing was left to draw."""


@dataclass(frozen=True)
class _Box:
    """The pushed box."""

    name: str
    size: Floats
    surfaces: tuple[Surface, ...]


def plan_recordings(num_scenes: int, clips_per_scene: int, seed: int) -> list[RecordingPlan]:
    """The recordings of a data set, one clip each, scene by scene."""
    return [RecordingPlan(seed, scene, index) for scene in range(num_scenes) for index in range(clips_per_scene)]


def generate_pushed_box_triplets(
    out: Path, *, num_scenes: int = 6, clips_per_scene: int = 2, profile: Profile, seed: int = 0
) -> GenerationReport:
    """Write the triplets of all recordings below ``out``; recordings that are there whole are kept.

    Args:
        out: folder of the official layout, ``<out>/synthetic/<scene>/<recording>/videos/<stem>.mp4`` and so on.
        num_scenes: rooms.
        clips_per_scene: recordings a room, one clip each.
        profile: size, length and rate of the clips.
        seed: other seeds give other rooms and motions.

    Raises:
        DwmError: the folder holds data of another seed or profile, cannot be written, or there is no OpenGL.
    """
    claim_folder(out, profile, seed)
    return generate_recordings(out, plan_recordings(num_scenes, clips_per_scene, seed), profile)


def claim_folder(out: Path, profile: Profile, seed: int) -> None:
    """Write the settings into ``out``, or check that it holds the same ones.

    Raises:
        DwmError: the folder holds data of another seed or profile.
    """
    settings = json.dumps({"seed": seed, "profile": profile.model_dump(mode="json")}, indent=1, sort_keys=True) + "\n"
    path = out / _SETTINGS_FILE
    if not path.exists():
        write_text(path, settings)
    elif path.read_text(encoding="utf-8") != settings:
        raise DwmError(f"{path}: this data was generated with another seed or profile; choose another folder")


def generate_recordings(out: Path, plans: Sequence[RecordingPlan], profile: Profile) -> GenerationReport:
    """Make the recordings that ``out`` lacks, with one renderer: the work of one worker process (spawned, not forked).

    Raises:
        DwmError: a file cannot be written, or there is no OpenGL.
    """
    missing = [plan for plan in plans if not is_complete(out, plan)]
    description = None
    if missing:
        with MeshRenderer(profile.width, profile.height, scale=profile.render_scale) as renderer:
            description = renderer.description
            for plan in missing:
                _generate_recording(out, plan, profile, renderer)
                LOGGER.info("generated %s (%s)", plan.recording_id, description)
    return GenerationReport(out, made=len(missing), kept=len(plans) - len(missing), gl_renderer=description)


def recording_files(out: Path, plan: RecordingPlan) -> dict[str, Path]:
    """The files of a recording, by the name of their folder."""
    folder = out / "synthetic" / plan.scene_id / plan.recording_id
    endings = {
        "videos": "mp4",
        "videos_static": "mp4",
        "videos_hands": "mp4",
        "prompts": "txt",
        "prompts_rewrite": "txt",
        "cameras": "npz",
        "masks": "npz",
        "depth": "npz",
        "hand_motion": "npz",
        "metadata": "json",
    }
    return {name: folder / name / f"{plan.recording_id}.{ending}" for name, ending in endings.items()}


def is_complete(out: Path, plan: RecordingPlan) -> bool:
    """Tell whether all files of a recording are there; each was written whole or not at all."""
    return all(path.is_file() for path in recording_files(out, plan).values())


@dataclass(frozen=True)
class RecordingContent:
    """Everything that is drawn for a recording, before drawing."""

    room: Room
    box: _Box
    plan: PushPlan
    motion: PushMotion
    actor: Actor
    hand_motion: HandMotion
    cameras: CameraPath


def compose_recording(plan: RecordingPlan, profile: Profile, body: BodyModel) -> RecordingContent:
    """Room, box, motion and actor of a recording at the frames of its clip."""
    room = make_room(np.random.default_rng([plan.seed, plan.scene]))
    random = np.random.default_rng([plan.seed, plan.scene, plan.recording, 1])
    box = _make_box(random, plan.action)
    push = _plan_push(random, plan.action, box, room)
    motion = make_push_motion(body, push, profile.num_frames)
    skinned = body.skin(motion.body)
    cameras = CameraPath(
        intrinsics_from_fov(profile.width, profile.height, HORIZONTAL_FOV_DEGREES), motion.world_from_camera
    )
    actor = Actor(skinned.vertices, body.faces, _clothes(random, body), body.hands, _head_faces(body))
    return RecordingContent(room, box, push, motion, actor, hand_motion_from_body(body, skinned, cameras), cameras)


def render_recording(content: RecordingContent, renderer: MeshRenderer) -> ClipImages:
    """Draw the triplet of a recording."""
    track = ObjectTrack(SceneObject("box", content.box.surfaces, np.eye(4)), content.motion.box_poses)
    return renderer.render_clip(content.room.scene, [track], content.actor, content.hand_motion, content.cameras)


def _generate_recording(out: Path, plan: RecordingPlan, profile: Profile, renderer: MeshRenderer) -> None:
    body = load_body()
    content = compose_recording(plan, profile, body)
    images = render_recording(content, renderer)
    files = recording_files(out, plan)
    write_video(files["videos"], images.interaction, profile.fps)
    write_video(files["videos_static"], images.static, profile.fps)
    write_video(files["videos_hands"], images.hands, profile.fps)
    content.cameras.save(files["cameras"])
    write_npz(files["masks"], {"ids": images.ids})
    write_npz(files["depth"], {"depth": images.depth.astype(np.float16)})
    content.hand_motion.select(images.hand_pixels > 0).save(files["hand_motion"])
    move = _MOVES[plan.action].format(box=content.box.name)
    hand = "right" if content.plan.use_right_hand else "left"
    write_text(files["prompts"], f"I {move} across the table.\n")
    write_text(files["prompts_rewrite"], f"I {move} across {content.room.description}, with my {hand} hand.\n")
    metadata = ClipMetadata(
        source=Source.SYNTHETIC,
        group=Group.SYNTHETIC_DYNAMIC,
        scene_id=plan.scene_id,
        recording_id=plan.recording_id,
        action_label=plan.action.value,
        static_policy="clip_first",
        hand_estimator="body_model",
        calibration_source="rendered",
        body_model=body.name,
        licence="CC0-1.0",
        object_motion_m=round(content.plan.distance, 6),
    )
    write_text(files["metadata"], metadata.model_dump_json(indent=1, exclude_none=True) + "\n")


def _make_box(random: np.random.Generator, action: Action) -> _Box:
    """A box with a plain, checked or wooden skin, perhaps with a ribbon or a lid."""
    name, colour = _BOX_COLOURS[int(random.integers(len(_BOX_COLOURS)))]
    low, high = (0.095, 0.115) if action is Action.PULL_BACK else (0.10, 0.15)
    size = np.array([random.uniform(0.13, 0.19), random.uniform(low, high), random.uniform(0.12, 0.17)])
    kind = str(random.choice(["plain", "checked", "ribbon", "lid"]))
    skin = textures.checks(random, colour) if kind == "checked" else textures.plaster(random, colour)
    surfaces = [box_surface(size.tolist(), Material((1.0, 1.0, 1.0), skin, 0.12, gloss=0.06))]
    label = f"the {name} box"
    trim_name, trim = _TRIMS[int(random.integers(len(_TRIMS)))]
    if kind == "ribbon":
        width, lift = 0.028, 0.002
        band = Material(trim, gloss=0.1)
        surfaces.append(box_surface((width, size[1] + lift, size[2] + lift), band))
        surfaces.append(box_surface((size[0] + lift, size[1] + lift, width), band))
        label += f" with {trim_name} ribbon"
    if kind == "lid":
        lid = box_surface((size[0] + 0.002, 0.025, size[2] + 0.002), Material(trim))
        surfaces.append(translated(lid, (0.0, size[1] / 2 - 0.0115, 0.0)))
        label += f" with {trim_name} lid"
    return _Box(label, size, tuple(surfaces))


def _plan_push(random: np.random.Generator, action: Action, box: _Box, room: Room) -> PushPlan:
    table_height = room.table_height
    distance = float(random.uniform(0.14, 0.22))
    right = {Action.PUSH_LEFT: True, Action.PUSH_RIGHT: False}.get(action, bool(random.random() < 0.6))
    side = -1.0 if right else 1.0
    # The push crosses the middle of the picture: the box starts on the hand's side or nearer or farther.
    across = {Action.PUSH_LEFT: -0.5, Action.PUSH_RIGHT: 0.5}.get(action, 0.0) * distance
    ahead = {Action.PUSH_AWAY: 0.43, Action.PULL_BACK: 0.55}.get(action, 0.49)
    start = [
        across + side * 0.04 + random.uniform(-0.02, 0.02),
        table_height + box.size[1] / 2,
        ahead + random.uniform(-0.015, 0.015),
    ]
    return PushPlan(
        action=action,
        use_right_hand=right,
        box_size=box.size,
        box_start=np.array(start),
        box_yaw=float(random.uniform(-0.14, 0.14)),
        distance=distance,
        table_height=table_height,
        table_front=room.table_front,
        eye=np.array([random.uniform(-0.02, 0.02), table_height + random.uniform(0.44, 0.5), 0.12]),
        gaze=np.array([0.3 * start[0], table_height, 0.62 + random.uniform(-0.02, 0.03)]),
        sway_phases=random.uniform(0, 2 * np.pi, 6),
    )


def _clothes(random: np.random.Generator, body: BodyModel) -> FloatArray:
    """Linear colours [V,3]: bare hands and wrists, long sleeves, trousers."""
    skin = np.array(_SKINS[int(random.integers(len(_SKINS)))])
    sleeve = np.array(_SLEEVES[int(random.integers(len(_SLEEVES)))])
    rest_joints = body.rest()[1]
    colours = np.tile(sleeve, (len(body.template), 1))
    colours[body.template[:, 1] < rest_joints[Joint.SPINE_1, 1]] = (0.05, 0.06, 0.10)
    colours[np.abs(body.template[:, 0]) > abs(rest_joints[Joint.LEFT_WRIST, 0]) - 0.045] = skin
    return colours.astype(np.float32)


def _head_faces(body: BodyModel) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Faces [F] of head and neck, which carry the camera and are never drawn."""
    joints = [Joint.NECK, Joint.HEAD, 22, Joint.LEFT_EYE, Joint.RIGHT_EYE]
    on_head = body.weights[:, joints].sum(axis=1) > 0.3
    result: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = on_head[body.faces].any(axis=1)
    return result
