"""The skinned body equals the reference implementation, and its hands are closed meshes."""

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import DwmError
from render.body import DEFAULT_BODY_PATH, FINGER_JOINTS, NUM_JOINTS, BodyMotion, Joint, load_body


def random_motion(frames: int = 2, seed: int = 0, flat_hand_mean: bool = True) -> BodyMotion:
    generator = np.random.default_rng(seed)
    return BodyMotion(
        pose=generator.normal(scale=0.4, size=(frames, NUM_JOINTS, 3)),
        translation=generator.normal(size=(frames, 3)),
        betas=generator.normal(scale=0.5, size=6),
        expression=np.zeros(0),
        flat_hand_mean=flat_hand_mean,
    )


def body_file_with(folder: Path, **changes: np.ndarray) -> Path:
    """A copy of the shipped body with some arrays changed, where `smplx.create` looks for it."""
    arrays = dict(np.load(DEFAULT_BODY_PATH, allow_pickle=False))
    path = folder / "smplx" / "SMPLX_NEUTRAL.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**arrays, **changes})
    return path


def reference_body(path: Path, motion: BodyMotion) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints of the `smplx` package."""
    smplx = pytest.importorskip("smplx", reason="the reference body implementation (extra 'dev') is not installed")
    torch = pytest.importorskip("torch")
    frames = len(motion.pose)
    model = smplx.create(
        str(path.parent.parent),
        model_type="smplx",
        gender="neutral",
        ext="npz",
        num_betas=len(motion.betas),
        use_pca=False,
        flat_hand_mean=motion.flat_hand_mean,
        batch_size=frames,
    )
    pose = torch.from_numpy(motion.pose.astype(np.float32))
    with torch.no_grad():
        output = model(
            betas=torch.from_numpy(motion.betas.astype(np.float32))[None].expand(frames, -1),
            global_orient=pose[:, 0],
            body_pose=pose[:, 1:22].reshape(frames, -1),
            jaw_pose=pose[:, 22],
            leye_pose=pose[:, 23],
            reye_pose=pose[:, 24],
            left_hand_pose=pose[:, 25:40].reshape(frames, -1),
            right_hand_pose=pose[:, 40:55].reshape(frames, -1),
            transl=torch.from_numpy(motion.translation.astype(np.float32)),
        )
    return output.vertices.numpy(), output.joints.numpy()[:, :NUM_JOINTS]


@pytest.mark.slow
@pytest.mark.parametrize("flat_hand_mean", [True, False])
def test_vertices_and_joints_equal_the_reference_package(tmp_path: Path, flat_hand_mean: bool) -> None:
    generator = np.random.default_rng(5)
    posedirs = np.zeros((13718, 3, 486), dtype=np.float32)
    posedirs[generator.integers(0, 13718, 4000), :, generator.integers(0, 486, 4000)] = 0.02
    path = body_file_with(
        tmp_path,
        hands_meanl=generator.normal(scale=0.2, size=45).astype(np.float32),
        hands_meanr=generator.normal(scale=0.2, size=45).astype(np.float32),
        posedirs=posedirs,
    )
    motion = random_motion(flat_hand_mean=flat_hand_mean)
    skinned = load_body(path).skin(motion)
    vertices, joints = reference_body(path, motion)
    np.testing.assert_allclose(skinned.vertices, vertices, atol=1e-4)
    np.testing.assert_allclose(skinned.joints, joints, atol=1e-4)


def test_shipped_body_equals_the_reference_package(tmp_path: Path) -> None:
    folder = tmp_path / "smplx"
    folder.mkdir()
    (folder / "SMPLX_NEUTRAL.npz").write_bytes(DEFAULT_BODY_PATH.read_bytes())
    motion = random_motion(seed=3)
    skinned = load_body().skin(motion)
    vertices, joints = reference_body(folder / "SMPLX_NEUTRAL.npz", motion)
    np.testing.assert_allclose(skinned.vertices, vertices, atol=1e-4)
    np.testing.assert_allclose(skinned.joints, joints, atol=1e-4)


def test_rest_pose_is_the_template() -> None:
    body = load_body()
    motion = BodyMotion(np.zeros((1, NUM_JOINTS, 3)), np.zeros((1, 3)), np.zeros(0), np.zeros(0))
    np.testing.assert_allclose(body.skin(motion).vertices[0], body.template, atol=1e-5)


def test_curling_a_finger_moves_only_its_hand() -> None:
    body = load_body()
    pose = np.zeros((1, NUM_JOINTS, 3))
    pose[0, Joint.LEFT_FINGERS : Joint.LEFT_FINGERS + 3, 2] = -0.6
    moved = np.linalg.norm(
        body.skin(BodyMotion(pose, np.zeros((1, 3)), np.zeros(0), np.zeros(0))).vertices[0] - body.template, axis=1
    )
    left, right = body.hands
    assert moved[left.vertex_ids].max() > 0.03
    assert moved[right.vertex_ids].max() < 1e-5
    assert moved[np.setdiff1d(np.arange(len(moved)), left.vertex_ids)].max() < 0.005


def test_hands_are_closed_outward_meshes_without_the_forearm() -> None:
    body = load_body()
    rest_joints = body.rest()[1]
    for side, wrist in zip(body.hands, (Joint.LEFT_WRIST, Joint.RIGHT_WRIST), strict=True):
        vertices = side.vertices(body.template.astype(np.float32))
        assert side.faces.max() == len(vertices) - 1
        edges = np.sort(side.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        corners = vertices[side.faces]
        volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        assert 1e-4 < volume < 1e-3
        assert np.abs(vertices[:, 0]).min() > abs(rest_joints[wrist, 0]) - 0.02
        assert side.body_face_mask.sum() + len(side.cap_ids) == len(side.faces)


def test_betas_that_the_file_lacks_are_refused_by_name() -> None:
    with pytest.raises(DwmError, match="betas has 10 coefficients, the file has 6"):
        load_body().rest(np.ones(10))


def test_file_with_pickled_objects_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(path, v_template=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DwmError, match=r"SMPLX_NEUTRAL\.npz.*pickled objects"):
        load_body(path)


def test_pickle_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match=r"SMPLX_NEUTRAL\.npz|npz"):
        load_body(tmp_path / "SMPLX_NEUTRAL.pkl")


def test_wrong_pose_shape_is_refused() -> None:
    with pytest.raises(DwmError, match="pose"):
        load_body().skin(BodyMotion(np.zeros((2, FINGER_JOINTS, 3)), np.zeros((2, 3)), np.zeros(0), np.zeros(0)))
