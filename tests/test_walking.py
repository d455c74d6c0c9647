"""People walk to the furniture: feet that stand do not slide, the way is free, nothing jumps, the prompts say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import DwmError
from manifests.profiles import get_profile
from render.body import Joint, SkinnedBody, load_body
from render.ego_camera import ego_cameras
from render.rotations import axis_angle_from_matrix
from sources.synthetic.recording import RecordingPlan, SyntheticRecording, body_motion, compose_recording
from sources.synthetic.routes import Footprint, find_route, footprint_of, furniture_footprints
from sources.synthetic.walking import ARRIVAL
from sources.synthetic.write_exported import generate_recordings
from sources.trumans import open_trumans
from sources.trumans_clips import describe_clip, plan_clips

PLANS = [RecordingPlan(5, scene, recording) for scene, recording in ((0, 2), (1, 3), (2, 4), (3, 5))]
"""One recording of each standing action."""
FPS = 30
ANKLES = (7, 8)


@pytest.fixture(scope="module")
def recordings() -> list[SyntheticRecording]:
    return [compose_recording(plan) for plan in PLANS]


@pytest.fixture(scope="module")
def skinned(recordings: list[SyntheticRecording]) -> list[SkinnedBody]:
    body = load_body()
    return [body.skin(body_motion(recording.body, body)) for recording in recordings]


def sole_vertices(ankle: int) -> np.ndarray:
    body = load_body()
    on_foot = body.weights[:, [ankle, ankle + 3]].sum(axis=1) > 0.5
    return np.flatnonzero(on_foot & (body.template[:, 1] < body.rest()[1][ankle, 1] - 0.06))


def runs(mask: np.ndarray) -> list[slice]:
    """Slices of a mask [T] where it holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [slice(start, end) for start, end in edges.reshape(-1, 2)]


def test_feet_neither_slide_while_they_touch_the_floor_nor_sink_into_it(skinned: list[SkinnedBody]) -> None:
    for body in skinned:
        for ankle in ANKLES:
            sole = body.vertices[:, sole_vertices(ankle)]
            assert sole[..., 1].min() > -0.01
            for vertex in range(sole.shape[1]):
                places = sole[:, vertex]
                for contact in runs(places[:, 1] < 0.005):
                    assert np.ptp(places[contact][:, [0, 2]], axis=0).max() < 0.01


def test_one_foot_always_stands_and_each_lifts_in_turn(skinned: list[SkinnedBody]) -> None:
    for body in skinned:
        heights = np.stack([body.vertices[:, sole_vertices(ankle), 1].min(axis=1) for ankle in ANKLES])
        assert heights.min(axis=0).max() < 0.003
        lifted = [[each.start for each in runs(height > 0.015)] for height in heights]
        assert [len(starts) for starts in lifted] == [2, 2]
        order = np.argsort(np.concatenate(lifted)) // 2
        assert order.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
        assert (heights[:, ARRIVAL:] < 0.003).all()


def test_people_walk_at_a_human_pace_and_then_stand(skinned: list[SkinnedBody]) -> None:
    for body in skinned:
        floor = body.joints[:, Joint.PELVIS][:, [0, 2]]
        speed = np.linalg.norm(np.diff(floor, axis=0), axis=1) * FPS
        assert 0.8 < speed.max() < 1.6
        assert 1.05 < speed[:ARRIVAL].sum() / FPS < 1.75
        assert speed[ARRIVAL:].max() < 0.1
        ahead = body.joint_rotations[10 : ARRIVAL - 10, Joint.PELVIS][:, [0, 2], 2]
        going = np.diff(floor, axis=0)[10 : ARRIVAL - 10]
        cosine = (ahead * going).sum(axis=1) / np.linalg.norm(ahead, axis=1) / np.linalg.norm(going, axis=1)
        assert cosine.min() > 0.85  # nobody walks sideways or backwards


def test_the_way_is_clear_of_furniture_and_walls(
    recordings: list[SyntheticRecording], skinned: list[SkinnedBody]
) -> None:
    for recording, body in zip(recordings, skinned, strict=True):
        pelvis, wrists = (body.joints[:ARRIVAL, joints][..., [0, 2]] for joints in ([0], [20, 21]))
        furniture = furniture_footprints(recording.household, np.eye(4))
        names = {item.name for item in recording.household.background}
        assert {"table", "chair", "chest", "cupboard", "end wall", "side wall"} <= names
        assert len(furniture) >= 10
        for each in furniture:
            assert each.distance(pelvis).min() >= 0.35
            assert each.distance(wrists).min() > 0.05
        thing = recording.staged.thing
        standing = footprint_of(thing.surfaces, recording.tracks[thing.name][0])
        assert standing is not None
        assert standing.distance(pelvis).min() > 0.25


def test_nothing_jumps_where_the_walk_joins_the_action(skinned: list[SkinnedBody]) -> None:
    limits = {Joint.PELVIS: 1.6, Joint.HEAD: 1.6, 7: 5.5, 8: 5.5, Joint.LEFT_WRIST: 3.0, Joint.RIGHT_WRIST: 3.0}
    for body in skinned:
        for joint, limit in limits.items():
            velocity = np.diff(body.joints[:, joint], axis=0) * FPS
            assert np.linalg.norm(velocity, axis=1).max() < limit, joint
        change = np.linalg.norm(np.diff(body.joints[:, [0, 15, 20, 21]], 2, axis=0), axis=2) * FPS
        assert change[ARRIVAL - 8 : ARRIVAL + 8].max() < 1.0  # m/s from frame to frame
        turns = np.swapaxes(body.joint_rotations[:-1], -1, -2) @ body.joint_rotations[1:]
        speeds = np.linalg.norm(axis_angle_from_matrix(turns[:, :25]), axis=2)
        assert speeds.max() < 0.4  # 12 rad/s


def test_the_camera_goes_along_at_eye_height_and_looks_ahead(skinned: list[SkinnedBody]) -> None:
    for body in skinned:
        cameras = ego_cameras(load_body(), body, 96, 64).world_from_camera[:ARRIVAL]
        heights = cameras[:, 1, 3]
        assert 1.5 < heights.min() < heights.max() < 1.75
        steps = heights[10:45] - np.convolve(np.pad(heights, 7, mode="edge"), np.ones(15) / 15, "valid")[10:45]
        assert 0.002 < np.ptp(steps) < 0.06  # it bobs a little
        assert (cameras[:45, 1, 2] > -0.75).all()  # not down at the feet
        going = np.diff(cameras[:, [0, 2], 3], axis=0)[15:40]
        assert ((going * cameras[15:40][:, [0, 2], 2]).sum(axis=1) > 0).all()


def test_arms_swing_against_the_legs(skinned: list[SkinnedBody]) -> None:
    for body in skinned:
        forward = body.joint_rotations[:ARRIVAL, Joint.PELVIS, :, 2]
        feet = np.einsum("ta,ta->t", body.joints[:ARRIVAL, 7] - body.joints[:ARRIVAL, 8], forward)
        hands = np.einsum(
            "ta,ta->t", body.joints[:ARRIVAL, Joint.LEFT_WRIST] - body.joints[:ARRIVAL, Joint.RIGHT_WRIST], forward
        )
        assert np.ptp(hands) > 0.15
        assert np.corrcoef(feet, hands)[0, 1] < -0.7


def test_first_small_clip_shows_the_walk_and_the_second_the_action(tmp_path: Path) -> None:
    generate_recordings(tmp_path, PLANS[:1])
    recording = open_trumans(tmp_path).load(PLANS[0].recording_id)
    windows = plan_clips(recording, get_profile("mini")).windows
    assert [window.start_frame for window in windows] == [0, 54]
    walk, action = (describe_clip(recording, window) for window in windows)
    assert walk.action_label == "walk"
    assert walk.text.startswith("Walk to the ")
    assert action.action_label == "open upper drawer"
    assert action.text.startswith("Open the upper drawer of the ")
    assert action.text in walk.text  # the hand has set out by its end


def test_room_without_free_floor_is_refused() -> None:
    blocked = Footprint(np.array([-5.0, -5.0]), np.array([5.0, -0.45]))
    with pytest.raises(DwmError, match=r"no way of 1\.1 m to the furniture"):
        find_route([blocked], [], 0.1, np.random.default_rng(0))
