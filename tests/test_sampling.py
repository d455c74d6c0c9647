"""Sampling: deterministic for a clip and a seed, guided by text, conditioned on static scene and hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dwm_model.base_model import BaseModel
from dwm_model.latents import ClipLatents, LatentStore
from dwm_model.lora import LoraSettings, trainable_parameters
from dwm_model.sampling import Sampler, SamplerConfig
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from tests.helpers_model import GEOMETRY, frames_of

pytest_plugins = ("tests.fixtures_model",)

FEW_STEPS = SamplerConfig(num_inference_steps=3)


@pytest.fixture(scope="module")
def run_folder(tiny_base: Path, encoded_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(
        geometry=GEOMETRY,
        lora=LoraSettings(rank=2, alpha=2),
        max_steps=4,
        batch_size=1,
        accumulation_steps=1,
        learning_rate=1e-2,
        warmup_steps=0,
        gradient_checkpointing=False,
        checkpoint_every=2,
    )
    train(Dataset.open(encoded_dataset_root), tiny_base, folder, config)
    return folder


@pytest.fixture
def store(encoded_dataset: Dataset, base: BaseModel) -> LatentStore:
    return LatentStore(encoded_dataset, base.description, GEOMETRY)


@pytest.fixture
def sampler(tiny_base: Path, run_folder: Path, store: LatentStore) -> Sampler:
    return Sampler.from_run(tiny_base, run_folder, store=store)


@pytest.fixture
def clip(store: LatentStore) -> ClipLatents:
    return store.load("clip3")


def test_video_has_the_runs_geometry(sampler: Sampler, clip: ClipLatents) -> None:
    frames = sampler.generate(clip.static, clip.hands, "push", 0, FEW_STEPS, clip_id="clip3")
    assert frames.shape == (GEOMETRY.num_frames, GEOMETRY.height, GEOMETRY.width, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 1


def test_same_clip_and_seed_give_the_same_video_whatever_came_before(
    sampler: Sampler, clip: ClipLatents, tiny_base: Path, run_folder: Path, store: LatentStore
) -> None:
    first = sampler.generate(clip.static, clip.hands, "push", 1, FEW_STEPS, clip_id="clip3")
    torch.manual_seed(99)
    other_seed = sampler.generate(clip.static, clip.hands, "push", 2, FEW_STEPS, clip_id="clip3")
    other_clip = sampler.generate(clip.static, clip.hands, "push", 1, FEW_STEPS, clip_id="clip4")
    fresh = Sampler.from_run(tiny_base, run_folder, store=store)
    assert np.array_equal(first, fresh.generate(clip.static, clip.hands, "push", 1, FEW_STEPS, clip_id="clip3"))
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_clip)


def test_prompt_hands_static_scene_and_guidance_all_matter(
    sampler: Sampler, clip: ClipLatents, store: LatentStore
) -> None:
    other = store.load("clip0")
    few = {"seed": 0, "config": FEW_STEPS}
    first = sampler.generate(clip.static, clip.hands, "push the box", **few)
    assert not np.array_equal(first, sampler.generate(clip.static, clip.hands, "open the door", **few))
    assert not np.array_equal(first, sampler.generate(clip.static, other.hands, "push the box", **few))
    assert not np.array_equal(first, sampler.generate(other.static, clip.hands, "push the box", **few))
    unguided = SamplerConfig(num_inference_steps=3, guidance_scale=1.0)
    assert not np.array_equal(first, sampler.generate(clip.static, clip.hands, "push the box", 0, unguided))


def test_guidance_of_the_empty_prompt_is_no_guidance(sampler: Sampler, clip: ClipLatents) -> None:
    unguided = SamplerConfig(num_inference_steps=3, guidance_scale=1.0)
    one = sampler.generate(clip.static, clip.hands, "", 0, FEW_STEPS).astype(int)
    other = sampler.generate(clip.static, clip.hands, "", 0, unguided).astype(int)
    assert np.abs(one - other).max() <= 1


def test_a_network_that_knows_the_answer_samples_it(
    sampler: Sampler, clip: ClipLatents, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDIM with the true velocity of a fixed clean latent ends in that latent: schedule and scaling are consistent."""
    scheduler = base.scheduler
    truth = (clip.static[:16] * base.description.scaling_factor).transpose(0, 1)[None]

    def true_velocity(noisy: torch.Tensor, _: object, __: object, timesteps: torch.Tensor) -> torch.Tensor:
        signal = scheduler.alphas_cumprod[timesteps[0]].float()
        noise = (noisy - signal.sqrt() * truth) / (1 - signal).sqrt()
        return signal.sqrt() * noise - (1 - signal).sqrt() * truth

    monkeypatch.setattr(type(sampler._denoiser), "predict", staticmethod(true_velocity))
    frames = sampler.generate(clip.static, clip.hands, "push", 0, SamplerConfig(num_inference_steps=10))
    decoded = base.vae.decode(clip.static[None, :16]).sample[0].clamp(-1, 1).permute(1, 2, 3, 0)
    assert np.abs(frames - (decoded.detach().numpy() + 1) * 127.5).max() < 2


def test_cached_and_fresh_embeddings_and_latents_give_the_same_video(
    sampler: Sampler, tiny_base: Path, run_folder: Path, clip: ClipLatents, encoded_dataset: Dataset
) -> None:
    prompt = encoded_dataset.clips.get("clip3").prompt
    cached = sampler.generate(clip.static, clip.hands, prompt, 0, FEW_STEPS)
    assert "text_encoder" not in vars(sampler.base)
    fresh = Sampler.from_run(tiny_base, run_folder)
    assert np.array_equal(cached, fresh.generate(clip.static, clip.hands, prompt, 0, FEW_STEPS))


def test_raw_videos_are_encoded_at_the_runs_geometry(sampler: Sampler) -> None:
    static, hands = sampler.encode([frames_of(0), frames_of(1)])
    assert sampler.generate(static, hands, "push", 0, FEW_STEPS).shape[0] == GEOMETRY.num_frames
    with pytest.raises(DwmError, match=r"video of \[12, 32, 48, 3\]: the run needs \[9, 32, 48, 3\]"):
        sampler.encode([frames_of(0, num_frames=12)])


def test_checkpoint_is_the_newest_or_the_one_asked_for(tiny_base: Path, run_folder: Path) -> None:
    newest, older = Sampler.from_run(tiny_base, run_folder), Sampler.from_run(tiny_base, run_folder, 2)
    assert (newest.checkpoint_step, older.checkpoint_step) == (4, 2)
    one, other = (dict(sampler._denoiser.transformer.named_parameters()) for sampler in (newest, older))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert not trainable_parameters(newest._denoiser.transformer)
    with pytest.raises(DwmError, match="no checkpoint at step 3; there are 2, 4"):
        Sampler.from_run(tiny_base, run_folder, 3)


def test_another_base_and_a_folder_without_a_run_are_refused(run_folder: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="trained on base tiny"):
        Sampler.from_run(make_tiny_base(tmp_path / "other", seed=4), run_folder)
    with pytest.raises(DwmError, match="holds no training run"):
        Sampler.from_run(tiny_base, tmp_path / "nothing")


def test_latents_of_another_size_are_refused(sampler: Sampler, clip: ClipLatents) -> None:
    with pytest.raises(DwmError, match=r"latents of \[32, 3, 4, 5\]: the run needs \[32, 3, 4, 6\]"):
        sampler.generate(clip.static, clip.hands[..., :5], "push", 0, FEW_STEPS)
