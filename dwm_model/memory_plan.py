"""Memory that training needs on each GPU, and the batch that fits, before anything is launched.

    total = (weights + gradients + moments + average) / shards + gathered + fixed + batch * per_clip + reserve

- weights: as stored: frozen ones as they compute (2 bytes in bfloat16), trained ones in float32.
- gradients, moments, average: 4, 8 and (with a moving average) 4 bytes for each trained parameter.
- shards: the number of processes with ``fsdp2``, else 1; gathered: two blocks at a time with ``fsdp2``, else 0.
- fixed and per_clip: from the symbolic forward and backward pass of `symbolic_step` at 8 and at 16 clips. Fixed is what
  does not grow with the batch, such as bfloat16 copies of trained weights. Gradients and activations do not have their
  peaks at the same time; the sum is the safe side.
- reserve: `RESERVE_GB` for the driver and its libraries, and `FRAGMENTATION` of what grows with the batch.

All figures are decimal gigabytes. Nothing here needs a GPU or the base's weights; no GPU has confirmed it yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import BaseDescription, describe_base
from dwm_model.recomputation import RecomputationPolicy, transformer_blocks
from dwm_model.train_config import TrainConfig

GPU_SIZES_GB = (24, 40, 80, 141)
"""Memory of common GPUs: RTX 4090, A100 40, A100/H100 80, H200."""

RESERVE_GB = 1.5
"""What the driver and its libraries take."""

FRAGMENTATION = 0.05
"""Share of the activations that the allocator loses between them."""

_FEW = 8
"""Clips of the smaller of two symbolic batches: so many that activations, not gradients, make the peak."""

_GB = 1e9


class PolicyPlan(BaseModel):
    """What a checkpointing policy needs."""

    model_config = ConfigDict(frozen=True)

    policy: RecomputationPolicy = Field(description="Which activations are computed again.")
    fixed_gb: float = Field(description="Memory of a step that does not grow with the batch, beside the plan's shares.")
    per_clip_gb: float = Field(description="Memory of each clip of the batch.")
    total_gb: float = Field(description="Memory in all at the settings' batch size.")
    largest_batch: dict[int, int] = Field(description="Largest batch on a GPU of so many gigabytes; 0: none fits.")


class MemoryPlan(BaseModel):
    """Memory that a run needs on each GPU."""

    model_config = ConfigDict(frozen=True)

    family: str = Field(description="Family of the base.")
    geometry: str = Field(description="Size and length of the clips.")
    mode: str = Field(description="What trains.")
    processes: int = Field(description="Processes that train together, one a GPU.")
    shards: int = Field(description="Parts that weights and optimizer are cut into.")
    parameters: int = Field(description="Parameters of the network, adapter included.")
    trained_parameters: int = Field(description="Parameters that train.")
    weights_gb: float = Field(description="Weights, whole.")
    gradients_gb: float = Field(description="Gradients, whole.")
    optimizer_gb: float = Field(description="AdamW's two moments, whole.")
    average_gb: float = Field(description="Moving average of the weights, whole; 0 without.")
    resident_gb: float = Field(description="Share of the four above that each GPU holds, with gathered blocks.")
    batch_size: int = Field(description="Clips in one forward pass, as the settings have it.")
    policy: RecomputationPolicy = Field(description="Checkpointing policy of the settings.")
    policies: tuple[PolicyPlan, ...] = Field(description="What each policy would need.")

    def lines(self) -> list[str]:
        """The plan for people."""
        whole = f"{self.weights_gb:.1f} weights + {self.gradients_gb:.1f} gradients + {self.optimizer_gb:.1f} optimizer"
        if self.average_gb:
            whole += f" + {self.average_gb:.1f} average"
        shared = f" / {self.shards} shards" if self.shards > 1 else ""
        sizes = "  ".join(f"{size:>4} GB" for size in GPU_SIZES_GB)
        rows = [
            f"{'*' if one.policy == self.policy else ' '} {one.policy:<10} {one.fixed_gb:8.2f} {one.per_clip_gb:9.2f} "
            f"{one.total_gb:10.1f}    " + "  ".join(f"{one.largest_batch[size]:>7}" for size in GPU_SIZES_GB)
            for one in self.policies
        ]
        counts = f"{self.parameters:,} parameters, {self.trained_parameters:,} of them train"
        return [
            f"{self.family} at {self.geometry}, mode {self.mode}: {counts}",
            f"GB: {whole}{shared} = {self.resident_gb:.1f} on each GPU",
            f"  checkpoint    fixed  per clip  batch of {self.batch_size:<3} largest batch:  {sizes}",
            *rows,
            "* as set. No GPU has confirmed these figures yet: begin one clip lower.",
        ]


def plan_memory(base_path: Path, config: TrainConfig, processes: int = 1) -> MemoryPlan:
    """Find what a run needs; takes up to a minute for a 5B base.

    Args:
        base_path: base model's folder; only its configuration files are read, and its weights hashed.
        config: the run's settings. Precision ``auto`` is planned as on a GPU: bfloat16.
        processes: processes that train together.

    Raises:
        DwmError: the base is missing or unknown, or the geometry or conditioning does not suit it.
    """
    description = describe_base(base_path)
    config.geometry.check(description)
    return plan_for(description, config, processes)


def plan_for(
    description: BaseDescription,
    config: TrainConfig,
    processes: int = 1,
    policies: Sequence[RecomputationPolicy] = get_args(RecomputationPolicy),
) -> MemoryPlan:
    """The plan of a base that is described already, for some checkpointing policies."""
    from dwm_model.symbolic_step import symbolic_denoiser

    bfloat16 = config.precision != "float32"
    transformer = symbolic_denoiser(description, config, bfloat16=bfloat16).transformer
    trained = sum(parameter.numel() for parameter in transformer.parameters() if parameter.requires_grad)
    weights, gradients, moments = _bytes(transformer.parameters()), 4 * trained, 8 * trained
    average = 4 * trained if config.ema_decay is not None else 0
    shards = processes if config.parallelism == "fsdp2" else 1
    gathered = 2 * _largest_block(transformer) if shards > 1 else 0
    resident = (weights + gradients + moments + average) / shards + gathered
    return MemoryPlan(
        family=description.family.name,
        geometry=str(config.geometry),
        mode=config.mode,
        processes=processes,
        shards=shards,
        parameters=sum(parameter.numel() for parameter in transformer.parameters()),
        trained_parameters=trained,
        weights_gb=_gb(weights),
        gradients_gb=_gb(gradients),
        optimizer_gb=_gb(moments),
        average_gb=_gb(average),
        resident_gb=_gb(resident),
        batch_size=config.batch_size,
        policy=config.gradient_checkpointing,
        policies=tuple(_plan_policy(description, config, policy, resident) for policy in policies),
    )


def _plan_policy(
    description: BaseDescription,
    config: TrainConfig,
    policy: RecomputationPolicy,
    resident: float,
) -> PolicyPlan:
    from dwm_model.symbolic_step import measure_step

    bfloat16 = config.precision != "float32"
    few, many = (
        measure_step(description, config, batch_size=size, policy=policy, bfloat16=bfloat16).peak
        for size in (_FEW, 2 * _FEW)
    )
    per_clip = (many - few) / _FEW * (1.0 + FRAGMENTATION)
    fixed = max(0.0, 2 * few - many)
    left = resident + fixed + RESERVE_GB * _GB
    return PolicyPlan(
        policy=policy,
        fixed_gb=_gb(fixed),
        per_clip_gb=_gb(per_clip),
        total_gb=_gb(left + config.batch_size * per_clip),
        largest_batch={size: max(0, int((size * _GB - left) // per_clip)) for size in GPU_SIZES_GB},
    )


def _largest_block(transformer: Any) -> int:
    """Bytes of the largest transformer block."""
    return max(_bytes(block.parameters()) for block in transformer_blocks(transformer))


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gb(count: float) -> float:
    return round(count / _GB, 3)
