"""A furnished room that is explored: posed pictures along a path through it and noisy points on its surfaces.

What a reconstruction needs, with the truth beside it: nothing moves, the poses are exact, and the same room can be
drawn from any other place. Points are drawn evenly over the surfaces and moved by noise, as semi-dense points of a
visual odometry lie near surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from render.body import load_body
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.mesh_renderer import MeshRenderer
from render.rotations import Floats
from render.scene import Actor, Image, ObjectTrack, Scene, SceneObject
from sources.synthetic.household import Household, make_household

_ROUNDS = 2
"""How often the gaze goes around the room."""

_AWAY_M = -50.0
"""Height of the body that the renderer wants, which nobody sees."""


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """An explored room.

    Attributes:
        household: the room.
        cameras: the exploring path, T poses.
        frames: [T,H,W,3] uint8 what it sees.
        points: [P,3] points near surfaces, world, metres.
    """

    household: Household
    cameras: CameraPath
    frames: Image
    points: Floats


def explore_household(
    renderer: MeshRenderer,
    seed: int,
    *,
    num_views: int = 48,
    num_points: int = 20_000,
    noise_m: float = 0.005,
    fov_degrees: float = 90.0,
) -> Exploration:
    """Furnish a room, look around in it and draw points on its surfaces.

    Args:
        renderer: gives the size of the pictures; without actor shadows, since nobody is there.
        seed: of the room, the path and the points.
        num_views: T.
        num_points: P.
        noise_m: standard deviation of the points around the surfaces, along each axis, metres.
        fov_degrees: horizontal field of view.
    """
    random = np.random.default_rng(seed)
    household = make_household(random)
    intrinsics = intrinsics_from_fov(renderer.width, renderer.height, fov_degrees)
    cameras = CameraPath(intrinsics, exploring_poses(num_views))
    return Exploration(
        household=household,
        cameras=cameras,
        frames=render_household(renderer, household, cameras),
        points=surface_points(random, household_objects(household), num_points, noise_m),
    )


def exploring_poses(count: int) -> Floats:
    """World-from-camera poses [count,4,4] of a head that walks a loop in the room and looks around, up and down."""
    time = np.arange(count) / count
    angle = 2 * np.pi * time
    eyes = np.stack([0.55 * np.sin(angle), 1.5 + 0.12 * np.sin(3 * angle), -0.3 - 0.45 * np.cos(angle)], axis=1)
    yaw, pitch = _ROUNDS * angle + 0.4 * np.sin(2 * angle), -0.38 + 0.22 * np.sin(5 * angle)
    gaze = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=1)
    return np.stack([look_at(eye, eye + towards) for eye, towards in zip(eyes, gaze, strict=True)])


def household_objects(household: Household) -> tuple[SceneObject, ...]:
    """Everything in the room as it stands at rest: what never moves, drawers and door closed."""
    places = {"drawer": household.at_chest, "cupboard_door": household.at_cupboard}
    closed = [
        SceneObject(
            prop.name,
            prop.surfaces,
            next(place for start, place in places.items() if prop.name.startswith(start)) @ household.closed[prop.name],
        )
        for prop in household.props
        if prop.name in household.closed
    ]
    return (*household.background, *closed)


def render_household(renderer: MeshRenderer, household: Household, cameras: CameraPath) -> Image:
    """Draw the room at rest along a path: [T,H,W,3] uint8."""
    scene = Scene(household_objects(household), household.lighting)
    body = load_body()
    away = np.broadcast_to(np.array([0.0, _AWAY_M, 0.0], np.float32), (len(cameras), *body.template.shape))
    nobody = Actor(
        np.ascontiguousarray(away),
        body.faces,
        np.zeros(body.template.shape, np.float32),
        body.hands,
        np.ones(len(body.faces), np.bool_),
    )
    none: Sequence[ObjectTrack] = ()
    return renderer.render_views(scene, none, nobody, cameras).static


def surface_points(random: np.random.Generator, objects: Sequence[SceneObject], count: int, noise_m: float) -> Floats:
    """Points [count,3] drawn evenly over the triangles of objects, with Gaussian noise; world, metres."""
    corners = np.concatenate(
        [
            surface.vertices[surface.faces] @ each.pose[:3, :3].T + each.pose[:3, 3]
            for each in objects
            for surface in each.surfaces
        ]
    )
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    chosen = corners[random.choice(len(corners), count, p=areas / areas.sum())]
    first, second = random.random((2, count, 1))
    root = np.sqrt(first)  # even over a triangle
    places = (1 - root) * chosen[:, 0] + root * (1 - second) * chosen[:, 1] + root * second * chosen[:, 2]
    result: Floats = places + noise_m * random.standard_normal((count, 3))
    return result
