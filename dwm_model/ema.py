"""A moving average of the weights, kept beside those that train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class MovingAverage:
    """Exponential moving average of parameters, in float32, where they are.

    Args:
        parameters: what is averaged, by name; the average begins at their values.
        decay: weight of the past at each step.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.averages = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}

    def update(self) -> None:
        """Take in the parameters as they are now."""
        for name, parameter in self._parameters.items():
            self.averages[name].lerp_(parameter.detach().float(), 1.0 - self._decay)
