"""The CPU renderer of 3D Gaussians and a small reconstruction: CPU seconds, scaling with threads, quality, memory.

* ``forward_cpu_s``, ``forward_backward_cpu_s``: 20,000 Gaussians at 720x480; ``small_...``: 5,000 at 180x120.
  Projection, spherical harmonics of degree 2, compositing and (backward) all gradients; CPU time with one thread.
* ``gaussians_a_pixel``, ``mean_alpha``: how dense the large one is: as a trained scene.
* ``two_thread_scaling``: wall time of forward and backward at 720x480 with one thread over that with two.
* ``first_call_s``: wall time of a process's first picture with the machine code cached; ``compile_s``: without.
* ``mini_...``: the profile ``aria_mini`` on 48 frames of a generated room, in a process of its own with two threads:
  PSNR of the held-out frames, wall time of the fit, greatest resident memory of that process.

Example:
    python benchmarks/bench_gaussians.py --json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from benchmarks.bench_render import peak_memory_mb
from render.gaussian_scene import GaussianScene
from render.mesh_renderer import MeshRenderer
from render.reconstruction import reconstruct
from render.reconstruction_settings import get_reconstruction_profile
from render.reconstruction_views import ReconstructionView
from sources.synthetic.exploration import Exploration, explore_household

TARGETS = {
    "forward_cpu_s": 0.6,
    "forward_backward_cpu_s": 1.2,
    "small_forward_backward_cpu_s": 0.2,
    "two_thread_scaling": 1.6,
    "mini_heldout_psnr_db": 24.0,
    "mini_wall_s": 240.0,
    "peak_rss_mb": 2000.0,
}
SH_DEGREE = 2
NUM_VIEWS = 48


class Workload:
    """A random cloud of Gaussians that covers the view as a trained scene does, and one camera.

    A scene that `aria_mini` made of a generated capture has 57 Gaussians over a pixel at 720x480 (ellipses out to
    alpha 1/255) and a mean alpha of 0.95; `density` measures both here.

    Args:
        count: Gaussians; their size is such that each pixel sees about as many at any count.
        width: of the image, pixels.
        height: of the image, pixels.
    """

    def __init__(self, count: int, width: int, height: int) -> None:
        random = torch.Generator().manual_seed(0)
        means = torch.rand((count, 3), generator=random) * torch.tensor([4.0, 2.7, 2.0]) - torch.tensor(
            [2.0, 1.35, -1.5]
        )
        size = 5.2 / count**0.5
        self.scene = GaussianScene(
            means=means.requires_grad_(),
            log_scales=(torch.randn((count, 3), generator=random) * 0.4).add(torch.tensor(size).log()).requires_grad_(),
            quats=torch.randn((count, 4), generator=random).requires_grad_(),
            opacity_logits=(torch.randn(count, generator=random) - 1.3).requires_grad_(),
            sh=(torch.randn((count, (SH_DEGREE + 1) ** 2, 3), generator=random) * 0.2).requires_grad_(),
        )
        self.size = (width, height)
        self.lens = torch.tensor([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1.0]])[None]

    def forward(self, threads: int) -> torch.Tensor:
        """One picture."""
        image, _, _ = self.scene.rasterize(torch.eye(4)[None], self.lens, *self.size, threads=threads)
        return image

    def forward_backward(self, threads: int) -> None:
        """One picture and all gradients."""
        self.forward(threads).square().mean().backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def density(self) -> tuple[float, float]:
        """How many Gaussians lie over a pixel on average, each out to an alpha of 1/255, and the mean alpha."""
        _, alphas, meta = self.scene.rasterize(torch.eye(4)[None], self.lens, *self.size)
        drawn = (meta["radii"][0] > 0).all(dim=-1)
        a, b, c = meta["conics"][0][drawn].double().unbind(-1)
        extent = (255 * meta["opacities"][0][drawn].double()).clamp(min=1.0).log()
        areas = 2 * math.pi * extent / (a * c - b * b).sqrt()
        return float(areas.sum()) / (self.size[0] * self.size[1]), float(alphas.mean())


def median_s(measure: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Median time of a call by a clock, after one call that is not counted."""
    measure()
    times = []
    for _ in range(repeats):
        start = clock()
        measure()
        times.append(clock() - start)
    return statistics.median(times)


def measure_rasterizer(repeats: int) -> dict[str, float]:
    """CPU seconds with one thread, and what a second one gains."""
    large, small = Workload(20_000, 720, 480), Workload(5_000, 180, 120)
    torch.set_num_threads(1)
    per_pixel, alpha = large.density()
    cpu = time.process_time
    figures = {
        "forward_cpu_s": median_s(lambda: large.forward(1), repeats, cpu),
        "forward_backward_cpu_s": median_s(lambda: large.forward_backward(1), repeats, cpu),
        "small_forward_backward_cpu_s": median_s(lambda: small.forward_backward(1), repeats, cpu),
    }
    walls = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        walls.append(median_s(lambda: large.forward_backward(threads), repeats, time.perf_counter))  # noqa: B023
    figures["two_thread_scaling"] = walls[0] / walls[1]
    figures |= {"gaussians_a_pixel": per_pixel, "mean_alpha": alpha}
    return figures


def measure_first_call() -> dict[str, float]:
    """Wall seconds of the first picture and gradients of a process, with and without cached machine code."""
    code = (
        "import sys, time; from benchmarks.bench_gaussians import Workload; work = Workload(100, 32, 32);"
        "start = time.perf_counter(); work.forward_backward(1); print(time.perf_counter() - start)"
    )
    figures = {}
    with tempfile.TemporaryDirectory() as empty:
        for name, extra in (("first_call_s", {}), ("compile_s", {"NUMBA_CACHE_DIR": empty})):
            done = subprocess.run(
                [sys.executable, "-c", code], env={**os.environ, **extra}, cwd=Path(__file__).resolve().parents[1],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            figures[name] = float(done.stdout.split()[-1])
    return figures


def views_of(exploration: Exploration) -> list[ReconstructionView]:
    """An explored room as the reconstruction takes it."""
    cameras = exploration.cameras
    return [
        ReconstructionView(
            name=f"{number:03d}",
            image=exploration.frames[number],
            intrinsics=cameras.intrinsics,
            world_from_camera=cameras.world_from_camera[number],
        )
        for number in range(len(cameras))
    ]


def reconstruct_room() -> dict[str, float]:
    """Explore a generated room and reconstruct it with the profile ``aria_mini``."""
    settings = get_reconstruction_profile("aria_mini")
    with MeshRenderer(settings.width, settings.height, scale=2, actor_shadows=False) as renderer:
        exploration = explore_household(renderer, 3, num_views=NUM_VIEWS)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = reconstruct(views_of(exploration), exploration.points, Path(folder), settings)
        wall = time.perf_counter() - start
    assert result.evaluation is not None
    return {
        "mini_heldout_psnr_db": result.evaluation.psnr_db,
        "mini_heldout_plain_psnr_db": result.evaluation.plain_psnr_db,
        "mini_wall_s": wall,
        "mini_gaussians": result.num_gaussians,
        "peak_rss_mb": peak_memory_mb(),
    }


def measure_reconstruction() -> dict[str, float]:
    """`reconstruct_room` in a process of its own, with two threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, __file__, "--room"], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=7, help="measurements, of which the median is taken")
    parser.add_argument("--room", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.room:
        print(json.dumps(reconstruct_room()))
        return
    figures = measure_rasterizer(arguments.repeats) | measure_first_call() | measure_reconstruction()
    for name, value in figures.items():
        print(f"{name:>30} {value:10.3f}" + (f"  (target {TARGETS[name]:g})" if name in TARGETS else ""))
    if arguments.json:
        print(json.dumps({**figures, "targets": TARGETS, "repeats": arguments.repeats}))


if __name__ == "__main__":
    main()
