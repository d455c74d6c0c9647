"""One ``.blend`` of TRUMANS -> GLB meshes and object tracks. Runs in a Python that has ``bpy``, in its own process.

It imports nothing of this project, because Blender's Python has other versions of its libraries. Called by
``sources/trumans_blend.py``, which also says where each assumption about the file comes from:

    python export_scene.py SCENE.blend STAGING_FOLDER REQUEST.json

The request is ``{"motions": {"<segment>": frames}, "texture_size": 1024}``. Into the staging folder go
``background.glb``, ``objects/<name>.glb``, ``<segment>.tracks.npz`` (an array [T,4,4] a name) and ``report.json``.
Blender's world is z up; what is written is y up, in metres, as glTF has it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

HIDDEN_COLLECTION = "AugmentAreaCollection"
ACTOR_BONES = ("CC_Base_Hip", "pelvis")
DRAWABLE = ("MESH", "CURVE", "SURFACE", "META", "FONT")
Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""World coordinates y up from Blender's z up."""


@dataclass
class Report:
    """What was found and written, for the process that called."""

    blender: str = ""
    recordings: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def main(blend: Path, staging: Path, request: dict[str, Any]) -> None:
    """Export one scene."""
    bpy.ops.wm.open_mainfile(filepath=str(blend), load_ui=False, use_scripts=False)
    scene = bpy.context.scene
    report = Report(blender=bpy.app.version_string)
    sets = animation_sets(scene)
    actors = [each for each in bpy.data.objects if each.type == "ARMATURE" and is_actor(each)]
    movable = movable_objects(sets, actors, report)
    report.objects = file_names(movable)
    at_rest = {name: item.matrix_basis.copy() for name, item in movable.items()}
    show_what_renders(actors)
    shrink_textures(int(request["texture_size"]), report)
    play(scene, next(iter(sets.values()), {}), at_rest)
    write_meshes(staging, movable, report)
    hide_all_but(movable)
    for key, actions in sets.items():
        segment = key.removesuffix(".pkl")
        frames = request["motions"].get(segment)
        missing = sorted(set(actions.values()) - {each.name for each in bpy.data.actions})
        if frames is None:
            report.skipped[segment] = "the release has no motion of this name"
        elif missing:
            report.skipped[segment] = f"its action '{missing[0]}' is not in the file"
        else:
            play(scene, actions, at_rest)
            tracks = record_tracks(scene, frames, movable)
            named: dict[str, Any] = {report.objects[name]: track for name, track in tracks.items()}
            np.savez(staging / f"{segment}.tracks.npz", **named)
            report.recordings[segment] = frames
            ends = [int(bpy.data.actions[action].frame_range[1]) + 1 for action in actions.values()]
            if max(ends, default=frames) < frames:
                report.notes.append(
                    f"{segment}: its actions end at frame {max(ends)} of {frames}; what follows is still"
                )
    (staging / "report.json").write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")


def animation_sets(scene: Any) -> dict[str, dict[str, str]]:
    """``{capture file: {object: action}}``: the add-on keeps it as JSON in a property of the scene."""
    properties = scene.get("hsi_properties")
    content = properties.get("animation_sets") if properties is not None else None
    if not content:
        sys.exit("the scene has no 'hsi_properties.animation_sets'; is it a file of Recordings_blend?")
    sets: dict[str, dict[str, str]] = json.loads(content)
    return sets


def is_actor(armature: Any) -> bool:
    """Whether an armature is a person."""
    return any(bone in armature.data.bones for bone in ACTOR_BONES)


def movable_objects(sets: dict[str, dict[str, str]], actors: list[Any], report: Report) -> dict[str, Any]:
    """Objects that some recording moves, by name."""
    names = sorted({name for actions in sets.values() for name in actions} - {each.name for each in actors})
    absent = [name for name in names if name not in bpy.data.objects]
    report.notes += [f"'{name}' is animated but not in the file" for name in absent]
    return {name: bpy.data.objects[name] for name in names if name not in absent}


def file_names(movable: Iterable[str]) -> dict[str, str]:
    """Name of each object in the export: its own, with what file names cannot hold replaced."""
    names = {name: re.sub(r"[^A-Za-z0-9._@-]", "_", name) for name in movable}
    if len(set(names.values())) < len(names):
        sys.exit(f"objects whose names differ only in special characters: {sorted(names)}")
    return names


def show_what_renders(actors: list[Any]) -> None:
    """Make the view layer hold what a rendering would show, without people and helpers."""
    people = set(actors)
    for item in list(bpy.context.view_layer.objects):
        worn = any(each.type == "ARMATURE" and each.object in people for each in item.modifiers)
        item.hide_set(False)
        item.hide_viewport = item.hide_render or worn or any(each in people for each in ancestors(item))
    for collection in bpy.data.collections:
        collection.hide_viewport = collection.hide_render or collection.name == HIDDEN_COLLECTION


def ancestors(item: Any) -> Iterator[Any]:
    """An object, its parent, and so on."""
    while item is not None:
        yield item
        item = item.parent


def shrink_textures(size: int, report: Report) -> None:
    """Reduce pictures that are larger than ``size`` pixels; name those whose file is missing."""
    for image in bpy.data.images:
        if image.source not in {"FILE", "GENERATED"} or image.type in {"RENDER_RESULT", "COMPOSITING"}:
            continue
        width, height = image.size
        if min(width, height) == 0:
            report.notes.append(f"texture '{image.name}' has no pixels ({image.filepath or 'no file'})")
        elif max(width, height) > size:
            share = size / max(width, height)
            image.scale(max(1, round(width * share)), max(1, round(height * share)))


def play(scene: Any, actions: dict[str, str], at_rest: dict[str, Any]) -> None:
    """Give objects their actions of one recording; those without one stand as the file has them."""
    for name, basis in at_rest.items():
        item = bpy.data.objects[name]
        if item.animation_data is not None:
            item.animation_data.action = None
        item.matrix_basis = basis
    for name, action in actions.items():
        item = bpy.data.objects.get(name)
        if item is None or action not in bpy.data.actions:
            continue
        data = item.animation_data or item.animation_data_create()
        data.action = bpy.data.actions[action]
        if data.action_slot is None and len(data.action_suitable_slots):
            data.action_slot = data.action_suitable_slots[0]
    scene.frame_set(0)


@dataclass(frozen=True)
class Piece:
    """A mesh as it is drawn: the movable object that carries it (None: background) and its place in the world."""

    owner: str | None
    name: str
    mesh: Any
    world: Matrix


def pieces(movable: dict[str, Any]) -> list[Piece]:
    """Everything that is drawn, modifiers and instances included."""
    graph = bpy.context.evaluated_depsgraph_get()
    found = []
    for instance in graph.object_instances:
        drawn = instance.object
        if drawn.type not in DRAWABLE or not instance.show_self:
            continue
        base = (instance.parent if instance.is_instance else drawn).original
        owner = next((each.name for each in ancestors(base) if each.name in movable), None)
        mesh = bpy.data.meshes.new_from_object(drawn, preserve_all_data_layers=True, depsgraph=graph)
        found.append(Piece(owner, drawn.original.name, mesh, instance.matrix_world.copy()))
    return sorted(found, key=lambda piece: piece.name)


def write_meshes(staging: Path, movable: dict[str, Any], report: Report) -> None:
    """The background in world coordinates, each movable object in its own."""
    (staging / "objects").mkdir(parents=True, exist_ok=True)
    drawn = [piece for piece in pieces(movable) if len(piece.mesh.polygons)]
    by_owner: dict[str | None, list[Piece]] = {}
    for piece in drawn:
        by_owner.setdefault(piece.owner, []).append(piece)
    if None not in by_owner:
        sys.exit("nothing but movable objects is visible: no background to export")
    inverse = {name: item.matrix_world.inverted() for name, item in movable.items()}
    for owner, parts in by_owner.items():
        path = staging / ("background.glb" if owner is None else f"objects/{report.objects[owner]}.glb")
        write_glb(path, [(part, part.world if owner is None else inverse[owner] @ part.world) for part in parts])
    bare = sorted(set(movable) - set(by_owner))
    report.notes += [f"'{name}' is animated but has no visible mesh" for name in bare]


def write_glb(path: Path, parts: list[tuple[Piece, Matrix]]) -> None:
    """Meshes at these places as a GLB of their own."""
    for item in list(bpy.context.view_layer.objects):
        item.select_set(False)
    made = []
    for part, place in parts:
        item = bpy.data.objects.new(part.name, part.mesh)
        bpy.context.scene.collection.objects.link(item)
        item.matrix_world = place
        item.select_set(True)
        made.append(item)
    bpy.ops.export_scene.gltf(
        filepath=str(path),
        export_format="GLB",
        use_selection=True,
        export_yup=True,
        export_animations=False,
        export_skins=False,
        export_morph=False,
        export_cameras=False,
        export_lights=False,
        export_extras=False,
    )
    for item in made:
        bpy.data.objects.remove(item)
    bpy.context.view_layer.update()


def hide_all_but(movable: dict[str, Any]) -> None:
    """Hide what only costs time while the recordings play."""
    needed = {each for item in movable.values() for each in ancestors(item)}
    for item in list(bpy.context.view_layer.objects):
        if item not in needed:
            item.hide_viewport = True


def record_tracks(scene: Any, frames: int, movable: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """World poses [T,4,4], y up, of all movable objects over the recording that plays."""
    tracks = {name: np.empty((frames, 4, 4)) for name in movable}
    for frame in range(frames):
        scene.frame_set(frame)
        for name, item in movable.items():
            tracks[name][frame] = Y_UP @ np.array(item.matrix_world) @ Y_UP.T
    return tracks


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")))
