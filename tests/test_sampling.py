"""Sampling: deterministic for a clip and a seed, guided by text, conditioned on static scene and hands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file

from benchmarks import sampler_steps
from dwm_model.autoencoder_tiles import enable_tiles
from dwm_model.base_model import BaseModel, load_base
from dwm_model.checkpoints import checkpoint_folder, read_identity
from dwm_model.condition_data import ConditionBatch
from dwm_model.generation import plan_generations
from dwm_model.latents import LatentStore
from dwm_model.lora import PROJECTION_FILE, LoraSettings, trainable_parameters
from dwm_model.methods import describe_run
from dwm_model.sampling import Sampler, SamplerConfig, SamplerOptions, decode_frames
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Split
from render.video import Frames
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
    dataset = Dataset.open(Path(shutil.copytree(encoded_dataset_root, folder.with_name("dataset"))))
    train(dataset, tiny_base, folder, config)
    return folder


@pytest.fixture
def store(encoded_dataset: Dataset, base: BaseModel) -> LatentStore:
    return LatentStore(encoded_dataset, base.description, GEOMETRY)


@pytest.fixture
def sampler(tiny_base: Path, run_folder: Path, store: LatentStore) -> Sampler:
    return Sampler.from_run(tiny_base, run_folder, store=store)


@pytest.fixture
def clip(sampler: Sampler, store: LatentStore) -> ConditionBatch:
    return sampler.load_conditions(store, "clip3")


def one(sampler: Sampler, clip: ConditionBatch, prompt: str = "push", seed: int = 0, **options: object) -> Frames:
    config = SamplerConfig(num_inference_steps=3, **options)
    return sampler.generate(clip, prompt, [seed], config, clip_id="clip3")[0]


def test_video_has_the_runs_geometry(sampler: Sampler, clip: ConditionBatch) -> None:
    frames = one(sampler, clip)
    assert frames.shape == (GEOMETRY.num_frames, GEOMETRY.height, GEOMETRY.width, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 1


def test_same_clip_and_seed_give_the_same_video_whatever_came_before(
    sampler: Sampler, clip: ConditionBatch, tiny_base: Path, run_folder: Path, store: LatentStore
) -> None:
    first = one(sampler, clip, seed=1)
    torch.manual_seed(99)
    other_seed = one(sampler, clip, seed=2)
    other_clip = sampler.generate(clip, "push", [1], FEW_STEPS, clip_id="clip4")[0]
    fresh = Sampler.from_run(tiny_base, run_folder, store=store)
    assert np.array_equal(first, one(fresh, clip, seed=1))
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_clip)


def test_a_seeds_video_does_not_depend_on_the_seeds_beside_it(
    sampler: Sampler, clip: ConditionBatch, tiny_base: Path, run_folder: Path, store: LatentStore
) -> None:
    alone = [one(sampler, clip, seed=seed) for seed in (3, 4, 5)]
    in_turn = sampler.generate(clip, "push", [5, 4, 3], FEW_STEPS, clip_id="clip3")
    assert all(np.array_equal(video, other) for video, other in zip(alone, in_turn[::-1], strict=True))
    wide = Sampler.from_run(tiny_base, run_folder, store=store, options=SamplerOptions(batch_size=2))
    together = wide.generate(clip, "push", [3, 4, 5], FEW_STEPS, clip_id="clip3")
    for video, other in zip(alone, together, strict=True):
        assert np.abs(video.astype(int) - other).max() <= 1  # a batch rounds its matrix products in another order


def test_prompt_hands_static_scene_and_guidance_all_matter(
    sampler: Sampler, clip: ConditionBatch, store: LatentStore
) -> None:
    other = sampler.load_conditions(store, "clip0")
    first = one(sampler, clip, "push the box")
    assert not np.array_equal(first, one(sampler, clip, "open the door"))
    assert not np.array_equal(first, one(sampler, replace(clip, hands_bcfhw=other.hands_bcfhw), "push the box"))
    assert not np.array_equal(first, one(sampler, replace(clip, static_bcfhw=other.static_bcfhw), "push the box"))
    assert not np.array_equal(first, one(sampler, clip, "push the box", guidance_scale=1.0))


def test_text_and_hands_can_be_left_out(sampler: Sampler, clip: ConditionBatch) -> None:
    first = one(sampler, clip, "push the box")
    without_text, without_hands = (one(sampler, clip, "push the box", **{name: False}) for name in OFF_SWITCHES)
    assert np.array_equal(without_text, one(sampler, clip, ""))
    assert np.array_equal(without_hands, one(sampler, clip.without_hands(), "push the box"))
    assert not np.array_equal(first, without_text)
    assert not np.array_equal(first, without_hands)


OFF_SWITCHES = ("use_text", "use_hands")


def test_guidance_of_the_empty_prompt_is_no_guidance(sampler: Sampler, clip: ConditionBatch) -> None:
    assert np.array_equal(one(sampler, clip, ""), one(sampler, clip, "", guidance_scale=1.0))


def test_a_network_that_knows_the_answer_samples_it(
    sampler: Sampler, clip: ConditionBatch, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDIM with the true velocity of a fixed clean latent ends in that latent: schedule and scaling are consistent."""
    scheduler = base.scheduler
    truth = (clip.static_bcfhw * base.description.scaling_factor).transpose(1, 2)

    def true_velocity(noisy: torch.Tensor, _: object, __: object, timesteps: torch.Tensor) -> torch.Tensor:
        signal = scheduler.alphas_cumprod[timesteps[0]].float()
        noise = (noisy - signal.sqrt() * truth) / (1 - signal).sqrt()
        return signal.sqrt() * noise - (1 - signal).sqrt() * truth

    monkeypatch.setattr(type(sampler._denoiser), "predict", staticmethod(true_velocity))
    for strength in (1.0, 0.75):
        config = SamplerConfig(num_inference_steps=10, strength=strength)
        frames = sampler.generate(clip, "push", [0], config)[0]
        decoded = base.vae.decode(clip.static_bcfhw).sample[0].clamp(-1, 1).permute(1, 2, 3, 0)
        assert np.abs(frames - (decoded.detach().numpy() + 1) * 127.5).max() < 2


def test_sdedit_keeps_more_of_the_static_video_the_weaker_it_is_and_needs_no_run(
    tiny_base: Path, store: LatentStore, clip: ConditionBatch
) -> None:
    sampler = Sampler.from_base(tiny_base, GEOMETRY, store=store)
    static = decode_frames(sampler.base, clip.static_bcfhw)[0].astype(float)
    errors = [np.abs(one(sampler, clip, strength=strength) - static).mean() for strength in (0.34, 0.75, 1.0)]
    assert errors == sorted(errors)
    assert errors[0] < 0.8 * errors[-1]
    assert sampler.run_id is None


def test_sdedit_is_told_nothing_but_the_text(tiny_base: Path, store: LatentStore, clip: ConditionBatch) -> None:
    sampler = Sampler.from_base(tiny_base, GEOMETRY, store=store)
    seen: list[torch.Tensor] = []
    sampler.base.transformer.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["hidden_states"]), with_kwargs=True
    )
    one(sampler, clip, strength=0.75)
    assert len(seen) == 2  # of three steps
    assert seen[0].shape[2] == 33
    assert all(torch.count_nonzero(given[:, :, 16:]) == 0 for given in seen)


def test_cached_and_fresh_embeddings_and_latents_give_the_same_video(
    sampler: Sampler, tiny_base: Path, run_folder: Path, clip: ConditionBatch, encoded_dataset: Dataset
) -> None:
    prompt = encoded_dataset.clips.get("clip3").prompt
    cached = one(sampler, clip, prompt)
    assert "text_encoder" not in vars(sampler.base)
    fresh = Sampler.from_run(tiny_base, run_folder)
    assert np.array_equal(cached, one(fresh, clip, prompt))


def test_raw_videos_are_encoded_at_the_runs_geometry(sampler: Sampler) -> None:
    conditions = sampler.encode_conditions(frames_of(0), frames_of(1))
    assert one(sampler, conditions).shape[0] == GEOMETRY.num_frames
    navigation = sampler.encode_conditions(frames_of(0), None)
    assert navigation.hands_bcfhw is not None
    assert torch.count_nonzero(navigation.hands_bcfhw) == 0
    with pytest.raises(DwmError, match=r"video of \[12, 32, 48, 3\]: the run needs \[9, 32, 48, 3\]"):
        sampler.encode_conditions(frames_of(0, num_frames=12), None)


def test_conditions_are_encoded_once_for_all_seeds(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encode = sampler.base.vae.encode
    monkeypatch.setattr(sampler.base.vae, "encode", lambda pixels: calls.append(len(pixels)) or encode(pixels))
    conditions = sampler.encode_conditions(frames_of(0), frames_of(1))
    sampler.generate(conditions, "push", [0, 1, 2], FEW_STEPS)
    assert calls == [2]


def test_progress_is_told_step_by_step(sampler: Sampler, clip: ConditionBatch) -> None:
    told: list[int] = []
    sampler.generate(clip, "push", [0, 1], FEW_STEPS, on_step=told.append)
    assert told == [1, 2, 3, 4, 5, 6]
    assert sampler.num_steps(FEW_STEPS) == 3
    assert sampler.num_steps(SamplerConfig(strength=0.75)) == 37


def test_tiles_and_offloading_change_no_more_than_rounding(
    sampler: Sampler, tiny_base: Path, run_folder: Path, clip: ConditionBatch, store: LatentStore
) -> None:
    options = SamplerOptions(vae_tiling=True, vae_slicing=True, offload=True)
    careful = Sampler.from_run(tiny_base, run_folder, store=store, options=options)
    assert np.array_equal(one(sampler, clip), one(careful, clip))  # a picture of one tile
    assert careful.base.vae.use_tiling
    assert careful.base.vae.use_slicing


@pytest.mark.parametrize(("height", "width"), [(480, 720), (300, 300), (64, 96), (96, 160)])
def test_tiles_fit_together_whatever_size_the_autoencoder_was_trained_at(height: int, width: int) -> None:
    torch.manual_seed(0)
    blocks = {"block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 2}
    vae = AutoencoderKLCogVideoX(**blocks, sample_height=height, sample_width=width).eval()
    enable_tiles(vae, 8, is_wan=False)
    if (height, width) == (480, 720):
        assert (vae.tile_sample_min_height, vae.tile_sample_min_width) == (240, 360)
    rows, columns = vae.tile_latent_min_height * 2 + 1, vae.tile_latent_min_width * 2 + 1
    with torch.inference_mode():
        latents = vae.encode(torch.zeros(1, 3, 1, 8 * rows, 8 * columns)).latent_dist.mean
        assert latents.shape[-2:] == (rows, columns)
        assert vae.decode(latents).sample.shape[-2:] == (8 * rows, 8 * columns)


def test_an_offloaded_part_is_on_the_device_only_while_it_works(tiny_base: Path) -> None:
    base = load_base(tiny_base, device="meta", offload=True)
    assert base.text_encoder.device.type == "cpu"
    with pytest.raises(NotImplementedError, match="meta"), base.placed("text_encoder"):
        assert base.text_encoder.device.type == "meta"  # leaving fails, since meta tensors have no content to fetch


def test_checkpoint_is_the_newest_or_the_one_asked_for(tiny_base: Path, run_folder: Path) -> None:
    newest, older = Sampler.from_run(tiny_base, run_folder), Sampler.from_run(tiny_base, run_folder, 2)
    assert (newest.checkpoint_step, older.checkpoint_step) == (4, 2)
    new, old = (dict(sampler._denoiser.transformer.named_parameters()) for sampler in (newest, older))
    assert any(not torch.equal(new[name], old[name]) for name in new)
    assert not trainable_parameters(newest._denoiser.transformer)
    with pytest.raises(DwmError, match="no checkpoint at step 3; there are 2, 4"):
        Sampler.from_run(tiny_base, run_folder, 3)


def test_the_average_of_the_weights_is_sampled_from_where_one_is_kept(
    tiny_base: Path, run_folder: Path, encoded_dataset: Dataset, store: LatentStore, tmp_path: Path
) -> None:
    config = read_identity(run_folder).config.model_copy(update={"ema_decay": 0.9})
    train(encoded_dataset, tiny_base, tmp_path / "run", config)
    plain = Sampler.from_run(tiny_base, tmp_path / "run", store=store)
    averaged = Sampler.from_run(tiny_base, tmp_path / "run", use_average=True, store=store)
    kept = load_file(checkpoint_folder(tmp_path / "run", 4) / "ema" / PROJECTION_FILE)
    name = "patch_embed.proj.weight"
    assert torch.equal(averaged._denoiser.transformer.get_parameter(name), kept[name])
    clip = plain.load_conditions(store, "clip3")
    assert not np.array_equal(one(plain, clip), one(averaged, clip, use_average=True))
    with pytest.raises(DwmError, match="use_average is False, the sampler's weights were loaded with True"):
        one(averaged, clip)
    described = {
        flag: describe_run(tmp_path / "run", FEW_STEPS.model_copy(update={"use_average": flag}))
        for flag in (False, True)
    }
    ids = [
        plan_generations(encoded_dataset, ["clip3"], [0], GEOMETRY, run)[0].generation_id for run in described.values()
    ]
    assert ids[0] != ids[1]
    with pytest.raises(DwmError, match="kept no moving average of its weights; train with ema_decay"):
        Sampler.from_run(tiny_base, run_folder, use_average=True)


def test_another_base_and_a_folder_without_a_run_are_refused(run_folder: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="trained on base tiny"):
        Sampler.from_run(make_tiny_base(tmp_path / "other", seed=4), run_folder)
    with pytest.raises(DwmError, match="holds no training run"):
        Sampler.from_run(tiny_base, tmp_path / "nothing")


def test_latents_of_another_size_are_refused(sampler: Sampler, clip: ConditionBatch) -> None:
    assert clip.hands_bcfhw is not None
    with pytest.raises(DwmError, match=r"latents of \[1, 16, 3, 4, 5\]: the run needs \[1, 16, 3, 4, 6\]"):
        one(sampler, replace(clip, hands_bcfhw=clip.hands_bcfhw[..., :5]))


def test_table_of_steps_has_a_row_a_number_of_steps_and_says_that_the_base_is_untrained(
    tiny_base: Path, run_folder: Path, encoded_dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(encoded_dataset_root, tmp_path / "dataset"))
    dataset = Dataset.open(root)
    dataset.clips.upsert([dataset.clips.get("clip3").updated(split=Split.TEST)])
    places = ["--dataset", str(root), "--base", str(tiny_base), "--run", str(run_folder)]
    sampler_steps.main([*places, "--steps", "2,6,4", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "untrained base: not a result"
    figures = json.loads(lines[-1])
    assert [row["steps"] for row in figures["rows"]] == [2, 4, 6]
    assert figures["rows"][2]["psnr_to_longest"] is None
    assert figures["rows"][1]["psnr_to_longest"] > figures["rows"][0]["psnr_to_longest"]
    assert all(row["seconds"] > 0 for row in figures["rows"])
    sampler_steps.main([*places, "--steps", "2", "--split", "train", "--json"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["psnr_as_decoded"] != figures["rows"][0]["psnr_as_decoded"]  # other clips
    with pytest.raises(SystemExit, match="no ready clip in the validation split"):
        sampler_steps.main([*places, "--steps", "2", "--split", "validation"])
