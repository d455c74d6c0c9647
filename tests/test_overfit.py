"""Every way of telling the network about the hands lets it learn two outcomes of one scene; without hands it cannot.

The network learns two clips that share the static scene and the text and differ in the hands, from random weights.
"""

from __future__ import annotations

import pytest
import torch

from dwm_model.conditioning import CONDITIONINGS
from dwm_model.denoiser import Denoiser
from dwm_model.families import FUN_V1_1, FUN_V1_5, WAN_FUN_INP, ModelFamily
from dwm_model.lora import LoraSettings
from tests.helpers_variants import (
    learn,
    loss_at_fixed_noise,
    relative_errors,
    sample_both,
    small_denoiser,
    two_clips,
)

FAMILIES = (FUN_V1_1, FUN_V1_5, WAN_FUN_INP)
WITH_HANDS = [name for name in CONDITIONINGS if name != "none"]
CASES = [(family, name) for family in (FUN_V1_1, FUN_V1_5) for name in WITH_HANDS]
CASES += [(WAN_FUN_INP, "hand_mesh"), (WAN_FUN_INP, "hand_mask")]


def ids_of(cases: list[tuple[ModelFamily, str]]) -> list[str]:
    return [f"{family.name}-{name}" for family, name in cases]


def wide_enough(name: str, family: ModelFamily) -> Denoiser:
    """A network wider than its patches, as the real ones are: those of V1.5 span two frames, 128 numbers."""
    return small_denoiser(name, family, num_attention_heads=4 if family is FUN_V1_5 else 2)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), CASES, ids=ids_of(CASES))
def test_full_training_learns_both_outcomes(family: ModelFamily, name: str) -> None:
    denoiser, clips = wide_enough(name, family), two_clips()
    before = loss_at_fixed_noise(denoiser, clips)
    steps, rate = (350, 4e-3) if family is FUN_V1_5 else (200, 3e-3)
    learn(denoiser, clips, lora=None, steps=steps, rate=rate)
    assert loss_at_fixed_noise(denoiser, clips) <= before / 20
    for own, row in enumerate(relative_errors(sample_both(denoiser, clips), clips)):
        assert row[own] < 0.2
        assert row[1 - own] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_without_hands_both_clips_get_the_same_outcome(family: ModelFamily) -> None:
    denoiser, clips = small_denoiser("none", family), two_clips()
    before = loss_at_fixed_noise(denoiser, clips)
    learn(denoiser, clips, lora=None, steps=150, rate=3e-3)
    assert loss_at_fixed_noise(denoiser, clips) > before / 20
    first, second = sample_both(denoiser, clips)
    assert torch.equal(first, second)
    errors = relative_errors(torch.stack([first, second]), clips)
    assert max(errors[0]) > 0.4


LORA_CASES = [
    case for case in CASES if case[0] is not FUN_V1_5 or case[1] in ("hand_mesh", "adaln_frame", "controlnet")
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), LORA_CASES, ids=ids_of(LORA_CASES))
def test_lora_training_separates_the_outcomes(family: ModelFamily, name: str) -> None:
    denoiser, clips = wide_enough(name, family), two_clips()
    learn(denoiser, clips, lora=LoraSettings(rank=32, alpha=32), steps=200, rate=1e-2)
    for own, row in enumerate(relative_errors(sample_both(denoiser, clips), clips)):
        assert row[own] < 0.75
        assert row[own] < 0.75 * row[1 - own]


@pytest.mark.slow
def test_embeddings_a_frame_tell_an_order_that_one_a_clip_cannot() -> None:
    """The second clip's poses are the first one's backwards: their mean over time is the same."""
    clips = two_clips(reversed_hands=True)
    by_frame, by_clip = (small_denoiser(name, FUN_V1_1) for name in ("adaln_frame", "adaln_global"))
    for denoiser in (by_frame, by_clip):
        learn(denoiser, clips, lora=None, steps=200, rate=3e-3)
    for own, row in enumerate(relative_errors(sample_both(by_frame, clips), clips)):
        assert row[own] < 0.2
    first, second = sample_both(by_clip, clips)
    assert torch.allclose(first, second, atol=1e-2)
