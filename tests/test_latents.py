"""Cached latents: planned the same way whatever was interrupted, checked on load, refused when they do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from dwm_model.base_model import BaseModel, describe_base
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import (
    LatentStore,
    encode_frames,
    encode_shard,
    plan_encoding,
    posterior_mean,
    sample_posterior,
)
from dwm_model.prompts import embed_prompt, encode_prompts, flag_cut_prompts, missing_prompts
from dwm_model.tiny import make_tiny_base
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import ClipStatus
from render.video import read_clip_video, write_video
from tests.helpers_model import GEOMETRY, add_clip, encode_all, frames_of

pytest_plugins = ("tests.fixtures_model",)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create_or_open(tmp_path / "dataset")


@pytest.fixture
def copied_dataset(encoded_dataset_root: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(Path(shutil.copytree(encoded_dataset_root, tmp_path / "copy")))


def shard_bytes(dataset: Dataset) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in dataset.latents_folder.rglob("*.safetensors")}


def first_shard(dataset: Dataset) -> Path:
    return min(dataset.latents_folder.rglob("shard-*.safetensors"))


def test_latents_are_the_moments_of_the_clips_own_videos(encoded_dataset: Dataset, base: BaseModel) -> None:
    latents = LatentStore(encoded_dataset, base.description, GEOMETRY).load("clip1")
    clip = encoded_dataset.clips.get("clip1")
    assert clip.hands_path is not None
    frames = read_clip_video(encoded_dataset.absolute(clip.hands_path), width=48, height=32, num_frames=9)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    posterior = base.vae.encode(pixels).latent_dist
    assert latents.hands.shape == (32, 3, 4, 6)
    assert torch.allclose(posterior_mean(latents.hands), posterior.mean[0], atol=1e-2)
    assert torch.allclose(latents.hands[16:], posterior.logvar[0], atol=1e-2)
    assert latents.interaction is not None
    assert not torch.equal(latents.interaction, latents.static)


def test_long_and_large_videos_are_cut_to_their_first_frames_and_resized(dataset: Dataset, base: BaseModel) -> None:
    clip = add_clip(dataset, "large")
    large = np.kron(frames_of(0, "static", num_frames=20), np.ones((1, 2, 2, 1), np.uint8))
    assert clip.static_path is not None
    write_video(dataset.absolute(clip.static_path), large, 8.0)
    encode_shard(dataset, base, GEOMETRY, ["large"])
    found = LatentStore(dataset, base.description, GEOMETRY).load("large").static
    assert (found - encode_frames(base, [frames_of(0, "static")])[0]).abs().mean() < 0.15 * found.std()


def test_conditions_only_clip_has_no_interaction_latent(dataset: Dataset, base: BaseModel) -> None:
    add_clip(dataset, "candidate", status=ClipStatus.CONDITIONS_ONLY)
    encode_all(dataset, base)
    assert LatentStore(dataset, base.description, GEOMETRY).load("candidate").interaction is None


def test_plan_has_every_usable_clip_once_in_order(dataset: Dataset, base: BaseModel) -> None:
    for index in (3, 0, 2, 1):
        add_clip(dataset, f"c{index}")
    add_clip(dataset, "broken", status=ClipStatus.FAILED)
    assert plan_encoding(dataset, base.description, GEOMETRY, 3) == [["c0", "c1", "c2"], ["c3"]]


@pytest.mark.parametrize("done_first", [[0], [1], [2], [2, 0]])
def test_interrupted_encoding_ends_in_the_same_bytes(
    dataset: Dataset, base: BaseModel, tmp_path: Path, done_first: list[int]
) -> None:
    for index in range(5):
        add_clip(dataset, f"c{index}", seed=index)
    shutil.copytree(dataset.root, tmp_path / "whole")
    whole = Dataset.open(tmp_path / "whole")
    encode_all(whole, base)
    chunks = plan_encoding(dataset, base.description, GEOMETRY, 2)
    for index in done_first:
        encode_shard(dataset, base, GEOMETRY, chunks[index])
    encode_all(dataset, base)
    assert shard_bytes(dataset) == shard_bytes(whole)
    assert plan_encoding(dataset, base.description, GEOMETRY, 2) == []


def test_unreadable_clip_is_reported_and_does_not_change_the_other_shards(dataset: Dataset, base: BaseModel) -> None:
    for index in range(5):
        add_clip(dataset, f"c{index}", seed=index)
    hands = dataset.clips.get("c1").hands_path
    assert hands is not None
    good = dataset.absolute(hands).read_bytes()
    dataset.absolute(hands).write_bytes(good[: len(good) // 2])
    chunks = plan_encoding(dataset, base.description, GEOMETRY, 2)
    report = encode_shard(dataset, base, GEOMETRY, chunks[0])
    assert report.encoded == ("c0",)
    assert "hands.mp4" in report.failures["c1"]
    assert plan_encoding(dataset, base.description, GEOMETRY, 2) == [["c2", "c3"], ["c4"], ["c1"]]
    dataset.absolute(hands).write_bytes(good)
    encode_all(dataset, base)
    assert LatentStore(dataset, base.description, GEOMETRY).clip_ids() == ["c0", "c1", "c2", "c3", "c4"]


def test_chunk_of_unreadable_clips_only_still_leaves_a_shard(dataset: Dataset, base: BaseModel) -> None:
    clip = add_clip(dataset, "c0")
    assert clip.static_path is not None
    dataset.absolute(clip.static_path).unlink()
    report = encode_shard(dataset, base, GEOMETRY, ["c0"])
    assert report.path.exists()
    assert LatentStore(dataset, base.description, GEOMETRY).clip_ids() == []


def test_clip_whose_video_changed_is_refused_and_planned_again(copied_dataset: Dataset, base: BaseModel) -> None:
    add_clip(copied_dataset, "clip2", seed=77)
    store = LatentStore(copied_dataset, base.description, GEOMETRY)
    assert "clip2" not in store.clip_ids()
    with pytest.raises(DwmError, match=r"clip2 .*videos changed after encoding.*dwm encode"):
        store.load("clip2")
    assert plan_encoding(copied_dataset, base.description, GEOMETRY, 2) == [["clip2"]]
    encode_all(copied_dataset, base)
    assert LatentStore(copied_dataset, base.description, GEOMETRY).load("clip2").clip_id == "clip2"


def test_missing_clips_are_counted_before_long_work(encoded_dataset: Dataset, base: BaseModel) -> None:
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    store.require(["clip0", "clip1"])
    with pytest.raises(DwmError, match="1 of 2 clips, the first: clip ghost"):
        store.require(["clip0", "ghost"])


def test_truncated_shard_is_named_with_its_size(copied_dataset: Dataset, base: BaseModel) -> None:
    shard = first_shard(copied_dataset)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DwmError, match=rf"{shard.name}: damaged shard of \d+ bytes.*delete it") as caught:
        LatentStore(copied_dataset, base.description, GEOMETRY)
    assert "\n" not in str(caught.value)


def test_shard_with_tensors_of_another_size_is_refused_with_both_shapes(
    copied_dataset: Dataset, base: BaseModel
) -> None:
    shard = first_shard(copied_dataset)
    with safe_open(shard, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # a handle, not a mapping
    name = min(name for name in tensors if name.endswith(".static"))
    tensors[name] = tensors[name][:, :, :2].contiguous()
    save_file(tensors, shard, metadata)
    with pytest.raises(DwmError, match=r"\.static is \[32, 3, 2, 6\].*needs \[32, 3, 4, 6\]"):
        LatentStore(copied_dataset, base.description, GEOMETRY)


def test_shard_of_another_geometry_or_base_is_refused(copied_dataset: Dataset, base: BaseModel, tmp_path: Path) -> None:
    shard = first_shard(copied_dataset)
    larger = ClipGeometry(width=64, height=32, num_frames=9)
    wrong_size = shard.parents[1] / str(larger) / shard.name
    wrong_size.parent.mkdir()
    shutil.copy(shard, wrong_size)
    with pytest.raises(DwmError, match="encoded at 48x32x9, not 64x32x9"):
        LatentStore(copied_dataset, base.description, larger)
    other = describe_base(make_tiny_base(tmp_path / "other", seed=9))
    wrong_base = copied_dataset.latents_folder / other.latent_name / str(GEOMETRY) / shard.name
    wrong_base.parent.mkdir(parents=True)
    shutil.copy(shard, wrong_base)
    with pytest.raises(
        DwmError, match=f"encoded with encoders {base.description.encoder_hash[:8]}, not {other.encoder_hash[:8]}"
    ):
        LatentStore(copied_dataset, other, GEOMETRY)


def test_foreign_safetensors_file_is_refused(copied_dataset: Dataset, base: BaseModel) -> None:
    save_file({"x": torch.zeros(1)}, first_shard(copied_dataset))
    with pytest.raises(DwmError, match="no latent shard"):
        LatentStore(copied_dataset, base.description, GEOMETRY)


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (ClipGeometry(width=48, height=32, num_frames=13), "such as 9, 17, 49"),
        (ClipGeometry(width=50, height=32, num_frames=9), "multiples of 16"),
    ],
)
def test_geometry_that_the_base_cannot_hold_is_refused(
    encoded_dataset: Dataset, base: BaseModel, geometry: ClipGeometry, reason: str
) -> None:
    with pytest.raises(DwmError, match=reason):
        plan_encoding(encoded_dataset, base.description, geometry)


@given(deviation=st.floats(0.01, 2.0), seed=st.integers(0, 2**31))
def test_posterior_samples_have_the_posteriors_mean_and_deviation(deviation: float, seed: int) -> None:
    mean = torch.full((1, 5, 30, 30), 3.0)
    moments = torch.cat([mean, torch.full_like(mean, 2 * float(np.log(deviation)))])
    sample = sample_posterior(moments, torch.Generator().manual_seed(seed))
    assert abs(float(sample.mean()) - 3.0) < 0.1 * deviation
    assert float(sample.std()) == pytest.approx(deviation, rel=0.1)
    assert torch.equal(sample, sample_posterior(moments, torch.Generator().manual_seed(seed)))


def test_prompts_and_the_empty_prompt_are_embedded_once(dataset: Dataset, base: BaseModel) -> None:
    add_clip(dataset, "c0", prompt="push the box")
    add_clip(dataset, "c1", prompt="push the box")
    assert missing_prompts(dataset, base.description) == ["", "push the box"]
    assert encode_prompts(dataset, base) == 2
    assert encode_prompts(dataset, base) == 0
    store = LatentStore(dataset, base.description, GEOMETRY)
    embedding = store.prompt_embedding("push the box")
    assert embedding.shape == (base.description.text_tokens, base.description.text_dim)
    assert torch.equal(embedding, embed_prompt(base, "push the box"))
    assert not torch.equal(embedding, store.prompt_embedding(""))


def test_a_prompt_that_is_cut_is_flagged_with_its_exact_length(dataset: Dataset, base: BaseModel) -> None:
    length = base.description.text_tokens
    add_clip(dataset, "c0", prompt="push the box " * length)
    add_clip(dataset, "c1", prompt="push the box")
    estimated = dataset.clips.get("c1").updated(flags=("long_prompt: about 300 tokens", "rotated: by 90 degrees"))
    dataset.clips.upsert([estimated])
    encode_prompts(dataset, base)
    needed = len(base.tokenizer("push the box " * length).input_ids)
    assert dataset.clips.get("c0").flags == (
        f"prompt_cut: {needed} tokens, the base '{base.description.name}' takes {length}",
    )
    assert dataset.clips.get("c1").flags == ("rotated: by 90 degrees",)
    assert flag_cut_prompts(dataset, base) == 0


def test_prompt_that_is_not_embedded_or_damaged_is_refused(copied_dataset: Dataset, base: BaseModel) -> None:
    store = LatentStore(copied_dataset, base.description, GEOMETRY)
    with pytest.raises(DwmError, match="no embedding of 'juggle'; run `dwm encode`"):
        store.prompt_embedding("juggle")
    for path in copied_dataset.latents_folder.rglob("prompts/*"):
        path.write_bytes(b"broken")
    with pytest.raises(DwmError, match="damaged"):
        store.prompt_embedding("")
