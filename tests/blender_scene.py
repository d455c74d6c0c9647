"""Makes a tiny file in the form of TRUMANS' ``Recordings_blend``. Runs in a Python that has ``bpy``.

    python blender_scene.py SCENE.blend SEGMENT... [ROOM.glb]

A room with a textured floor (mirrored, scaled) and a helper that does not render; a cup whose mesh hangs below an
empty that two recordings move; a lamp that only the second one moves; a person (armature and skinned mesh); an area
that the add-on hides.
"""

import json
import sys
from typing import Any

import bpy

CUP, LAMP, PERSON = "rigid_01_root_cup", "lamp/01", "zzy"


class HsiProperties(bpy.types.PropertyGroup):
    """The properties of the authors' add-on that matter, declared as it declares them."""

    animation_sets: bpy.props.StringProperty(default="{}")  # type: ignore[valid-type]
    name_armature_CC: bpy.props.StringProperty(default="")  # type: ignore[valid-type]  # noqa: N815


def cube(name: str, size: float, place: tuple[float, float, float]) -> Any:
    bpy.ops.mesh.primitive_cube_add(size=size, location=place)
    item = bpy.context.object
    item.name = name
    return item


def animated(item: Any, name: str, start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    """Give an object an action from frame 0 to 20, in the manner of the add-on, and return the action's name."""
    item.animation_data_clear()
    item.rotation_mode = "QUATERNION"
    for frame, place in ((0, start), (20, end)):
        item.location = place
        item.keyframe_insert("location", frame=frame)
        item.keyframe_insert("rotation_quaternion", frame=frame)
    action = item.animation_data.action
    action.name = name
    action.use_fake_user = True
    return str(action.name)


def red_material() -> Any:
    image = bpy.data.images.new("red", 8, 8)
    image.pixels = [0.8, 0.1, 0.1, 1.0] * 64
    image.pack()
    material = bpy.data.materials.new("red")
    material.use_nodes = True
    texture = material.node_tree.nodes.new("ShaderNodeTexImage")
    texture.image = image
    material.node_tree.links.new(
        texture.outputs["Color"], material.node_tree.nodes["Principled BSDF"].inputs["Base Color"]
    )
    return material


def main(path: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.utils.register_class(HsiProperties)
    bpy.types.Scene.hsi_properties = bpy.props.PointerProperty(type=HsiProperties)
    scene = bpy.context.scene
    floor = cube("floor", 1.0, (0.0, 0.0, -0.05))
    floor.scale = (4.0, -6.0, 0.1)
    floor.data.materials.append(red_material())
    cube("helper", 1.0, (0.0, 0.0, 5.0)).hide_render = True
    area = bpy.data.collections.new("AugmentAreaCollection")
    scene.collection.children.link(area)
    region = cube("area", 9.0, (0.0, 0.0, 0.0))
    area.objects.link(region)
    scene.collection.objects.unlink(region)

    cup = bpy.data.objects.new(CUP, None)
    scene.collection.objects.link(cup)
    mesh = cube("cup_mesh", 0.2, (0.0, 0.0, 0.0))
    mesh.parent = cup
    mesh.location = (0.0, 0.0, 0.1)
    lamp = cube(LAMP, 0.1, (1.5, 0.0, 1.0))

    bpy.ops.object.armature_add()
    person = bpy.context.object
    person.name = PERSON
    person.data.bones[0].name = "CC_Base_Hip"
    body = cube("CC_Base_Body", 0.5, (0.0, 0.0, 1.0))
    body.modifiers.new("skin", "ARMATURE").object = person

    for glb in (name for name in sys.argv[2:] if name.endswith(".glb")):
        bpy.data.objects.remove(floor)
        bpy.ops.import_scene.gltf(filepath=glb)

    sets = {}
    for number, segment in enumerate((name for name in sys.argv[2:] if not name.endswith(".glb")), start=1):
        sets[f"{segment}.pkl"] = {
            CUP: animated(cup, f"cup {number}", (0.0, 1.0, 0.5), (float(number), 1.0, 0.5)),
            PERSON: animated(person, f"person {number}", (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
        }
        if number == 2:
            sets[f"{segment}.pkl"][LAMP] = animated(lamp, "lamp 2", (1.5, 0.0, 1.0), (1.5, 0.0, 2.0))
            lamp.animation_data.action = None
            lamp.location = (1.5, 0.0, 1.0)
    scene.hsi_properties.animation_sets = json.dumps(sets)
    scene.hsi_properties.name_armature_CC = PERSON
    bpy.ops.wm.save_as_mainfile(filepath=path)


if __name__ == "__main__":
    main(sys.argv[1])
