"""The network that trains: what of it trains, in which precision, how it is spread over processes, how it steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from dwm_model.base_model import load_base
from dwm_model.denoiser import Denoiser, make_denoiser, velocity_losses
from dwm_model.lora import add_lora, trainable_parameters
from dwm_model.ranks import Ranks
from dwm_model.recomputation import set_recomputation, transformer_blocks
from dwm_model.train_config import TrainConfig
from dwm_model.training_data import TrainingBatch

if TYPE_CHECKING:
    import torch

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class LossModule(nn.Module):
    """The training loss as a module, so that what spreads a network over processes sees its forward pass.

    Args:
        denoiser: the network.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.transformer = denoiser.transformer
        self._denoiser = denoiser

    def forward(self, batch: TrainingBatch) -> torch.Tensor:
        """Velocity error of each clip of a batch, float32 [B]."""
        denoiser = self._denoiser
        device = denoiser.device
        return velocity_losses(
            denoiser,
            denoiser.latents(batch.clips.interaction_bcfhw),
            denoiser.conditions(batch.clips.conditions),
            batch.clips.text_bld.to(device),
            noise_bfchw=batch.noise_bfchw.to(device),
            timesteps_b=batch.timesteps_b.to(device),
        )


class TrainableNetwork:
    """Network and optimizer of a run, alone or spread over processes.

    Weights that a checkpoint holds are loaded into ``denoiser.transformer`` before, `load_optimizer` comes after.

    Args:
        denoiser: network with what trains made trainable.
        config: settings.
        ranks: the processes.
    """

    def __init__(self, denoiser: Denoiser, config: TrainConfig, ranks: Ranks) -> None:
        import torch

        self.denoiser = denoiser
        self._max_grad_norm = config.max_grad_norm
        set_recomputation(denoiser.transformer, config.gradient_checkpointing)
        if config.compile_blocks:
            for block in transformer_blocks(denoiser.transformer):
                block.compile()
        self._module: Any = LossModule(denoiser)
        self._optimizer: Any = torch.optim.AdamW(
            list(trainable_parameters(denoiser.transformer).values()),
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
            fused=config.fused_optimizer,
        )
        self._accelerator: Any = None
        if ranks.count > 1:
            block = "WanTransformerBlock" if denoiser.family.is_wan else "CogVideoXBlock"
            self._accelerator = _make_accelerator(config, ranks, block)
            with warnings.catch_warnings():  # accelerate would rather have buffers copied at each step: none changes
                warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
                self._module, wrapped = self._accelerator.prepare(self._module, self._optimizer)
            self._optimizer = wrapped.optimizer
        self.parameters = trainable_parameters(denoiser.transformer)

    @property
    def num_timesteps(self) -> int:
        """Training timesteps of the schedule."""
        return self.denoiser.schedule.num_timesteps

    def losses(self, batch: TrainingBatch) -> torch.Tensor:
        """Loss of each clip of a batch, [B], as validation sees it: without what only training does to a network."""
        self._module.eval()
        found: torch.Tensor = self._module(batch)
        self._module.train()
        return found

    def accumulating(self) -> AbstractContextManager[None]:
        """Inside it, gradients of a backward pass stay in this process: more follow before the update."""
        if self._accelerator is None:
            return nullcontext()
        inside: AbstractContextManager[None] = self._accelerator.no_sync(self._module)
        return inside

    def backward(self, batch: TrainingBatch, *, share: float) -> float:
        """Forward and backward pass; returns the batch's mean loss times ``share``, its part of the step's loss."""
        loss = self._module(batch).mean() * share
        loss.backward()
        return float(loss.detach())

    def clip_gradients(self) -> float:
        """Scale the gradient down to the largest allowed norm; returns its norm before."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self._max_grad_norm)
        return float(_whole(norm))

    def update(self, learning_rate: float) -> None:
        """Take the optimizer's step and forget the gradients."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def optimizer_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """AdamW's state, ``<parameter>.<moment>``."""
        for name, parameter in self.parameters.items():
            for moment, tensor in self._optimizer.state[parameter].items():
                yield f"{name}.{moment}", tensor

    def load_optimizer(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put AdamW's state back; whole tensors, as `whole_tensors` gives them.

        Raises:
            KeyError: a parameter's state is missing.
        """
        is_fused = bool(self._optimizer.param_groups[0]["fused"])
        for name, parameter in self.parameters.items():
            state = {}
            for moment in _MOMENTS:
                tensor = tensors[f"{name}.{moment}"]
                if moment == "step":
                    state[moment] = tensor.to(parameter.device if is_fused else "cpu")
                else:
                    state[moment] = placed_like(tensor, parameter)
            self._optimizer.state[parameter] = state


def make_trainable_denoiser(base_path: Path, config: TrainConfig, device: str) -> Denoiser:
    """Load the transformer, adapt it to its conditioning, and let train what the settings say.

    What trains is float32 whatever the arithmetic is; what is frozen is stored as it computes.
    """
    import torch

    autocast = torch.bfloat16 if uses_bfloat16(config, device) else None
    stored = torch.float32 if config.mode == "full" else autocast or torch.float32
    # Shards are cut on the CPU, so that the whole network never has to fit one GPU.
    at = "cpu" if config.parallelism == "fsdp2" else device
    base = load_base(base_path, device=at, dtype=stored)
    denoiser = make_denoiser(base, config.conditioning, autocast_dtype=autocast, seed=config.seed)
    make_trainable(denoiser, config)
    return denoiser


def make_trainable(denoiser: Denoiser, config: TrainConfig) -> None:
    """Let train what the settings say: adapter and patch projection, or everything; the rest is frozen."""
    if config.mode == "full":
        denoiser.transformer.requires_grad_(requires_grad=True)
    else:
        add_lora(denoiser.transformer, config.lora, config.seed)
    denoiser.transformer.train()


def uses_bfloat16(config: TrainConfig, device: str) -> bool:
    """Whether the arithmetic is bfloat16."""
    return config.precision == "bfloat16" or (config.precision == "auto" and device.startswith("cuda"))


def whole_tensors(tensors: Iterator[tuple[str, torch.Tensor]], ranks: Ranks) -> dict[str, torch.Tensor]:
    """Tensors by name, whole, on the CPU of the main process; all ranks call it, the others get nothing."""
    found = {}
    for name, tensor in tensors:
        whole = _whole(tensor)
        if ranks.is_main:
            found[name] = whole.detach().cpu().contiguous()
    return found


def placed_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor, spread over the processes as ``parameter`` is; every rank holds the same whole tensor."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor.to(parameter.device)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _make_accelerator(config: TrainConfig, ranks: Ranks, block: str) -> Any:
    """What spreads the network: replicas whose gradients are averaged, or shards of weights and optimizer.

    Args:
        config: settings.
        ranks: the processes.
        block: class of the blocks that are gathered one at a time where the network is sharded.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType

    on_cpu = ranks.device == "cpu"
    if config.parallelism == "ddp":
        replicas = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        return Accelerator(cpu=on_cpu, kwargs_handlers=[replicas])
    shards = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[block],
        cpu_ram_efficient_loading=False,
    )
    accelerator = Accelerator(cpu=on_cpu, fsdp_plugin=shards)
    if on_cpu:  # accelerate shards on GPUs only, torch on the CPU as well: this is how the tests run it
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = shards
    return accelerator
