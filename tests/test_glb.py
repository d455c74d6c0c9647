"""Mesh files: node transforms, mirrored nodes, shared textures, base colours, alpha."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from manifests.errors import DwmError
from render.glb import load_objects, load_rigid_object

DATA = Path(__file__).parents[2] / "shared" / "data" / "trumans" / "scene_glb"


def textured_box(material: PBRMaterial) -> trimesh.Trimesh:
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    box.visual = TextureVisuals(uv=box.vertices[:, :2] * 0.2 + 0.5, material=material)
    return box


def picture(alpha: int = 255) -> Image.Image:
    pixels = np.random.default_rng(0).integers(30, 220, (16, 16, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    return Image.fromarray(pixels, "RGBA")


def write_glb(path: Path, *nodes: tuple[str, trimesh.Trimesh, np.ndarray]) -> Path:
    scene = trimesh.Scene()
    for name, mesh, transform in nodes:
        scene.add_geometry(mesh, node_name=name, geom_name=f"mesh of {name}", transform=transform)
    path.write_bytes(scene.export(file_type="glb"))
    return path


def test_nodes_keep_their_transforms_mirrored_ones_too(tmp_path: Path) -> None:
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored[:3, 3] = [0.5, 0.2, -1.0]
    moved = np.eye(4)
    moved[:3, 3] = [3.0, 0.0, 0.0]
    material = PBRMaterial(baseColorFactor=[255, 255, 255, 255])
    path = write_glb(
        tmp_path / "a.glb", ("chair", textured_box(material), mirrored), ("table", textured_box(material), moved)
    )
    chair, table = load_objects(path)
    assert (chair.name, table.name) == ("chair", "table")
    np.testing.assert_allclose(chair.pose, mirrored, atol=1e-6)
    np.testing.assert_allclose(table.pose, moved, atol=1e-6)
    np.testing.assert_allclose(np.ptp(chair.surfaces[0].vertices, axis=0), [1, 2, 3], atol=1e-6)
    whole = load_rigid_object(path, "set").surfaces
    np.testing.assert_allclose(whole[0].vertices.mean(axis=0), mirrored[:3, 3], atol=1e-6)
    outward = np.einsum("va,va->v", whole[0].normals, whole[0].vertices - whole[0].vertices.mean(axis=0))
    assert (outward > 0).all()
    np.testing.assert_allclose(np.linalg.norm(whole[0].normals, axis=1), 1, atol=1e-5)


def test_shared_texture_is_one_array(tmp_path: Path) -> None:
    material = PBRMaterial(baseColorTexture=picture())
    path = write_glb(
        tmp_path / "a.glb", ("a", textured_box(material), np.eye(4)), ("b", textured_box(material), np.eye(4))
    )
    first, second = (item.surfaces[0] for item in load_objects(path))
    assert first.texture is not None
    assert first.texture is second.texture
    np.testing.assert_array_equal(first.texture, np.asarray(picture())[..., :3])


def test_base_colour_is_a_share_of_one(tmp_path: Path) -> None:
    path = write_glb(
        tmp_path / "a.glb",
        ("plain", textured_box(PBRMaterial()), np.eye(4)),
        ("red", textured_box(PBRMaterial(baseColorFactor=[255, 51, 0, 255])), np.eye(4)),
    )
    plain, red = load_objects(path)
    np.testing.assert_allclose(plain.surfaces[0].colours, 1.0)
    np.testing.assert_allclose(red.surfaces[0].colours[0], [1.0, 0.2, 0.0], atol=0.01)


@pytest.mark.parametrize(("alpha", "channels"), [(255, 3), (216, 3), (150, 4)])
def test_blended_material_of_high_alpha_is_opaque(tmp_path: Path, alpha: int, channels: int) -> None:
    material = PBRMaterial(baseColorTexture=picture(alpha), alphaMode="BLEND")
    path = write_glb(tmp_path / "a.glb", ("a", textured_box(material), np.eye(4)))
    texture = load_objects(path)[0].surfaces[0].texture
    assert texture is not None
    assert texture.shape[-1] == channels


def test_glass_is_left_out(tmp_path: Path) -> None:
    glass = PBRMaterial(baseColorFactor=[255, 255, 255, 30], alphaMode="BLEND")
    solid = PBRMaterial(baseColorFactor=[255, 255, 255, 255])
    path = write_glb(
        tmp_path / "a.glb", ("pane", textured_box(glass), np.eye(4)), ("wall", textured_box(solid), np.eye(4))
    )
    assert [item.name for item in load_objects(path)] == ["wall"]


def test_obj_files_load_with_normals(tmp_path: Path) -> None:
    path = tmp_path / "box.obj"
    path.write_text(trimesh.creation.box((1, 1, 1)).export(file_type="obj"))
    surface = load_rigid_object(path, "box").surfaces[0]
    assert len(surface.faces) == 12
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("absent.glb", None, "no such mesh"), ("a.glb", b"not a mesh at all", "cannot be read"), ("a.fbx", b"x", "GLB")],
)
def test_bad_mesh_files_are_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DwmError, match=message) as caught:
        load_objects(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real TRUMANS room is not on this machine")
def test_real_room_has_its_furniture_at_its_node_transforms() -> None:
    room = load_objects(DATA / "room.glb")
    assert len(room) == 12
    assert sum(np.linalg.det(item.pose[:3, :3]) < 0 for item in room) == 2
    points = np.concatenate([item.surfaces[0].vertices @ item.pose[:3, :3].T + item.pose[:3, 3] for item in room])
    np.testing.assert_allclose(points.min(axis=0), [-3.13, -0.2, -3.98], atol=0.01)
    np.testing.assert_allclose(points.max(axis=0), [2.91, 4.0, 4.19], atol=0.01)
    textures = {id(item.surfaces[0].texture) for item in room if item.surfaces[0].texture is not None}
    assert len(textures) == 1
    assert all(item.surfaces[0].texture is None or item.surfaces[0].texture.shape[-1] == 3 for item in room)
