"""The last block leaves out the text that nothing reads: same video, same gradients, less arithmetic."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dwm_model.conditioning import get_conditioning
from dwm_model.denoiser import Denoiser
from dwm_model.families import FUN_V1_1, FUN_V1_5, CogVideoXFamily
from dwm_model.last_block import LastBlock, leave_last_text_out
from dwm_model.recomputation import set_recomputation, transformer_blocks
from tests.helpers_variants import TwoClips, loss_at_fixed_noise, small_denoiser, small_transformer, two_clips

CASES = [(FUN_V1_1, name) for name in ("hand_mesh", "adaln_global", "adaln_frame", "controlnet")]
CASES += [(FUN_V1_5, "hand_mesh"), (FUN_V1_5, "adaln_frame")]


def _predict(denoiser: Denoiser, clips: TwoClips) -> torch.Tensor:
    return denoiser.predict(clips.targets_bfchw, clips.conditions, clips.text_bld, torch.tensor([100, 900]))


@pytest.mark.parametrize(("family", "name"), CASES, ids=[f"{family.name}-{name}" for family, name in CASES])
def test_output_and_gradients_are_those_of_the_whole_block(family: CogVideoXFamily, name: str) -> None:
    whole, clips = small_denoiser(name, family), two_clips()
    lean = copy.deepcopy(whole)
    leave_last_text_out(lean.transformer)
    assert isinstance(transformer_blocks(lean.transformer)[-1], LastBlock)
    assert lean.transformer.state_dict().keys() == whole.transformer.state_dict().keys()
    assert loss_at_fixed_noise(lean, clips) == pytest.approx(loss_at_fixed_noise(whole, clips), rel=1e-6)
    gradients = []
    for denoiser in (whole, lean):
        _predict(denoiser, clips).square().mean().backward()
        gradients.append({key: one.grad for key, one in denoiser.transformer.named_parameters()})
    for key, wanted in gradients[0].items():
        if wanted is None:
            assert gradients[1][key] is None
        else:
            torch.testing.assert_close(gradients[1][key], wanted, rtol=1e-4, atol=1e-7)


def test_a_block_that_takes_a_residual_stays() -> None:
    transformer = small_transformer(FUN_V1_1, 33, num_layers=1)
    get_conditioning("controlnet").prepare(transformer, FUN_V1_1)
    before = transformer_blocks(transformer)[-1]
    leave_last_text_out(transformer)
    assert transformer_blocks(transformer)[-1] is before


def test_the_last_block_is_not_run_again_in_the_backward_pass() -> None:
    denoiser, clips = small_denoiser("hand_mesh", FUN_V1_1), two_clips()
    denoiser.transformer.train()
    products = {}
    for policy in ("none", "full"):
        set_recomputation(denoiser.transformer, policy)
        with FlopCounterMode(display=False) as counter:
            predicted = _predict(denoiser, clips)
            forward = counter.get_total_flops()
            predicted.square().mean().backward()
        products[policy] = counter.get_total_flops()
    # Of two equal blocks one is run again: at most half of the forward pass, and something.
    assert 0.2 * forward < products["full"] - products["none"] <= 0.5 * forward
