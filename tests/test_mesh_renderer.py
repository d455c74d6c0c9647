"""The mesh renderer: aligned triplets, masks, depth and hands, drawn off screen."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.errors import DwmError
from manifests.schema import MaskId
from render import gl_context
from render.body import BodyMotion, Joint, load_body
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.hands import HandMotion, hand_motion_from_body
from render.mesh_renderer import ClipImages, MeshRenderer, reduce_depth, reduce_ids
from render.rotations import matrix_from_axis_angle
from render.scene import (
    Actor,
    Lighting,
    Material,
    ObjectTrack,
    Scene,
    SceneObject,
    SpotLight,
    Surface,
    box_surface,
    cylinder_surface,
    plain_surface,
)

WIDTH, HEIGHT, FRAMES = 96, 64, 3
LIGHTING = Lighting(
    sky=(0.4, 0.4, 0.4),
    ground=(0.2, 0.2, 0.2),
    spot=SpotLight(position=(0.6, 2.4, 0.8), target=(0.0, 0.7, 0.6), power=(4.0, 4.0, 4.0)),
    fill_position=(-0.8, 1.9, -0.3),
    fill_power=(0.4, 0.4, 0.4),
)


@pytest.fixture(scope="module")
def renderer() -> Iterator[MeshRenderer]:
    try:
        opened = MeshRenderer(WIDTH, HEIGHT, scale=2)
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")
    with opened:
        yield opened


def sphere(radius: float, centre: np.ndarray) -> Surface:
    """A sphere as a fine grid of latitudes and longitudes."""
    latitude, longitude = np.meshgrid(np.linspace(0, np.pi, 17), np.linspace(0, 2 * np.pi, 33), indexing="ij")
    points = np.stack(
        [np.sin(latitude) * np.cos(longitude), np.cos(latitude), np.sin(latitude) * np.sin(longitude)], axis=-1
    )
    index = np.arange(17 * 33).reshape(17, 33)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))])
    return plain_surface((points.reshape(-1, 3) * radius + centre).astype(np.float32), faces, (0.8, 0.1, 0.1))


def placed(name: str, surface: Surface, place: tuple[float, float, float]) -> SceneObject:
    pose = np.eye(4)
    pose[:3, 3] = place
    return SceneObject(name, (surface,), pose)


def empty_hands(width: int = WIDTH) -> HandMotion:
    faces = np.array([[0, 1, 2]])
    arrays = {"pose": 45, "orientation": 3, "translation": 3}
    return HandMotion(
        frame=np.zeros(0, np.int64),
        is_right=np.zeros(0, np.bool_),
        score=np.zeros(0, np.float32),
        track_id=np.zeros(0, np.int64),
        **{name: np.zeros((0, size), np.float32) for name, size in arrays.items()},
        joints_camera=np.zeros((0, 21, 3), np.float32),
        joints_image=np.zeros((0, 21, 2), np.float32),
        vertices=np.zeros((0, 3, 3), np.float32),
        faces_left=faces,
        faces_right=faces,
        focal_px=float(width),
    )


def no_actor(frames: int) -> Actor:
    """A body far behind every camera."""
    body = load_body()
    vertices = np.repeat(body.template[None].astype(np.float32) - [0, 0, 15], frames, axis=0)
    colours = np.full(body.template.shape, 0.5, np.float32)
    return Actor(vertices.astype(np.float32), body.faces, colours, body.hands, np.zeros(len(body.faces), np.bool_))


def moving_camera(frames: int = FRAMES) -> CameraPath:
    poses = [look_at([0.1 + 0.02 * i, 1.25, 0.0], [0.02 * i, 0.72, 0.75]) for i in range(frames)]
    return CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 75.0), np.stack(poses))


def table_scene() -> Scene:
    texture = np.random.default_rng(0).integers(80, 255, (64, 64, 3), dtype=np.uint8)
    objects = (
        placed("floor", box_surface((6, 0.1, 6), Material((1, 1, 1), texture)), (0, 0, 1)),
        placed("table", box_surface((1.4, 0.04, 0.8), Material((0.8, 0.6, 0.4), texture)), (0, 0.7, 0.7)),
        placed("mug", cylinder_surface(0.04, 0.1, Material((0.2, 0.3, 0.8))), (0.4, 0.77, 0.8)),
    )
    return Scene(objects, LIGHTING)


def reaching_actor(cameras: CameraPath) -> tuple[Actor, HandMotion]:
    """A body whose arms are stretched forward over the table, fingers curling."""
    body = load_body()
    frames = len(cameras)
    pose = np.zeros((frames, 55, 3))
    pose[:, Joint.LEFT_SHOULDER, 1] = -1.3
    pose[:, Joint.RIGHT_SHOULDER, 1] = 1.3
    pose[:, Joint.LEFT_FINGERS : Joint.LEFT_FINGERS + 3, 2] = -0.3 * np.arange(frames)[:, None]
    motion = BodyMotion(pose, np.tile([0.0, 0.20, 0.0], (frames, 1)), np.zeros(0), np.zeros(0))
    skinned = body.skin(motion)
    head = body.weights[:, [Joint.NECK, Joint.HEAD, 22, Joint.LEFT_EYE, Joint.RIGHT_EYE]].sum(axis=1) > 0.3
    hidden = head[body.faces].any(axis=1)
    colours = np.full(body.template.shape, 0.4, np.float32)
    actor = Actor(skinned.vertices, body.faces, colours, body.hands, hidden)
    return actor, hand_motion_from_body(body, skinned, cameras)


def pushed_track(frames: int = FRAMES) -> ObjectTrack:
    box = SceneObject("box", (box_surface((0.15, 0.12, 0.12), Material((0.8, 0.1, 0.1))),), np.eye(4))
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, 3] = [[-0.1 + 0.08 * i, 0.78, 0.65] for i in range(frames)]
    return ObjectTrack(box, poses)


@pytest.fixture(scope="module")
def clip(renderer: MeshRenderer) -> ClipImages:
    cameras = moving_camera()
    actor, hands = reaching_actor(cameras)
    return renderer.render_clip(table_scene(), [pushed_track()], actor, hands, cameras)


def test_sphere_is_drawn_where_the_camera_projects_it(renderer: MeshRenderer) -> None:
    eye = np.array([0.3, 1.2, -0.2])
    for pixel in ([20.3, 15.8], [48.0, 32.0], [80.6, 50.1]):
        path = CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 75.0), look_at(eye, [0.1, 0.9, 1.0])[None])
        centre = path[0].unproject(pixel, np.array(1.5))
        track = ObjectTrack(SceneObject("sphere", (sphere(0.05, np.zeros(3)),), np.eye(4)), np.eye(4)[None].copy())
        track.poses[0, :3, 3] = centre
        images = renderer.render_clip(Scene((), LIGHTING), [track], no_actor(1), empty_hands(), path)
        rows, columns = np.nonzero(images.ids[0] == MaskId.MOVED_OBJECT)
        drawn = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
        assert np.abs(drawn - pixel).max() < 0.6
        nearest = images.depth[0][images.depth[0] > 0].min()
        assert nearest == pytest.approx(1.45, abs=0.01)


def test_videos_are_equal_wherever_the_mask_is_background(clip: ClipImages) -> None:
    background = clip.ids == MaskId.BACKGROUND
    assert 0.3 < background.mean() < 0.95
    np.testing.assert_array_equal(clip.interaction[background], clip.static[background])


def test_every_part_of_the_interaction_differs_from_the_static_video(clip: ClipImages) -> None:
    changed = (clip.interaction != clip.static).any(axis=-1)
    for part in (MaskId.HANDS, MaskId.ACTOR, MaskId.MOVED_OBJECT, MaskId.SHADOW):
        chosen = clip.ids == part
        assert chosen.sum() > 20, part
        assert changed[chosen].mean() > 0.5, part


def test_first_static_frame_shows_the_object_where_the_interaction_does(clip: ClipImages) -> None:
    unmoved = clip.ids[0] == MaskId.MOVED_OBJECT
    difference = np.abs(clip.interaction[0].astype(int) - clip.static[0])[unmoved]
    assert np.median(difference) <= 1
    later = clip.ids[2] == MaskId.MOVED_OBJECT
    assert np.abs(clip.interaction[2].astype(int) - clip.static[2])[later].mean() > 20


def test_static_video_of_a_still_camera_never_changes(renderer: MeshRenderer) -> None:
    cameras = CameraPath(moving_camera().intrinsics, np.repeat(moving_camera().world_from_camera[:1], FRAMES, axis=0))
    actor, hands = reaching_actor(cameras)
    images = renderer.render_clip(table_scene(), [pushed_track()], actor, hands, cameras)
    assert (images.static == images.static[0]).all()
    assert not (images.interaction == images.interaction[0]).all()


def test_second_clip_of_a_scene_is_as_if_it_were_the_first(renderer: MeshRenderer) -> None:
    cameras = moving_camera()
    actor, hands = reaching_actor(cameras)
    scene, track = table_scene(), pushed_track()
    other_track = ObjectTrack(track.scene_object, track.poses[::-1].copy())
    first = renderer.render_clip(scene, [other_track], actor, hands, cameras)
    renderer.render_clip(scene, [track], replace(actor, vertices=actor.vertices + np.float32(0.01)), hands, cameras)
    again = renderer.render_clip(scene, [other_track], actor, hands, cameras)
    anew = renderer.render_clip(table_scene(), [other_track], actor, hands, cameras)
    for name in ("interaction", "static", "ids", "depth", "instances"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(anew, name), getattr(first, name))


def test_static_video_shows_objects_at_their_rest_pose(renderer: MeshRenderer) -> None:
    cameras = moving_camera()
    track = pushed_track()
    initial = replace(track, static_pose=track.poses[2])
    images = renderer.render_clip(table_scene(), [initial], no_actor(FRAMES), empty_hands(), cameras)
    (column, row), _ = cameras[0].project(track.poses[2, :3, 3])
    red = images.static[0, int(row), int(column)].astype(int)
    assert red[0] > red[1] + 40
    assert images.ids[0, int(row), int(column)] == MaskId.MOVED_OBJECT


def test_still_object_is_part_of_the_scene(renderer: MeshRenderer) -> None:
    cameras = moving_camera()
    track = pushed_track()
    still = ObjectTrack(track.scene_object, np.repeat(track.poses[:1], FRAMES, axis=0), is_still=True)
    images = renderer.render_clip(table_scene(), [still], no_actor(FRAMES), empty_hands(), cameras)
    assert (images.ids == MaskId.BACKGROUND).all()
    np.testing.assert_array_equal(images.interaction, images.static)
    number = images.instance_names.index("box") + 1
    (column, row), _ = cameras[0].project(track.poses[0, :3, 3])
    assert images.instances[0, int(row), int(column)] == number


def test_texture_of_odd_width_is_not_skewed(renderer: MeshRenderer) -> None:
    texture = np.zeros((7, 7, 3), np.uint8)
    texture[:, :3] = 255
    plain = box_surface((1.4, 1.4, 0.02), Material((1.0, 1.0, 1.0), texture, 1.4))
    cameras = CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 75.0), look_at([0, 1, 0], [0, 1, 1])[None])
    scene = Scene((placed("wall", plain, (0, 1, 1)),), LIGHTING)
    images = renderer.render_clip(scene, [], no_actor(1), empty_hands(), cameras)
    light = images.interaction[0].mean(axis=-1)[20:44] > 60
    assert 0.2 < light.mean() < 0.8
    assert (light[0] != light[-1]).sum() <= 4  # the stripe stands upright; its soft edge may fall either way


def test_hidden_faces_are_never_drawn(renderer: MeshRenderer) -> None:
    cameras = CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 75.0), look_at([0, 0.9, 1.5], [0, 0.9, 0])[None])
    actor, hands = reaching_actor(moving_camera(1))
    body_only = replace(actor, vertices=actor.vertices - np.float32([0, 0.2, 0]))
    hidden = replace(body_only, hidden_faces=np.ones(len(actor.faces), np.bool_))
    shown = replace(body_only, hidden_faces=np.zeros(len(actor.faces), np.bool_))
    pixels = [
        (renderer.render_clip(Scene((), LIGHTING), [], one, hands, cameras).ids == MaskId.ACTOR).sum()
        for one in (hidden, body_only, shown)
    ]
    assert pixels[0] == 0
    assert pixels[0] < pixels[1] < pixels[2]


def test_masks_hold_the_moved_object_now_and_before(renderer: MeshRenderer) -> None:
    cameras = moving_camera()
    track = pushed_track()
    images = renderer.render_clip(table_scene(), [track], no_actor(FRAMES), empty_hands(), cameras)
    for frame in range(FRAMES):
        for pose in (track.poses[0], track.poses[frame]):
            (column, row), _ = cameras[frame].project(pose[:3, 3])
            assert images.ids[frame, int(row), int(column)] == MaskId.MOVED_OBJECT


def test_hand_video_silhouette_is_the_projected_hand_mesh(renderer: MeshRenderer, clip: ClipImages) -> None:
    cameras = moving_camera()
    actor, hands = reaching_actor(cameras)
    scale = 8
    for frame in range(FRAMES):
        expected = np.zeros((HEIGHT * scale, WIDTH * scale), np.uint8)
        for side in actor.hands:
            pixels, depth = cameras[frame].project(side.vertices(actor.vertices[frame]))
            assert (depth > 0.1).all()
            for face in side.faces:
                cv2.fillConvexPoly(expected, np.rint(pixels[face] * scale - 0.5).astype(np.int32), 1)
        share = expected.reshape(HEIGHT, scale, WIDTH, scale).mean(axis=(1, 3))
        drawn = clip.hands[frame].any(axis=-1)
        assert drawn[share > 0.75].all()
        assert not drawn[share < 0.02].any()
    assert len(hands) == 2 * FRAMES
    assert (clip.hand_pixels > 0).all()


def test_bent_hands_and_arms_leave_no_gap_at_the_wrist_and_mask_agrees_with_hand_video(renderer: MeshRenderer) -> None:
    body = load_body()
    pose = np.zeros((2, 55, 3))
    pose[1, Joint.LEFT_WRIST, 2] = -1.0
    skinned = body.skin(BodyMotion(pose, np.zeros((2, 3)), np.zeros(0), np.zeros(0)))
    wrist = skinned.joints[:, Joint.LEFT_WRIST]
    poses = np.stack([look_at(place + np.array([0.0, 0.3, 0.12]), place) for place in wrist])
    cameras = CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 50.0), poses)
    colours = np.full(body.template.shape, 0.4, np.float32)
    actor = Actor(skinned.vertices, body.faces, colours, body.hands, np.zeros(len(body.faces), np.bool_))
    hands = hand_motion_from_body(body, skinned, cameras)
    images = renderer.render_clip(Scene((), LIGHTING), [], actor, hands, cameras)
    for frame in range(2):
        in_video, ids = images.hands[frame].any(axis=-1), images.ids[frame]
        in_mask, on_arm = ids == MaskId.HANDS, ids == MaskId.ACTOR
        assert in_mask.sum() > 100
        assert on_arm.sum() > 100
        assert not (in_mask & ~in_video).any()
        assert not (in_video & ~in_mask & ~on_arm).any()  # only the own arm hides a part of the hand
        near_wrist = grown(in_mask) & grown(on_arm)
        filled = cv2.morphologyEx((in_mask | on_arm).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        assert ((in_mask | on_arm) | ~filled.astype(np.bool_) | ~near_wrist).all()


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask and the pixels around it."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)


def test_hands_have_their_colours_and_ignore_the_scene(renderer: MeshRenderer) -> None:
    cameras = moving_camera(1)
    actor, hands = reaching_actor(cameras)
    wall = placed("wall", box_surface((3, 3, 0.02), Material((1, 1, 1))), (0, 1, 0.15))
    images = renderer.render_clip(Scene((wall,), LIGHTING), [], actor, hands, cameras)
    assert not (images.ids == MaskId.HANDS).any()
    drawn = images.hands[0][images.hands[0].max(axis=-1) > 100].astype(int)
    green = drawn[drawn[:, 1] > drawn[:, 0]]
    red = drawn[drawn[:, 0] > drawn[:, 1]]
    assert len(green) > 30
    assert len(red) > 30
    assert np.abs(green[:, 0] - green[:, 2]).max() <= 2
    assert green.max() <= 255
    assert green[:, 1].max() == 255  # 0.8 * (0.7 + 0.6), clipped


def test_nearer_hand_covers_the_farther_one(renderer: MeshRenderer) -> None:
    square = np.array([[-0.1, -0.1, 0], [0.1, -0.1, 0], [0.1, 0.1, 0], [-0.1, 0.1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    entries = empty_hands()
    motion = HandMotion(
        **{
            **{name: getattr(entries, name) for name in entries.__dataclass_fields__},
            "frame": np.zeros(2, np.int64),
            "is_right": np.array([True, False]),
            "vertices": np.stack([square + np.float32([0, 0, z]) for z in (0.8, 0.6)]),
            "faces_left": faces,
            "faces_right": faces,
        }
    )
    frames, shares = renderer.render_hands(motion, intrinsics_from_fov(WIDTH, HEIGHT, 75.0), 1)
    centre = frames[0, HEIGHT // 2, WIDTH // 2]
    assert centre[1] > centre[0]
    assert shares[0] == 0
    assert shares[1] > 0.01


def test_shadow_falls_away_from_the_light(renderer: MeshRenderer) -> None:
    cameras = moving_camera(2)
    track = pushed_track(2)
    track.poses[1, 1, 3] += 0.15
    images = renderer.render_clip(table_scene(), [track], no_actor(2), empty_hands(), cameras)
    assert not (images.ids[0] == MaskId.SHADOW).any()
    assert (images.ids[1] == MaskId.SHADOW).sum() > 10


def test_same_inputs_give_the_same_bytes(renderer: MeshRenderer, clip: ClipImages) -> None:
    cameras = moving_camera()
    actor, hands = reaching_actor(cameras)
    again = renderer.render_clip(table_scene(), [pushed_track()], actor, hands, cameras)
    for name in clip.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(clip, name))


def test_reduced_ids_are_background_only_where_all_parts_are() -> None:
    ids = np.array([[0, 0, 0, 4, 2, 1], [0, 0, 0, 0, 1, 2]], np.uint8)
    np.testing.assert_array_equal(reduce_ids(ids, 2), [[MaskId.BACKGROUND, MaskId.SHADOW, MaskId.HANDS]])


def test_reduced_depth_is_a_depth_that_was_seen() -> None:
    depth = np.array([[1.0, 5.0], [1.2, 5.5]], np.float32)
    np.testing.assert_array_equal(reduce_depth(depth, 2), np.array([[1.2]], np.float32))


def test_hand_motion_file_round_trips(tmp_path: Path) -> None:
    cameras = moving_camera()
    hands = reaching_actor(cameras)[1]
    path = tmp_path / "hands.npz"
    hands.save(path)
    loaded = HandMotion.load(path)
    for name in hands.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(hands, name))
    first = path.read_bytes()
    hands.save(path)
    assert path.read_bytes() == first


def test_hand_joints_lie_inside_their_mesh_and_project_into_the_image() -> None:
    cameras = moving_camera()
    hands = reaching_actor(cameras)[1]
    assert hands.joints_camera.shape == (2 * FRAMES, 21, 3)
    for entry in range(len(hands)):
        low, high = hands.vertices[entry].min(axis=0) - 0.01, hands.vertices[entry].max(axis=0) + 0.01
        assert ((hands.joints_camera[entry] > low) & (hands.joints_camera[entry] < high)).all()
        tips = hands.joints_camera[entry, 4::4]
        wrist = hands.joints_camera[entry, 0]
        assert (np.linalg.norm(tips - wrist, axis=1) > 0.07).all()
    np.testing.assert_allclose(hands.translation, hands.joints_camera[:, 0])


def test_hand_motion_describes_the_pose_that_was_skinned() -> None:
    aside = look_at([0.9, 1.4, -0.2], [-0.3, 0.7, 0.8])  # a rotation that its transpose does not resemble
    cameras = CameraPath(moving_camera().intrinsics, np.repeat(aside[None], FRAMES, axis=0))
    hands = reaching_actor(cameras)[1]
    left = hands.select(~hands.is_right)
    index_curl = np.zeros((FRAMES, 3, 3))
    index_curl[..., 2] = -0.3 * np.arange(FRAMES)[:, None]
    np.testing.assert_allclose(left.pose.reshape(FRAMES, 15, 3)[:, :3], index_curl, atol=1e-5)
    np.testing.assert_allclose(left.pose[:, 9:], 0.0, atol=1e-5)
    reach = np.linalg.norm(left.joints_camera[:, 4::4] - left.joints_camera[:, :1], axis=-1)
    assert (np.diff(reach[:, 1]) < -0.005).all()  # the index finger's tip comes closer, the others stay
    np.testing.assert_allclose(np.diff(reach[:, [0, 2, 3, 4]], axis=0), 0.0, atol=0.002)
    for entry, (rotation, right) in enumerate(
        zip(matrix_from_axis_angle(hands.orientation), hands.is_right, strict=True)
    ):
        pointing = hands.joints_camera[entry, 9] - hands.joints_camera[entry, 0]
        assert rotation[:, 0] @ pointing * (-1 if right else 1) > 0.99 * np.linalg.norm(pointing)


def test_missing_opengl_is_one_line_with_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setattr(gl_context.ctypes.util, "find_library", lambda _: None)
    with pytest.raises(DwmError, match="libegl1 and libgl1"):
        gl_context.choose_platform()
    monkeypatch.setattr(gl_context.ctypes.util, "find_library", lambda name: "found" if name == "OSMesa" else None)
    assert gl_context.choose_platform() == "osmesa"
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")
    with pytest.raises(DwmError, match="PYOPENGL_PLATFORM=glx"):
        gl_context.choose_platform()


def test_renderer_names_what_draws(renderer: MeshRenderer) -> None:
    assert "(" in renderer.description
