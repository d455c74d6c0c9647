"""HaMeR without its files: the geometry of its outputs, MANO files, and the network's own code where it is given."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import DwmError, UsageError
from render.arrays import write_npz
from render.hand_estimation.estimator import HandVideo, motion_intrinsics
from render.hand_estimation.hamer import HamerEstimator, Seen, posed_track
from render.hand_estimation.hamer_geometry import (
    CropCameras,
    crop_region,
    hand_translations,
    left_faces,
    mirrored_back,
    mirrored_rotations,
    picture_focal_px,
)
from render.hand_estimation.mano import ManoHand, load_mano
from render.hand_estimation.settings import HandEstimationSettings, TrackSettings, open_estimator
from render.rotations import matrix_from_axis_angle
from tests.helpers_hands import mano_arrays, overlap, signed_volume, silhouette, write_mano_pickle

WIDTH, HEIGHT = 720, 480
ROOT = os.environ.get("DWM_HAMER_ROOT")


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> ManoHand:
    path = tmp_path_factory.mktemp("mano") / "MANO_RIGHT.npz"
    write_npz(path, mano_arrays())
    return load_mano(path)


@dataclass(frozen=True)
class KnownHand:
    """A hand in the camera's frame, and what HaMeR would say of its (mirrored) crop."""

    vertices: np.ndarray
    box: np.ndarray
    pred_vertices: np.ndarray
    pred_cam: np.ndarray


def known_hand(mano: ManoHand, is_right: bool, place: np.ndarray, focal_px: float) -> KnownHand:
    """Place a posed hand in front of the camera and derive a perfect network's outputs from it.

    The derivation goes the other way round from the code's: the network sees a right hand in a crop that is mirrored
    for left ones; its camera gives the place of that hand's origin in the crop, in units of half the crop.
    """
    rotations = matrix_from_axis_angle(np.random.default_rng(1).normal(size=(1, 16, 3)) * 0.2)
    rotations[0, 0] = matrix_from_axis_angle([0.4, 2.2, -0.9])
    seen = mano.pose(rotations, np.zeros(10))[0][0]
    vertices = seen * (1.0 if is_right else -1.0, 1.0, 1.0) + place
    pixels = vertices[:, :2] / vertices[:, 2:] * focal_px + (WIDTH / 2, HEIGHT / 2)
    box = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
    region = crop_region(box)
    origin = place[:2] / place[2] * focal_px + (WIDTH / 2, HEIGHT / 2)
    half = region.size / 2
    in_crop = (origin - (region.x, region.y)) / half * (1.0 if is_right else -1.0, 1.0)
    scale = focal_px / place[2] / half  # one metre at the hand's distance, in halves of the crop
    return KnownHand(vertices, box, seen, np.array([scale, *(in_crop / scale)]))


@pytest.mark.parametrize("is_right", [False, True])
@pytest.mark.parametrize("place", [(0.0, 0.0, 20.0), (-0.3, 0.12, 20.0), (0.25, -0.1, 15.0)])
def test_hamer_outputs_project_onto_the_hand_that_they_came_from(
    mano: ManoHand, is_right: bool, place: tuple[float, float, float]
) -> None:
    focal = picture_focal_px(WIDTH, HEIGHT, 256)
    assert focal == pytest.approx(5000 / 256 * 720)
    known = known_hand(mano, is_right, np.array(place), focal)
    region = crop_region(known.box)
    cameras = CropCameras(
        known.pred_cam[None], np.array([[region.x, region.y]]), np.array([region.size]), np.array([is_right])
    )
    moved = mirrored_back(known.pred_vertices[None], np.array([is_right]))
    vertices = (moved + hand_translations(cameras, WIDTH, HEIGHT, focal)[:, None])[0]
    faces = mano.faces if is_right else left_faces(mano.faces)
    want = silhouette(known.vertices, faces, focal, WIDTH, HEIGHT)
    found = silhouette(vertices, faces, focal, WIDTH, HEIGHT)
    assert want.sum() > 2000
    assert overlap(want, found) >= 0.98
    # The other side's rules put the hand elsewhere: the test would notice.
    wrong = CropCameras(cameras.scale_shift, cameras.centre, cameras.size, ~cameras.is_right)
    other = mirrored_back(known.pred_vertices[None], np.array([not is_right]))
    other = (other + hand_translations(wrong, WIDTH, HEIGHT, focal)[:, None])[0]
    assert overlap(want, silhouette(other, faces, focal, WIDTH, HEIGHT)) < 0.9


@pytest.mark.parametrize("is_right", [False, True])
def test_whole_track_is_in_register_and_faces_outwards(mano: ManoHand, is_right: bool) -> None:
    rotations = matrix_from_axis_angle(np.random.default_rng(2).normal(size=(3, 16, 3)) * 0.3)
    places = np.array([[0.1, 0.0, 9.0]] * 3)
    seen = Seen(is_right, np.arange(3), np.ones(3), rotations, places, np.zeros(10))
    track = posed_track(mano, seen)
    faces = mano.faces if is_right else left_faces(mano.faces)
    vertices = track.vertices - places[:, None]
    assert signed_volume(vertices[0], faces) > 0
    if not is_right:  # the pose of the mirrored hand is that of a left one: skinning mirrored rest vertices gives it
        right = mano.pose(rotations, np.zeros(10))[0]
        np.testing.assert_allclose(vertices, right * (-1, 1, 1), atol=1e-12)
        local = mirrored_rotations(rotations, np.zeros(3, bool))
        np.testing.assert_allclose(np.linalg.det(local), 1.0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(0, 600), st.floats(0, 400), st.floats(5, 300), st.floats(5, 300)),
    st.tuples(st.floats(0.3, 2.0), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    st.booleans(),
    st.floats(200, 20_000),
)
def test_picture_camera_agrees_with_the_crop_camera(
    box: tuple[float, ...], camera: tuple[float, ...], is_right: bool, focal: float
) -> None:
    """The origin of the hand lies in the picture where the crop's weak-perspective camera puts it, for any focal."""
    left, top, width, height = box
    region = crop_region([left, top, left + width, top + height])
    scale, right, down = camera
    cameras = CropCameras(
        np.array([camera]), np.array([[region.x, region.y]]), np.array([region.size]), np.array([is_right])
    )
    place = hand_translations(cameras, WIDTH, HEIGHT, focal)[0]
    pixel = place[:2] / place[2] * focal + (WIDTH / 2, HEIGHT / 2)
    side = 1 if is_right else -1
    want = np.array([region.x, region.y]) + np.array([side * right, down]) * scale * region.size / 2
    np.testing.assert_allclose(pixel, want, atol=1e-3 * max(1, region.size / 100))


def test_crop_holds_the_box_twice_over_in_the_backbone_s_aspect() -> None:
    region = crop_region([100, 100, 160, 120])
    assert (region.x, region.y) == (130, 110)
    assert region.size == pytest.approx(160)  # 2 x 60 wide, seen through 3/4 of the square
    assert crop_region([0, 0, 10, 90]).size == pytest.approx(180)


def test_mano_hand_equals_smplx(tmp_path: Path) -> None:
    smplx = pytest.importorskip("smplx")
    torch = pytest.importorskip("torch")
    arrays = mano_arrays()
    path = tmp_path / "MANO_RIGHT.pkl"
    with path.open("wb") as stream:
        pickle.dump(arrays, stream)
    hand = load_mano(path)
    layer = smplx.MANOLayer(str(path), is_rhand=True, use_pca=False, dtype=torch.float64)
    rotations = matrix_from_axis_angle(np.random.default_rng(0).normal(size=(2, 16, 3)) * 0.5)
    betas = np.random.default_rng(1).normal(size=(2, 10))
    tensors = torch.from_numpy(rotations)
    with torch.no_grad():
        want = layer(
            betas=torch.from_numpy(betas), global_orient=tensors[:, :1], hand_pose=tensors[:, 1:], pose2rot=False
        )
    vertices, points = hand.pose(rotations, betas)
    np.testing.assert_allclose(vertices, want.vertices.numpy(), atol=1e-6)
    chain = [0, 13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9]
    ours = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]
    np.testing.assert_allclose(points[:, ours], want.joints.numpy()[:, chain], atol=1e-6)


def test_official_pickle_with_chumpy_objects_is_read_without_chumpy(tmp_path: Path) -> None:
    arrays = mano_arrays()
    write_mano_pickle(tmp_path / "MANO_RIGHT.pkl", arrays)
    write_npz(tmp_path / "MANO_RIGHT.npz", arrays)
    official, plain = load_mano(tmp_path / "MANO_RIGHT.pkl"), load_mano(tmp_path / "MANO_RIGHT.npz")
    for name in ("shape_directions", "pose_directions", "joint_regressor", "weights", "faces"):
        np.testing.assert_allclose(getattr(official, name), getattr(plain, name), err_msg=name)
    assert official.tips == plain.tips


def test_mano_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps({"v_template": Evil()}, protocol=2))
    with pytest.raises(DwmError, match=r"MANO_RIGHT\.pkl: refused.*system"):
        load_mano(path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps({"v_template": np.zeros((3, 3))}, protocol=2))
    with pytest.raises(DwmError, match="lacks the arrays"):
        load_mano(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'hamer_root' is missing"):
        open_estimator(HandEstimationSettings(estimator="hamer"))
    files = {name: tmp_path / name for name in ("hamer_root", "checkpoint", "mano", "mean_params")}
    with pytest.raises(DwmError, match=r"hamer_root .*no such file"):
        open_estimator(HandEstimationSettings(estimator="hamer", **files))
    files["hamer_root"].mkdir()
    for name in ("checkpoint", "mean_params"):
        files[name].write_bytes(b"not a file of HaMeR")
    files["mano"] = tmp_path / "MANO_RIGHT.npz"
    write_npz(files["mano"], mano_arrays())
    with pytest.raises(DwmError, match=r"model_config\.yaml: no such file"):
        open_estimator(HandEstimationSettings(estimator="hamer", **files))
    (tmp_path / "model_config.yaml").write_text("MODEL: {IMAGE_SIZE: 256}")
    with pytest.raises(DwmError, match="not a configuration of HaMeR"):
        open_estimator(HandEstimationSettings(estimator="hamer", **files))


def test_checkpoint_with_foreign_classes_is_read_safely(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from render.hand_estimation.hamer_network import read_weights

    path = tmp_path / "hamer.ckpt"
    settings_class = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    import sys
    from types import ModuleType

    for name in ("yacs", "yacs.config"):  # only while saving: the class is unknown when the file is read
        sys.modules[name] = ModuleType(name)
    sys.modules["yacs.config"].CfgNode = settings_class
    try:
        content = {"state_dict": {"a": torch.ones(2)}, "hyper_parameters": {"cfg": settings_class({"X": 1})}}
        torch.save(content, path)
    finally:
        for name in ("yacs", "yacs.config"):
            del sys.modules[name]
    assert read_weights(path)["a"].tolist() == [1, 1]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DwmError, match="not a checkpoint of HaMeR"):
        read_weights(path)


def write_tiny_hamer(root: Path, folder: Path) -> dict[str, Path]:
    """A checkpoint of a shrunken network with random weights, in the files that HaMeR's release has."""
    torch = pytest.importorskip("torch")
    from render.hand_estimation import hamer_network as network

    folder.mkdir()
    rng = np.random.default_rng(0)
    write_npz(
        folder / "mano_mean_params.npz",
        {
            "pose": np.tile(np.array([1, 0, 0, 1, 0, 0], np.float32), 16),
            "shape": np.zeros(10, np.float32),
            "cam": np.array([0.9, 0, 0], np.float32),
        },
    )
    decoder = {"depth": 1, "heads": 2, "mlp_dim": 32, "dim_head": 8, "dropout": 0.0, "emb_dropout": 0.0}
    config = {
        "MODEL": {
            "IMAGE_SIZE": 256,
            "IMAGE_MEAN": [0.485, 0.456, 0.406],
            "IMAGE_STD": [0.229, 0.224, 0.225],
            "BACKBONE": {"TYPE": "vit", "EMBED_DIM": 32, "DEPTH": 2, "NUM_HEADS": 2},
            "MANO_HEAD": {
                "TYPE": "transformer_decoder",
                "IN_CHANNELS": 64,
                "TRANSFORMER_DECODER": {**decoder, "norm": "layer", "context_dim": 32},
            },
        },
        "MANO": {"NUM_HAND_JOINTS": 15, "MEAN_PARAMS": "elsewhere.npz"},
        "EXTRA": {"FOCAL_LENGTH": 5000},
    }
    (folder / "model_config.yaml").write_text(yaml.safe_dump(config))
    checkpoint = folder / "checkpoints" / "hamer.ckpt"
    checkpoint.parent.mkdir()
    with network._hamer_packages(root):
        parsed = network.read_config(checkpoint)
        parsed["MANO"]["MEAN_PARAMS"] = str(folder / "mano_mean_params.npz")
        torch.manual_seed(0)
        backbone, head = network._build(parsed, root)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    state |= {f"mano_head.{name}": value for name, value in head.state_dict().items()}
    state["discriminator.unused"] = torch.from_numpy(rng.normal(size=3))
    torch.save({"state_dict": state}, checkpoint)
    write_mano_pickle(folder / "MANO_RIGHT.pkl", mano_arrays())
    return {
        "hamer_root": root,
        "checkpoint": checkpoint,
        "mano": folder / "MANO_RIGHT.pkl",
        "mean_params": folder / "mano_mean_params.npz",
    }


@pytest.mark.skipif(not ROOT, reason="set DWM_HAMER_ROOT to a checkout of HaMeR to run its own network code")
def test_shrunken_network_runs_through_the_same_code(tmp_path: Path) -> None:
    pytest.importorskip("einops")
    files = write_tiny_hamer(Path(str(ROOT)), tmp_path / "hamer")
    detections = tmp_path / "detections"
    frames = np.repeat(np.arange(4), 2)
    boxes = np.where(np.arange(8)[:, None] % 2, [400.0, 200, 480, 300], [100.0, 150, 190, 230])
    write_npz(detections / "clip.npz", {"frame": frames, "box": boxes, "is_right": np.arange(8) % 2 == 1})
    chosen = HandEstimationSettings(
        estimator="hamer", detections=detections, device="cpu", batch_size=3, tracks=TrackSettings(), **files
    )
    estimator = open_estimator(chosen)
    assert isinstance(estimator, HamerEstimator)
    assert estimator.model_name == "mano/MANO_RIGHT.pkl"
    video = HandVideo("clip", np.random.default_rng(0).integers(0, 255, (4, HEIGHT, WIDTH, 3), np.uint8), 8.0)
    motion = estimator.estimate(video)
    assert len(motion) == 8
    assert sorted(set(motion.track_id.tolist())) == [0, 1]
    assert np.isfinite(motion.vertices).all()
    pixels = motion.joints_image[motion.is_right].mean(axis=(0, 1))
    assert (pixels > (360, 150)).all()  # about where the right hand's box is
    assert motion_intrinsics(motion, WIDTH, HEIGHT)[0, 0] == pytest.approx(5000 / 256 * 720)
    again = open_estimator(chosen).estimate(video)
    np.testing.assert_array_equal(motion.vertices, again.vertices)


@pytest.mark.skipif(not ROOT, reason="set DWM_HAMER_ROOT to a checkout of HaMeR to run its own network code")
def test_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    files = write_tiny_hamer(Path(str(ROOT)), tmp_path / "hamer")
    path = tmp_path / "hamer" / "model_config.yaml"
    path.write_text(path.read_text().replace("DEPTH: 2", "DEPTH: 3"))
    with pytest.raises(DwmError, match=r"does not fit its model_config\.yaml"):
        open_estimator(HandEstimationSettings(estimator="hamer", detections=tmp_path, device="cpu", **files))
