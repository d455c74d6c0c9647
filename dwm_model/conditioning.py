"""The ways hands enter the network (paper sections 3.2 and 4.3), each a configuration behind one interface.

A conditioning says which data of a clip it needs and reads them, adapts a base transformer once (what it adds trains
beside the LoRA adapter: `lora.TRAINED_PREFIXES`), and makes the network's prediction. Trainer, sampler and benchmark
know only this interface. Tensors are written B (batch), F (latent frames), C (channels), H, W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dwm_model.condition_data import ConditionBatch, HandData, latent_of, load_conditions, refused_clips
from dwm_model.families import CogVideoXFamily, ModelFamily, NetworkExtras
from dwm_model.input_channels import INPAINTING, WITH_HANDS, set_input_slots
from dwm_model.latents import VideoRole
from dwm_model.network_call import ConditionLatents, NetworkCall, input_channels
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

    from dwm_model.latents import LatentStore
    from manifests.dataset import Dataset


class Conditioning(Protocol):
    """One way of telling the network about the hands."""

    @property
    def name(self) -> str:
        """Name in configurations."""

    @property
    def hand_data(self) -> HandData:
        """What it needs to know of the hands."""

    def refused_clips(self, dataset: Dataset, clip_ids: Sequence[str]) -> dict[str, str]:
        """Clips that lack the data it needs, with the reason of each; they can be neither trained on nor generated."""

    def load(
        self, store: LatentStore, clip_ids: Sequence[str], generator: torch.Generator | None = None
    ) -> ConditionBatch:
        """Read the conditions of clips; posterior samples with a generator, means without."""

    def example(
        self, store: LatentStore, clip_id: str, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, ConditionBatch]:
        """What the network should make of a clip, [1, 16, F, H, W], and what it is told; means without a generator."""

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:
        """Change a base transformer in place so that it takes this conditioning; no change when done already.

        Raises:
            DwmError: the base or its family does not take it.
        """

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """What the network predicts, [B, F, 16, H, W]."""


@dataclass(frozen=True)
class Reading:
    """Name and data of a conditioning; the base of all of them."""

    name: str
    hand_data: HandData

    def refused_clips(self, dataset: Dataset, clip_ids: Sequence[str]) -> dict[str, str]:
        """Clips that lack the data it needs, with the reason of each."""
        return refused_clips(self.hand_data, dataset, clip_ids)

    def load(
        self, store: LatentStore, clip_ids: Sequence[str], generator: torch.Generator | None = None
    ) -> ConditionBatch:
        """Read the conditions of clips; posterior samples with a generator, means without."""
        return load_conditions(self.hand_data, store, clip_ids, generator)

    def example(
        self, store: LatentStore, clip_id: str, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, ConditionBatch]:
        """The interaction video, and the conditions."""
        interaction = latent_of(store, clip_id, VideoRole.INTERACTION, generator)
        return interaction[None], self.load(store, [clip_id], generator)


@dataclass(frozen=True)
class HandChannels(Reading):
    """The paper's way: a hand latent in 16 more input channels that start at zero."""

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:  # noqa: ARG002 - nothing is drawn
        """Widen the input by the hand channels."""
        set_input_slots(transformer, family, WITH_HANDS)

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy | mask | static | hands, all pixels of the static scene known."""
        conditions = call.conditions
        given = input_channels(call, family, conditions.static_bfchw, _hands_of(conditions, self.name))
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary)


@dataclass(frozen=True)
class NoHands(Reading):
    """The inpainting base fine-tuned without hands (the paper's baseline "CVX-Fun fine-tuned")."""

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:  # noqa: ARG002
        """Bring the input to the inpainting layout."""
        set_input_slots(transformer, family, INPAINTING)

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy | mask | static, all pixels of the static scene known."""
        given = input_channels(call, family, call.conditions.static_bfchw)
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary)


@dataclass(frozen=True)
class PoseModulation(Reading):
    """Hand poses through the adaptive norms, one embedding a clip or one a latent frame; see `adaln`."""

    per_frame: bool

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:
        """Bring the input to the inpainting layout and add the pose embedding.

        Raises:
            DwmError: the family's norms do not take it.
        """
        from dwm_model.adaln import add_pose_embedding

        _require_cogvideox(self.name, family)
        set_input_slots(transformer, family, INPAINTING)
        add_pose_embedding(transformer, family, per_frame=self.per_frame, seed=seed)

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy | mask | static, with the poses beside the timestep."""
        poses = call.conditions.poses_btd
        if poses is None:
            raise DwmError(f"conditioning {self.name}: the batch has no hand poses")
        given = input_channels(call, family, call.conditions.static_bfchw)
        extras = NetworkExtras(poses_btd=poses)
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary, extras=extras)


@dataclass(frozen=True)
class Control(Reading):
    """InterDyn's way: the first frame, and silhouettes of the hands through a control branch; see `control_branch`.

    Only the first latent frame of the static scene is known; the mask of the others is zero and so is their latent.
    """

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:  # noqa: ARG002
        """Bring the input to the inpainting layout and add the control branch.

        Raises:
            DwmError: the family has no blocks of this kind.
        """
        from dwm_model.control_branch import add_control_branch

        _require_cogvideox(self.name, family)
        set_input_slots(transformer, family, INPAINTING)
        add_control_branch(transformer, family)

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy | mask | first frame, with residuals from the control branch, which sees the silhouettes as well."""
        import torch

        hands = _hands_of(call.conditions, self.name)
        static = call.conditions.static_bfchw
        known = torch.zeros_like(static[:, :, 0])
        known[:, :1] = 1.0
        given = input_channels(call, family, static * known[:, :, None], known_bfhw=known)
        sinusoids = transformer.time_proj(call.timesteps_b).to(given.dtype)
        residuals = transformer.control_branch(
            family.pad(torch.cat([given, hands], dim=2)),
            call.text_bld,
            sinusoids,
            call.rotary,
            recompute=transformer.gradient_checkpointing,
        )
        extras = NetworkExtras(residuals=residuals)
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary, extras=extras)


HAND_MESH = HandChannels("hand_mesh", HandData.MESH_LATENTS)
HAND_MASK = HandChannels("hand_mask", HandData.MASK_LATENTS)
NO_HANDS = NoHands("none", HandData.NONE)
ADALN_GLOBAL = PoseModulation("adaln_global", HandData.POSES, per_frame=False)
ADALN_FRAME = PoseModulation("adaln_frame", HandData.POSES, per_frame=True)
CONTROLNET = Control("controlnet", HandData.MASK_LATENTS)

CONDITIONINGS: dict[str, Conditioning] = {
    conditioning.name: conditioning
    for conditioning in (HAND_MESH, HAND_MASK, NO_HANDS, ADALN_GLOBAL, ADALN_FRAME, CONTROLNET)
}
"""The ways hands can enter, by name."""


def get_conditioning(name: str) -> Conditioning:
    """Look a conditioning up by its name.

    Raises:
        DwmError: no such conditioning.
    """
    from dwm_model.base_conditioning import BASE_CONDITIONINGS

    if name in BASE_CONDITIONINGS:
        return BASE_CONDITIONINGS[name]
    if name not in CONDITIONINGS:
        raise DwmError(f"conditioning '{name}': unknown; choose one of {', '.join(CONDITIONINGS)}")
    return CONDITIONINGS[name]


def _hands_of(conditions: ConditionLatents, name: str) -> torch.Tensor:
    if conditions.hands_bfchw is None:
        raise DwmError(f"conditioning {name}: the batch has no hand latents")
    return conditions.hands_bfchw


def _require_cogvideox(name: str, family: ModelFamily) -> None:
    if not isinstance(family, CogVideoXFamily):
        raise DwmError(
            f"conditioning '{name}': not made for family {family.name}; choose hand_mesh, hand_mask or none, "
            "or a CogVideoX base"
        )
