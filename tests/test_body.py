"""The skinned body equals the reference implementation, and its hands are closed meshes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from manifests.errors import DwmError
from render.body import DEFAULT_BODY_PATH, FINGER_JOINTS, NUM_JOINTS, BodyModel, BodyMotion, Joint, load_body
from render.hand_part import HandPart


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


def components(faces: np.ndarray) -> int:
    """Number of pieces that the edges of faces [F,3] hold together."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    used, numbers = np.unique(edges, return_inverse=True)
    first, second = numbers.reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(used), len(used)))
    return int(connected_components(graph, directed=False)[0])


def volume_of(vertices: np.ndarray, faces: np.ndarray) -> float:
    corners = vertices[faces].astype(np.float64)
    return float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


@pytest.fixture(scope="module", params=["shipped", "tilted_arms"])
def cut_body(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    """The shipped body, and one whose arms hang at a slant: planes across its forearms pass through its legs."""
    if request.param == "shipped":
        return load_body()
    body = load_body()
    pose = np.zeros((1, NUM_JOINTS, 3))
    pose[0, [Joint.LEFT_SHOULDER, Joint.RIGHT_SHOULDER], 2] = (-0.9, 0.9)
    slanted = body.skin(BodyMotion(pose, np.zeros((1, 3)), np.zeros(0), np.zeros(0)))
    return replace(body, template=slanted.vertices[0].astype(np.float64))


def test_hands_are_closed_outward_meshes_in_one_piece(cut_body: BodyModel) -> None:
    volumes = []
    for side in cut_body.hands:
        vertices = side.vertices(cut_body.template.astype(np.float32))
        assert (np.unique(side.faces) == np.arange(len(vertices))).all()
        directed = side.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        assert len(np.unique(directed, axis=0)) == len(
            directed
        )  # each edge once in each direction: closed, one winding
        assert (np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)[1] == 2).all()
        assert components(side.faces) == 1
        volumes.append(volume_of(vertices, side.faces))
        assert 1e-4 < volumes[-1] < 1e-3
    assert volumes[0] == pytest.approx(volumes[1], rel=0.01)  # mirror images


def test_hands_end_at_a_plane_across_the_forearm_where_the_skin_is_half_theirs(cut_body: BodyModel) -> None:
    joints = cut_body.rest()[1]
    template = cut_body.template.astype(np.float32)
    for side, elbow, wrist, fingers in zip(cut_body.hands, (18, 19), (20, 21), (25, 40), strict=True):
        axis = (joints[wrist] - joints[elbow]) / np.linalg.norm(joints[wrist] - joints[elbow])
        rim = (side.rim(template) - joints[wrist]) @ axis
        assert np.ptp(rim) < 1e-5  # flat, and perpendicular to the forearm
        assert abs(rim.mean()) < 0.02
        inside = (cut_body.template[side.vertex_ids] - joints[wrist]) @ axis
        assert inside.min() >= rim.mean() - 1e-5
        weights = cut_body.weights[:, [wrist, *range(fingers, fingers + FINGER_JOINTS)]].sum(axis=1)
        ends = weights[side.rim_edges]
        on_rim = ends[:, 0] * (1 - side.rim_shares) + ends[:, 1] * side.rim_shares
        assert on_rim.mean() == pytest.approx(0.5, abs=0.1)
        by_weight = np.flatnonzero(weights > 0.5)
        differing = np.setxor1d(by_weight, side.vertex_ids)
        assert len(differing) < 0.02 * len(by_weight)
        assert np.abs((cut_body.template[differing] - joints[wrist]) @ axis).max() < 0.02


def test_arm_and_hand_meet_at_the_rim_however_the_wrist_bends() -> None:
    body = load_body()
    pose = np.zeros((2, NUM_JOINTS, 3))
    pose[1, Joint.LEFT_WRIST], pose[1, Joint.RIGHT_WRIST] = (0.4, 0.5, -1.0), (0.8, 0.0, 0.9)
    skinned = body.skin(BodyMotion(pose, np.zeros((2, 3)), np.zeros(0), np.zeros(0))).vertices
    for side in body.hands:
        np.testing.assert_array_equal(side.vertices(skinned)[:, : len(side.vertex_ids)], skinned[:, side.vertex_ids])
        whole = np.concatenate([skinned, side.rim(skinned)], axis=1)
        cut = body.faces[side.body_face_mask]
        for frame in range(2):
            parts = volume_of(side.vertices(skinned)[frame], side.faces) + volume_of(whole[frame], side.arm_faces)
            cap = side.faces[(side.faces == side.faces.max()).any(axis=1)]
            parts -= volume_of(side.vertices(skinned)[frame], cap)
            assert parts == pytest.approx(volume_of(skinned[frame], cut), abs=1e-9)
        assert not open_edges_differ(side, len(body.template))


def open_edges_differ(side: HandPart, num_vertices: int) -> bool:
    """Whether the rim of the hand is another loop than that of the arm's pieces."""
    first_rim = len(side.vertex_ids)
    cap = side.faces[(side.faces == side.faces.max()).any(axis=1)][:, :2] - first_rim
    rim = np.sort(cap, axis=1)
    arm = side.arm_faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2) - num_vertices
    own = np.sort(arm[(arm >= 0).all(axis=1)], axis=1)
    edges, counts = np.unique(own, axis=0, return_counts=True)
    return not np.array_equal(np.unique(rim, axis=0), edges[counts == 1])


def test_weights_that_tell_no_hand_from_its_arm_are_refused_by_name() -> None:
    body = load_body()
    stiff = replace(body, name="stiff.npz", weights=np.eye(1, NUM_JOINTS, dtype=np.float32).repeat(13718, axis=0))
    with pytest.raises(DwmError, match=r"stiff\.npz: no skinning weights pass from forearm to hand"):
        _ = stiff.hands


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
