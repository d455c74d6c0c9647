"""Wan2.1-Fun InP: its channels, its schedule, its text, and the whole way from videos over training to videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

from dwm_model.base_model import BaseModel, describe_base, load_base
from dwm_model.denoiser import make_denoiser
from dwm_model.families import WAN_FUN_INP
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import LatentStore
from dwm_model.lora import LoraSettings
from dwm_model.network_call import ConditionLatents, NetworkCall, input_channels
from dwm_model.prompts import embed_prompt
from dwm_model.sampling import Sampler, SamplerConfig
from dwm_model.schedules import FlowSchedule
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Split
from tests.helpers_model import GEOMETRY, add_clip, encode_all
from tests.helpers_variants import noise
from tests.helpers_wan import make_tiny_wan_base


@pytest.fixture(scope="module")
def wan_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_wan_base(tmp_path_factory.mktemp("bases") / "wan")


@pytest.fixture
def base(wan_base: Path) -> BaseModel:
    return load_base(wan_base)


def test_description_tells_family_and_sizes(wan_base: Path) -> None:
    described = describe_base(wan_base)
    assert described.family.name == "wan_fun_inp"
    assert (described.latent_channels, described.spatial_ratio, described.temporal_ratio) == (16, 8, 4)
    assert (described.text_tokens, described.text_dim) == (512, 32)


def test_channels_are_noisy_four_masks_static_hands_and_the_mask_is_one() -> None:
    noisy, static, hands = (torch.full((1, 3, 16, 4, 6), value) for value in (1.0, 2.0, 3.0))
    call = NetworkCall(noisy, ConditionLatents(static, hands), noise(1, 4, 8), torch.tensor([1]), 1.0, None)
    given = input_channels(call, WAN_FUN_INP, static, hands)
    assert given[0, 0, :, 0, 0].tolist() == [1.0] * 16 + [1.0] * 4 + [2.0] * 16 + [3.0] * 16


def test_latents_are_scaled_a_channel_and_back(base: BaseModel) -> None:
    scaling = base.description.scaling
    latents = noise(1, 16, 3, 2, 2)
    scaled = scaling.to_network(latents)
    assert scaled.shape == (1, 3, 16, 2, 2)
    channel = 5
    assert torch.allclose(scaled[0, :, channel], (latents[0, channel] - 0.5) / 1.5, atol=1e-6)
    assert torch.allclose(scaling.to_autoencoder(scaled), latents, atol=1e-6)


@pytest.mark.parametrize("num_frames", [5, 9, 13, 17])
def test_autoencoder_gives_back_the_number_of_frames(base: BaseModel, num_frames: int) -> None:
    ClipGeometry(width=16, height=16, num_frames=num_frames).check(base.description)
    latents = base.vae.encode(torch.zeros(1, 3, num_frames, 16, 16)).latent_dist.mean
    assert base.vae.decode(latents).sample.shape == (1, 3, num_frames, 16, 16)
    with pytest.raises(DwmError, match="1 more than a multiple of 4"):
        ClipGeometry(width=16, height=16, num_frames=16).check(base.description)


def test_prompt_embedding_is_the_pipelines(base: BaseModel) -> None:
    pipeline = WanPipeline(base.tokenizer, base.text_encoder, base.vae, FlowMatchEulerDiscreteScheduler())
    expected = pipeline._get_t5_prompt_embeds("push the box", max_sequence_length=512)[0]
    found = embed_prompt(base, "push the box")
    assert torch.allclose(found, expected, atol=2e-3)
    assert torch.count_nonzero(found[100:]) == 0


def test_schedule_is_a_straight_flow_with_its_shift() -> None:
    schedule = FlowSchedule()
    clean, drawn, timesteps = noise(2, 3, 16, 2, 2), noise(2, 3, 16, 2, 2, seed=1), torch.tensor([999, 499])
    assert schedule.sigmas(timesteps).tolist() == [1.0, pytest.approx(5 * 0.5 / 3.0)]
    noisy = schedule.add_noise(clean, drawn, timesteps)
    assert torch.allclose(noisy[0], drawn[0])
    sigma = schedule.sigmas(timesteps).view(-1, 1, 1, 1, 1)
    assert torch.allclose(noisy - sigma * schedule.target(clean, drawn, timesteps), clean, atol=1e-5)
    assert schedule.network_timesteps(timesteps).tolist() == [1000.0, pytest.approx(833.333, abs=1e-2)]
    euler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    euler.set_timesteps(10)
    assert torch.equal(torch.stack(schedule.solver(10, 1.0, torch.device("cpu")).timesteps), euler.timesteps)


@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_a_network_that_knows_the_answer_samples_it(strength: float) -> None:
    solver = FlowSchedule().solver(8, strength, torch.device("cpu"))
    truth, drawn = noise(1, 3, 16, 2, 2), noise(1, 3, 16, 2, 2, seed=1)
    latents = solver.start(drawn, truth if strength < 1 else None)
    assert len(solver.timesteps) == int(8 * strength)
    for index in range(len(solver.timesteps)):
        latents = solver.step(index, drawn - truth, latents)
    assert torch.allclose(latents, truth, atol=1e-5)


def test_network_with_an_image_embedding_is_told_that_there_is_no_image(tmp_path: Path) -> None:
    base = load_base(make_tiny_wan_base(tmp_path / "wan", image_dim=20))
    denoiser = make_denoiser(base, "hand_mesh")
    seen: list[torch.Tensor] = []
    base.transformer.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["encoder_hidden_states_image"]), with_kwargs=True
    )
    clean = noise(1, 3, 16, 4, 4)
    conditions = ConditionLatents(clean, clean)
    found = denoiser.predict(clean, conditions, noise(1, 512, 32), torch.tensor([500.0]))
    assert bool(torch.isfinite(found).all())
    assert seen[0].shape == (1, 257, 20)
    assert torch.count_nonzero(seen[0]) == 0


def test_videos_are_encoded_trained_on_and_generated(wan_base: Path, tmp_path: Path) -> None:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    for index in range(2):
        add_clip(dataset, f"clip{index}", seed=index, split=Split.TRAIN)
    encode_all(dataset, load_base(wan_base))
    config = TrainConfig(
        geometry=GEOMETRY,
        lora=LoraSettings(rank=2, alpha=2),
        max_steps=3,
        batch_size=1,
        accumulation_steps=1,
        learning_rate=1e-2,
        warmup_steps=0,
        tensorboard=False,
    )
    summary = train(dataset, wan_base, tmp_path / "run", config)
    assert summary.is_complete
    assert summary.loss_last is not None
    store = LatentStore(dataset, describe_base(wan_base), GEOMETRY)
    sampler = Sampler.from_run(wan_base, tmp_path / "run", store=store)
    conditions = sampler.load_conditions(store, "clip0")
    prompt = dataset.clips.get("clip0").prompt
    few = SamplerConfig(num_inference_steps=2)
    first, again = (sampler.generate(conditions, prompt, [0], few, clip_id="clip0")[0] for _ in range(2))
    assert first.shape == (GEOMETRY.num_frames, GEOMETRY.height, GEOMETRY.width, 3)
    assert np.array_equal(first, again)
