"""A training step without its numbers: every tensor has a size and no content, so that memory can be counted.

The network is built from the base's configuration on torch's meta device and runs forward and backward on fake
tensors; each storage that comes to life is counted until it dies. What the step would hold at its peak is what a
process of the same shape needs beside its weights, whatever conditioning, family and checkpointing policy are.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from dwm_model.base_model import BaseDescription, BaseModel
from dwm_model.condition_data import ConditionBatch, HandData
from dwm_model.denoiser import Denoiser, make_denoiser
from dwm_model.hand_poses import POSE_FEATURES
from dwm_model.recomputation import RecomputationPolicy, set_recomputation
from dwm_model.train_config import TrainConfig
from dwm_model.trainable import LossModule, make_trainable
from dwm_model.training_data import Batch, TrainingBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class SymbolicBase(BaseModel):
    """A base model whose transformer has its configured sizes and no numbers."""

    @cached_property
    def transformer(self) -> Any:
        """The transformer on the meta device, frozen."""
        from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

        kind = WanTransformer3DModel if self.family.is_wan else CogVideoXTransformer3DModel
        with torch.device("meta"):
            transformer = kind.from_config(kind.load_config(str(self.path / "transformer")))
        torch.nn.Module.to(transformer, self.dtype)  # diffusers' own `to` warns of layers that it knows of none
        return transformer.eval().requires_grad_(False)


@dataclass(frozen=True)
class StepMemory:
    """Memory of a step, bytes.

    Attributes:
        peak: most that is alive at one time beside weights and optimizer, gradients included.
        kept: what the forward pass keeps for the backward pass.
    """

    peak: int
    kept: int


def symbolic_denoiser(description: BaseDescription, config: TrainConfig, *, bfloat16: bool) -> Denoiser:
    """The network that a run would train, on the meta device: stored and trained as in `trainable`."""
    autocast = torch.bfloat16 if bfloat16 else None
    stored = torch.float32 if config.mode == "full" else autocast or torch.float32
    base = SymbolicBase(description, "meta", stored)
    denoiser = make_denoiser(base, config.conditioning, autocast_dtype=autocast, seed=config.seed)
    make_trainable(denoiser, config)
    return denoiser


def measure_step(
    description: BaseDescription,
    config: TrainConfig,
    *,
    batch_size: int,
    policy: RecomputationPolicy,
    bfloat16: bool,
) -> StepMemory:
    """Run one forward and backward pass symbolically.

    Args:
        description: the base; only its configuration files are read.
        config: the run's settings.
        batch_size: clips in the pass.
        policy: checkpointing policy.
        bfloat16: whether the arithmetic is bfloat16.
    """
    denoiser = symbolic_denoiser(description, config, bfloat16=bfloat16)
    set_recomputation(denoiser.transformer, policy)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_sizes(denoiser.transformer)
        batch = fake_batch(description, config, denoiser, batch_size)
        module = LossModule(denoiser)
        weights = [*denoiser.transformer.parameters(), *denoiser.transformer.buffers()]
        with LiveBytes(weights) as live:
            loss = module(batch).mean()
            kept = live.bytes
            loss.backward()
    return StepMemory(peak=live.peak, kept=kept)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts the bytes of storages that operators make, from their birth to their death.

    Args:
        known: tensors that are there already and do not count.

    Attributes:
        bytes: alive now.
        peak: most that were alive at a time.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count its results."""
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, result)
        return result

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, size)
        return tensor

    def _forget(self, size: int) -> None:
        self.bytes -= size


def _give_sizes(transformer: Any) -> None:
    """Exchange meta tensors for fake ones of the CPU, whose operators are those that autocast and attention have."""
    for module in transformer.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in _present(tensors):
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                tensors[name] = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_parameter else fake


def _present(tensors: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    yield from [(name, tensor) for name, tensor in tensors.items() if tensor is not None]


def fake_batch(description: BaseDescription, config: TrainConfig, denoiser: Denoiser, batch_size: int) -> TrainingBatch:
    """A batch of the sizes that a run's clips have, with whatever numbers its memory holds."""
    geometry = config.geometry
    height, width = geometry.latent_size(description)
    frames = geometry.latent_frames(description)
    shape = (batch_size, description.latent_channels, frames, height, width)
    needed = denoiser.conditioning.hand_data
    conditions = ConditionBatch(
        static_bcfhw=torch.empty(shape),
        hands_bcfhw=None if needed.role is None else torch.empty(shape),
        poses_btd=torch.empty(batch_size, geometry.num_frames, POSE_FEATURES) if needed is HandData.POSES else None,
    )
    text = torch.empty(batch_size, description.text_tokens, description.text_dim)
    noise = torch.empty(shape).transpose(1, 2)
    timesteps = torch.zeros(batch_size, dtype=torch.int64)
    return TrainingBatch(Batch(torch.empty(shape), conditions, text), noise, timesteps)
