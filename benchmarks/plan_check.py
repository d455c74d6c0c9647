"""The memory plan's figure for a small training step against what such a step takes on the CPU.

Run as a module, ``python -m benchmarks.plan_check POLICY BATCH``, it prints the peak memory of a step of a network of 8
blocks of width 512 on clips of 96x64 pixels and 17 frames, in a process of its own, bytes above what was there before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.train_loading import GEOMETRY
from benchmarks.train_step import ALONE, EXACT_MEMORY, ROOT, resident_bytes
from dwm_model.base_model import BaseModel, describe_base
from dwm_model.condition_data import ConditionBatch
from dwm_model.denoiser import make_denoiser
from dwm_model.recomputation import RecomputationPolicy
from dwm_model.symbolic_step import measure_step
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import TrainConfig
from dwm_model.trainable import TrainableNetwork, make_trainable
from dwm_model.training_data import Batch, TrainingBatch

BATCH = 8
_HEADS, _LAYERS = 8, 8


class _RandomBase(BaseModel):
    """A base with random weights of its configured sizes."""

    @cached_property
    def transformer(self) -> Any:
        from diffusers import CogVideoXTransformer3DModel

        config = CogVideoXTransformer3DModel.load_config(str(self.path / "transformer"))
        return CogVideoXTransformer3DModel.from_config(config).requires_grad_(False)


def _base_folder(folder: Path) -> Path:
    """Configuration files of a wider tiny base."""
    tiny = make_tiny_base(folder / "tiny")
    wide = Path(shutil.copytree(tiny, folder / "wide"))
    path = wide / "transformer" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"num_attention_heads": _HEADS, "num_layers": _LAYERS}
    path.write_text(json.dumps(config), encoding="utf-8")
    return wide


def _config(policy: RecomputationPolicy) -> TrainConfig:
    return TrainConfig(geometry=GEOMETRY, precision="float32", gradient_checkpointing=policy)


def measured_bytes(folder: Path, policy: RecomputationPolicy, batch: int) -> int:
    """Peak memory of a forward and backward pass above weights and optimizer."""
    description = describe_base(_base_folder(folder))
    config = _config(policy)
    base = _RandomBase(description, "cpu", torch.float32)
    denoiser = make_denoiser(base, config.conditioning)
    make_trainable(denoiser, config)
    network = TrainableNetwork(denoiser, config, ALONE)
    height, width = GEOMETRY.latent_size(description)
    shape = (description.latent_channels, GEOMETRY.latent_frames(description), height, width)

    def passes(count: int) -> None:
        clips = Batch(
            torch.randn(count, *shape),
            ConditionBatch(torch.randn(count, *shape), torch.randn(count, *shape)),
            torch.randn(count, description.text_tokens, description.text_dim),
        )
        noise = torch.randn(count, *shape).transpose(1, 2)
        network.backward(TrainingBatch(clips, noise, torch.zeros(count, dtype=torch.int64)), share=1.0)
        for parameter in network.parameters.values():
            parameter.grad = None

    passes(1)  # imports, thread pools and buffers of the libraries
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before = resident_bytes()
    passes(batch)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 - before


def plan_figures() -> dict[str, float]:
    """Measured over planned memory of a step for each policy, less one, and the largest of them."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        description = describe_base(_base_folder(Path(folder)))
        for policy in get_args(RecomputationPolicy):
            step = measure_step(description, _config(policy), batch_size=BATCH, policy=policy, bfloat16=False)
            command = [sys.executable, "-m", "benchmarks.plan_check", policy, str(BATCH)]
            environment = {**os.environ, **EXACT_MEMORY}
            finished = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT)
            measured = int(finished.stdout.split()[-1])
            figures[f"planned_{policy}_mb"] = round(step.peak / 1e6, 1)
            figures[f"measured_{policy}_mb"] = round(measured / 1e6, 1)
            figures[f"plan_deviation_{policy}"] = round(measured / step.peak - 1.0, 3)
    figures["plan_deviation"] = max(
        (value for name, value in figures.items() if name.startswith("plan_deviation_")), key=abs
    )
    return figures


def main() -> None:
    """Print the measured memory."""
    torch.set_num_threads(1)
    policy, batch = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        print(measured_bytes(Path(folder), policy, batch))  # type: ignore[arg-type]  # one of the policies


if __name__ == "__main__":
    main()
