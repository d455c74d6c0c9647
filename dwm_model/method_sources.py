"""Where a method of the benchmark comes from: small and serialisable, so that a task can load it in any process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import describe_base
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import LatentStore
from dwm_model.methods import DWM, STATIC_COPY, Dwm, Method, MethodDescription, StaticCopy, describe_dwm
from dwm_model.sampling import Sampler, SamplerConfig
from manifests.dataset import Dataset
from manifests.errors import UsageError

METHOD_NAMES = (STATIC_COPY, DWM)
"""Rows of the table, in its order."""


class MethodSource(BaseModel):
    """What a method is loaded from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Row of the table.")
    base: Path = Field(description="Base model's folder.")
    run: Path = Field(description="Run's folder.")
    sampler: SamplerConfig = Field(description="Settings of the sampler.")

    @classmethod
    def of(cls, names: Sequence[str], base: Path, run: Path, sampler: SamplerConfig) -> list[Self]:
        """Sources of the named methods.

        Raises:
            UsageError: a name is unknown.
        """
        for name in names:
            if name not in METHOD_NAMES:
                raise UsageError(f"method '{name}': unknown; choose from {', '.join(METHOD_NAMES)}")
        return [cls(name=name, base=base, run=run, sampler=sampler) for name in names]

    def describe(self) -> MethodDescription:
        """What the method is, without loading weights.

        Raises:
            DwmError: there is no run, or it has no checkpoint.
        """
        if self.name == STATIC_COPY:
            return MethodDescription(name=STATIC_COPY, uses_seed=False)
        return describe_dwm(self.run, self.sampler)

    def load(self, dataset: Dataset, geometry: ClipGeometry) -> Method:
        """Load the method's weights, if it has any.

        Raises:
            DwmError: base, run or latents are missing or do not fit each other.
        """
        if self.name == STATIC_COPY:
            return StaticCopy(dataset, geometry)
        store = LatentStore(dataset, describe_base(self.base), geometry)
        return Dwm(Sampler.from_run(self.base, self.run, store=store), store, self.sampler)
