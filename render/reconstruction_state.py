"""What a reconstruction changes from step to step: Gaussians, optimizers, gsplat's strategy, gains; and its checkpoint.

Learning rates, the order of the images and all randomness are functions of the step, so they have no state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from manifests.atomic import write_bytes
from manifests.errors import DwmError, UsageError
from render.gaussian_scene import GaussianScene
from render.reconstruction_settings import ReconstructionSettings

CHECKPOINT_FILE = "checkpoint.safetensors"
"""The newest state, replaced whole."""

_PARAMETERS = ("means", "scales", "quats", "opacities", "sh0", "shN")
"""gsplat's names; ``scales`` are logarithms, ``opacities`` logits."""

_EPSILON = 1e-15
_MARK = "reconstruction"


class _Mark(BaseModel):
    """What a checkpoint says of itself."""

    step: int
    identity: str


class ReconstructionState:
    """The state after a number of steps.

    Args:
        scene: Gaussians to begin with.
        num_views: training and held-out views together.
        scene_scale: metres that learning rates and sizes are relative to.
        settings: of the reconstruction.
    """

    def __init__(
        self, scene: GaussianScene, num_views: int, scene_scale: float, settings: ReconstructionSettings
    ) -> None:
        self.settings = settings
        self.scene_scale = scene_scale
        self.step = 0
        self.log_gains = torch.zeros((num_views, 3), device=settings.device)
        self._use(
            {
                "means": scene.means,
                "scales": scene.log_scales,
                "quats": scene.quats,
                "opacities": scene.opacity_logits,
                "sh0": scene.sh[:, :1],
                "shN": scene.sh[:, 1:],
            }
        )
        self.strategy = make_strategy(settings)
        self.strategy.check_sanity(self.parameters, self.optimizers)
        options = {"scene_scale": scene_scale} if settings.densification.strategy == "default" else {}
        self.strategy_state: dict[str, Any] = self.strategy.initialize_state(**options)

    def _use(self, tensors: dict[str, torch.Tensor]) -> None:
        """Make tensors the parameters, with fresh optimizers."""
        rates = self.settings.rates
        by_name = {
            "means": rates.means * self.scene_scale,
            "scales": rates.scales,
            "quats": rates.quats,
            "opacities": rates.opacities,
            "sh0": rates.sh_constant,
            "shN": rates.sh_others,
        }
        self.parameters = {
            name: torch.nn.Parameter(tensors[name].detach().clone().to(self.settings.device)) for name in _PARAMETERS
        }
        self.optimizers = {
            name: torch.optim.Adam([each], lr=by_name[name], eps=_EPSILON, fused=True)
            for name, each in self.parameters.items()
        }

    @property
    def scene(self) -> GaussianScene:
        """The Gaussians, in the graph of the parameters."""
        parameters = self.parameters
        return GaussianScene(
            means=parameters["means"],
            log_scales=parameters["scales"],
            quats=parameters["quats"],
            opacity_logits=parameters["opacities"],
            sh=torch.cat([parameters["sh0"], parameters["shN"]], dim=1),
        )

    def begin_step(self) -> int:
        """Count a step and set its learning rate; gives its number, from 1."""
        self.step += 1
        self.optimizers["means"].param_groups[0]["lr"] = self.means_rate
        return self.step

    @property
    def means_rate(self) -> float:
        """Learning rate of the centres at the present step, metres."""
        rates = self.settings.rates
        left: float = rates.means_last ** (self.step / self.settings.steps)
        return rates.means * self.scene_scale * left

    def finish_step(self, meta: dict[str, Any]) -> None:
        """Update by the gradients, then let the strategy add and remove; randomness is a function of seed and step."""
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        settings = self.settings.densification
        options: dict[str, Any] = {"packed": False}
        if settings.strategy == "mcmc":
            options = {"lr": self.means_rate}
        else:
            is_full = len(self.parameters["means"]) >= settings.max_gaussians
            self.strategy.grow_grad2d = float("inf") if is_full else settings.gradient
        devices = [torch.cuda.current_device()] if self.settings.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            self.strategy.step_post_backward(
                self.parameters, self.optimizers, self.strategy_state, self.step, meta, **options
            )
        if not len(self.parameters["means"]):
            raise DwmError(
                f"reconstruction: every Gaussian was removed by step {self.step}; check that poses and images belong "
                "together"
            )

    def save(self, path: Path, identity: str) -> None:
        """Write the state atomically; ``identity`` is what it belongs to.

        Raises:
            DwmError: the file cannot be written.
        """
        from safetensors.torch import save

        tensors = {"log_gains": self.log_gains}
        for name, parameter in self.parameters.items():
            tensors[f"parameter.{name}"] = parameter.detach()
            for key, value in self.optimizers[name].state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = value
        for key, value in self.strategy_state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"strategy.{key}"] = value
        contents = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        # One entry: the library writes several in a random order.
        mark = _Mark(step=self.step, identity=identity).model_dump_json()
        write_bytes(path, save(contents, {_MARK: mark}))

    def load(self, path: Path, identity: str) -> None:
        """Continue where `save` left off.

        Raises:
            DwmError: the file is damaged, or belongs to other images, points or settings.
        """
        from safetensors import SafetensorError, safe_open

        device = self.settings.device
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            mark = _Mark.model_validate_json(metadata[_MARK])
            if mark.identity != identity:
                raise DwmError(f"{path}: is of other images, points or settings; choose another folder, or remove it")
            self.step = mark.step
            self.log_gains = tensors["log_gains"].to(device)
            self._use({name: tensors[f"parameter.{name}"] for name in _PARAMETERS})
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise DwmError(f"{path}: damaged ({reason}); remove it to begin again") from error
        for key, tensor in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                name, _, moment = rest.partition(".")
                where = "cpu" if moment == "step" and device == "cpu" else device
                self.optimizers[name].state[self.parameters[name]][moment] = tensor.to(where)
            elif kind == "strategy":
                self.strategy_state[rest] = tensor.to(device)


def make_strategy(settings: ReconstructionSettings) -> Any:
    """Make gsplat's strategy with these settings.

    Raises:
        UsageError: MCMC on the CPU.
    """
    from gsplat import DefaultStrategy, MCMCStrategy

    chosen = settings.densification
    if chosen.strategy == "mcmc":
        if settings.device != "cuda":
            raise UsageError(
                "strategy 'mcmc': gsplat relocates Gaussians with CUDA kernels only; use the strategy 'default' on the "
                "CPU, or a GPU"
            )
        return MCMCStrategy(
            cap_max=chosen.max_gaussians,
            refine_start_iter=chosen.start,
            refine_stop_iter=chosen.stop,
            refine_every=chosen.every,
        )
    return DefaultStrategy(
        grow_grad2d=chosen.gradient,
        refine_start_iter=chosen.start,
        refine_stop_iter=chosen.stop,
        refine_every=chosen.every,
        reset_every=chosen.reset_every,  # has no effect in gsplat 1.5.3, whose test for it is never true
    )
