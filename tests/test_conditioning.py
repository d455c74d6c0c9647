"""Widening leaves the base's output unchanged; the channels stand in the order that the weights expect."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import CogVideoXImageToVideoPipeline

from dwm_model.base_model import BaseModel
from dwm_model.conditioning import get_conditioning
from dwm_model.families import FAMILIES, FUN_V1_1
from dwm_model.input_channels import INPAINTING, WITH_HANDS, set_input_slots
from dwm_model.network_call import ConditionLatents, NetworkCall, input_channels, known_mask_value
from manifests.errors import DwmError

pytest_plugins = ("tests.fixtures_model",)


def small_transformer(patch_size_t: int | None) -> CogVideoXTransformer3DModel:
    torch.manual_seed(0)
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=33,
        out_channels=16,
        time_embed_dim=16,
        text_embed_dim=8,
        num_layers=2,
        sample_width=6,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_size_t,
        max_text_seq_length=4,
        use_rotary_positional_embeddings=True,
    ).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family_name", ["fun_v1_1", "fun_v1_5"])
def test_widened_network_equals_the_base_whatever_the_hands_are(family_name: str) -> None:
    family = FAMILIES[family_name]
    transformer = small_transformer(family.patch_size_t)
    known, hands = noise(1, 4, 33, 4, 6), noise(1, 4, 16, 4, 6, seed=1)
    text, timesteps = noise(1, 4, 8), torch.tensor([500])
    with torch.no_grad():
        rotary = family.rotary_embedding(transformer, 4, 6, 4)
        before = family.predict(transformer, known, text, timesteps, rotary)
        set_input_slots(transformer, family, WITH_HANDS)
        after = family.predict(transformer, torch.cat([known, hands], dim=2), text, timesteps, rotary)
    assert transformer.config.in_channels == 49
    assert (after - before).abs().max() <= 1e-6


def test_widening_twice_changes_nothing_and_other_bases_are_refused() -> None:
    transformer = small_transformer(None)
    set_input_slots(transformer, FUN_V1_1, WITH_HANDS)
    weights = transformer.patch_embed.proj.weight.clone()
    set_input_slots(transformer, FUN_V1_1, WITH_HANDS)
    assert torch.equal(transformer.patch_embed.proj.weight, weights)
    with pytest.raises(DwmError, match="in_channels 49: its hands channels have no place among 33"):
        set_input_slots(transformer, FUN_V1_1, INPAINTING)


def test_channels_are_noisy_mask_static_hands() -> None:
    noisy, static, hands = (torch.full((2, 3, 16, 4, 6), value) for value in (1.0, 2.0, 3.0))
    call = NetworkCall(
        noisy, ConditionLatents(static, hands), noise(2, 4, 8), torch.tensor([1, 2]), known_mask_value(0.7), None
    )
    given = input_channels(call, FUN_V1_1, static, hands)
    assert given.shape == (2, 3, 49, 4, 6)
    per_channel = given[0, 0, :, 0, 0].tolist()
    assert per_channel == [1.0] * 16 + [pytest.approx(0.7)] + [2.0] * 16 + [3.0] * 16


def test_unknown_conditioning_is_refused() -> None:
    with pytest.raises(DwmError, match="hand_dance"):
        get_conditioning("hand_dance")


@pytest.mark.parametrize("family_name", ["fun_v1_1", "fun_v1_5"])
def test_rotary_embedding_is_the_pipelines(family_name: str) -> None:
    family = FAMILIES[family_name]
    transformer = small_transformer(family.patch_size_t)
    pipeline = CogVideoXImageToVideoPipeline.__new__(CogVideoXImageToVideoPipeline)
    object.__setattr__(pipeline, "vae_scale_factor_spatial", 8)
    object.__setattr__(pipeline, "transformer", transformer)
    expected = pipeline._prepare_rotary_positional_embeddings(32, 40, 4, torch.device("cpu"))
    found = family.rotary_embedding(transformer, 4, 5, 4)
    assert found is not None
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_base_without_rotary_positions_gets_none() -> None:
    transformer = small_transformer(None)
    transformer.register_to_config(use_rotary_positional_embeddings=False)
    assert FAMILIES["fun_v1_1"].rotary_embedding(transformer, 4, 6, 3) is None


def test_odd_latent_counts_are_padded_for_v1_5_only() -> None:
    assert [FAMILIES["fun_v1_1"].padded_frames(count) for count in (12, 13)] == [12, 13]
    assert [FAMILIES["fun_v1_5"].padded_frames(count) for count in (12, 13)] == [12, 14]


def test_v1_5_takes_thirteen_latent_frames_and_gives_the_first_thirteen_of_fourteen_back() -> None:
    family = FAMILIES["fun_v1_5"]
    transformer, given = small_transformer(2), noise(1, 13, 33, 4, 6)
    padded = torch.cat([given, given[:, -1:]], dim=1)
    text, timesteps = noise(1, 4, 8), torch.tensor([10])
    with torch.no_grad():
        rotary = family.rotary_embedding(transformer, 4, 6, 13)
        output = family.predict(transformer, given, text, timesteps, rotary)
        whole = transformer(padded, text, timesteps, image_rotary_emb=rotary, return_dict=False)[0]
    assert whole.shape == (1, 14, 16, 4, 6)
    assert torch.equal(output, whole[:, :13])


def test_widened_tiny_base_takes_gradients_into_the_hand_columns(base: BaseModel) -> None:
    transformer = base.transformer
    get_conditioning("hand_mesh").prepare(transformer, base.family)
    projection = transformer.patch_embed.proj.requires_grad_(True)
    rotary = base.family.rotary_embedding(transformer, 4, 6, 3)
    text = noise(1, base.description.text_tokens, base.description.text_dim)
    base.family.predict(transformer, noise(1, 3, 49, 4, 6), text, torch.tensor([9]), rotary).square().mean().backward()
    assert projection.weight.grad[:, 33:].abs().max() > 0
