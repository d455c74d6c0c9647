"""Generated captures in the formats of Aria glasses: a room is explored, then acted in (paper 3.3, Appendix C).

The recordings of the generator (`sources/synthetic/recording.py`) seen through the lens of Aria's colour camera from
the actor's own head. Written as the glasses and the services write them: VRS with JPEG frames on their side, a
closed-loop trajectory, semi-dense points, an online calibration. `docs/aria.md` says what is unlike a real capture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from manifests.atomic import write_bytes
from manifests.schema import MaskId
from render.body import BodyModel, Joint, SkinnedBody, load_body
from render.camera import Camera, CameraPath
from render.ego_camera import ego_cameras
from render.fisheye import STORED_FROM_UPRIGHT, Image, Mask
from render.framing import Frames
from render.hands import HandMotion, hand_motion_from_body
from render.mesh_renderer import ClipViews, MeshRenderer
from render.rotations import Floats, matrix_from_axis_angle
from render.scene import Actor, FloatArray, ObjectTrack, Scene, SceneObject
from sources.synthetic.aria_results import write_results
from sources.synthetic.aria_vrs import SIZE, StoredFrame, stored_camera, write_recording
from sources.synthetic.marks import claim_folder
from sources.synthetic.recording import RecordingPlan, SyntheticRecording, body_motion, compose_recording
from sources.synthetic.staging import NUM_FRAMES
from sources.synthetic.timing import ease
from sources.trumans_scene import BACKGROUND, Dress

_LOGGER = logging.getLogger(__name__)

RATE_HZ = 10.0
"""Frames a second of the recording."""
START_NS = 80_000_000_000
"""The device's clock at the first frame."""
RENDER_SIZE, _RENDER_FOCAL = 960, 305.0
"""A straight picture that covers the lens' circle (57 degrees to each side) at its resolution in the middle."""
_EXPOSURE_S, _GAIN = 0.006, 3.0
_BREATHING = 0.04
"""How much the exposure goes up and down, as that of the glasses does with what they look at."""
LENS_RADIUS_PX = 356.0
"""A little more than the 353.75 within which projectaria-tools takes the lens to see."""
_POINTS_PER_FRAME = 220
_FRAMES_AT_ONCE = 8
_SHOWN_EVERY = 8
MASKS_FOLDER = "masks"
"""Folder of true masks beside the captures, for explorations that show the actor."""
_AWAY_M = 1000.0
"""Where the actor is while the scene is drawn without one."""


@dataclass(frozen=True)
class CapturePlan:
    """Names one capture: everything about it follows from these numbers.

    Attributes:
        seed: seed of the room and the action.
        number: of the capture.
        explore_frames: frames before the interaction.
        act_frames: frames of the interaction.
        source_step: frames of the recording (30 a second) between two frames of the interaction: 3 is as fast as life.
        explore_hands: the explorer's hands and body show in the second half of every `_SHOWN_EVERY` explored frames.
    """

    seed: int
    number: int
    explore_frames: int = 40
    act_frames: int = 25
    source_step: int = 6
    explore_hands: bool = False

    @property
    def recording(self) -> RecordingPlan:
        """The recording that is acted; its scene is that of no generated TRUMANS recording of the demo."""
        return RecordingPlan(self.seed, scene=100 + self.number, recording=0)

    @property
    def capture_id(self) -> str:
        """Name of the capture."""
        return f"capture_{self.number:03d}"

    def shows_actor(self, frame: int) -> bool:
        """Whether the actor is in a frame of the recording."""
        explored = frame < self.explore_frames
        return not explored or (self.explore_hands and frame % _SHOWN_EVERY >= _SHOWN_EVERY // 2)

    @property
    def num_frames(self) -> int:
        """Frames of the recording in VRS."""
        return self.explore_frames + self.act_frames

    @property
    def timestamps_ns(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """[N] times of the frames by the device's clock, a little uneven."""
        random = np.random.default_rng([self.seed, self.number, 11])
        steps = np.arange(self.num_frames) * 1e9 / RATE_HZ + random.uniform(-4e5, 4e5, self.num_frames)
        result: np.ndarray[tuple[int], np.dtype[np.int64]] = START_NS + np.rint(steps / 1000).astype(np.int64) * 1000
        return result


@dataclass(frozen=True, eq=False)
class StagedCapture:
    """A capture before it is drawn.

    Attributes:
        plan: its numbers.
        recording: the action.
        body: the body model of the actor.
        skinned: the body in every frame of the interaction.
        poses: [N,4,4] world from upright camera of every frame, explored ones first.
        tracks: the movable things, in every frame of the interaction.
    """

    plan: CapturePlan
    recording: SyntheticRecording
    body: BodyModel
    skinned: SkinnedBody
    poses: Floats
    tracks: tuple[ObjectTrack, ...]

    @cached_property
    def scene(self) -> Scene:
        """What stands still; one object, so that it stays uploaded."""
        household = self.recording.household
        return Scene(household.background, household.lighting, BACKGROUND)

    @cached_property
    def _dress(self) -> Dress:
        return Dress.of(self.body)

    def hands(self, frames: np.ndarray[tuple[int], np.dtype[np.int64]], cameras: CameraPath) -> HandMotion:
        """The true hands in some frames of the recording, as a camera sees them: none where the actor is not shown."""
        motion = hand_motion_from_body(self.body, self.posed(frames), cameras)
        shown = np.array([self.plan.shows_actor(int(frame)) for frame in frames])
        return motion.select(shown[motion.frame])

    def posed(self, frames: np.ndarray[tuple[int], np.dtype[np.int64]]) -> SkinnedBody:
        """The body in some frames of the recording; in explored ones as it reaches out later, carried by the head."""
        explored = frames < self.plan.explore_frames
        chosen = np.where(explored, self._reaching, frames - self.plan.explore_frames)
        acted = self.poses[self.plan.explore_frames + chosen]
        moved = np.where(explored[:, None, None], self.poses[frames] @ np.linalg.inv(acted), np.eye(4))
        turn, shift = moved[:, :3, :3], moved[:, None, :3, 3]

        def carried(places: npt.ArrayLike) -> Floats:
            result: Floats = np.einsum("tab,tnb->tna", turn, np.asarray(places, np.float64)) + shift
            return result

        return SkinnedBody(
            vertices=carried(self.skinned.vertices[chosen]).astype(np.float32),
            joints=carried(self.skinned.joints[chosen]),
            joint_rotations=turn[:, None] @ self.skinned.joint_rotations[chosen],
        )

    @cached_property
    def _reaching(self) -> int:
        """The frame of the interaction in which a wrist is nearest to the middle of the view."""
        acted = self.poses[self.plan.explore_frames :]
        wrists = self.skinned.joints[:, [Joint.LEFT_WRIST, Joint.RIGHT_WRIST]] - acted[:, None, :3, 3]
        ahead = np.einsum("tna,ta->tn", wrists, acted[:, :3, 2]) / np.linalg.norm(wrists, axis=-1)
        return int(ahead.max(axis=1).argmax())

    def resting(self, frames: int) -> list[ObjectTrack]:
        """The movable things as they stood before the interaction."""
        return [
            ObjectTrack(track.scene_object, np.repeat(track.poses[:1], frames, axis=0), is_still=True)
            for track in self.tracks
        ]

    def absent(self, frames: int) -> Actor:
        """An actor who is far away."""
        vertices = np.repeat(self.skinned.vertices[:1] + np.float32(_AWAY_M), frames, axis=0)
        return self._dress.actor(self.body, replace(self.skinned, vertices=vertices))

    def views(
        self, renderer: MeshRenderer, cameras: CameraPath, frames: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> ClipViews:
        """Draw frames of the recording, all explored or all of the interaction; the actor is in each."""
        if frames[0] < self.plan.explore_frames:
            tracks = self.resting(len(frames))
        else:
            places = frames - self.plan.explore_frames
            tracks = [replace(track, poses=track.poses[places], static_pose=track.poses[0]) for track in self.tracks]
        return renderer.render_views(self.scene, tracks, self._dress.actor(self.body, self.posed(frames)), cameras)


def stage_capture(plan: CapturePlan) -> StagedCapture:
    """Compose the action and the exploration before it."""
    body = load_body()
    recording = compose_recording(plan.recording, body)
    walked = recording.body.num_frames - NUM_FRAMES  # a standing person walks up first: exploring stands for that
    chosen = np.minimum(walked + np.arange(plan.act_frames) * plan.source_step, recording.body.num_frames - 1)
    motion = body_motion(recording.body, body)
    skinned = body.skin(replace(motion, pose=motion.pose[chosen], translation=motion.translation[chosen]))
    acted = ego_cameras(body, skinned, SIZE, SIZE).world_from_camera
    poses = np.concatenate([_explored(acted[0], plan), acted])
    tracks = []
    for prop in recording.household.props:
        places = recording.tracks[prop.name][chosen]
        still = bool(np.abs(places - places[0]).max() < 1e-6)
        tracks.append(ObjectTrack(SceneObject(prop.name, prop.surfaces, places[0]), places, is_still=still))
    return StagedCapture(plan, recording, body, skinned, poses, tuple(tracks))


def _explored(first: Floats, plan: CapturePlan) -> Floats:
    """Poses [E,4,4] of a head that looks around before it comes to rest where the interaction begins."""
    random = np.random.default_rng([plan.seed, plan.number, 12])
    share = np.arange(plan.explore_frames) / plan.explore_frames
    settle = 1.0 - ease((share - 0.85) / 0.15)
    phase = random.uniform(0.0, 2 * np.pi, 3)
    turn = np.radians(34.0) * np.sin(2 * np.pi * share + phase[0]) * settle
    nod = np.radians(12.0) * np.sin(2 * np.pi * 2.0 * share + phase[1]) * settle
    shift = np.stack(
        [
            0.26 * np.sin(2 * np.pi * 2.0 * share + phase[2]),
            0.10 * np.cos(2 * np.pi * 2.0 * share + phase[0]) + 0.05,
            0.14 * np.sin(2 * np.pi * share + phase[1]) - 0.08,
        ],
        axis=1,
    )
    shift *= settle[:, None]
    poses = np.tile(first, (plan.explore_frames, 1, 1))
    yaw = matrix_from_axis_angle(np.outer(turn, [0.0, 1.0, 0.0]))
    pitch = matrix_from_axis_angle(np.outer(nod, [1.0, 0.0, 0.0]))
    poses[:, :3, :3] = yaw @ first[:3, :3] @ pitch
    forward = np.array([first[0, 2], 0.0, first[2, 2]])
    forward /= np.linalg.norm(forward)
    aside = np.array([forward[2], 0.0, -forward[0]])
    basis = np.stack([aside, [0.0, 1.0, 0.0], forward])
    poses[:, :3, 3] += shift @ basis
    return poses


@dataclass(frozen=True)
class CaptureReport:
    """What a call of the generator did: captures ``made`` and ``kept`` (they were there, whole) in ``folder``."""

    folder: Path
    made: int
    kept: int


def generate_captures(raw: Path, plans: list[CapturePlan], *, with_phases: bool = True) -> CaptureReport:
    """Write the captures that ``raw`` lacks, a folder each; the same plan gives the same bytes.

    Args:
        raw: the folder.
        plans: the captures, of one seed.
        with_phases: also write the sidecar that says when the interaction begins.

    Raises:
        DwmError: the folder holds captures of another seed, there is no usable OpenGL, or a file cannot be written.
    """
    for seed in {plan.seed for plan in plans}:
        claim_folder(raw, seed)
    # The last file of a capture that is written says that it is whole.
    missing = [plan for plan in plans if not recording_path(raw, plan).is_file()]
    if missing:
        with MeshRenderer(RENDER_SIZE, RENDER_SIZE, samples=4) as renderer:
            for plan in missing:
                write_capture(raw, stage_capture(plan), renderer, with_phases=with_phases)
                _LOGGER.info("generated %s: %s", plan.capture_id, plan.recording.action)
    return CaptureReport(raw, made=len(missing), kept=len(plans) - len(missing))


def recording_path(raw: Path, plan: CapturePlan) -> Path:
    """The VRS file of a capture."""
    return raw / plan.capture_id / f"{plan.capture_id}.vrs"


def mask_path(raw: Path, plan: CapturePlan, frame: int) -> Path:
    """The true mask of the actor in an explored frame."""
    return raw / MASKS_FOLDER / plan.capture_id / f"{frame:06d}.png"


def write_capture(raw: Path, staged: StagedCapture, renderer: MeshRenderer, *, with_phases: bool = True) -> None:
    """Draw a capture and write its files, the recording last."""
    path = recording_path(raw, staged.plan)
    random = np.random.default_rng([staged.plan.seed, staged.plan.number, 13])
    pictures: list[Image] = []
    points: list[Floats] = []
    for frame, drawn in enumerate(_drawn(staged, renderer)):
        pictures.append(drawn.picture)
        if frame < staged.plan.explore_frames:
            depth = np.where(drawn.actor, 0.0, drawn.depth)  # the services leave out what moves
            points.append(_surface_points(Camera(render_intrinsics(), staged.poses[frame]), depth, random))
            if drawn.actor.any():
                write_bytes(mask_path(raw, staged.plan, frame), _stored_mask(drawn.actor))
    write_results(path, staged, np.concatenate(points), random, with_phases=with_phases)
    write_recording(path, _stored(staged.plan, pictures), RATE_HZ)


@dataclass(frozen=True, eq=False)
class _DrawnFrame:
    """A straight picture [S,S,3], its depth [S,S] in metres, and where the actor is [S,S]."""

    picture: Image
    depth: Floats
    actor: Mask


def _drawn(staged: StagedCapture, renderer: MeshRenderer) -> Iterator[_DrawnFrame]:
    """Every frame: the still scene first, then the interaction."""
    plan = staged.plan
    for frames in _batches(plan):
        cameras = CameraPath(render_intrinsics(), staged.poses[frames])
        if plan.shows_actor(int(frames[0])):
            views = staged.views(renderer, cameras, frames)
        else:
            count = len(frames)
            views = renderer.render_views(staged.scene, staged.resting(count), staged.absent(count), cameras)
        actor = (views.ids == MaskId.HANDS) | (views.ids == MaskId.ACTOR)
        for each in zip(views.interaction, views.depth.astype(np.float64), actor, strict=True):
            yield _DrawnFrame(*each)


def _batches(plan: CapturePlan) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The frames of a recording in runs of at most `_FRAMES_AT_ONCE`, the actor in all of a run or in none."""
    frames = np.arange(plan.num_frames)
    kinds = np.array([(frame < plan.explore_frames, plan.shows_actor(int(frame))) for frame in frames])
    for run in np.split(frames, np.flatnonzero((kinds[1:] != kinds[:-1]).any(axis=1)) + 1):
        for start in range(0, len(run), _FRAMES_AT_ONCE):
            yield run[start : start + _FRAMES_AT_ONCE]


def render_intrinsics() -> Floats:
    """Camera [3,3] of the straight pictures, `RENDER_SIZE` pixels a side, that are bent into the lens' ones."""
    middle = RENDER_SIZE / 2
    return np.array([[_RENDER_FOCAL, 0.0, middle], [0.0, _RENDER_FOCAL, middle], [0.0, 0.0, 1.0]])


def _surface_points(camera: Camera, depth: Floats, random: np.random.Generator) -> Floats:
    """World points [n,3] of pixels in the middle of surfaces, within what the lens sees."""
    pixels = random.integers(60, RENDER_SIZE - 60, (_POINTS_PER_FRAME * 2, 2))
    rows, columns = pixels[:, 1], pixels[:, 0]
    here = depth[rows, columns]
    around = np.stack([depth[rows + dy, columns + dx] for dy, dx in ((0, 2), (2, 0), (0, -2), (-2, 0))])
    flat = (here > 0.1) & (np.abs(around - here).max(axis=0) < 0.03 * here)
    kept = np.flatnonzero(flat)[:_POINTS_PER_FRAME]
    return camera.unproject(pixels[kept] + 0.5, here[kept])


def _stored(plan: CapturePlan, pictures: list[Image]) -> Iterator[StoredFrame]:
    """Frames as the sensor stores them: bent, on their side, with the exposure of the moment."""
    columns, rows, seen = lens_maps()
    for frame, (picture, time_ns) in enumerate(zip(pictures, plan.timestamps_ns, strict=True)):
        bent = np.asarray(cv2.remap(picture, columns, rows, cv2.INTER_LINEAR))
        strength = 1.0 + _BREATHING * np.sin(2 * np.pi * frame / 23.0)
        bright = np.clip(np.rint(bent.astype(np.float32) * strength), 0, 255).astype(np.uint8)
        bright[~seen] = 0
        yield StoredFrame(bright, int(time_ns), _EXPOSURE_S * strength, _GAIN)


def lens_maps() -> tuple[FloatArray, FloatArray, Mask]:
    """Where each stored pixel lies in the straight picture (first centre at 0), and whether the lens sees there."""
    lens = stored_camera()
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).astype(np.float64)
    # Beyond the circle the lens' polynomial turns around: those pixels stay black.
    away = np.linalg.norm(pixels - lens.params[1:3], axis=-1)
    circle = away <= LENS_RADIUS_PX
    rays = np.tile([0.0, 0.0, 1.0], (SIZE, SIZE, 1))
    rays[circle] = lens.unproject(pixels[circle]) @ STORED_FROM_UPRIGHT
    straight = rays[..., :2] * _RENDER_FOCAL + RENDER_SIZE / 2 - 0.5
    return straight[..., 0].astype(np.float32), straight[..., 1].astype(np.float32), circle


def _stored_mask(mask: Mask) -> bytes:
    """PNG of a mask of the straight picture as the sensor would store it: 255 where it is True."""
    columns, rows, seen = lens_maps()
    bent = np.asarray(cv2.remap(mask.astype(np.uint8) * 255, columns, rows, cv2.INTER_NEAREST))
    bent[~seen] = 0
    return cv2.imencode(".png", bent)[1].tobytes()


def static_truth(staged: StagedCapture, cameras: CameraPath, width: int, height: int) -> Frames:
    """What the scene looked like before the interaction, along any path, [T,H,W,3]: what a static video should show."""
    with MeshRenderer(width, height, scale=2, samples=4) as renderer:
        frames = len(cameras)
        views = renderer.render_views(staged.scene, staged.resting(frames), staged.absent(frames), cameras)
    return views.interaction
