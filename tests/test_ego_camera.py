"""The egocentric camera: between the eyes, along the head's forward axis, rigid to the head joint."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from render.body import BodyMotion, Joint, load_body
from render.ego_camera import ego_cameras, eye_midpoint, head_faces
from render.rotations import matrix_from_axis_angle

BODY = load_body()


def posed(pose: np.ndarray, translation: np.ndarray | None = None) -> BodyMotion:
    frames = len(pose)
    place = np.zeros((frames, 3)) if translation is None else translation
    return BodyMotion(pose, place, np.zeros(0), np.zeros(0))


def test_field_of_view_is_the_release_s() -> None:
    cameras = ego_cameras(BODY, BODY.skin(posed(np.zeros((1, 55, 3)))), 720, 480)
    np.testing.assert_allclose(cameras.intrinsics, [[360, 0, 360], [0, 360, 240], [0, 0, 1]])


def test_canonical_camera_sits_between_the_eyes_and_looks_along_z() -> None:
    cameras = ego_cameras(BODY, BODY.skin(posed(np.zeros((1, 55, 3)))), 720, 480)
    joints = BODY.rest()[1]
    pose = cameras.world_from_camera[0]
    np.testing.assert_allclose(pose[:3, 3], (joints[23] + joints[24]) / 2, atol=1e-9)
    np.testing.assert_allclose(pose[:3, 2], [0, 0, 1], atol=1e-12)  # forward
    np.testing.assert_allclose(pose[:3, 1], [0, -1, 0], atol=1e-12)  # down
    pixel, depth = cameras[0].project(pose[:3, 3] + [-0.1, 0.05, 1.0])  # to the actor's right, and up
    assert depth == pytest.approx(1.0)
    assert pixel[0] > 360
    assert pixel[1] < 240


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-1.2, 1.2), min_size=9, max_size=9),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_camera_is_rigid_to_the_head_joint(angles: list[float], place: list[float]) -> None:
    pose = np.zeros((1, 55, 3))
    pose[0, [Joint.PELVIS, Joint.NECK, Joint.HEAD]] = np.reshape(angles, (3, 3))
    skinned = BODY.skin(posed(pose, np.array([place])))
    camera = ego_cameras(BODY, skinned, 720, 480).world_from_camera[0]
    head = skinned.joint_rotations[0, Joint.HEAD]
    expected = (
        matrix_from_axis_angle(pose[0, 0]) @ matrix_from_axis_angle(pose[0, 12]) @ matrix_from_axis_angle(pose[0, 15])
    )
    np.testing.assert_allclose(head, expected, atol=1e-9)
    np.testing.assert_allclose(head.T @ camera[:3, :3], np.diag([-1, -1, 1]), atol=1e-9)
    np.testing.assert_allclose(head.T @ (camera[:3, 3] - skinned.joints[0, Joint.HEAD]), eye_midpoint(BODY), atol=1e-9)


def test_eye_joints_do_not_move_the_camera() -> None:
    pose = np.zeros((2, 55, 3))
    pose[1, [Joint.LEFT_EYE, Joint.RIGHT_EYE], 1] = 0.4
    cameras = ego_cameras(BODY, BODY.skin(posed(pose)), 720, 480)
    np.testing.assert_array_equal(cameras.world_from_camera[0], cameras.world_from_camera[1])


def test_hidden_head_holds_the_whole_head_and_no_hand() -> None:
    hidden = head_faces(BODY)
    eyes = BODY.rest()[1][[Joint.LEFT_EYE, Joint.RIGHT_EYE]].mean(axis=0)
    centres = BODY.template[BODY.faces].mean(axis=1)
    near_camera = np.linalg.norm(centres - eyes, axis=1) < 0.12
    assert near_camera.sum() > 500
    assert hidden[near_camera].all()
    assert not (hidden & (BODY.hands[0].body_face_mask | BODY.hands[1].body_face_mask)).any()


def test_stand_in_body_stands_where_an_smplx_translation_puts_it() -> None:
    pelvis = BODY.rest()[1][Joint.PELVIS] + BODY.translation_offset
    np.testing.assert_allclose(pelvis, [0.0031, -0.3514, 0.0120], atol=1e-9)
