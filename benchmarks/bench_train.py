"""Speed and memory of training, against the step of the public release and against one process.

The steps (`train_step`, `public_step`) train the same LoRA of rank 64 on the tiny base (four blocks of width 128) with
a batch of 2 clips of 13 frames of 64x96 pixels and 226 text tokens, in float32, on one thread: forward and backward
pass, clipped gradient, AdamW. Times are CPU times of the process, medians of several repeats taken in turn.

- ``speedup_vs_public_cached``: the public step from cached ``.pt`` latents, every block recomputed, over ours from a
  shard without recomputation. ``speedup_same_checkpointing``: the same with every block recomputed in ours, too.
- ``speedup_vs_raw_video``: the public step that encodes the pixels, over ours. The ratio depends on the autoencoder:
  this one has widths 16, 32, 64, 96, the least that reconstructs pictures; ``..._smallest_vae`` has the tiny base's.
- ``gradient_max_diff``: largest difference between the two losses' gradients for the same latents, noise, timesteps.
- ``memory_ratio``: peak memory of our steps over that of the public ones, every block recomputed in both, above what
  the process held before (processes of their own).
- ``loader_speedup``: see `train_loading`. ``two_process_scaling``: see `train_scaling`; it needs two idle cores.
- ``plan_deviation``: measured over planned memory of a step, less one; see `plan_check`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from benchmarks.plan_check import plan_figures
from benchmarks.public_step import ROLES
from benchmarks.train_loading import ITEMS, loading_figures
from benchmarks.train_scaling import scaling_figures
from benchmarks.train_step import EXACT_MEMORY, ROOT, Setting, cpu_seconds, make_setting, picture_vae
from dwm_model.condition_data import ConditionBatch
from dwm_model.denoiser import velocity_losses
from dwm_model.latents import sample_posterior


def step_figures(setting: Setting, repeats: int) -> dict[str, float]:
    """CPU times of the steps and their ratios."""
    items, public = setting.items(), setting.public()
    steps: dict[str, Callable[[], None]] = {
        "cached": setting.ours("none"),
        "cached_full": setting.ours("full"),
        "public": partial(public.cached_step, items),
        "raw": partial(public.raw_video_step, picture_vae(), setting.videos),
        "raw_smallest": partial(public.raw_video_step, setting.base.vae, setting.videos),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            step()  # not counted: what ran before has filled the caches with its own
            times[name].append(cpu_seconds(step))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "cached_step_cpu_s": round(medians["cached"], 4),
        "cached_step_full_checkpointing_cpu_s": round(medians["cached_full"], 4),
        "public_cached_step_cpu_s": round(medians["public"], 4),
        "public_raw_video_step_cpu_s": round(medians["raw"], 4),
        "speedup_vs_public_cached": round(medians["public"] / medians["cached"], 2),
        "speedup_same_checkpointing": round(medians["public"] / medians["cached_full"], 2),
        "speedup_vs_raw_video": round(medians["raw"] / medians["cached"], 2),
        "speedup_vs_raw_video_smallest_vae": round(medians["raw_smallest"] / medians["cached"], 2),
    }


def gradient_figures(setting: Setting, draws: int = 4) -> dict[str, float]:
    """Largest difference between both losses' gradients over some draws, and the largest gradient."""
    public = setting.public()
    denoiser, generator = public.denoiser, torch.Generator().manual_seed(1)
    difference = largest = 0.0
    for _ in range(draws):
        latents = [sample_posterior(setting.moments[role].float(), generator) for role in ROLES]
        noise = torch.randn(latents[0].transpose(1, 2).shape, generator=generator)
        timesteps = torch.randint(0, 1000, (len(noise),), generator=generator)
        ours = velocity_losses(
            denoiser,
            denoiser.latents(latents[0]),
            denoiser.conditions(ConditionBatch(latents[1], latents[2])),
            setting.text_bld,
            noise_bfchw=noise,
            timesteps_b=timesteps,
        ).mean()
        theirs = public.loss(latents[0], latents[1], latents[2], noise, timesteps)
        gradients = [torch.autograd.grad(loss, public.parameters) for loss in (ours, theirs)]
        for one, other in zip(*gradients, strict=True):
            difference = max(difference, float((one - other).abs().max()))
            largest = max(largest, float(one.abs().max()))
    return {"gradient_max_diff": difference, "gradient_max": largest}


def memory_figures(repeats: int = 3) -> dict[str, float]:
    """Peak memory of both sides in processes of their own, megabytes: the median of some runs."""
    peaks: dict[str, float] = {}
    environment = {**os.environ, **EXACT_MEMORY}
    for side in ("ours", "public"):
        command = [sys.executable, "-m", "benchmarks.train_step", side, "--policy", "full"]
        runs = [
            subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT)
            for _ in range(repeats)
        ]
        peaks[side] = statistics.median(int(run.stdout.split()[-1]) for run in runs) / 1e6
    return {
        "peak_memory_mb": round(peaks["ours"], 1),
        "public_peak_memory_mb": round(peaks["public"], 1),
        "memory_ratio": round(peaks["ours"] / peaks["public"], 3),
    }


def measure(repeats: int, items: int, parts: list[str]) -> dict[str, float]:
    """Measure the named parts, each in a folder of its own."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

    def steps(folder: Path) -> dict[str, float]:
        setting = make_setting(folder)
        return step_figures(setting, repeats) | gradient_figures(setting)

    measured: dict[str, Callable[[Path], dict[str, float]]] = {
        "steps": steps,
        "memory": lambda _: memory_figures(),
        "loading": lambda folder: loading_figures(folder, 5, items),
        "scaling": scaling_figures,
        "plan": lambda _: plan_figures(),
    }
    figures: dict[str, float] = {"repeats": repeats}
    for name in parts or list(measured):
        with tempfile.TemporaryDirectory() as folder:
            figures |= measured[name](Path(folder))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each kind")
    parser.add_argument("--items", type=int, default=ITEMS, help="clips of the loading figures")
    parser.add_argument(
        "--part", action="append", default=[], help="steps, memory, loading, scaling or plan; repeatable"
    )
    options = parser.parse_args()
    figures = measure(options.repeats, options.items, options.part)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
