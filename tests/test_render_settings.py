"""Settings of the mesh renderer: multisampling, shadows, textures with holes; one renderer at a time."""

from typing import Literal

import numpy as np
import pytest

from manifests.errors import DwmError
from manifests.schema import MaskId
from render.gl_context import gl_description
from render.mesh_renderer import MeshRenderer
from render.scene import Material, Scene, box_surface
from tests.test_mesh_renderer import (
    HEIGHT,
    LIGHTING,
    WIDTH,
    empty_hands,
    moving_camera,
    no_actor,
    placed,
    pushed_track,
    reaching_actor,
    table_scene,
)


@pytest.fixture(autouse=True, scope="module")
def opengl() -> None:
    try:
        gl_description()
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")


@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("shadows", [False, True])
@pytest.mark.parametrize("actor_shadows", [False, True])
def test_triplet_is_exact_outside_the_mask_with_every_setting(
    samples: Literal[0, 4], shadows: bool, actor_shadows: bool
) -> None:
    cameras = moving_camera()
    actor, hands = reaching_actor(cameras)
    with MeshRenderer(WIDTH, HEIGHT, samples=samples, shadows=shadows, actor_shadows=actor_shadows) as other:
        images = other.render_clip(table_scene(), [pushed_track()], actor, hands, cameras)
    background = images.ids == MaskId.BACKGROUND
    assert 0.3 < background.mean() < 0.97
    np.testing.assert_array_equal(images.interaction[background], images.static[background])
    assert (images.ids == MaskId.HANDS).sum() > 20
    assert (images.ids == MaskId.SHADOW).any() == shadows


def test_actor_shadow_is_a_switch() -> None:
    cameras = moving_camera()
    actor, hands = reaching_actor(cameras)
    shadowed = []
    for actor_shadows in (True, False):
        with MeshRenderer(WIDTH, HEIGHT, actor_shadows=actor_shadows) as other:
            images = other.render_clip(table_scene(), [], actor, hands, cameras)
            shadowed.append((images.ids == MaskId.SHADOW).sum())
    assert shadowed[0] > 50
    assert shadowed[1] == 0


def test_multisampling_smooths_edges_and_keeps_the_picture() -> None:
    cameras = moving_camera(1)
    actor, hands = reaching_actor(cameras)
    pictures = {}
    for scale, samples in ((1, 0), (1, 4), (4, 0)):
        with MeshRenderer(WIDTH, HEIGHT, scale=scale, samples=samples, shadows=False) as other:
            pictures[scale, samples] = other.render_clip(table_scene(), [], actor, hands, cameras).interaction.astype(
                int
            )
    fine = pictures[4, 0]
    errors = [np.abs(pictures[key] - fine).mean() for key in ((1, 0), (1, 4))]
    assert errors[1] < errors[0]


def test_holes_of_a_texture_show_what_is_behind() -> None:
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[..., 3] = 0
    wall = placed("wall", box_surface((3, 3, 0.02), Material((1, 0, 0), texture)), (0, 1, 0.4))
    cameras = moving_camera(1)
    scene = table_scene()
    behind = Scene((*scene.objects, wall), LIGHTING)
    with MeshRenderer(WIDTH, HEIGHT, shadows=False) as other:
        images = [other.render_clip(each, [], no_actor(1), empty_hands(), cameras) for each in (scene, behind)]
    np.testing.assert_array_equal(images[0].interaction, images[1].interaction)
