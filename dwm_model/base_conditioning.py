"""How base models are told what they know, before any hand comes in: how the small base trains, how SDEdit asks a base.

They have the interface of `conditioning`, whose registry names only the ways of hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwm_model.clip_order import stable_seed
from dwm_model.condition_data import ConditionBatch, HandData, latent_of
from dwm_model.conditioning import Conditioning, Reading
from dwm_model.families import ModelFamily
from dwm_model.inpainting_masks import draw_known
from dwm_model.input_channels import IMAGE_TO_VIDEO, INPAINTING, set_input_slots
from dwm_model.latents import LatentStore, VideoRole
from dwm_model.network_call import NetworkCall, input_channels

if TYPE_CHECKING:
    import torch

STATIC_SHARE = 0.3
"""Share of static-scene videos among those that bases are trained on; the others show interactions."""


@dataclass(frozen=True)
class Inpainting(Reading):
    """How an inpainting base itself is trained: parts of a video are known, the rest is to be made up.

    The video is the interaction or the static scene of a clip; what is known of it is drawn by `inpainting_masks`,
    never all of it, so that a full mask is an extrapolation (paper section 3.2). Where nothing is known the latent is
    zero, as it is for `TextOnly`.
    """

    def example(
        self, store: LatentStore, clip_id: str, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, ConditionBatch]:
        """A video of the clip, and the parts of it that are known; without a generator both follow from the clip."""
        import torch

        draws = generator or torch.Generator().manual_seed(stable_seed("inpainting", clip_id))
        video = _a_video(store, clip_id, generator, draws)
        known = draw_known(video.shape[1], video.shape[2], video.shape[3], draws)[None]
        return video[None], ConditionBatch(video[None], known_bfhw=known)

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:  # noqa: ARG002
        """Bring the input to the inpainting layout."""
        set_input_slots(transformer, family, INPAINTING)

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy | mask | what is known."""
        static, known = call.conditions.static_bfchw, call.conditions.known_bfhw
        shown = static if known is None else static * known[:, :, None]
        given = input_channels(call, family, shown, known_bfhw=known)
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary)


@dataclass(frozen=True)
class FirstFrame(Reading):
    """How an image-to-video base is trained (paper Appendix D): the first latent frame is known, no mask tells so."""

    def example(
        self, store: LatentStore, clip_id: str, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, ConditionBatch]:
        """A video of the clip, itself what is known of it; without a generator it follows from the clip."""
        import torch

        draws = generator or torch.Generator().manual_seed(stable_seed("first frame", clip_id))
        video = _a_video(store, clip_id, generator, draws)[None]
        return video, ConditionBatch(video)

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:  # noqa: ARG002
        """Bring the input to the image-to-video layout."""
        set_input_slots(transformer, family, IMAGE_TO_VIDEO)

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy | first frame, zeros after it."""
        import torch

        first = torch.zeros_like(call.conditions.static_bfchw)
        first[:, :1] = call.conditions.static_bfchw[:, :1]
        given = torch.cat([call.noisy_bfchw, first], dim=2)
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary)


@dataclass(frozen=True)
class TextOnly(Reading):
    """A base as it is, told that no pixel is known: what SDEdit edits a video with. It is not trained."""

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:
        """Nothing: any layout will do."""

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """Noisy latents, and zeros in all other channels, which says "unknown" to inpainting bases."""
        import torch

        noisy = call.noisy_bfchw
        others = transformer.config.in_channels - noisy.shape[2]
        given = torch.cat([noisy, noisy.new_zeros((*noisy.shape[:2], others, *noisy.shape[3:]))], dim=2)
        return family.predict(transformer, given, call.text_bld, call.timesteps_b, call.rotary)


TEXT_ONLY = TextOnly("text_only", HandData.NONE)
"""Not in the registry, since it is never trained."""


@dataclass(frozen=True)
class AsTrained(Reading):
    """A base without fine-tuning, told all of the static scene: inpainting bases by mask, others by the first frame."""

    def prepare(self, transformer: Any, family: ModelFamily, seed: int = 0) -> None:
        """Nothing: the base's own layout decides."""

    def predict(self, transformer: Any, family: ModelFamily, call: NetworkCall) -> torch.Tensor:
        """As an inpainting or as an image-to-video base."""
        has_mask = transformer.config.in_channels == family.slots.channels(INPAINTING)
        way = BASE_CONDITIONINGS["inpainting" if has_mask else "first_frame"]
        return way.predict(transformer, family, call)


BASE_ITSELF = AsTrained("base", HandData.NONE)
"""Not in the registry either: nothing trains with it."""

BASE_CONDITIONINGS: dict[str, Conditioning] = {
    conditioning.name: conditioning
    for conditioning in (Inpainting("inpainting", HandData.NONE), FirstFrame("first_frame", HandData.NONE))
}
"""What bases are trained by, by name."""


def _a_video(
    store: LatentStore, clip_id: str, generator: torch.Generator | None, draws: torch.Generator
) -> torch.Tensor:
    """The interaction or the static scene of a clip, [16, F, H, W]; ``generator`` samples the posterior."""
    import torch

    is_static = float(torch.rand(1, generator=draws)) < STATIC_SHARE
    return latent_of(store, clip_id, VideoRole.STATIC if is_static else VideoRole.INTERACTION, generator)
