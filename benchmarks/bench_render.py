"""CPU milliseconds a frame of a triplet: skinning, upload, drawing, read-back, encoding; against naive pyrender.

The scene: 199k triangles in 50 objects with 1024x1024 textures, a skinned body of about 20k triangles, one object in
its hand, 720x480. CPU time is that of the whole process (all threads, the driver's too).

Example:
    python benchmarks/bench_render.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from render.arrays import write_npz
from render.body import BodyModel, BodyMotion, Joint, load_body
from render.camera import CameraPath
from render.ego_camera import ego_cameras, head_faces
from render.hands import HandMotion, hand_motion_from_body
from render.mesh_renderer import ClipImages, MeshRenderer
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
    plain_surface,
)
from render.video import write_video

WIDTH, HEIGHT = 720, 480
TRIANGLES, OBJECTS, TEXTURES = 199_000, 50, 8
FRAMES = 12
CLIP_FRAMES = 49
TARGETS = {
    "triplet_cpu_ms_per_frame": 130.0,
    "triplet_shadow_cpu_ms_per_frame": 200.0,
    "triplet_msaa_shadow_cpu_ms_per_frame": 400.0,
    "encode_cpu_ms_per_frame": 40.0,
    "speedup_vs_naive": 12.0,
    "two_worker_scaling": 1.7,
    "worker_peak_rss_mb": 700.0,
}


@dataclass(frozen=True)
class Content:
    """Everything that is drawn."""

    scene: Scene
    tracks: tuple[ObjectTrack, ...]
    actor: Actor
    hands: HandMotion
    cameras: CameraPath


def bumpy_sphere(random: np.random.Generator, triangles: int, texture: np.ndarray[Any, np.dtype[np.uint8]]) -> Surface:
    """A textured ball with bumps, of about so many triangles."""
    columns = round(np.sqrt(triangles))
    rows = max(3, triangles // (2 * columns))
    latitude, longitude = np.meshgrid(
        np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, columns + 1), indexing="ij"
    )
    normal = np.stack(
        [np.sin(latitude) * np.cos(longitude), np.cos(latitude), np.sin(latitude) * np.sin(longitude)], axis=-1
    )
    radius = 0.25 * (1 + 0.1 * np.sin(5 * longitude + random.uniform(0, 6)) * np.sin(latitude))
    index = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))])
    plain = plain_surface((normal * radius[..., None]).reshape(-1, 3).astype(np.float32), faces, (0.9, 0.9, 0.9))
    uv = np.stack([longitude / np.pi, latitude / np.pi], axis=-1).reshape(-1, 2).astype(np.float32)
    return Surface(plain.vertices, plain.faces, plain.normals, uv, plain.colours, texture, gloss=0.05)


def smooth_texture(random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A 1024x1024 texture of blotches of a few sizes, as painted or wooden surfaces have them."""
    size = 1024
    picture = np.zeros((size, size, 3), np.float32)
    for cells in (4, 16, 64, 256):
        noise = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) * (8 / cells) ** 0.5
    return np.clip(150 + 30 * picture, 0, 255).astype(np.uint8)


def make_scene() -> Scene:
    """A room of 50 objects, 199k triangles."""
    random = np.random.default_rng(0)
    textures = [smooth_texture(random) for _ in range(TEXTURES)]
    floor = Material((0.8, 0.8, 0.8), textures[0])
    walls = [("floor", (6.0, 0.1, 6.0), (0.0, -0.05, 0.0))]
    for x, z in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        size = (0.1 + 6 * abs(z), 2.6, 0.1 + 6 * abs(x))
        walls.append((f"wall {x} {z}", size, (3.0 * x, 1.3, 3.0 * z)))
    objects = [
        SceneObject(name, (box_surface(size, floor),), placed(place), casts_shadow=False) for name, size, place in walls
    ]
    count = OBJECTS - len(objects)
    for number in range(count):
        angle, distance = 2 * np.pi * number / count, random.uniform(0.9, 2.6)
        place = (distance * np.sin(angle), random.uniform(0.25, 1.2), distance * np.cos(angle))
        surface = bumpy_sphere(random, TRIANGLES // count, textures[number % TEXTURES])
        objects.append(SceneObject(f"thing {number}", (surface,), placed(place)))
    spot = SpotLight((0.5, 2.5, 0.4), (0.0, 0.0, 0.6), (5.0, 5.0, 5.0), cone_degrees=130.0)
    return Scene(tuple(objects), Lighting((0.4,) * 3, (0.2,) * 3, spot, (-1.0, 2.0, -1.0), (0.6,) * 3))


def placed(place: tuple[float, float, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A pose [4,4] without rotation."""
    pose = np.eye(4)
    pose[:3, 3] = place
    return pose


@cache
def grey_body() -> np.ndarray[Any, np.dtype[np.float32]]:
    """One colour for every vertex; the same array for every clip, so that the body stays uploaded."""
    return np.full(load_body().template.shape, 0.4, np.float32)


@cache
def hidden_head() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The head's faces, the same array for every clip."""
    return head_faces(load_body())


def make_content(frames: int, scene: Scene, body: BodyModel) -> Content:
    """The body turns and reaches with moving fingers; a box follows its right hand. Skinning is part of the work."""
    time_s = np.arange(frames) / 10
    pose = np.zeros((frames, 55, 3))
    pose[:, Joint.PELVIS, 1] = 0.5 * time_s
    pose[:, Joint.LEFT_SHOULDER, 1] = -1.2 + 0.1 * np.sin(time_s)
    pose[:, Joint.RIGHT_SHOULDER, 1] = 1.2 + 0.1 * np.sin(1.3 * time_s)
    pose[:, Joint.HEAD, 0] = 0.5
    pose[:, Joint.LEFT_FINGERS :, 2] = 0.2 * np.sin(time_s)[:, None]
    motion = BodyMotion(pose, np.tile([0.0, 1.0, 0.0], (frames, 1)), np.zeros(0), np.zeros(0))
    skinned = body.skin(motion)
    cameras = ego_cameras(body, skinned, WIDTH, HEIGHT)
    box = SceneObject("box", (box_surface((0.12, 0.08, 0.1), Material((0.7, 0.2, 0.1))),), np.eye(4))
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, 3] = skinned.joints[:, Joint.RIGHT_WRIST] + [0.0, -0.08, 0.0]
    actor = Actor(skinned.vertices, body.faces, grey_body(), body.hands, hidden_head())
    return Content(scene, (ObjectTrack(box, poses),), actor, hand_motion_from_body(body, skinned, cameras), cameras)


def render(renderer: MeshRenderer, content: Content) -> ClipImages:
    """The triplet of a clip."""
    return renderer.render_clip(content.scene, content.tracks, content.actor, content.hands, content.cameras)


@dataclass(frozen=True)
class Setting:
    """What a triplet is drawn with."""

    name: str
    samples: Literal[0, 4]
    shadows: bool


SETTINGS = (
    Setting("triplet_cpu_ms_per_frame", 0, shadows=False),
    Setting("triplet_shadow_cpu_ms_per_frame", 0, shadows=True),
    Setting("triplet_msaa_cpu_ms_per_frame", 4, shadows=False),
    Setting("triplet_msaa_shadow_cpu_ms_per_frame", 4, shadows=True),
)


def cpu_ms_per_frame(work: Callable[[], object], frames: int, repeats: int) -> float:
    """Median CPU time of the process over ``repeats`` calls, milliseconds a frame."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times) / frames


class StageClock:
    """Adds up the CPU time of methods by stage; the driver finishes its work at the end of each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: object, method: str, stage: str) -> None:
        """Count calls of ``owner.method`` as ``stage``."""
        from OpenGL import GL

        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = original(*args, **kwargs)
            GL.glFinish()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - start
            return result

        setattr(owner, method, timed)


def measure_triplets(scene: Scene, repeats: int) -> tuple[dict[str, float], dict[str, dict[str, float]], ClipImages]:
    """CPU time of the triplet by setting, then by stage; skinning included, uploading the scene not."""
    body = load_body()
    totals: dict[str, float] = {}
    stages: dict[str, dict[str, float]] = {}
    for setting in SETTINGS:
        with MeshRenderer(WIDTH, HEIGHT, samples=setting.samples, shadows=setting.shadows) as renderer:
            images = render(renderer, make_content(2, scene, body))
            totals[setting.name] = cpu_ms_per_frame(
                lambda: render(renderer, make_content(FRAMES, scene, body)), FRAMES, repeats
            )
            clock = StageClock()
            start = time.process_time()
            content = make_content(FRAMES, scene, body)
            clock.seconds["skinning"] = time.process_time() - start
            clock.wrap(renderer._actor, "pose", "normals and upload")
            clock.wrap(renderer._targets, "read", "read-back")
            clock.wrap(renderer, "_draw_items", "drawing")
            if renderer._shadow_maps is not None:
                clock.wrap(renderer._shadow_maps, "draw_live", "shadow map")
            clock.wrap(renderer, "render_hands", "hands")
            images = render(renderer, content)
            stages[setting.name] = {name: 1000 * value / FRAMES for name, value in clock.seconds.items()}
    return totals, stages, images


def measure_encoding(images: ClipImages, repeats: int) -> dict[str, float]:
    """CPU time of the three videos, and of masks and depth, milliseconds a frame."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)

        def videos() -> None:
            for name in ("interaction", "static", "hands"):
                write_video(out / f"{name}.mp4", getattr(images, name), 8.0)

        def sidecars() -> None:
            write_npz(out / "masks.npz", {"ids": images.ids}, compress_level=1)
            write_npz(out / "depth.npz", {"depth": images.depth.astype(np.float16)}, compress_level=1)

        return {
            "encode_cpu_ms_per_frame": cpu_ms_per_frame(videos, FRAMES, repeats),
            "sidecar_cpu_ms_per_frame": cpu_ms_per_frame(sidecars, FRAMES, repeats),
        }


def measure_naive(scene: Scene, frames: int, *, multisample: bool) -> float:
    """CPU time of pyrender's own renderer, milliseconds a frame: three passes, every mesh made anew each frame.

    pyrender always takes four samples a pixel; without ``multisample`` it is told to take one.
    """
    import pyrender
    from OpenGL import GL

    storage = GL.glRenderbufferStorageMultisample
    pyrender.renderer.glRenderbufferStorageMultisample = (
        storage if multisample else lambda kind, _, *rest: storage(kind, 0, *rest)
    )

    body = load_body()
    pictures: dict[int, Any] = {}
    meshes = [(trimesh_of(surface, pictures), item.pose) for item in scene.objects for surface in item.surfaces]
    context = pyrender.OffscreenRenderer(WIDTH, HEIGHT)
    try:
        start = time.process_time()
        for _ in range(frames):
            content = make_content(1, scene, body)
            for kind in ("interaction", "static", "hands"):
                context.render(naive_scene(kind, content, meshes))
        return 1000 * (time.process_time() - start) / frames
    finally:
        context.delete()


def trimesh_of(surface: Surface, pictures: dict[int, Any]) -> Any:
    """A surface as trimesh has it, its texture a shared picture."""
    import trimesh
    from PIL import Image

    key = id(surface.texture)
    if key not in pictures and surface.texture is not None:
        pictures[key] = Image.fromarray(surface.texture)
    looks: Any = trimesh.visual
    white = [1.0, 1.0, 1.0, 1.0]
    material = looks.material.PBRMaterial(baseColorTexture=pictures.get(key), baseColorFactor=white)
    visual = looks.TextureVisuals(uv=surface.uv, material=material)
    return trimesh.Trimesh(
        surface.vertices, surface.faces, vertex_normals=surface.normals, visual=visual, process=False
    )


def naive_scene(kind: str, content: Content, meshes: list[tuple[Any, Any]]) -> Any:
    """One frame's scene of one video, from nothing."""
    import pyrender
    import trimesh

    scene = pyrender.Scene(bg_color=[0.0, 0.0, 0.0, 1.0], ambient_light=[0.3] * 3)
    camera = pyrender.PerspectiveCamera(yfov=2 * np.arctan(240 / 360), aspectRatio=1.5, znear=0.05, zfar=20.0)
    scene.add(camera, pose=content.cameras[0].opengl_pose)
    scene.add(pyrender.PointLight(intensity=8.0), pose=placed((-1.0, 2.0, -1.0)))
    if kind == "hands":
        for hand in content.actor.hands:
            scene.add(
                pyrender.Mesh.from_trimesh(
                    trimesh.Trimesh(hand.vertices(content.actor.vertices[0]), hand.faces, process=False)
                )
            )
        return scene
    scene.add(pyrender.SpotLight(intensity=40.0, innerConeAngle=0.8, outerConeAngle=1.1), pose=placed((0.5, 2.5, 0.4)))
    for mesh, pose in meshes:
        scene.add(pyrender.Mesh.from_trimesh(mesh), pose=pose)
    if kind == "interaction":
        faces = content.actor.faces[~content.actor.hidden_faces]
        scene.add(pyrender.Mesh.from_trimesh(trimesh.Trimesh(content.actor.vertices[0], faces, process=False)))
    return scene


def write_triplet(renderer: MeshRenderer, content: Content, folder: Path) -> None:
    """Draw and write a clip as the builder does: hands apart, so that less is in memory at once."""
    views = renderer.render_views(content.scene, content.tracks, content.actor, content.cameras)
    write_npz(folder / "masks.npz", {"ids": views.ids}, compress_level=1)
    depth, videos = views.depth, {"static": views.static, "interaction": views.interaction}
    del views
    for name in tuple(videos):
        write_video(folder / f"{name}.mp4", videos.pop(name), 8.0)
    write_npz(folder / "depth.npz", {"depth": depth}, compress_level=1)
    hands = renderer.render_hands(content.hands, content.cameras.intrinsics, len(content.cameras))[0]
    write_video(folder / "hands.mp4", hands, 8.0)


def worker(clips: int) -> None:
    """One worker process: render and write clips, then print how long it drew and its greatest memory."""
    scene, body = make_scene(), load_body()
    with MeshRenderer(WIDTH, HEIGHT) as renderer, tempfile.TemporaryDirectory() as folder:
        render(renderer, make_content(1, scene, body))
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.perf_counter()
        for _ in range(clips):
            write_triplet(renderer, make_content(CLIP_FRAMES, scene, body), Path(folder))
        wall = time.perf_counter() - start
    peak_mb = peak_memory_mb()
    print(json.dumps({"wall_s": wall, "peak_rss_mb": peak_mb}), flush=True)


def peak_memory_mb() -> float:
    """Greatest resident memory of this process. Not from getrusage, which counts the parent's until the exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def run_workers(count: int) -> list[dict[str, float]]:
    """Start workers with one drawing thread each, let them go at once, and collect what they print."""
    environment = {**os.environ, "LP_NUM_THREADS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker"]
    running = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in running]


def measure_workers(repeats: int) -> dict[str, float]:
    """Clips a second of two workers against one, and the memory of a worker."""
    ratios, peaks, rates = [], [], []
    for _ in range(repeats):
        one = run_workers(1)
        two = run_workers(2)
        ratios.append(2 * one[0]["wall_s"] / max(each["wall_s"] for each in two))
        peaks += [each["peak_rss_mb"] for each in (*one, *two)]
        rates.append(3600 / one[0]["wall_s"])
    return {
        "two_worker_scaling": statistics.median(ratios),
        "worker_peak_rss_mb": max(peaks),
        "worker_clips_per_hour": statistics.median(rates),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median is taken")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(1)
        return
    scene = make_scene()
    figures, stages, images = measure_triplets(scene, arguments.repeats)
    figures |= measure_encoding(images, arguments.repeats)
    frames = max(2, arguments.repeats)
    for multisample, ours, suffix in (
        (False, "triplet_cpu_ms_per_frame", ""),
        (True, "triplet_msaa_cpu_ms_per_frame", "_msaa"),
    ):
        naive = measure_naive(scene, frames, multisample=multisample)
        figures |= {
            f"naive{suffix}_cpu_ms_per_frame": naive,
            f"speedup_vs_naive{suffix}": naive / figures[ours],  # neither of them with shadows
        }
    figures |= measure_workers(arguments.repeats)
    for name, by_stage in stages.items():
        print(f"{name}: " + ", ".join(f"{stage} {value:.1f}" for stage, value in by_stage.items()))
    for name, value in figures.items():
        print(f"{name:>38} {value:10.2f}" + (f"  (target {TARGETS[name]:g})" if name in TARGETS else ""))
    if arguments.json:
        print(json.dumps({**figures, "stages_cpu_ms_per_frame": stages, "targets": TARGETS}))


if __name__ == "__main__":
    main()
