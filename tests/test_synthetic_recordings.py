"""Generated TRUMANS recordings: hands that touch what they move, tracks without jumps, whole files, same bytes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import DwmError
from manifests.profiles import get_profile
from render.body import Joint, SkinnedBody, load_body
from render.ego_camera import ego_cameras
from render.glb import load_objects, load_rigid_object
from sources.synthetic.actions import Action
from sources.synthetic.recording import (
    RecordingPlan,
    SyntheticRecording,
    body_motion,
    compose_recording,
    household_of,
    plan_recordings,
)
from sources.synthetic.solids import distance_to
from sources.synthetic.world import moves_held_out_object, plan_held_out_world, plan_training_world
from sources.synthetic.write_exported import generate_recordings, is_complete, recording_files, scene_files
from sources.synthetic.write_release import euler_angles, write_release
from sources.trumans import open_trumans
from sources.trumans_release import euler_matrices

PLANS = plan_recordings(6, 2, seed=11)


@pytest.fixture(scope="module")
def recordings() -> list[SyntheticRecording]:
    return [compose_recording(plan) for plan in PLANS]


@pytest.fixture(scope="module")
def skinned(recordings: list[SyntheticRecording]) -> list[SkinnedBody]:
    body = load_body()
    hands = np.concatenate([hand.vertex_ids for hand in body.hands])
    return [body.skin(body_motion(recording.body, body), hands) for recording in recordings]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("exported")
    report = generate_recordings(raw, plan_recordings(2, 2, seed=3))
    assert (report.made, report.kept) == (4, 0)
    return raw


def hand_vertices(skinned: SkinnedBody, *, right: bool) -> np.ndarray:
    body = load_body()
    left = len(body.hands[0].vertex_ids)
    return skinned.vertices[:, left:] if right else skinned.vertices[:, :left]


def gaps_to_thing(recording: SyntheticRecording, skinned: SkinnedBody) -> np.ndarray:
    """Least signed distance [T] of the acting hand to its thing, metres."""
    points = hand_vertices(skinned, right=recording.staged.script.right).astype(np.float64)
    thing = recording.staged.thing
    poses = recording.tracks[thing.name]
    local = np.einsum("tba,tnb->tna", poses[:, :3, :3], points - poses[:, None, :3, 3])
    return distance_to(thing.solids, local).min(axis=1)


def test_twelve_recordings_over_six_scenes_show_every_action() -> None:
    assert {plan.action for plan in PLANS} == set(Action)
    assert len({plan.recording_id for plan in PLANS}) == 12


def test_a_thing_moves_only_while_the_hand_touches_it(
    recordings: list[SyntheticRecording], skinned: list[SkinnedBody]
) -> None:
    for recording, body in zip(recordings, skinned, strict=True):
        gaps = gaps_to_thing(recording, body)
        holding = recording.staged.script.timeline.holding
        poses = recording.tracks[recording.staged.thing.name]
        moving = np.abs(np.diff(poses, axis=0)).max(axis=(1, 2)) > 1e-6
        assert not moving[~(holding[:-1] & holding[1:])].any(), recording.plan.action
        assert gaps[holding].max() < 0.02, recording.plan.action  # open fingers around it count as at it
        assert moving.any() == (recording.plan.action is not Action.TOUCH)
        assert (gaps[:-1][moving] < 0.003).all(), recording.plan.action
        assert gaps[[0, -1]].min() > 0.01, recording.plan.action


def test_hands_pierce_neither_the_thing_nor_the_table(
    recordings: list[SyntheticRecording], skinned: list[SkinnedBody]
) -> None:
    for recording, body in zip(recordings, skinned, strict=True):
        gaps = gaps_to_thing(recording, body)
        assert gaps.min() > -0.013, (recording.plan.action, gaps.min())
        assert gaps[recording.staged.script.timeline.holding].min() > -0.01, recording.plan.action
        if recording.staged.script.table is not None:
            for right in (False, True):
                points = hand_vertices(body, right=right)
                over = recording.household.table.distance(points)
                assert over.min() > -0.006, (recording.plan.action, over.min())


def test_thumb_and_fingers_hold_what_is_lifted_or_turned_from_both_sides(
    recordings: list[SyntheticRecording], skinned: list[SkinnedBody]
) -> None:
    body = load_body()
    for recording, posed in zip(recordings, skinned, strict=True):
        if recording.plan.action not in {Action.LIFT_AND_PLACE, Action.TURN, Action.OPEN_LID}:
            continue
        script, thing = recording.staged.script, recording.staged.thing
        frame = (script.timeline.grasped + script.timeline.moved) // 2
        pose = recording.tracks[thing.name][frame]
        points = hand_vertices(posed, right=script.right)[frame].astype(np.float64)
        gaps = distance_to(thing.solids, (points - pose[:3, 3]) @ pose[:3, :3])
        first = Joint.RIGHT_FINGERS if script.right else Joint.LEFT_FINGERS
        weights = body.weights[body.hands[int(script.right)].vertex_ids]
        owner = weights[:, first : first + 15].reshape(len(weights), 5, 3).sum(axis=2)
        assert gaps[owner[:, 4] > 0.5].min() < 0.003
        assert gaps[owner[:, :2].sum(axis=1) > 0.5].min() < 0.003


def test_a_held_thing_is_rigid_to_the_hand(recordings: list[SyntheticRecording], skinned: list[SkinnedBody]) -> None:
    rigid = {Action.LIFT_AND_PLACE, Action.TURN, Action.PUSH_LEFT, Action.PULL, Action.OPEN_DRAWER}
    for recording, body in zip(recordings, skinned, strict=True):
        if recording.plan.action not in rigid:
            continue
        script = recording.staged.script
        wrist = Joint.RIGHT_WRIST if script.right else Joint.LEFT_WRIST
        poses = recording.tracks[recording.staged.thing.name]
        local = np.einsum("tba,tb->ta", poses[:, :3, :3], body.joints[:, wrist] - poses[:, :3, 3])
        turns = np.einsum("tba,tbc->tac", poses[:, :3, :3], body.joint_rotations[:, wrist])
        assert np.ptp(local[script.timeline.holding], axis=0).max() < 1e-4, recording.plan.action
        assert np.ptp(turns[script.timeline.holding], axis=0).max() < 1e-3, recording.plan.action


def test_doors_and_lids_turn_about_their_hinges_and_drawers_slide(recordings: list[SyntheticRecording]) -> None:
    for recording in recordings:
        action = recording.plan.action
        poses = np.linalg.inv(recording.staged.place) @ recording.tracks[recording.staged.thing.name]
        if action in {Action.OPEN_DOOR, Action.CLOSE_DOOR, Action.OPEN_LID}:
            axis = 0 if action is Action.OPEN_LID else 1
            np.testing.assert_allclose(poses[:, :3, 3], np.tile(poses[0, :3, 3], (len(poses), 1)), atol=1e-9)
            np.testing.assert_allclose(poses[:, :3, axis], np.tile(np.eye(3)[axis], (len(poses), 1)), atol=1e-9)
            assert np.trace(poses[0, :3, :3].T @ poses[-1, :3, :3]) < 1 + 2 * np.cos(0.8)
        if action in {Action.OPEN_DRAWER, Action.CLOSE_DRAWER}:
            np.testing.assert_allclose(np.ptp(poses[:, :2, 3], axis=0), 0, atol=1e-9)
            assert 0.15 < np.ptp(poses[:, 2, 3]) < 0.25
        if action is Action.LIFT_AND_PLACE:
            assert poses[:, 1, 3].max() - poses[0, 1, 3] > 0.08
            assert poses[0, 1, 3] == pytest.approx(poses[-1, 1, 3])


def test_nothing_jumps(recordings: list[SyntheticRecording], skinned: list[SkinnedBody]) -> None:
    for recording, body in zip(recordings, skinned, strict=True):
        for poses in recording.tracks.values():
            assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() < 0.03
            speed = np.diff(poses, axis=0)
            assert np.abs(np.diff(speed, axis=0)).max() < 0.012  # starts and stops softly
        for right in (False, True):
            steps = np.linalg.norm(np.diff(hand_vertices(body, right=right), axis=0), axis=2)
            assert steps.max() < 0.10, recording.plan.action  # 3 m/s at a fingertip
        for joint in (Joint.HEAD, Joint.LEFT_ELBOW, Joint.RIGHT_ELBOW):
            assert np.linalg.norm(np.diff(body.joints[:, joint], axis=0), axis=1).max() < 0.07, recording.plan.action


def test_the_action_lies_in_one_clip_of_the_small_profile(recordings: list[SyntheticRecording]) -> None:
    profile = get_profile("mini")
    needed = (profile.num_frames - 1) * profile.frame_step + 1
    for recording in recordings:
        starts = range(0, recording.body.num_frames - needed + 1, profile.stride * profile.frame_step)
        interval = recording.actions[-1]
        assert any(start < interval.start < interval.end <= start + needed for start in starts)
        assert interval.text.endswith(("with the right hand", "with the left hand"))


def test_hand_and_thing_are_in_the_picture(recordings: list[SyntheticRecording], skinned: list[SkinnedBody]) -> None:
    for recording, body in zip(recordings, skinned, strict=True):
        cameras = ego_cameras(load_body(), body, 96, 64)
        script, thing = recording.staged.script, recording.staged.thing
        for frame in range(script.timeline.touch, script.timeline.released, 6):
            pose = recording.tracks[thing.name][frame]
            handle, depth = cameras[frame].project(pose[:3, :3] @ thing.handle + pose[:3, 3])
            assert depth > 0.1
            assert (handle > 0).all(), (recording.plan.action, frame)
            assert (handle < (96, 64)).all(), (recording.plan.action, frame)
            pixels, _ = cameras[frame].project(hand_vertices(body, right=script.right)[frame])
            inside = ((pixels > 0) & (pixels < (96, 64))).all(axis=1)
            assert inside.mean() > 0.3, (recording.plan.action, frame)


def test_the_feet_stand_on_the_floor_and_the_seat_carries_the_body(
    recordings: list[SyntheticRecording], skinned: list[SkinnedBody]
) -> None:
    for recording, body in zip(recordings, skinned, strict=True):
        ankles = body.joints[recording.staged.script.timeline.reach :, [7, 8], 1]
        assert 0.04 < ankles.min() < ankles.max() < 0.16


@pytest.mark.parametrize("number", range(len(Action)))
def test_a_variation_begins_the_same_is_told_the_same_and_moves_otherwise(number: int) -> None:
    plan = RecordingPlan(seed=11, scene=0, recording=number)
    first, second = compose_recording(plan), compose_recording(replace(plan, variation=1))

    assert first.staged.text == second.staged.text
    assert first.plan.recording_id != second.plan.recording_id
    for name, track in first.tracks.items():
        np.testing.assert_allclose(track[0], second.tracks[name][0], atol=1e-9)
    timelines = [recording.staged.script.timeline for recording in (first, second)]
    assert timelines[1].reach - timelines[0].reach >= 8
    assert timelines[1].home < timelines[1].num_frames
    if plan.action is not Action.TOUCH:
        thing = first.staged.thing.name
        assert np.abs(first.tracks[thing] - second.tracks[thing]).max() > 0.02


def test_held_out_rooms_are_not_trained_on_and_their_object_is_not_moved_there() -> None:
    training, held_out = plan_training_world(30, 2), plan_held_out_world(12, 2)

    assert {plan.seed for plan in training}.isdisjoint({plan.seed for plan in held_out})
    moved = {compose_recording(plan).staged.thing.name for plan in training if plan.action is Action.LIFT_AND_PLACE}
    assert moved == {"mug", "can"}
    assert len(training) < 60
    assert any(moves_held_out_object(plan) for plan in held_out)
    assert [plan.variation for plan in held_out[:4]] == [0, 1, 0, 1]


def test_reader_reads_what_was_written_in_both_forms(exported: Path, tmp_path: Path) -> None:
    plans = plan_recordings(2, 2, seed=3)
    write_release(tmp_path, plans)
    for raw, prefix in ((open_trumans(exported), ""), (open_trumans(tmp_path), "{scene}_")):
        assert [entry.recording_id for entry in raw.recordings()] == [plan.recording_id for plan in plans]
        for plan in plans:
            written, read = compose_recording(plan), raw.load(plan.recording_id)
            assert read.scene_id == plan.scene_id
            assert read.actions == written.actions
            assert not read.faults
            assert not read.notes
            moving = prefix.format(scene=plan.scene_id) + written.staged.thing.name
            for tracked in read.objects:
                name = tracked.name.removeprefix(f"{plan.scene_id}_")
                np.testing.assert_allclose(tracked.world_from_object, written.tracks[name], atol=1e-9)
                assert tracked.mesh_path is not None
                assert tracked.is_moving == (tracked.name == moving)
            np.testing.assert_allclose(read.body.transl, written.body.transl, atol=1e-6)
            np.testing.assert_allclose(read.body.right_hand_pose, written.body.right_hand_pose, atol=1e-6)


def test_written_meshes_look_as_they_were_drawn(exported: Path) -> None:
    plan = RecordingPlan(seed=3, scene=1, recording=0)
    household = household_of(plan.seed, plan.scene)
    files = scene_files(exported, plan)
    carton = load_rigid_object(files["objects/carton"], "carton")
    pairs = list(zip(household.carton.surfaces, carton.surfaces, strict=True))
    background = load_objects(files["background"])
    floor = household.background[0]
    pairs += [(floor.surfaces[0], item.surfaces[0]) for item in background if item.name == floor.name]
    assert len(pairs) == len(household.carton.surfaces) + 1
    for drawn, read in pairs:
        np.testing.assert_allclose(read.vertices, drawn.vertices, atol=1e-6)
        np.testing.assert_array_equal(read.faces, drawn.faces)
        np.testing.assert_allclose(read.normals, drawn.normals, atol=1e-6)
        np.testing.assert_allclose(read.colours, np.clip(drawn.colours, 0, 1), atol=0.003)
        assert (read.texture is None) == (drawn.texture is None)
        if drawn.texture is not None:
            np.testing.assert_array_equal(read.texture, drawn.texture)
            np.testing.assert_allclose(read.uv, drawn.uv, atol=1e-5)


def test_euler_angles_are_those_that_the_reader_expects() -> None:
    angles = np.array([[0.3, -0.5, 1.2], [0.0, np.pi / 2, 0.4], [0.0, -np.pi / 2, 0.0], [3.0, 0.1, -2.0]])
    np.testing.assert_allclose(euler_matrices(euler_angles(euler_matrices(angles))), euler_matrices(angles), atol=1e-12)


def test_interrupted_generation_ends_in_the_same_bytes_and_keeps_what_is_whole(exported: Path) -> None:
    plans = plan_recordings(2, 2, seed=3)
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    recording_files(exported, plans[1])["recording"].unlink()
    scene_files(exported, plans[3])["background"].unlink()
    assert is_complete(exported, plans[0])
    assert not is_complete(exported, plans[1])
    report = generate_recordings(exported, plans)
    assert (report.made, report.kept) == (3, 1)
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before


def test_another_process_writes_one_recording_alone_with_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    plan = RecordingPlan(seed=3, scene=1, recording=1)
    code = (
        "from pathlib import Path; from sources.synthetic.write_exported import *; "
        f"generate_recordings(Path({str(tmp_path)!r}), [RecordingPlan(3, 1, 1)])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    for raw_files in (recording_files, scene_files):
        for role, path in raw_files(tmp_path, plan).items():
            assert path.read_bytes() == raw_files(exported, plan)[role].read_bytes(), role


def test_folder_of_another_seed_is_refused(exported: Path) -> None:
    with pytest.raises(DwmError, match=r"synthetic\.json: .*another seed"):
        generate_recordings(exported, plan_recordings(1, 1, seed=4))
