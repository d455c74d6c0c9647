"""Blender files of TRUMANS -> the exported form, by Blender itself on files that Blender makes here.

No file of the licensed ``Recordings_blend`` is on this machine: what is assumed of one is what its authors' add-on
writes (``docs/trumans.md``), and ``tests/blender_scene.py`` writes the same.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from flows.cli import app
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import ClipStatus
from render.glb import load_objects, load_rigid_object
from render.scene import Scene
from sources.trumans import open_trumans
from sources.trumans_blend import PYTHON_VARIABLE, TEXTURE_SIZE, BlendReport, export_blends, find_blender_python
from sources.trumans_scene import load_scene
from tests.helpers_trumans import OTHER_SEGMENT, SCENE, SEGMENT, make_arrays, make_motion, motion_arrays, real_data

CUP, LAMP = "rigid_01_root_cup", "lamp_01"
FRAMES = 120


def blender() -> Path:
    try:
        return find_blender_python()
    except DwmError as error:
        pytest.skip(f"no Blender here: {error}")


def make_release_blend(raw: Path, *arguments: str) -> None:
    """Write the Blender file of a scene by ``blender_scene.py``."""
    blend = raw / "Recordings_blend" / SCENE / f"{SCENE}.blend"
    blend.parent.mkdir(parents=True)
    script = Path(__file__).with_name("blender_scene.py")
    subprocess.run([blender(), "-I", script, blend, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of two recordings in one scene, with the scene's Blender file."""
    raw = tmp_path_factory.mktemp("release") / "TRUMANS"
    make_release_blend(raw, SEGMENT, OTHER_SEGMENT, "2023-01-01@12-00-00")
    for segment in (SEGMENT, OTHER_SEGMENT):
        make_motion(raw / "smplx_result" / f"{segment}_smplx_results.pkl", FRAMES)
    make_arrays(raw, {SEGMENT: FRAMES, OTHER_SEGMENT: FRAMES}, bad_rows=[FRAMES + 7])
    (raw / "Actions").mkdir()
    (raw / "Actions" / f"{SEGMENT}.txt").write_text("0\t90\tPick up the cup\n")
    return raw


@pytest.fixture(scope="module")
def export(release: Path) -> BlendReport:
    return export_blends(release, release.parent / "exported")


def test_recordings_of_the_file_are_exported_and_others_named(export: BlendReport) -> None:
    assert (export.made, export.kept, export.recordings, export.failures) == (1, 0, 2, ())
    assert export.skipped == {"2023-01-01@12-00-00": "the release has no motion of this name"}


def test_reader_opens_the_export(export: BlendReport) -> None:
    raw = open_trumans(export.folder)
    assert [each.recording_id for each in raw.recordings()] == [SEGMENT, OTHER_SEGMENT]
    first, second = raw.load(SEGMENT), raw.load(OTHER_SEGMENT)
    assert first.num_frames == FRAMES
    assert [each.name for each in first.objects] == [LAMP, CUP]
    assert first.actions[0].text == "Pick up the cup"
    assert (first.bad_frames, second.bad_frames) == (frozenset(), frozenset({7}))
    np.testing.assert_array_equal(first.body.transl, motion_arrays(FRAMES)["transl"])
    assert [each.recording_id for each in raw.skipped()] == ["2023-01-01@12-00-00"]


def test_tracks_are_matrix_world_with_y_up(export: BlendReport) -> None:
    raw = open_trumans(export.folder)
    for number, segment in ((1, SEGMENT), (2, OTHER_SEGMENT)):
        tracks = {each.name: each.world_from_object for each in raw.load(segment).objects}
        # Blender's (x, y, z), z up, is (x, z, -y): the cup goes from (0, 1, 0.5) to (number, 1, 0.5) in 20 frames.
        np.testing.assert_allclose(tracks[CUP][0, :3, 3], [0.0, 0.5, -1.0], atol=1e-6)
        np.testing.assert_allclose(tracks[CUP][20, :3, 3], [number, 0.5, -1.0], atol=1e-6)
        np.testing.assert_allclose(tracks[CUP][-1], tracks[CUP][20], atol=1e-6)
        # The lamp moves in the second recording only, and stands where the file has it in the first.
        np.testing.assert_allclose(tracks[LAMP][20, :3, 3], [1.5, float(number), 0.0], atol=1e-6)


def test_meshes_lie_where_blender_shows_them(export: BlendReport) -> None:
    scene = export.folder / "scenes" / SCENE
    objects = load_objects(scene / "background.glb")
    assert len(objects) == 1, "the helper, the hidden area, the person and the movable things are not background"
    points = np.concatenate([surface.vertices for surface in objects[0].surfaces])
    world = points @ objects[0].pose[:3, :3].T + objects[0].pose[:3, 3]
    np.testing.assert_allclose([world.min(axis=0), world.max(axis=0)], [[-2, -0.1, -3], [2, 0, 3]], atol=1e-5)
    texture = objects[0].surfaces[0].texture
    assert texture is not None
    assert texture[0, 0, 0] > texture[0, 0, 1], "the floor is red"
    cup = load_rigid_object(scene / "objects" / f"{CUP}.glb", CUP).surfaces[0].vertices
    np.testing.assert_allclose([cup.min(axis=0), cup.max(axis=0)], [[-0.1, 0, -0.1], [0.1, 0.2, 0.1]], atol=1e-6)


def test_real_room_comes_through_blender_as_it_is(tmp_path: Path) -> None:
    room = real_data() / "scene_glb" / "room.glb"
    raw = tmp_path / "TRUMANS"
    make_release_blend(raw, SEGMENT, str(room))
    make_motion(raw / "smplx_result" / f"{SEGMENT}_smplx_results.pkl", 3)
    folder = export_blends(raw, tmp_path / "exported").folder
    before, after = load_scene((room,)), load_scene((folder / "scenes" / SCENE / "background.glb",))

    def triangles(scene: Scene) -> np.ndarray[Any, Any]:
        """Centres [n,3] of all triangles in the world, without the lamp that the file holds besides the room."""
        centres = [
            (surface.vertices @ item.pose[:3, :3].T + item.pose[:3, 3])[surface.faces].mean(axis=1)
            for item in scene.objects
            for surface in item.surfaces
            if not item.name.startswith("lamp")
        ]
        return np.concatenate(centres)

    # Blender drops triangles without area.
    assert len(triangles(after)) == pytest.approx(len(triangles(before)), rel=0.01)
    distance = cKDTree(triangles(before)).query(triangles(after))[0]
    assert distance.max() < 1e-4
    pictures = [surface.texture for item in after.objects for surface in item.surfaces if surface.texture is not None]
    assert pictures
    assert max(max(picture.shape) for picture in pictures) <= TEXTURE_SIZE


def test_exporting_again_keeps_and_gives_equal_bytes(release: Path, export: BlendReport, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(export.folder.rglob("*")) if path.is_file()}
    again = export_blends(release, export.folder)
    assert (again.made, again.kept) == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = export_blends(release, tmp_path / "other")
    for path in before:
        assert (other.folder / path.relative_to(export.folder)).read_bytes() == path.read_bytes(), path


def test_interrupted_export_is_made_again(release: Path, export: BlendReport, tmp_path: Path) -> None:
    folder = export_blends(release, tmp_path / "exported").folder
    (folder / "recordings" / SEGMENT / "recording.json").unlink()
    assert export_blends(release, folder).made == 1
    assert (folder / "recordings" / SEGMENT / "recording.json").is_file()


def test_command_exports_and_builds(release: Path, export: BlendReport, tmp_path: Path) -> None:
    arguments = ["build", "trumans", "--raw", release, "--dataset", tmp_path / "dataset", "--profile", "mini"]
    result = CliRunner().invoke(
        app, [*map(str, arguments), "--export-blend", "--exported", str(export.folder), "--only", SEGMENT]
    )
    assert result.exit_code == 0, result.output
    rows = list(Dataset.open(tmp_path / "dataset").clips.rows())
    ready = [row for row in rows if row.status is ClipStatus.READY]
    assert [row.prompt for row in ready] == ["Pick up the cup."] or ready[0].prompt_origin == "action_annotation"
    assert ready[0].object_motion_m == pytest.approx(1.0, abs=1e-3)


def test_file_that_is_no_recording_fails_alone(release: Path, export: BlendReport, tmp_path: Path) -> None:
    raw = tmp_path / "TRUMANS"
    (raw / "smplx_result").mkdir(parents=True)
    for scene, content in (("aaaa", b"BLENDER-v999 not one"), ("bbbb", b"")):
        path = raw / "Recordings_blend" / scene / f"{scene}.blend"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    report = export_blends(raw, tmp_path / "exported")
    assert [each.scene_id for each in report.failures] == ["aaaa", "bbbb"]
    assert all("Blender ended with" in each.reason and "\n" not in each.reason for each in report.failures)


def test_missing_files_and_blender_are_named(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DwmError, match=r"Recordings_blend: holds no .*copy them from the release"):
        export_blends(tmp_path, tmp_path / "exported")
    monkeypatch.setitem(os.environ, PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(DwmError, match=r"python: no such Python; run `make blender`"):
        export_blends(release, tmp_path / "exported")
