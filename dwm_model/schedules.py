"""Noise schedules: how latents are noised in training, what the network predicts, and how sampling removes the noise.

CogVideoX predicts the velocity of a variance-preserving diffusion, Wan the velocity of a straight flow from data to
noise. Training draws whole timesteps uniformly for either (paper equation 7). Latents are [B, F, C, H, W].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXDDIMScheduler

WAN_SHIFT = 5.0
"""Wan2.1-Fun's flow shift: how far timesteps lean towards noise."""

_FLOW_TIMESTEPS = 1000


class NoiseSchedule(Protocol):
    """How latents are noised, what is predicted, and how sampling goes back."""

    @property
    def num_timesteps(self) -> int:
        """Training timesteps are whole numbers below this."""

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_b: torch.Tensor) -> torch.Tensor:
        """Noisy latents at training timesteps."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_b: torch.Tensor) -> torch.Tensor:
        """What the network should predict there."""

    def network_timesteps(self, timesteps_b: torch.Tensor) -> torch.Tensor:
        """What the network is told of training timesteps."""

    def solver(self, num_steps: int, strength: float, device: torch.device) -> Solver:
        """Steps of sampling: the last ``strength`` share of ``num_steps`` (SDEdit starts late), 1 for all."""


class Solver(Protocol):
    """One run of the sampler."""

    @property
    def timesteps(self) -> list[torch.Tensor]:
        """What the network is told, step by step."""

    def start(self, noise: torch.Tensor, latents: torch.Tensor | None) -> torch.Tensor:
        """Initial latents: noise, or ``latents`` noised to the first timestep."""

    def step(self, index: int, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Latents after step ``index``."""


def kept_steps(num_steps: int, strength: float) -> int:
    """Steps that are done at a strength, as diffusers' video-to-video pipelines count them; at least one."""
    return max(1, min(int(num_steps * strength), num_steps))


@dataclass(frozen=True)
class VelocitySchedule:
    """CogVideoX: v-prediction, DDIM sampling without added noise.

    Attributes:
        scheduler: the base's own schedule.
    """

    scheduler: CogVideoXDDIMScheduler

    @property
    def num_timesteps(self) -> int:
        """Training timesteps are whole numbers below this."""
        return int(self.scheduler.config.num_train_timesteps)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_b: torch.Tensor) -> torch.Tensor:
        """``sqrt(alpha_bar) latents + sqrt(1 - alpha_bar) noise``."""
        noisy: torch.Tensor = self.scheduler.add_noise(latents, noise, timesteps_b)
        return noisy

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_b: torch.Tensor) -> torch.Tensor:
        """``sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) latents``."""
        velocity: torch.Tensor = self.scheduler.get_velocity(latents, noise, timesteps_b)
        return velocity

    def network_timesteps(self, timesteps_b: torch.Tensor) -> torch.Tensor:
        """The training timesteps themselves."""
        return timesteps_b

    def solver(self, num_steps: int, strength: float, device: torch.device) -> Solver:
        """DDIM with its own copy of the schedule."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(num_steps, device=device)
        return _DdimSolver(scheduler, list(scheduler.timesteps[-kept_steps(num_steps, strength) :]))


@dataclass(frozen=True)
class _DdimSolver:
    scheduler: Any
    timesteps: list[torch.Tensor]

    def start(self, noise: torch.Tensor, latents: torch.Tensor | None) -> torch.Tensor:
        if latents is None:
            initial: torch.Tensor = noise * self.scheduler.init_noise_sigma
        else:
            initial = self.scheduler.add_noise(latents, noise, self.timesteps[0].expand(len(noise)))
        return initial

    def step(self, index: int, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        stepped: torch.Tensor = self.scheduler.step(
            predicted, self.timesteps[index], latents, eta=0.0, return_dict=False
        )[0]
        return stepped


@dataclass(frozen=True)
class FlowSchedule:
    """Wan: ``(1 - sigma) latents + sigma noise``, the network predicts ``noise - latents``; Euler sampling.

    Attributes:
        shift: sigma of timestep t is ``shift s / (1 + (shift - 1) s)`` with ``s = (t + 1) / 1000``.
    """

    shift: float = WAN_SHIFT
    num_timesteps: int = _FLOW_TIMESTEPS

    def sigmas(self, timesteps_b: torch.Tensor) -> torch.Tensor:
        """Share of noise at training timesteps, float32 [B]."""
        part = (timesteps_b.float() + 1.0) / self.num_timesteps
        return self.shift * part / (1.0 + (self.shift - 1.0) * part)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_b: torch.Tensor) -> torch.Tensor:
        """``(1 - sigma) latents + sigma noise``."""
        sigma = self.sigmas(timesteps_b).view(-1, 1, 1, 1, 1)
        return (1.0 - sigma) * latents + sigma * noise

    def target(
        self,
        latents: torch.Tensor,
        noise: torch.Tensor,
        timesteps_b: torch.Tensor,  # noqa: ARG002 - the flow's velocity is the same at every timestep
    ) -> torch.Tensor:
        """``noise - latents``."""
        return noise - latents

    def network_timesteps(self, timesteps_b: torch.Tensor) -> torch.Tensor:
        """1000 sigma."""
        return self.sigmas(timesteps_b) * self.num_timesteps

    def solver(self, num_steps: int, strength: float, device: torch.device) -> Solver:
        """Euler's method on diffusers' flow-matching sigmas."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.num_timesteps, shift=self.shift)
        scheduler.set_timesteps(num_steps, device=device)
        kept = kept_steps(num_steps, strength)
        return _EulerSolver(list(scheduler.timesteps[-kept:]), list(scheduler.sigmas[-kept - 1 :]))


@dataclass(frozen=True)
class _EulerSolver:
    timesteps: list[torch.Tensor]
    sigmas: list[torch.Tensor]

    def start(self, noise: torch.Tensor, latents: torch.Tensor | None) -> torch.Tensor:
        return noise if latents is None else (1.0 - self.sigmas[0]) * latents + self.sigmas[0] * noise

    def step(self, index: int, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * predicted
