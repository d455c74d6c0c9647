"""Where a method of the benchmark comes from: small and serialisable, so that a task can load it in any process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_conditioning import BASE_ITSELF, TEXT_ONLY
from dwm_model.base_model import default_device, describe_base, load_base
from dwm_model.copies import DECODED_COPIES, STATIC_COPY, StaticCopy, describe_decoded_copy, load_copy
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import LatentStore
from dwm_model.methods import (
    CONDITIONING_OF,
    DWM,
    NOT_FINE_TUNED,
    SDEDIT,
    SDEDIT_STRENGTH,
    Method,
    MethodDescription,
    Sampled,
    describe_base_method,
    describe_run,
)
from dwm_model.sampling import Sampler, SamplerConfig, SamplerOptions, require_base_of_run
from manifests.dataset import Dataset
from manifests.errors import UsageError

METHOD_NAMES = (STATIC_COPY, DWM)
"""Rows of the table unless others are asked for, in its order."""

WITHOUT_TEXT = " without text"
WITHOUT_HANDS = " without hands"
"""What is put after a row's name to leave the prompt or the hands out (paper Appendix E and section 4.2)."""

_KNOWN = (STATIC_COPY, SDEDIT, DWM, NOT_FINE_TUNED, *DECODED_COPIES)
"""Rows that are named without a run's folder."""

_WITHOUT_RUN = tuple(name for name in _KNOWN if name != DWM)
"""Those of them that no run is behind."""


class MethodSource(BaseModel):
    """What a method is loaded from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Row of the table.")
    base: Path = Field(description="Base model's folder.")
    run: Path = Field(description="Run's folder.")
    sampler: SamplerConfig = Field(description="Settings of the sampler.")
    options: SamplerOptions = Field(default=SamplerOptions(), description="Batch size and memory.")

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        base: Path,
        run: Path,
        sampler: SamplerConfig,
        options: SamplerOptions | None = None,
    ) -> list[Self]:
        """Sources of the named methods.

        A name is one of the copies (`copies`), ``base not fine-tuned``, ``CVX SDEdit``, ``DWM`` (the run), or
        ``ROW=RUN``: a row of any name from a run of its own, such as ``CVX-Fun fine-tuned=out/run-none``. ``without
        text`` or ``without hands`` after a name leaves the prompt or the hands out.

        Raises:
            UsageError: a name is unknown, or needs a run of its own.
        """
        return [cls._of_one(name, base, run, sampler, options or SamplerOptions()) for name in names]

    @classmethod
    def _of_one(cls, text: str, base: Path, run: Path, sampler: SamplerConfig, options: SamplerOptions) -> Self:
        name, separator, own_run = text.partition("=")
        if separator and not (name and own_run):
            raise UsageError(f"method '{text}': write it as ROW=RUN, a name and a run's folder")
        plain = name.removesuffix(WITHOUT_HANDS).removesuffix(WITHOUT_TEXT)
        if not separator and plain in CONDITIONING_OF:
            raise UsageError(
                f"method '{text}': needs a run trained with conditioning {CONDITIONING_OF[plain]}; "
                f"write it as '{text}=RUN'"
            )
        if not separator and plain not in _KNOWN:
            known = ", ".join((*_KNOWN, *(f"{row}=RUN" for row in CONDITIONING_OF)))
            raise UsageError(f"method '{text}': unknown; choose from {known}, or ROW=RUN")
        changes: dict[str, object] = {}
        if WITHOUT_TEXT in name:
            changes["use_text"] = False
        if WITHOUT_HANDS in name:
            changes["use_hands"] = False
        if plain in _WITHOUT_RUN:
            changes["use_average"] = False
        if plain == SDEDIT:
            changes["strength"] = SDEDIT_STRENGTH
        return cls(
            name=name,
            base=base,
            run=Path(own_run) if separator else run,
            sampler=sampler.model_copy(update=changes),
            options=options,
        )

    @property
    def is_trained(self) -> bool:
        """Whether it samples from a run."""
        return not self.name.startswith(_WITHOUT_RUN)

    def describe(self) -> MethodDescription:
        """What the method is, without loading weights.

        Raises:
            DwmError: the base cannot be used, there is no run, it has no checkpoint, or it was trained on another base
                or otherwise than its row says.
        """
        if self.name == STATIC_COPY:
            return MethodDescription(name=STATIC_COPY, uses_seed=False)
        base = describe_base(self.base)
        if self.name in DECODED_COPIES:
            return describe_decoded_copy(self.name, base.base_hash)
        if not self.is_trained:
            return describe_base_method(base, self.sampler, self.name)
        description = describe_run(self.run, self.sampler, name=self.name)
        require_base_of_run(base, self.run)
        return description

    def load(self, dataset: Dataset, geometry: ClipGeometry) -> Method:
        """Load the method's weights, if it has any.

        Raises:
            DwmError: base, run or latents are missing or do not fit each other.
        """
        if self.name == STATIC_COPY:
            return StaticCopy(dataset, geometry)
        self.describe()  # refuses a run that was trained otherwise than its row says, before weights are loaded
        store = LatentStore(dataset, describe_base(self.base), geometry)
        if self.name in DECODED_COPIES:
            return load_copy(self.name, load_base(self.base, device=default_device()), store)
        if self.is_trained:
            averaged = self.sampler.use_average
            sampler = Sampler.from_run(self.base, self.run, use_average=averaged, store=store, options=self.options)
        else:
            told = BASE_ITSELF if self.name.startswith(NOT_FINE_TUNED) else TEXT_ONLY
            sampler = Sampler.from_base(self.base, geometry, told, store=store, options=self.options)
        return Sampled(sampler, store, self.sampler, self.name)
