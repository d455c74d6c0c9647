"""What a TRUMANS clip shows: the room, its light, its objects, and the actor, as the renderer wants them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from manifests.errors import DwmError
from render.body import BodyModel, BodyMotion, Joint, SkinnedBody
from render.ego_camera import head_faces
from render.glb import load_objects, load_rigid_object
from render.rotations import Floats
from render.scene import Actor, FloatArray, Lighting, Scene, SceneObject, SpotLight
from sources.trumans import BodyParameters, TrumansRecording

BACKGROUND = (0.70, 0.80, 0.90)
"""Colour of the sky, where a room has no wall or ceiling."""

Frames = npt.NDArray[np.int64]

_JAW = 22
_CEILING_M = 2.0
"""A scene object that reaches higher (walls, ceilings, curtains) casts no shadow: the sun shines into the room."""
_SUN_DISTANCE_M = 30.0
_SUN_DIRECTION = np.array([0.30, 1.0, 0.22])
_SUN_POWER = (0.62, 0.60, 0.56)
_SLEEVE, _TROUSERS, _SKIN = (0.36, 0.37, 0.42), (0.035, 0.05, 0.12), (0.62, 0.38, 0.27)


@dataclass
class SceneLibrary:
    """Meshes of one scene, loaded once: the same objects for every clip, so that they stay uploaded."""

    scene_meshes: tuple[Path, ...]
    lights: Path | None = None
    scene: Scene = field(init=False)
    _objects: dict[tuple[str, Path], SceneObject] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.scene = load_scene(self.scene_meshes, self.lights)

    def rigid_object(self, name: str, path: Path) -> SceneObject:
        """An object's rest geometry.

        Raises:
            DwmError: its file is missing or broken.
        """
        key = (name, path)
        if key not in self._objects:
            self._objects[key] = load_rigid_object(path, name)
        return self._objects[key]


def load_scene(meshes: tuple[Path, ...], lights: Path | None = None) -> Scene:
    """A room from its mesh files, with the lights of a file, else lit by the sun and the sky.

    Raises:
        DwmError: no mesh is given, or a file is missing or broken.
    """
    if not meshes:
        raise DwmError("scene: has no mesh; export the scene or give its mesh")
    objects = []
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for path in meshes:
        for item in load_objects(path):
            points = np.concatenate([surface.vertices for surface in item.surfaces])
            world = points @ item.pose[:3, :3].T + item.pose[:3, 3]
            low, high = np.minimum(low, world.min(axis=0)), np.maximum(high, world.max(axis=0))
            casts = bool(world[:, 1].max() <= _CEILING_M)
            objects.append(SceneObject(item.name, item.surfaces, item.pose, casts_shadow=casts))
    return Scene(tuple(objects), sunlight(low, high) if lights is None else read_lights(lights), BACKGROUND)


def read_lights(path: Path) -> Lighting:
    """The lights of a scene: `render.scene.Lighting` as JSON, colours linear, metres, y up.

    Raises:
        DwmError: the file is missing, or is something else.
    """
    try:
        return TypeAdapter(Lighting).validate_json(path.read_bytes())
    except OSError as error:
        raise DwmError(f"{path}: could not be read ({error.strerror}); export the scene again") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise DwmError(
            f"{path}: {where}: {first['msg'].lower()}; correct it, or remove the file for sunlight"
        ) from error


def sunlight(low: Floats, high: Floats) -> Lighting:
    """Light of a room that spans ``low`` [3] to ``high`` [3]: a high sun that casts shadows, the sky, a lamp."""
    centre = (low + high) / 2
    centre[1] = min(1.0, high[1])
    reach = float(np.linalg.norm((high - low)[[0, 2]])) / 2 + 0.5
    direction = _SUN_DIRECTION / np.linalg.norm(_SUN_DIRECTION)
    x, y, z = (float(value) for value in centre + direction * _SUN_DISTANCE_M)
    depth = reach + 3.0
    red, green, blue = (value * _SUN_DISTANCE_M**2 for value in _SUN_POWER)
    sun = SpotLight(
        position=(x, y, z),
        target=(float(centre[0]), float(centre[1]), float(centre[2])),
        power=(red, green, blue),
        cone_degrees=float(np.degrees(2 * np.arctan(reach / (_SUN_DISTANCE_M - 2.0)))) * 1.08,
        full_share=0.97,
        near_m=_SUN_DISTANCE_M - depth,
        far_m=_SUN_DISTANCE_M + depth,
    )
    lamp = (float(centre[0]), 2.3, float(centre[2]))
    return Lighting(
        sky=(0.52, 0.53, 0.55), ground=(0.34, 0.33, 0.31), spot=sun, fill_position=lamp, fill_power=(0.35,) * 3
    )


def body_motion(body: BodyModel, parameters: BodyParameters, frames: Frames, *, flat_hand_mean: bool) -> BodyMotion:
    """The actor's motion at some source frames, for a body that may stand in for SMPL-X.

    A stand-in keeps its own shape, because shape coefficients mean something only to the body that they were fitted
    with. Face coefficients are left out: the head carries the camera and is not drawn.
    """
    count = len(frames)
    pose = np.zeros((count, 55, 3))
    pose[:, 0] = parameters.global_orient[frames]
    pose[:, 1:_JAW] = parameters.body_pose[frames].reshape(count, 21, 3)
    pose[:, _JAW] = parameters.jaw_pose[frames]
    pose[:, Joint.LEFT_FINGERS : Joint.RIGHT_FINGERS] = parameters.left_hand_pose[frames].reshape(count, 15, 3)
    pose[:, Joint.RIGHT_FINGERS :] = parameters.right_hand_pose[frames].reshape(count, 15, 3)
    return BodyMotion(
        pose=pose,
        translation=parameters.transl[frames] + body.translation_offset,
        betas=np.zeros(0) if body.is_stand_in else parameters.betas,
        expression=np.zeros(0),
        flat_hand_mean=flat_hand_mean,
    )


@dataclass(frozen=True)
class Dress:
    """What the actors of all clips share: colours [V,3] and the faces [F] of the unseen head."""

    colours: FloatArray
    hidden_faces: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, body: BodyModel) -> Dress:
        """A grey jumper with long sleeves, dark trousers, bare hands and feet."""
        joints = body.rest()[1]
        wrist_x, hips_y = abs(joints[Joint.LEFT_WRIST, 0]), joints[Joint.SPINE_1, 1]
        ankles_y = joints[[7, 8], 1].mean()
        colours = np.tile(np.array(_SLEEVE, np.float32), (len(body.template), 1))
        colours[(body.template[:, 1] < hips_y) & (np.abs(body.template[:, 0]) < 0.5)] = _TROUSERS
        colours[body.template[:, 1] < ankles_y] = _SKIN
        colours[np.abs(body.template[:, 0]) > wrist_x - 0.04] = _SKIN
        return cls(colours, head_faces(body))

    def actor(self, body: BodyModel, skinned: SkinnedBody) -> Actor:
        """The actor of a clip."""
        return Actor(skinned.vertices, body.faces, self.colours, body.hands, self.hidden_faces)


def first_pose(poses: Floats) -> Floats:
    """First known pose [4,4] of a track [T,4,4]: where the object is in the initial scene."""
    known = np.isfinite(poses).all(axis=(1, 2))
    result: Floats = poses[int(np.argmax(known))]
    return result


def unused_betas_note(body: BodyModel, recording: TrumansRecording) -> str | None:
    """A reason to look where the recording's shape could not be used."""
    if body.is_stand_in and np.any(recording.body.betas):
        return f"body_shape: the stand-in body {body.name} keeps its own shape; give SMPL-X for the recording's betas"
    return None
