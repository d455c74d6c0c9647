"""Scenes of Gaussians and their PLY files: exact round trips, other people's layouts, damage, a start from points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat import export_splats

from manifests.errors import DwmError
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.gaussian_ply import read_ply, write_ply
from render.gaussian_scene import SH_DC, GaussianScene, render_path, scene_from_points

FIELDS = ("means", "log_scales", "quats", "opacity_logits", "sh")


def random_scene(count: int = 17, bands: int = 16) -> GaussianScene:
    random = torch.Generator().manual_seed(count)
    shapes = {"means": (3,), "log_scales": (3,), "quats": (4,), "opacity_logits": (), "sh": (bands, 3)}
    return GaussianScene(**{name: torch.randn((count, *shape), generator=random) for name, shape in shapes.items()})


def same(one: GaussianScene, two: GaussianScene) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in FIELDS)


@pytest.mark.parametrize("bands", [1, 4, 9, 16, 25])
def test_a_written_scene_is_read_bit_by_bit_and_written_again_the_same(tmp_path: Path, bands: int) -> None:
    scene = random_scene(bands=bands)
    write_ply(tmp_path / "a.ply", scene)
    read = read_ply(tmp_path / "a.ply")
    assert same(scene, read)
    write_ply(tmp_path / "b.ply", read)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_the_layout_is_that_of_the_3dgs_release(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", random_scene(bands=4))
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode()
    names = [line.split()[2] for line in header.splitlines() if line.startswith("property")]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{n}" for n in range(9)]
    assert names == [*expected, "opacity", *["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]]


def test_gsplats_own_export_is_read(tmp_path: Path) -> None:
    scene = random_scene(bands=9)
    path = tmp_path / "gsplat.ply"
    export_splats(
        scene.means, scene.log_scales, scene.quats, scene.opacity_logits, scene.sh[:, :1], scene.sh[:, 1:],
        save_to=str(path),
    )  # fmt: skip
    assert same(read_ply(path), scene)


def write_foreign(path: Path, scene: GaussianScene, order: str = "<", drop: tuple[str, ...] = ()) -> None:
    """Doubles, other order, a colour that nobody asked for, an element before the vertices."""
    values = {
        **{f"rot_{n}": scene.quats[:, n] for n in range(4)},
        **{f"scale_{n}": scene.log_scales[:, n] for n in range(3)},
        "opacity": scene.opacity_logits,
        **{f"f_dc_{n}": scene.sh[:, 0, n] for n in range(3)},
        **{axis: scene.means[:, n] for n, axis in enumerate("xyz")},
    }
    table = np.zeros(len(scene), [("red", "u1"), *((name, f"{order}f8") for name in values if name not in drop)])
    for name in table.dtype.names[1:]:
        table[name] = values[name].numpy()
    kind = "little" if order == "<" else "big"
    lines = ["ply", f"format binary_{kind}_endian 1.0", "comment of another trainer", "element note 2"]
    lines += ["property uchar a", "property ushort b", f"element vertex {len(scene)}", "property uchar red"]
    lines += [f"property double {name}" for name in table.dtype.names[1:]]
    path.write_bytes("\n".join([*lines, "end_header", ""]).encode() + bytes(6) + table.tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
def test_other_orders_types_and_elements_are_read(tmp_path: Path, order: str) -> None:
    scene = random_scene(bands=1)
    write_foreign(tmp_path / "a.ply", scene, order)
    assert same(read_ply(tmp_path / "a.ply"), scene)


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    with pytest.raises(DwmError, match="no such file"):
        read_ply(path)
    write_ply(path, random_scene())
    whole = path.read_bytes()
    cases = {
        whole[:-1]: "truncated",
        whole[:100]: "cut off in its header",
        b"glTF" + whole[4:]: "not a PLY",
        whole.replace(b"binary_little_endian", b"ascii"): "binary_little_endian",
        whole.replace(b"f_rest_44", b"f_rest_99"): r"f_rest_\*",
        whole.replace(b"property float opacity", b"property float opaqueness"): "lacks opacity",
        whole.replace(b"float opacity", b"list uchar int opacity"): "header",
        whole[:-4] + np.float32(np.nan).tobytes(): "1 Gaussians hold values that are not finite",
    }
    for data, message in cases.items():
        path.write_bytes(data)
        with pytest.raises(DwmError, match=message) as caught:
            read_ply(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    scene = random_scene()
    scene.means[3, 1] = torch.inf
    with pytest.raises(DwmError, match="1 Gaussians hold values"):
        write_ply(tmp_path / "a.ply", scene)
    assert not list(tmp_path.iterdir())


def test_a_start_from_points_has_their_colours_and_sizes_of_their_spacing() -> None:
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5), np.arange(5)), axis=-1).reshape(-1, 3) * 0.1
    stray = np.array([[50.0, 0.0, 0.0]])
    colours = np.random.default_rng(0).random((126, 3))
    scene = scene_from_points(np.concatenate([grid, stray]), colours, sh_degree=2, opacity=0.3)
    np.testing.assert_allclose(0.5 + SH_DC * scene.sh[:, 0].numpy(), colours, atol=1e-6)
    assert not scene.sh[:, 1:].any()
    np.testing.assert_allclose(scene.log_scales[:125].exp().numpy(), 0.1, rtol=1e-5)
    np.testing.assert_allclose(scene.log_scales[125].exp().numpy(), 1.0, rtol=1e-5)  # ten times the median at most
    np.testing.assert_allclose(scene.opacity_logits.sigmoid().numpy(), 0.3, rtol=1e-5)
    with pytest.raises(DwmError, match="at least 2"):
        scene_from_points(grid[:1], colours[:1])
    with pytest.raises(DwmError, match="not finite"):
        scene_from_points(grid * np.nan, colours[:125])


def test_a_path_shows_a_plane_where_it_is() -> None:
    across = np.linspace(-1, 1, 40)
    plane = np.stack([*np.meshgrid(across, across), np.full((40, 40), 2.0)], axis=-1).reshape(-1, 3)
    red = np.tile([0.8, 0.2, 0.1], (len(plane), 1))
    scene = scene_from_points(plane, red, sh_degree=0, opacity=0.9)
    poses = np.stack([look_at([0, 0, z], [0, 0, 2], up=[0, -1, 0]) for z in (0.0, 1.0, 4.0)])
    path = render_path(scene, CameraPath(intrinsics_from_fov(40, 24, 60.0), poses), 40, 24, background=(0.0, 0.0, 1.0))
    for frame, depth in ((0, 2.0), (1, 1.0), (2, 2.0)):
        np.testing.assert_allclose(path.depth[frame, 8:16, 12:28], depth, rtol=0.01)
        np.testing.assert_allclose(path.frames[frame, 12, 20], [204, 51, 26], atol=4)
        assert path.alphas[frame, 12, 20] > 0.97
    away = CameraPath(intrinsics_from_fov(40, 24, 60.0), look_at([0, 0, 0], [0, 0, -2])[None])
    empty = render_path(scene, away, 40, 24, background=(0.0, 0.0, 1.0))
    assert not empty.alphas.any()
    assert (empty.frames == [0, 0, 255]).all()
