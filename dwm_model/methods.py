"""Methods: what turns a clip's conditions into a video, one row of the benchmark table each (paper section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError
from manifests.schema import Clip
from render.video import Frames

if TYPE_CHECKING:
    from dwm_model.base_model import BaseDescription
    from dwm_model.latents import LatentStore
    from dwm_model.sampling import Sampler, SamplerConfig

DWM = "DWM"
"""Name of the fine-tuned model ("Ours" in the paper's tables)."""

SDEDIT = "CVX SDEdit"
"""The paper's baseline without training: the static video noised and denoised again with the text (section 4)."""

NOT_FINE_TUNED = "base not fine-tuned"
"""The base told that all of the static scene is known: an inpainting base should show it again (section 3.2)."""

SDEDIT_STRENGTH = 0.75
"""How far the baseline noises the static video (section 4); it takes 50 steps, of which this share is done."""

FINE_TUNED = "CVX-Fun fine-tuned"
"""The paper's baseline fine-tuned without hands: a run of conditioning ``none``."""

INTERDYN = "InterDyn-like"
"""The paper's baseline with a control branch: a run of conditioning ``controlnet``."""

CONDITIONING_OF = {FINE_TUNED: "none", INTERDYN: "controlnet"}
"""What a run must have been trained with to stand in a row of this name."""


class MethodDescription(BaseModel):
    """What a method is, without loading it. All of it but the base goes into the ids of generated videos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Row of the table.", min_length=1)
    uses_seed: bool = Field(description="Whether another seed gives another video.")
    run_id: str | None = Field(default=None, description="Training run; null for methods without one.")
    checkpoint_step: int | None = Field(default=None, description="Step of the checkpoint.")
    num_inference_steps: int | None = Field(default=None, description="Denoising steps; null without sampling.")
    guidance_scale: float | None = Field(default=None, description="Text guidance; null without sampling.")
    use_text: bool = Field(default=True, description="Whether the prompt is used.")
    use_hands: bool = Field(default=True, description="Whether the hands are used.")
    strength: float = Field(default=1.0, description="How far the static video is noised at the start; 1: all noise.")
    use_average: bool = Field(default=False, description="Whether the moving average of the weights is used.")
    base_hash: str | None = Field(default=None, description="Hash of the base model's files.")
    base_is_untrained: bool = Field(default=False, description="The base has random weights: no results.")


class Method(Protocol):
    """A video generator."""

    @property
    def description(self) -> MethodDescription:
        """What it is."""

    def generate(self, clip: Clip, seed: int) -> Frames:
        """Make the interaction video of a clip, uint8 [T, H, W, 3] RGB; the same for the same clip and seed.

        Raises:
            DwmError: the clip lacks what the method needs.
        """


@runtime_checkable
class BatchMethod(Method, Protocol):
    """A method that makes several videos of a clip at the price of one encoding."""

    def generate_batch(self, clip: Clip, seeds: Sequence[int]) -> list[Frames]:
        """Videos of a clip, one a seed, each the same as ``generate`` makes.

        Raises:
            DwmError: the clip lacks what the method needs.
        """


def describe_run(
    run_folder: Path, config: SamplerConfig, checkpoint_step: int | None = None, *, name: str = DWM
) -> MethodDescription:
    """Describe a run's checkpoint as a method, without loading any weights, for planning.

    Args:
        run_folder: The training run.
        config: Sampler settings.
        checkpoint_step: Which checkpoint; None takes the newest, as ``Sampler.from_run`` does.
        name: Row of the table.

    Raises:
        DwmError: no run there, no such checkpoint, or the run was trained otherwise than its row says or kept no
            average that is asked for.
    """
    from dwm_model.checkpoints import read_identity
    from dwm_model.sampling import choose_checkpoint, require_average

    identity = read_identity(run_folder)
    if config.use_average:
        require_average(run_folder, identity)
    required = CONDITIONING_OF.get(name.partition(" without ")[0], identity.config.conditioning)
    if identity.config.conditioning != required:
        raise DwmError(
            f"{run_folder}: trained with conditioning {identity.config.conditioning}; row '{name}' needs {required}"
        )
    return MethodDescription(
        name=name,
        uses_seed=True,
        run_id=identity.run_id,
        checkpoint_step=choose_checkpoint(run_folder, checkpoint_step),
        base_hash=identity.base_hash,
        base_is_untrained=identity.base_is_untrained,
        **config.model_dump(),
    )


def describe_base_method(base: BaseDescription, config: SamplerConfig, name: str = SDEDIT) -> MethodDescription:
    """Describe a base without a run as a method."""
    return MethodDescription(
        name=name,
        uses_seed=True,
        base_hash=base.base_hash,
        base_is_untrained=base.is_untrained,
        **config.model_dump(),
    )


class Sampled:
    """A sampler as a method: videos from a clip's cached conditions and its prompt (paper section 3.2)."""

    def __init__(self, sampler: Sampler, store: LatentStore, config: SamplerConfig, name: str = DWM) -> None:
        """Sample with ``sampler`` from the latents in ``store``.

        Raises:
            DwmError: the latents have another size than the run was trained with.
        """
        if store.geometry != sampler.geometry:
            raise DwmError(
                f"run {sampler.run_id}: trained at {sampler.geometry}, latents are {store.geometry}; "
                "benchmark at the run's size"
            )
        self._sampler = sampler
        self._store = store
        self._config = config
        self._name = name

    @property
    def description(self) -> MethodDescription:
        """What it is; equal to what ``describe_run`` says of the same checkpoint and settings."""
        base = self._sampler.base.description
        return MethodDescription(
            name=self._name,
            uses_seed=True,
            run_id=self._sampler.run_id,
            checkpoint_step=self._sampler.checkpoint_step,
            base_hash=base.base_hash,
            base_is_untrained=base.is_untrained,
            **self._config.model_dump(),
        )

    def generate(self, clip: Clip, seed: int) -> Frames:
        """Sample one interaction video.

        Raises:
            DwmError: see `generate_batch`.
        """
        return self.generate_batch(clip, [seed])[0]

    def generate_batch(self, clip: Clip, seeds: Sequence[int]) -> list[Frames]:
        """Sample interaction videos of one clip.

        Raises:
            DwmError: the clip is not encoded, lacks the hands that the run needs, or the network gives values that are
                not finite.
        """
        conditions = self._sampler.load_conditions(self._store, clip.clip_id)
        return self._sampler.generate(conditions, clip.prompt, seeds, self._config, clip_id=clip.clip_id)
