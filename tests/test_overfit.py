"""Every way of telling the network about the hands lets it learn two outcomes of one scene; without hands it cannot.

The network learns two clips that share the static scene and the text and differ in the hands, from random weights.
"""

from __future__ import annotations

import pytest
import torch

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

CASES = [
    (FUN_V1_1, "hand_mesh"),
    (FUN_V1_1, "hand_mask"),
    (FUN_V1_1, "adaln_global"),
    (FUN_V1_1, "adaln_frame"),
    (FUN_V1_1, "controlnet"),
    (WAN_FUN_INP, "hand_mesh"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), CASES, ids=[f"{family.name}-{name}" for family, name in CASES])
def test_full_training_learns_both_outcomes(family: ModelFamily, name: str) -> None:
    denoiser, clips = small_denoiser(name, family), two_clips()
    before = loss_at_fixed_noise(denoiser, clips)
    learn(denoiser, clips, lora=None, steps=200, rate=3e-3)
    assert loss_at_fixed_noise(denoiser, clips) <= before / 20
    for own, row in enumerate(relative_errors(sample_both(denoiser, clips), clips)):
        assert row[own] < 0.2
        assert row[1 - own] > 0.8


@pytest.mark.slow
def test_a_network_whose_patches_span_two_frames_separates_the_outcomes() -> None:
    """A V1.5 patch has as many numbers as the small network is wide, so that it learns the noise more slowly."""
    denoiser, clips = small_denoiser("hand_mesh", FUN_V1_5), two_clips()
    before = loss_at_fixed_noise(denoiser, clips)
    learn(denoiser, clips, lora=None, steps=400, rate=3e-3)
    assert loss_at_fixed_noise(denoiser, clips) <= before / 20
    for own, row in enumerate(relative_errors(sample_both(denoiser, clips), clips)):
        assert row[own] < 0.4
        assert row[1 - own] > 0.8


@pytest.mark.slow
def test_without_hands_both_clips_get_the_same_outcome() -> None:
    denoiser, clips = small_denoiser("none", FUN_V1_1), two_clips()
    learn(denoiser, clips, lora=None, steps=150, rate=3e-3)
    first, second = sample_both(denoiser, clips)
    assert torch.equal(first, second)
    errors = relative_errors(torch.stack([first, second]), clips)
    assert max(errors[0]) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hand_mesh", "adaln_frame", "controlnet"])
def test_lora_training_separates_the_outcomes(name: str) -> None:
    denoiser, clips = small_denoiser(name, FUN_V1_1), two_clips()
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
