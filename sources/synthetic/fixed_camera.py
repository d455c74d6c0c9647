"""Generated fixed-camera videos in the layout of the TASTE-Rob release, for tests and the demo.

The recordings of the generator (`sources/synthetic/recording.py`), seen by a camera on a tripod behind the person's
head or in front of the table, under other light, in other clothes, with the noise and the dark corners of a real lens.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from openpyxl import Workbook

from manifests.atomic import write_bytes
from render.body import BodyModel, SkinnedBody, load_body
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.framing import Frames
from render.mesh_renderer import MeshRenderer
from render.rotations import Floats
from render.scene import Actor, Colour, Lighting, ObjectTrack, Scene, SceneObject
from render.video import write_video
from sources.synthetic.actions import Action
from sources.synthetic.marks import claim_folder
from sources.synthetic.recording import (
    RecordingPlan,
    SyntheticRecording,
    body_motion,
    compose_recording,
)
from sources.taste_rob import CAPTIONS_FILE, SHEETS, Subset
from sources.trumans_scene import BACKGROUND, Dress

_LOGGER = logging.getLogger(__name__)

WIDTH, HEIGHT, FPS = 360, 240, 10.0
_FRAME_STEP = 6
"""Every 6th of 30 frames a second, played at 10: twice as fast as life, so that an action fits a short clip."""
_FOV_DEGREES = 58.0
_SCENES = ("Dinning", "Kitchen", "Office_60491_to_70512")
"""Scene folders, as the release spells them; its captions may say Dining and Office."""
_FIRST_ID = 101

_AT_FURNITURE = (Action.OPEN_DRAWER, Action.CLOSE_DRAWER, Action.OPEN_DOOR, Action.CLOSE_DOOR)

_SLEEVES: tuple[Colour, ...] = ((0.30, 0.07, 0.06), (0.06, 0.14, 0.30), (0.50, 0.47, 0.40), (0.05, 0.05, 0.06))
_SKINS: tuple[Colour, ...] = ((0.62, 0.38, 0.27), (0.45, 0.26, 0.17), (0.72, 0.47, 0.36))
_BEHIND, _BEFORE = (0.16, 0.52, -0.36), (0.22, 0.50, 0.62)
"""Where the camera stands from the middle of the hands, in the frame of the person's place: over a shoulder, or
across the table, metres."""


@dataclass(frozen=True)
class FixedCameraReport:
    """What a call of the generator did: videos ``made`` and ``kept`` (they were there) in ``folder``."""

    folder: Path
    made: int
    kept: int


def generate_fixed_camera(raw: Path, count: int, seed: int) -> FixedCameraReport:
    """Write videos and `captions.xlsx` that ``raw`` lacks; the same seed gives the same bytes.

    Raises:
        DwmError: the folder holds videos of another seed, there is no usable OpenGL, or a file cannot be written.
    """
    claim_folder(raw, seed)
    missing = [index for index in range(count) if not video_path(raw, index).is_file()]
    if not missing and (raw / CAPTIONS_FILE).is_file():
        return FixedCameraReport(raw, made=0, kept=count)
    body = load_body()
    recordings = {index: compose_recording(table_recording(seed, index), body) for index in range(count)}
    captions = {index: recording.staged.text for index, recording in recordings.items()}
    if missing:
        with MeshRenderer(WIDTH, HEIGHT, samples=4) as renderer:
            for index in missing:
                random = np.random.default_rng([seed, index, 7])
                take = film(renderer, body, recordings[index], random, from_behind=index % 3 != 2)
                write_video(video_path(raw, index), _through_a_lens(take.frames, random), FPS, crf=20)
                _LOGGER.info("generated %s: %s", video_path(raw, index).name, captions[index])
    write_bytes(
        raw / CAPTIONS_FILE,
        captions_workbook([(_id(index), _caption_scene(index), captions[index]) for index in captions]),
    )
    return FixedCameraReport(raw, made=len(missing), kept=count - len(missing))


def table_recording(seed: int, index: int) -> RecordingPlan:
    """The recording of a number: each in its own room, at the table, where a tripod can stand."""
    plans = [RecordingPlan(seed, scene=index, recording=recording) for recording in (index % 2, 1 - index % 2)]
    return next(plan for plan in plans if plan.action not in _AT_FURNITURE)


def video_path(raw: Path, index: int) -> Path:
    """Where the video of a number lies."""
    return raw / Subset.DOUBLE_HAND / _scene(index) / f"{_id(index)}.mp4"


def captions_workbook(
    rows: Sequence[tuple[int | str | None, str, str | None]], subset: Subset = Subset.DOUBLE_HAND
) -> bytes:
    """An xlsx file with the sheets of the release; ``rows`` of id, scene and caption are in that of ``subset``.

    The same rows give the same bytes: the archive's times are fixed.
    """
    workbook = Workbook()
    first = workbook.active
    if first is not None:
        workbook.remove(first)
    for part, name in SHEETS.items():
        sheet = workbook.create_sheet(name)
        sheet.append(["id", "scene", "caption"])
        for row in rows if part is subset else ():
            sheet.append(list(row))
    written = io.BytesIO()
    workbook.save(written)
    return _without_times(written.getvalue())


def _without_times(archive: bytes) -> bytes:
    """The same archive, made at no particular time."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = _CORE_PROPERTIES
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return result.getvalue()


_CORE_PROPERTIES = (
    b'<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"/>'
)


def _id(index: int) -> int:
    return _FIRST_ID + index


def _scene(index: int) -> str:
    return _SCENES[index % len(_SCENES)]


def _caption_scene(index: int) -> str:
    return _scene(index).split("_")[0].replace("Dinning", "Dining")


@dataclass(frozen=True, eq=False)
class Take:
    """A recording as a still camera sees it.

    Attributes:
        frames: uint8 RGB [T, H, W, 3].
        cameras: the camera, T times.
        skinned: the person over the frames: where the hands truly are.
    """

    frames: Frames
    cameras: CameraPath
    skinned: SkinnedBody


def film(
    renderer: MeshRenderer,
    body: BodyModel,
    recording: SyntheticRecording,
    random: np.random.Generator,
    *,
    from_behind: bool,
) -> Take:
    """Film a recording from behind the person or across the table."""
    frames = np.arange(0, recording.body.num_frames, _FRAME_STEP)
    motion = body_motion(recording.body, body)
    motion = replace(motion, pose=motion.pose[frames], translation=motion.translation[frames])
    skinned = body.skin(motion)
    household = recording.household
    pose = _camera_pose(skinned, recording.staged.place, random, from_behind=from_behind)
    cameras = CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, _FOV_DEGREES), np.tile(pose, (len(frames), 1, 1)))
    tracks = []
    for prop in household.props:
        poses = recording.tracks[prop.name][frames]
        still = bool(np.abs(poses - poses[0]).max() < 1e-6)
        tracks.append(ObjectTrack(SceneObject(prop.name, prop.surfaces, poses[0]), poses, is_still=still))
    scene = Scene(household.background, _evening(household.lighting, random), BACKGROUND)
    views = renderer.render_views(scene, tracks, _dressed(body, skinned, random), cameras)
    return Take(views.interaction, cameras, skinned)


def _camera_pose(skinned: SkinnedBody, place: Floats, random: np.random.Generator, *, from_behind: bool) -> Floats:
    """World-from-camera pose [4,4] of a tripod that looks at the middle of the hands' way."""
    hands = skinned.joints[:, [25, 28, 40, 43]].reshape(-1, 3)
    middle = (hands.min(axis=0) + hands.max(axis=0)) / 2
    offset = np.array(_BEHIND if from_behind else _BEFORE) + random.uniform(-0.04, 0.04, 3)
    offset[0] *= random.choice([-1.0, 1.0])
    return look_at(middle + place[:3, :3] @ offset, middle + random.uniform(-0.02, 0.02, 3))


def _evening(lighting: Lighting, random: np.random.Generator) -> Lighting:
    """The room under a warm or cold lamp from the side instead of its ceiling lamp."""
    warm = np.array([1.12, 1.0, 0.84]) if random.random() < 0.5 else np.array([0.92, 1.0, 1.14])
    side = float(random.choice([-1.0, 1.0]))

    def tinted(colour: Colour, strength: float) -> Colour:
        red, green, blue = (float(value) for value in np.asarray(colour) * warm * strength)
        return red, green, blue

    spot = replace(
        lighting.spot,
        position=(1.3 * side, 1.9, 1.1),
        target=(0.0, 0.75, 0.35),
        power=tinted(lighting.spot.power, 0.55),
    )
    return replace(
        lighting,
        sky=tinted(lighting.sky, 1.15),
        ground=tinted(lighting.ground, 1.2),
        spot=spot,
        fill_power=tinted(lighting.fill_power, 0.8),
    )


def _dressed(body: BodyModel, skinned: SkinnedBody, random: np.random.Generator) -> Actor:
    """The actor with other sleeves and skin than in the recordings for TRUMANS."""
    dress = Dress.of(body)
    arms = np.abs(body.template[:, 0]) > 0.2
    wrist = abs(body.rest()[1][20, 0])
    colours = dress.colours.copy()
    colours[body.template[:, 1] > body.rest()[1][3, 1] - 0.1] = _SLEEVES[int(random.integers(len(_SLEEVES)))]
    colours[arms & (np.abs(body.template[:, 0]) > wrist - 0.16)] = _SKINS[int(random.integers(len(_SKINS)))]
    return Actor(skinned.vertices, body.faces, colours, body.hands, dress.hidden_faces)


def _through_a_lens(frames: Frames, random: np.random.Generator) -> Iterator[Frames]:
    """Dark corners, a curve and sensor noise over rendered frames."""
    rows, columns = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    corners = (1.0 - 0.22 * (rows**2 + columns**2) / 2).astype(np.float32)[..., None]
    strength = float(random.uniform(2.0, 3.5))
    for frame in frames:
        light = frame.astype(np.float32) / 255 * corners
        curved = light + 0.10 * light * (1 - light) * (2 * light - 0.6)
        noisy = curved * 255 + random.normal(0.0, strength, frame.shape).astype(np.float32)
        yield np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)
