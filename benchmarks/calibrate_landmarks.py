"""Where the landmark network sees the key points of the stand-in body's hand: makes the table in `hand_model.py`.

Draws the body's right hand with its forearm in random poses and views, in a skin colour over soft backgrounds, runs
the network on them and solves for one offset a key point, in the rest axes of the bone that follows it (robust least
squares over all views; a weak pull to zero holds what no view shows).

Example:
    python benchmarks/calibrate_landmarks.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from render.body import BodyMotion, Joint, load_body
from render.hand_estimation.hand_model import HandModel, HandPose, PosedHand, hand_model
from render.hand_estimation.networks import LANDMARK_SIDE, LandmarkNetwork
from render.hand_estimation.regions import region_from_landmarks
from render.hands import FINGER_ORDER, HandMotion
from render.mesh_renderer import MeshRenderer
from render.rotations import Floats, axis_angle_from_matrix, frame_from_axes
from render.video import Frames

VIEWS, SIDE, FOCAL_PX = 260, 448, 700.0
SKIN = np.array([224, 172, 140])
ROBUST_PX, PULL = 8.0, 50e-3


def random_hands(model: HandModel, rng: np.random.Generator) -> HandPose:
    """Hands with their fingers roughly up, palm or back towards the camera, 0.75 m away."""
    spread = 0.7 * (rng.random((VIEWS, model.num_hinges)) - 0.5) * (model.upper - model.lower)
    angles = np.clip(model.usual + spread, model.lower, model.upper)
    rest = frame_from_axes([-1.0, 0, 0], [0, -1.0, 0])
    turns = []
    for _ in range(VIEWS):
        up = np.array([0, -1, 0.0]) + 0.35 * rng.normal(size=3)
        palm = np.array([0, 0, rng.choice([-1, 1])]) + 0.8 * rng.normal(size=3)
        turns.append(frame_from_axes(up, palm) @ rest.T)
    hands = HandPose(np.array(turns), np.zeros((VIEWS, 3)), angles)
    centre = model.pose(hands).points[:, [0, 9]].mean(axis=1)
    return HandPose(hands.orientation, np.array([0, 0, 0.75]) - centre, angles)


def draw(model: HandModel, hands: HandPose, posed: PosedHand, rng: np.random.Generator) -> Frames:
    """Pictures [N,SIDE,SIDE,3] of the hands with their forearms."""
    body = model.body
    arm = [int(Joint.RIGHT_ELBOW), int(Joint.RIGHT_WRIST), *range(Joint.RIGHT_FINGERS, Joint.RIGHT_FINGERS + 15)]
    faces = body.faces[(body.weights[:, arm].sum(axis=1) > 0.5)[body.faces].all(axis=1)]
    ids = np.unique(faces)
    faces = np.searchsorted(ids, faces)
    joints = body.rest()[1]
    pose = np.zeros((VIEWS, 55, 3))
    pose[:, 0] = axis_angle_from_matrix(hands.orientation)
    pose[:, Joint.RIGHT_FINGERS : Joint.RIGHT_FINGERS + 15] = axis_angle_from_matrix(posed.joint_rotations)
    moved = hands.translation - (hands.orientation @ (joints[Joint.RIGHT_WRIST] - joints[0]) + joints[0])
    vertices = body.skin(BodyMotion(pose, moved, np.zeros(0), np.zeros(0)), ids).vertices
    empty = np.zeros((VIEWS, 21, 3), np.float32)
    motion = HandMotion(
        frame=np.arange(VIEWS),
        is_right=np.ones(VIEWS, np.bool_),
        score=np.ones(VIEWS, np.float32),
        track_id=np.zeros(VIEWS, np.int64),
        pose=np.zeros((VIEWS, 45), np.float32),
        orientation=empty[:, 0],
        translation=empty[:, 0],
        joints_camera=empty,
        joints_image=empty[..., :2],
        vertices=vertices,
        faces_left=faces,
        faces_right=faces,
        focal_px=FOCAL_PX,
    )
    camera = np.array([[FOCAL_PX, 0, SIDE / 2], [0, FOCAL_PX, SIDE / 2], [0, 0, 1]])
    with MeshRenderer(SIDE, SIDE) as renderer:
        drawn, _ = renderer.render_hands(motion, camera, VIEWS)
    noise = rng.integers(60, 180, (8, 8, 3)).astype(np.uint8)
    background = cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    pictures = np.empty_like(drawn)
    for view, image in enumerate(drawn):
        skin = np.clip((image[..., :1] / 204) ** 0.8 * SKIN, 0, 255)
        mixed = np.where(image.max(axis=-1, keepdims=True) > 20, skin, background).astype(np.uint8)
        pictures[view] = cv2.GaussianBlur(mixed, (0, 0), 1.2)
    return pictures


def bone_frames(hands: HandPose, posed: PosedHand) -> Floats:
    """Rotations [N,21,3,3] of the bone that follows each key point."""
    frames = np.empty((VIEWS, 21, 3, 3))
    frames[:, 0] = hands.orientation
    for finger in range(5):
        world = hands.orientation
        for bone in range(4):
            if bone < 3:
                world = world @ posed.joint_rotations[:, 3 * FINGER_ORDER[finger] + bone]
            frames[:, 1 + 4 * finger + bone] = world
    return frames


def main() -> None:
    """Print the table, in millimetres, with the median error in pixels before and after."""
    rng = np.random.default_rng(1)
    model = hand_model(load_body(), is_right=True)
    hands = random_hands(model, rng)
    posed = model.pose(hands)
    pictures = draw(model, hands, posed, rng)
    pixels = FOCAL_PX * posed.points[..., :2] / posed.points[..., 2:] + SIDE / 2
    network, seen, good = LandmarkNetwork(), np.empty_like(pixels), np.zeros(VIEWS, np.bool_)
    for view in range(VIEWS):
        region = region_from_landmarks(pixels[view])
        for _ in range(2):
            found = network.find(region.crop(pictures[view], LANDMARK_SIDE))
            seen[view] = region.to_picture(found.points[:, :2])
            region = region_from_landmarks(seen[view])
        palm = max(40.0, float(np.linalg.norm(pixels[view, 9] - pixels[view, 0])))
        error = float(np.median(np.linalg.norm(seen[view] - pixels[view], axis=1)))
        good[view] = found.presence > 0.9 and found.right > 0.5 and error < 0.25 * palm
    frames = bone_frames(hands, posed)
    print(f"{int(good.sum())} of {VIEWS} views")
    for point in range(21):
        x, y, z = posed.points[good, point].T
        zero = np.zeros_like(z)
        slope = FOCAL_PX * np.stack([np.stack([1 / z, zero, -x / z**2], -1), np.stack([zero, 1 / z, -y / z**2], -1)], 1)
        system = (slope @ frames[good, point]).reshape(-1, 3)
        error_px = (seen[good, point] - pixels[good, point]).reshape(-1)
        weight = np.ones_like(error_px)
        for _ in range(15):
            normal = system.T @ (weight[:, None] * system) + PULL * np.eye(3)
            offset = np.linalg.solve(normal, system.T @ (weight * error_px))
            weight = 1 / (1 + ((error_px - system @ offset) / ROBUST_PX) ** 2)
        left = np.median(np.abs(error_px - system @ offset))
        row = ", ".join(f"{each:.1f}" for each in 1000 * offset)
        print(f"    ({row}),  # {np.median(np.abs(error_px)):.1f} px -> {left:.1f} px")


if __name__ == "__main__":
    main()
