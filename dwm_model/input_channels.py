"""What the input channels of a network hold, and how a network of one layout becomes one of another.

All layouts have the same slots in the same order, and some leave slots out: noisy latent | mask | static-scene latent
| hand latent (paper section 3.2). A slot that a base lacks gets zero weights, so that the widened network's output is
the base's, whatever the new channels hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from manifests.errors import DwmError

if TYPE_CHECKING:
    from torch import nn

    from dwm_model.families import ModelFamily


class Slot(StrEnum):
    """A group of input channels, in the order in which they stand."""

    NOISY = "noisy"
    MASK = "mask"
    STATIC = "static"
    HANDS = "hands"


IMAGE_TO_VIDEO = (Slot.NOISY, Slot.STATIC)
"""Slots of an image-to-video base: the image stands where the static scene will."""

INPAINTING = (Slot.NOISY, Slot.MASK, Slot.STATIC)
"""Slots of an inpainting base: the static scene takes the place of the masked video."""

WITH_HANDS = (*INPAINTING, Slot.HANDS)
"""Slots of a network that sees hands as a latent."""


@dataclass(frozen=True)
class InputSlots:
    """Widths of a family's slots and the layouts that its bases come in.

    Attributes:
        mask_channels: channels of the mask: CogVideoX has 1, Wan one for each of the frames of a latent frame.
        layouts: slots of each known base.
    """

    mask_channels: int
    layouts: tuple[tuple[Slot, ...], ...]

    def width(self, slot: Slot) -> int:
        """Channels of a slot."""
        return self.mask_channels if slot is Slot.MASK else 16

    def channels(self, slots: tuple[Slot, ...]) -> int:
        """Channels of a layout."""
        return sum(self.width(slot) for slot in slots)


COGVIDEOX_SLOTS = InputSlots(mask_channels=1, layouts=((Slot.NOISY,), IMAGE_TO_VIDEO, INPAINTING, WITH_HANDS))
"""Text-to-video 16, image-to-video 32, Fun-InP 33, with hands 49."""

WAN_SLOTS = InputSlots(mask_channels=4, layouts=((Slot.NOISY,), INPAINTING, WITH_HANDS))
"""Text-to-video 16, Fun-InP and image-to-video 36, with hands 52 (diffusers ``pipeline_wan_i2v``, VideoX-Fun)."""


def slots_of(slots: InputSlots, channels: object, where: object) -> tuple[Slot, ...]:
    """Layout of a network with this many input channels.

    Raises:
        DwmError: no base of the family has so many; ``where`` is named.
    """
    for layout in slots.layouts:
        if slots.channels(layout) == channels:
            return layout
    known = ", ".join(str(slots.channels(layout)) for layout in slots.layouts)
    inpainting = slots.channels(INPAINTING)
    raise DwmError(
        f"{where}: in_channels is {channels}; known are {known} (an inpainting base has {inpainting}): "
        "use a Fun InP model"
    )


def set_input_slots(transformer: Any, family: ModelFamily, wanted: tuple[Slot, ...]) -> None:
    """Give the patch projection the channels of a layout, in place; nothing is done when it has them already.

    The weights of a slot that is there already are copied to its new place, those of a new slot are zero: Fun-InP
    widening when the base is an inpainting model, the paper's I2V initialisation (Appendix D) when it is an
    image-to-video model. V1.1 bases have a convolution [dim, C, p, p], V1.5 bases a linear layer whose inputs are
    ordered (C, p_t, p, p) with channels outermost, Wan a convolution [dim, C, 1, p, p].

    Raises:
        DwmError: the transformer has a slot that the layout leaves out.
    """
    slots = family.slots
    present = slots_of(slots, transformer.config.in_channels, "transformer")
    if present == wanted:
        return
    if lost := [slot for slot in present if slot not in wanted]:
        raise DwmError(
            f"transformer with in_channels {transformer.config.in_channels}: its {lost[0]} channels have no place "
            f"among {slots.channels(wanted)}; use the base that it was made from"
        )
    old: Any = transformer.get_submodule(family.projection_name)
    new = rearranged_projection(old, slots, present, wanted)
    transformer.set_submodule(family.projection_name, new.requires_grad_(old.weight.requires_grad))
    transformer.register_to_config(in_channels=slots.channels(wanted))


def rearranged_projection(
    old: Any, slots: InputSlots, present: tuple[Slot, ...], wanted: tuple[Slot, ...]
) -> nn.Conv2d | nn.Conv3d | nn.Linear:
    """A patch projection for another layout, with the weights of ``old`` in their new places and zeros elsewhere."""
    import torch

    new = _like(old, slots.channels(present), slots.channels(wanted))
    columns = old.weight.shape[1] // slots.channels(present)
    with torch.no_grad():
        new.weight.zero_()
        for slot in present:
            width = slots.width(slot) * columns
            target, source = (_start(slots, layout, slot) * columns for layout in (wanted, present))
            new.weight[:, target : target + width] = old.weight[:, source : source + width]
        if new.bias is not None:
            new.bias.copy_(old.bias)
    return new


def _start(slots: InputSlots, layout: tuple[Slot, ...], slot: Slot) -> int:
    """First channel of a slot in a layout."""
    return slots.channels(layout[: layout.index(slot)])


def _like(old: Any, present: int, channels: int) -> nn.Conv2d | nn.Conv3d | nn.Linear:
    """A layer like ``old`` for another number of channels, uninitialised."""
    from torch import nn

    options = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features // present * channels, old.out_features, **options)
    kind = nn.Conv2d if isinstance(old, nn.Conv2d) else nn.Conv3d
    return kind(channels, old.out_channels, kernel_size=old.kernel_size, stride=old.stride, **options)
