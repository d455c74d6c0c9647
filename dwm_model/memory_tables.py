"""The memory plan of the 5B bases by GPU size, as a table of `docs/model.md`: ``python -m dwm_model.memory_tables``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dwm_model.base_model import BaseDescription
from dwm_model.families import LATENT_CHANNELS
from dwm_model.latent_scaling import LatentScaling
from dwm_model.memory_plan import GPU_SIZES_GB, MemoryPlan, plan_for
from dwm_model.real_sizes import PAGE, REAL_BASES, with_table
from dwm_model.recomputation import RecomputationPolicy
from dwm_model.train_config import TrainConfig
from manifests.atomic import write_text

_BEGIN, _END = "<!-- memory: written by `python -m dwm_model.memory_tables` -->", "<!-- end of memory -->"
_BASES = ("fun_v1_1 5B", "fun_v1_5 5B")
_ALL: Sequence[RecomputationPolicy] = ("none", "selective", "full")

_CASES: tuple[tuple[str, TrainConfig, int, Sequence[RecomputationPolicy]], ...] = (
    ("LoRA r64", TrainConfig(), 1, _ALL),
    ("LoRA r64, fsdp2", TrainConfig(parallelism="fsdp2"), 8, ("full",)),
    ("full", TrainConfig(mode="full"), 1, ("full",)),
    ("full, fsdp2", TrainConfig(mode="full", parallelism="fsdp2"), 8, ("full",)),
)
"""What trains, with which settings, in how many processes, and the policies that are shown."""


def described(base_name: str, folder: Path) -> BaseDescription:
    """A published base as it would be described, without its weights; its configuration is written into a folder."""
    real = REAL_BASES[base_name]
    (folder / "transformer").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    real.build().save_config(folder / "transformer")
    schedule = {"_class_name": "CogVideoXDDIMScheduler", "prediction_type": "v_prediction"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule), encoding="utf-8")
    return BaseDescription(
        path=folder,
        name=base_name,
        family=real.family,
        base_hash="",
        encoder_hash="",
        is_untrained=True,
        latent_channels=LATENT_CHANNELS,
        spatial_ratio=8,
        temporal_ratio=4,
        text_tokens=226,
        text_dim=4096,
        scaling=LatentScaling((0.7,)),
        scaling_factor=0.7,
    )


def plans() -> Iterator[tuple[str, str, MemoryPlan]]:
    """Plan of each base and case."""
    for base_name in _BASES:
        with tempfile.TemporaryDirectory() as folder:
            description = described(base_name, Path(folder))
            for trained, config, processes, policies in _CASES:
                yield base_name, trained, plan_for(description, config, processes, policies)


def memory_table(rows: Iterator[tuple[str, str, MemoryPlan]]) -> str:
    """The table of the page."""
    heads = ["base", "trains", "GPUs", "checkpointing", "resident GB", "fixed GB", "GB a clip"]
    heads += [f"clips on {size} GB" for size in GPU_SIZES_GB]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---:|---|" + "---:|" * (len(heads) - 4)]
    for base_name, trained, plan in rows:
        for one in plan.policies:
            batches = " | ".join(str(one.largest_batch[size] or "-") for size in GPU_SIZES_GB)
            gigabytes = f"{plan.resident_gb:.1f} | {one.fixed_gb:.1f} | {one.per_clip_gb:.2f}"
            lines.append(f"| {base_name} | {trained} | {plan.processes} | {one.policy} | {gigabytes} | {batches} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), memory_table(plans()), _BEGIN, _END))
