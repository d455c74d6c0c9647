"""The parts of the small base: linear latents, autoencoder, text encoder, transformer, and the folder they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dwm_model.base_model import load_base
from dwm_model.latent_shards import VideoRole
from dwm_model.mini.base import (
    TransformerSettings,
    make_mini_transformer,
    read_parts,
    scaling_factor_of,
    write_mini_base,
)
from dwm_model.mini.patch_pca import fit_patch_pca
from dwm_model.mini.shipped import shipped_base
from dwm_model.mini.text_encoder import TextSettings, train_text_encoder
from dwm_model.mini.vae import VaePhase, VaeSettings, make_vae, reconstruct
from dwm_model.mini.vae_training import VaeTrainer, reconstruction_psnr, train_stages
from dwm_model.mini.videos import VideoSet, draw_crops, read_videos
from dwm_model.prompts import embed_prompt
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Split
from tests.helpers_model import GEOMETRY, frames_of

pytest_plugins = ("tests.fixtures_model",)

SMALL = VaeSettings(
    widths=(4, 4, 8, 8),
    norm_groups=2,
    pca_clips=3,
    phases=(
        VaePhase(frames=1, batch_size=4, steps=6, anchor=1.0),
        VaePhase(frames=9, batch_size=2, steps=4, anchor=0.1),
    ),
    warmup_steps=2,
    checkpoint_every=3,
    precision="float32",
)
PROMPTS = [
    f"{verb} the {colour} {thing} with the {side} hand."
    for verb in ("Push", "Turn", "Touch")
    for colour in ("red", "blue", "green")
    for thing in ("box", "tin")
    for side in ("left", "right")
]


def videos_of(count: int = 3) -> VideoSet:
    frames = {
        role: np.stack([frames_of(seed, role.value) for seed in range(count)])
        for role in (VideoRole.INTERACTION, VideoRole.STATIC, VideoRole.HANDS)
    }
    return VideoSet(tuple(f"clip{index}" for index in range(count)), frames)


@settings(max_examples=10, deadline=None)
@given(frames=st.sampled_from([1, 5, 9]), seed=st.integers(0, 1000), whitening=st.sampled_from([0.0, 0.5, 1.0]))
def test_linear_latents_have_the_geometry_of_the_model_and_keep_what_lies_in_their_basis(
    frames: int, seed: int, whitening: float
) -> None:
    videos = torch.rand(6, 3, 9, 16, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    pca = fit_patch_pca(videos, 16, whitening)
    latents = pca.encode(videos[:, :, :frames])

    assert latents.shape == (6, 16, (frames - 1) // 4 + 1, 2, 3)
    assert pca.decode(latents).shape == (6, 3, frames, 16, 24)
    again = pca.encode(pca.decode(latents))
    if frames == 1:  # a first frame stands for four equal ones, of which the last is shown
        return
    torch.testing.assert_close(again[:, :, 1:], latents[:, :, 1:], atol=2e-4, rtol=1e-4)


def test_all_components_of_full_rank_give_the_video_back() -> None:
    videos = torch.rand(400, 3, 5, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pca = fit_patch_pca(videos, 3 * 4 * 8 * 8, 0.0)

    torch.testing.assert_close(pca.decode(pca.encode(videos))[:, :, 1:], videos[:, :, 1:], atol=1e-3, rtol=1e-3)


def test_whitened_components_have_unit_variance() -> None:
    videos = torch.rand(50, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(3) / 8 - 1
    latents = fit_patch_pca(videos, 16, 1.0).encode(videos)

    torch.testing.assert_close(latents.var(dim=(0, 2, 3, 4), unbiased=False), torch.ones(16), atol=0.02, rtol=0.0)


def test_pieces_of_videos_are_drawn_the_same_again() -> None:
    shares = {VideoRole.INTERACTION: 0.5, VideoRole.STATIC: 0.5, VideoRole.HANDS: 0.0}
    videos = videos_of()
    crops = draw_crops(videos, shares, 5, 40, seed=1)

    assert crops == draw_crops(videos, shares, 5, 40, seed=1)
    assert crops != draw_crops(videos, shares, 5, 40, seed=2)
    assert {crop.role for crop in crops} == {VideoRole.INTERACTION, VideoRole.STATIC}
    assert videos.batch(crops).shape == (40, 3, 5, 32, 48)
    plain = next(crop for crop in crops if not crop.mirrored and not crop.reversed_in_time)
    expected = torch.from_numpy(videos.frames[plain.role][plain.clip, plain.start : plain.start + 5].copy())
    torch.testing.assert_close(videos.batch([plain])[0].permute(1, 2, 3, 0), expected.float() / 127.5 - 1.0)


def test_videos_of_a_split_are_read_once(encoded_dataset: Dataset, tmp_path: Path) -> None:
    videos = read_videos(encoded_dataset, Split.TRAIN, GEOMETRY, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = read_videos(encoded_dataset, Split.TRAIN, GEOMETRY, tmp_path)

    assert videos.clip_ids == again.clip_ids == ("clip0", "clip1", "clip2")
    assert videos.frames[VideoRole.STATIC].shape == (3, 9, 32, 48, 3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    with pytest.raises(DwmError, match="no ready clip in the test split"):
        read_videos(encoded_dataset, Split.TEST, GEOMETRY, tmp_path)


def test_the_autoencoder_learns_and_resumes_exactly(tmp_path: Path) -> None:
    videos = videos_of()
    whole = VaeTrainer(SMALL, videos, tmp_path / "whole")
    whole.run()
    stopped = VaeTrainer(SMALL, videos, tmp_path / "stopped")
    for _ in range(4):  # one step beyond the checkpoint at 3, which is lost
        stopped._train_step()
        if stopped.step == SMALL.checkpoint_every:
            stopped._save()
    resumed = VaeTrainer(SMALL, videos, tmp_path / "stopped")
    assert resumed.step == SMALL.checkpoint_every
    resumed.run()

    assert whole.is_complete
    assert resumed.is_complete
    for name, tensor in whole.vae.state_dict().items():
        assert torch.equal(tensor, resumed.vae.state_dict()[name]), name
    errors = [[record.error for record in each.journal.records()] for each in (whole, resumed)]
    assert errors[0] == errors[1]
    assert errors[0][5] < errors[0][0]


def test_a_decoder_goes_on_alone_where_the_whole_stopped(tmp_path: Path) -> None:
    stages = (SMALL, SMALL.model_copy(update={"only_decoder": True, "learning_rate": 1e-3}))
    videos = videos_of()
    whole = VaeTrainer(SMALL, videos, tmp_path / "stage_1")
    whole.run()
    begun = train_stages(stages, videos, tmp_path, seconds=0.0)
    assert (begun.step, begun.settings.only_decoder) == (1, True)
    resumed = train_stages(stages, videos, tmp_path)
    straight = VaeTrainer(stages[1], videos, tmp_path / "straight", start=whole.vae)
    straight.run()

    assert (resumed.step, resumed.is_complete) == (10, True)
    before, after, again = (each.vae.state_dict() for each in (whole, resumed, straight))
    for name, tensor in after.items():
        assert torch.equal(tensor, again[name]), name
        assert torch.equal(tensor, before[name]) == name.startswith("encoder."), name


def test_a_passed_deadline_leaves_a_checkpoint(tmp_path: Path) -> None:
    trainer = VaeTrainer(SMALL, videos_of(), tmp_path)
    trainer.run(seconds=0.0)

    assert trainer.step == 1
    assert VaeTrainer(SMALL, videos_of(), tmp_path).step == 1
    with pytest.raises(DwmError, match="other settings"):
        VaeTrainer(SMALL.model_copy(update={"learning_rate": 0.1}), videos_of(), tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"damage")
    with pytest.raises(DwmError, match="damaged"):
        VaeTrainer(SMALL, videos_of(), tmp_path)


def test_bfloat16_computes_nearly_the_same(tmp_path: Path) -> None:
    plain = VaeTrainer(SMALL, videos_of(), tmp_path / "float32")
    half = VaeTrainer(SMALL.model_copy(update={"precision": "bfloat16"}), videos_of(), tmp_path / "bfloat16")
    for _ in range(3):
        plain._train_step()
        half._train_step()

    errors = [[record.error for record in each.journal.records()] for each in (plain, half)]
    assert errors[0] != errors[1]
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.05)


def test_reconstruction_is_measured_on_whole_bytes() -> None:
    videos = videos_of()
    vae = make_vae(SMALL).eval()
    found = reconstruction_psnr(vae, videos, VideoRole.STATIC)
    with torch.inference_mode():
        again = reconstruct(vae, torch.from_numpy(videos.frames[VideoRole.STATIC]).permute(0, 4, 1, 2, 3) / 127.5 - 1.0)
    shown = ((again + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 4, 1).numpy()
    truth = videos.frames[VideoRole.STATIC].astype(float)
    expected = np.mean([10 * np.log10(255**2 / np.mean((a - b) ** 2)) for a, b in zip(shown, truth, strict=True)])

    assert found == pytest.approx(expected, abs=1e-3)


def test_prompts_of_other_things_have_other_embeddings(tmp_path: Path) -> None:
    text = train_text_encoder(PROMPTS, TextSettings(steps=120, batch_size=32))
    folder = tmp_path / "base"
    vae = make_vae(SMALL).eval()
    vae.register_to_config(scaling_factor=scaling_factor_of(vae, videos_of()))
    transformer = make_mini_transformer(TransformerSettings(layers=1, heads=1), 64)
    write_mini_base(folder, transformer, vae, text, {"untrained": True, "description": "test"})
    base = load_base(folder)
    embeddings = torch.stack([embed_prompt(base, prompt) for prompt in PROMPTS])

    assert base.description.text_tokens == 32
    assert embeddings.shape == (36, 32, 64)
    assert text.guessed_share is not None
    assert text.guessed_share > 0.25
    flat = embeddings.flatten(1)
    distances = torch.cdist(flat, flat) / flat.norm(dim=1).mean() + torch.eye(len(flat))
    assert float(distances.min()) > 0.05
    assert (folder / "transformer").stat()
    assert base.transformer.dtype == torch.float32
    sizes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    weights = sum(part.numel() for model in (transformer, vae, text.encoder) for part in model.parameters())
    assert sizes < 2 * weights + 300_000


def test_latents_of_the_base_have_unit_variance() -> None:
    videos = videos_of()
    vae = make_vae(SMALL).eval()
    factor = scaling_factor_of(vae, videos)
    with torch.inference_mode():
        pixels = torch.from_numpy(videos.frames[VideoRole.INTERACTION]).permute(0, 4, 1, 2, 3) / 127.5 - 1.0
        latents = vae.encode(pixels).latent_dist.mean * factor

    assert float(latents.std()) == pytest.approx(1.0, abs=0.01)


def test_parts_are_read_from_a_folder_without_a_transformer(tmp_path: Path) -> None:
    text = train_text_encoder(PROMPTS, TextSettings(steps=2, batch_size=4))
    vae = make_vae(SMALL).eval()
    vae.half().save_pretrained(tmp_path / "vae")
    text.encoder.half().save_pretrained(tmp_path / "text_encoder")
    with pytest.raises(DwmError, match="needs vae, text_encoder and tokenizer"):
        read_parts(tmp_path)
    text.tokenizer.save_pretrained(tmp_path / "tokenizer")
    read, read_text = read_parts(tmp_path)

    assert read.dtype == torch.float32
    assert torch.equal(read.decoder.conv_out.conv.weight, vae.decoder.conv_out.conv.weight.float())
    assert read_text.tokenizer(PROMPTS[0]).input_ids == text.tokenizer(PROMPTS[0]).input_ids

    transformer = make_mini_transformer(TransformerSettings(layers=1, heads=1), 64)
    write_mini_base(tmp_path / "base", transformer, read, read_text, {"untrained": True})
    assert not [path for path in (tmp_path / "base").rglob("*.json") if str(tmp_path) in path.read_text()]


def test_the_parts_that_ship_fit_their_interface_and_their_budget() -> None:
    shipped = shipped_base()
    vae, text = read_parts(shipped)
    weights = [path for path in shipped.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in weights) < 25_000_000
    assert not [path for path in weights if path.suffix in {".bin", ".pt", ".pkl"}]
    with torch.inference_mode():
        latent = vae.encode(torch.zeros(1, 3, 17, 64, 96)).latent_dist.mean
        assert latent.shape == (1, 16, 5, 8, 12)
        assert vae.decode(latent).sample.shape == (1, 3, 17, 64, 96)
        tokens = text.tokenizer(PROMPTS[:2], padding="max_length", max_length=32, return_tensors="pt").input_ids
        first, second = text.encoder(tokens).last_hidden_state
    assert float((first - second).norm() / first.norm()) > 0.05
