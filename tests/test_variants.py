"""Every variant starts as its base, gets gradients everywhere, and reads the data that it needs from the dataset."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dwm_model.base_model import BaseModel, load_base
from dwm_model.condition_data import ConditionBatch
from dwm_model.conditioning import CONDITIONINGS, get_conditioning
from dwm_model.denoiser import Denoiser, make_denoiser, velocity_losses
from dwm_model.families import FUN_V1_1, FUN_V1_5, WAN_FUN_INP, ModelFamily
from dwm_model.hand_poses import POSE_FEATURES, load_hand_poses
from dwm_model.input_channels import INPAINTING, WITH_HANDS, set_input_slots
from dwm_model.latents import LatentStore, ShardKind, VideoRole, encode_frames, encode_shard, mask_video, plan_encoding
from dwm_model.lora import LoraSettings, add_lora, trainable_parameters
from dwm_model.network_call import ConditionLatents, NetworkCall, input_channels
from manifests.dataset import Dataset
from manifests.errors import DwmError
from render.arrays import write_npz
from render.video import read_clip_video
from tests.helpers_model import GEOMETRY, frames_of
from tests.helpers_variants import (
    HEIGHT,
    TEXT_DIM,
    TEXT_TOKENS,
    WIDTH,
    TwoClips,
    noise,
    small_denoiser,
    small_transformer,
    two_clips,
)

pytest_plugins = ("tests.fixtures_model",)

COGVIDEOX_CASES = [(family, name) for family in (FUN_V1_1, FUN_V1_5) for name in CONDITIONINGS]
CASES = [*COGVIDEOX_CASES, *((WAN_FUN_INP, name) for name in ("hand_mesh", "hand_mask", "none"))]
IDS = [f"{family.name}-{name}" for family, name in CASES]


def call_of(clips: TwoClips, family: ModelFamily, denoiser: Denoiser, timestep: int = 500) -> NetworkCall:
    frames = clips.targets_bfchw.shape[1]
    return NetworkCall(
        noisy_bfchw=noise(*clips.targets_bfchw.shape, seed=8),
        conditions=clips.conditions,
        text_bld=clips.text_bld,
        timesteps_b=torch.full((2,), timestep),
        mask_value=denoiser.mask_value,
        rotary=family.rotary_embedding(denoiser.transformer, HEIGHT, WIDTH, frames),
    )


def output_of_base(call: NetworkCall, family: ModelFamily, known_frames: int | None = None) -> torch.Tensor:
    base = small_transformer(family, 36 if family.is_wan else 33)
    static = call.conditions.static_bfchw
    known = torch.ones_like(static[:, :, 0])
    known[:, len(known[0]) if known_frames is None else known_frames :] = 0.0
    given = input_channels(call, family, static * known[:, :, None], known_bfhw=known)
    return family.predict(base, given, call.text_bld, call.timesteps_b, call.rotary)


@pytest.mark.parametrize(("family", "name"), CASES, ids=IDS)
def test_a_new_variant_gives_what_its_base_gives(family: ModelFamily, name: str) -> None:
    denoiser = small_denoiser(name, family)
    call = call_of(two_clips(), family, denoiser)
    with torch.no_grad():
        found = denoiser.predict(call.noisy_bfchw, call.conditions, call.text_bld, call.timesteps_b)
        expected = output_of_base(call, family, known_frames=1 if name == "controlnet" else None)
    assert (found - expected).abs().max() <= 3e-6


@pytest.mark.parametrize(("family", "name"), CASES, ids=IDS)
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_every_trained_weight_gets_a_gradient_after_one_step(family: ModelFamily, name: str, mode: str) -> None:
    """Zero-initialised outputs hold gradients back at the first step, and only there."""
    denoiser, clips = small_denoiser(name, family), two_clips()
    if mode == "lora":
        add_lora(denoiser.transformer, LoraSettings(rank=2, alpha=2), seed=0)
    else:
        denoiser.transformer.requires_grad_(True)
    parameters = trainable_parameters(denoiser.transformer)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        losses = velocity_losses(
            denoiser,
            clips.targets_bfchw,
            clips.conditions,
            clips.text_bld,
            noise_bfchw=noise(*clips.targets_bfchw.shape, seed=8),
            timesteps_b=torch.tensor([300, 700]),
        )
        losses.mean().backward()
        optimizer.step()
    dead = [key for key, one in parameters.items() if one.grad is None or not torch.any(one.grad != 0)]
    assert dead == []


@pytest.mark.parametrize("family", [FUN_V1_1, FUN_V1_5, WAN_FUN_INP], ids=lambda family: family.name)
def test_hands_reach_the_projection_through_columns_that_were_zero(family: ModelFamily) -> None:
    transformer = small_transformer(family, 36 if family.is_wan else 33)
    before = transformer.get_submodule(family.projection_name).weight.clone()
    set_input_slots(transformer, family, WITH_HANDS)
    after = transformer.get_submodule(family.projection_name).weight
    assert torch.equal(after[:, : before.shape[1]], before)
    assert torch.count_nonzero(after[:, before.shape[1] :]) == 0
    assert after.shape[1] * 33 == before.shape[1] * 49 or after.shape[1] * 36 == before.shape[1] * 52


@pytest.mark.parametrize("family", [FUN_V1_1, FUN_V1_5], ids=lambda family: family.name)
@pytest.mark.parametrize("wanted", [INPAINTING, WITH_HANDS], ids=["33", "49"])
def test_an_image_to_video_base_keeps_its_output_with_the_static_scene_as_image(
    family: ModelFamily, wanted: tuple[object, ...]
) -> None:
    """Its noise and image columns go into the noise and static slots; mask and hands start at zero (Appendix D)."""
    transformer = small_transformer(family, 32)
    noisy, static, mask, hands = (noise(1, 4, width, HEIGHT, WIDTH, seed=width) for width in (16, 17, 1, 18))
    static, hands = static[:, :, :16], hands[:, :, :16]
    text, timesteps = noise(1, TEXT_TOKENS, TEXT_DIM), torch.tensor([400])
    rotary = family.rotary_embedding(transformer, HEIGHT, WIDTH, 4)
    with torch.no_grad():
        before = family.predict(transformer, torch.cat([noisy, static], dim=2), text, timesteps, rotary)
        set_input_slots(transformer, family, wanted)
        given = torch.cat([noisy, mask, static, hands][: len(wanted)], dim=2)
        after = family.predict(transformer, given, text, timesteps, rotary)
    assert (after - before).abs().max() <= 1e-6


def test_a_base_with_learned_positions_refuses_other_sizes_and_an_offset_embedding_is_fed() -> None:
    learned = small_transformer(FUN_V1_1, 32, use_learned_positional_embeddings=True)
    given, text, timesteps = noise(1, 3, 32, 8, 4), noise(1, TEXT_TOKENS, TEXT_DIM), torch.tensor([1])
    with pytest.raises(DwmError, match="its latents are 4x4, not 4x8"):
        FUN_V1_1.predict(learned, given, text, timesteps, None)
    with_offset = small_transformer(FUN_V1_5, 32, ofs_embed_dim=64)
    rotary = FUN_V1_5.rotary_embedding(with_offset, 4, 4, 3)
    assert FUN_V1_5.predict(with_offset, given[..., :4, :], text, timesteps, rotary).shape == (1, 3, 16, 4, 4)
    with pytest.raises(DwmError, match="latents of 4x8: base of family fun_v1_5 has positions up to 4x4"):
        FUN_V1_5.rotary_embedding(with_offset, 8, 4, 3)


@pytest.mark.parametrize("name", ["adaln_global", "adaln_frame", "controlnet"])
def test_variants_that_wan_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(DwmError, match=f"'{name}': not made for family wan_fun_inp"):
        small_denoiser(name, WAN_FUN_INP)


def test_preparing_twice_changes_nothing() -> None:
    for name in CONDITIONINGS:
        denoiser = small_denoiser(name, FUN_V1_1)
        before = {key: one.clone() for key, one in denoiser.transformer.state_dict().items()}
        denoiser.conditioning.prepare(denoiser.transformer, FUN_V1_1, seed=5)
        after = denoiser.transformer.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_weights_of_the_base_keep_their_names() -> None:
    names = small_transformer(FUN_V1_1, 33).state_dict().keys()
    for name in CONDITIONINGS:
        assert names <= small_denoiser(name, FUN_V1_1).transformer.state_dict().keys()


@pytest.mark.parametrize("name", ["adaln_frame", "controlnet"])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    gradients = []
    for recompute in (False, True):
        denoiser, clips = small_denoiser(name, FUN_V1_1), two_clips()
        add_lora(denoiser.transformer, LoraSettings(rank=2, alpha=2), seed=0)
        for key, one in trainable_parameters(denoiser.transformer).items():
            one.data += 0.05 * noise(*one.shape, seed=len(key))
        denoiser.transformer.train()
        if recompute:
            denoiser.transformer.enable_gradient_checkpointing()
        call = call_of(clips, FUN_V1_1, denoiser)
        denoiser.predict(call.noisy_bfchw, call.conditions, call.text_bld, call.timesteps_b).square().mean().backward()
        gradients.append({key: one.grad for key, one in trainable_parameters(denoiser.transformer).items()})
    assert all(torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[0])


def test_adapters_go_into_the_network_and_not_into_the_copied_blocks() -> None:
    denoiser = small_denoiser("controlnet", FUN_V1_1)
    add_lora(denoiser.transformer, LoraSettings(rank=2, alpha=2), seed=0)
    names = trainable_parameters(denoiser.transformer)
    assert not [name for name in names if ".lora_" in name and name.startswith("control_branch.")]
    assert [name for name in names if name.startswith("control_branch.blocks.0.attn1.to_q.weight")]


@pytest.mark.parametrize("num_frames", [9, 17, 49])
def test_poses_become_one_embedding_a_latent_frame(num_frames: int) -> None:
    pose = small_denoiser("adaln_frame", FUN_V1_1).transformer.time_embedding.pose
    assert pose(noise(1, num_frames, POSE_FEATURES)).shape == (1, (num_frames - 1) // 4 + 1, 64)


@pytest.mark.parametrize("family", [FUN_V1_1, FUN_V1_5], ids=lambda family: family.name)
def test_a_frames_pose_modulates_the_tokens_of_its_latent_frame(family: ModelFamily) -> None:
    """Where a pose and where a latent changes the first block's normed tokens is the same, pad and patches included."""
    transformer = small_denoiser("adaln_frame", family).transformer
    transformer.time_embedding.pose.last.weight.data = 0.1 * noise(64, 64)
    text, latents, poses = noise(1, TEXT_TOKENS, TEXT_DIM), noise(1, 3, 33, HEIGHT, WIDTH), noise(1, 9, POSE_FEATURES)
    sinusoids = transformer.time_proj(torch.tensor([500]))

    def normed(latents: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
        tokens = transformer.patch_embed(text, family.pad(latents))
        embedding = transformer.time_embedding(sinusoids, poses)
        video: torch.Tensor = transformer.transformer_blocks[0].norm1(
            tokens[:, TEXT_TOKENS:], tokens[:, :TEXT_TOKENS], embedding
        )[0]
        return video

    before = normed(latents, poses)
    touched = set()
    for video_frame, latent_frame in ((0, 0), (4, 1), (8, 2)):  # those that one latent frame alone sees
        other_poses, other_latents = poses.clone(), latents.clone()
        other_poses[:, video_frame] += 1.0
        other_latents[:, latent_frame] += 1.0
        by_pose = (normed(latents, other_poses) != before).any(dim=-1)
        by_latent = (normed(other_latents, poses) != before).any(dim=-1)
        assert torch.equal(by_pose, by_latent)
        touched.add(tuple(by_pose[0].tolist()))
    assert len(touched) == (3 if family is FUN_V1_1 else 2)


# Data from the dataset.


def hand_arrays(frames: list[int], is_right: list[bool], **changes: object) -> dict[str, object]:
    count = len(frames)
    generator = np.random.default_rng(count)
    arrays: dict[str, object] = {
        "frame": np.array(frames, np.int64),
        "is_right": np.array(is_right),
        "score": np.ones(count, np.float32),
        "pose": generator.normal(size=(count, 45)).astype(np.float32),
        "orientation": generator.normal(size=(count, 3)).astype(np.float32),
        "translation": generator.normal(size=(count, 3)).astype(np.float32),
    }
    return arrays | changes


def give_poses(dataset: Dataset, clip_id: str, arrays: dict[str, object]) -> None:
    clip = dataset.clips.get(clip_id)
    assert clip.static_path is not None
    path = dataset.absolute(clip.static_path).with_name("hand_motion.npz")
    write_npz(path, arrays)
    dataset.clips.upsert([clip.updated(hand_motion_path=dataset.relative(path))])


@pytest.fixture
def dataset(encoded_dataset_root: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(Path(shutil.copytree(encoded_dataset_root, tmp_path / "dataset")))


def test_pose_numbers_stand_by_frame_and_side_and_a_missing_hand_is_zero_with_its_flag(tmp_path: Path) -> None:
    arrays = hand_arrays([0, 0, 2], [False, True, True])
    write_npz(tmp_path / "hands.npz", arrays)
    poses = load_hand_poses(tmp_path / "hands.npz", 4).numpy()
    assert poses.shape == (4, POSE_FEATURES)
    assert poses[:, 102:].tolist() == [[1, 1], [0, 0], [0, 1], [0, 0]]
    pose, orientation, translation = (arrays[name] for name in ("pose", "orientation", "translation"))
    assert isinstance(pose, np.ndarray)
    assert np.array_equal(poses[0, :45], pose[0])
    assert np.array_equal(poses[0, 45:51], np.concatenate([orientation[0], translation[0]]))
    assert np.array_equal(poses[2, 51:96], pose[2])
    assert np.count_nonzero(poses[2, :51]) == np.count_nonzero(poses[1]) == 0


def test_the_surer_of_two_hands_of_a_side_counts_and_later_frames_are_left_out(tmp_path: Path) -> None:
    arrays = hand_arrays([1, 1, 7], [True, True, True], score=np.array([0.9, 0.2, 1.0], np.float32))
    write_npz(tmp_path / "hands.npz", arrays)
    poses = load_hand_poses(tmp_path / "hands.npz", 4).numpy()
    assert isinstance(arrays["pose"], np.ndarray)
    assert np.array_equal(poses[1, 51:96], arrays["pose"][0])
    assert poses[:, 102:].sum() == 1


def unknown_pose() -> NDArray[np.float32]:
    return np.full((1, 45), np.nan, np.float32)


def test_clips_without_poses_are_refused_with_their_reasons(dataset: Dataset) -> None:
    give_poses(dataset, "clip0", hand_arrays([0], [True]))
    give_poses(dataset, "clip1", hand_arrays([0], [True], pose=unknown_pose()))
    ids = sorted(dataset.clips.keys())
    for name in ("adaln_global", "adaln_frame"):
        refused = get_conditioning(name).refused_clips(dataset, ids)
        assert sorted(refused) == ["clip1", "clip2", "clip3"]
        assert "1 of 1 hands have no pose parameters" in refused["clip1"]
        assert "no hand_motion_path" in refused["clip2"]
    for name in ("hand_mesh", "hand_mask", "none", "controlnet"):
        assert get_conditioning(name).refused_clips(dataset, ids) == {}


def test_pose_variants_read_static_latents_and_poses(dataset: Dataset, base: BaseModel) -> None:
    give_poses(dataset, "clip0", hand_arrays([0, 8], [True, False]))
    store = LatentStore(dataset, base.description, GEOMETRY)
    batch = get_conditioning("adaln_frame").load(store, ["clip0", "clip0"])
    assert batch.hands_bcfhw is None
    assert batch.poses_btd is not None
    assert batch.poses_btd.shape == (2, 9, POSE_FEATURES)
    assert torch.equal(batch.static_bcfhw[1], store.load("clip0").static[:16])
    with pytest.raises(DwmError, match="clip1: has no hand_motion_path"):
        get_conditioning("adaln_frame").load(store, ["clip1"])


def test_silhouettes_are_encoded_beside_the_videos_and_read_by_their_variants(
    dataset: Dataset, base: BaseModel
) -> None:
    store = LatentStore(dataset, base.description, GEOMETRY)
    with pytest.raises(DwmError, match=r"4 of 4 clips.* no hand-mask latents.*dwm encode --hand-masks"):
        store.require(sorted(dataset.clips.keys()), VideoRole.HAND_MASK)
    plan = plan_encoding(dataset, base.description, GEOMETRY, 2, ShardKind.HAND_MASKS)
    assert plan == [["clip0", "clip1"], ["clip2", "clip3"]]
    for chunk in plan:
        encode_shard(dataset, base, GEOMETRY, chunk, ShardKind.HAND_MASKS)
    assert plan_encoding(dataset, base.description, GEOMETRY, 2, ShardKind.HAND_MASKS) == []
    assert plan_encoding(dataset, base.description, GEOMETRY, 2) == []
    store = LatentStore(dataset, base.description, GEOMETRY)
    store.require(sorted(dataset.clips.keys()), VideoRole.HAND_MASK)
    clip = dataset.clips.get("clip1")
    assert clip.hands_path is not None
    frames = read_clip_video(dataset.absolute(clip.hands_path), **GEOMETRY.model_dump())
    expected = encode_frames(base, [mask_video(frames)])[0, :16]
    for name in ("hand_mask", "controlnet"):
        batch = get_conditioning(name).load(store, ["clip1"])
        assert batch.hands_bcfhw is not None
        assert torch.allclose(batch.hands_bcfhw[0], expected, atol=1e-2)
    mesh = get_conditioning("hand_mesh").load(store, ["clip1"]).hands_bcfhw
    assert mesh is not None
    assert not torch.allclose(mesh[0], expected, atol=1e-2)
    assert get_conditioning("none").load(store, ["clip1"]).hands_bcfhw is None


def test_silhouettes_are_black_and_white() -> None:
    hands = frames_of(1, "hands")
    shown = mask_video(hands)
    assert sorted(np.unique(shown)) == [0, 255]
    assert np.array_equal(shown[..., 0] > 0, hands.max(axis=-1) > 24)


def test_samples_follow_the_generator_and_means_need_none(encoded_dataset: Dataset, base: BaseModel) -> None:
    store, conditioning = LatentStore(encoded_dataset, base.description, GEOMETRY), get_conditioning("hand_mesh")
    first, again, other = (
        conditioning.load(store, ["clip0"], torch.Generator().manual_seed(seed)).static_bcfhw for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    mean = conditioning.load(store, ["clip0"]).static_bcfhw
    assert torch.equal(mean[0], store.load("clip0").static[:16])


def test_hands_can_be_taken_from_some_clips_of_a_batch(base: BaseModel) -> None:
    batch = ConditionBatch(noise(2, 16, 3, 4, 4), noise(2, 16, 3, 4, 4, seed=1), noise(2, 9, POSE_FEATURES, seed=2))
    without = batch.without_hands([False, True])
    assert without.hands_bcfhw is not None
    assert without.poses_btd is not None
    for before, after in ((batch.hands_bcfhw, without.hands_bcfhw), (batch.poses_btd, without.poses_btd)):
        assert before is not None
        assert torch.equal(after[0], before[0])
        assert torch.count_nonzero(after[1]) == 0
    denoiser = make_denoiser(load_base(base.path), "hand_mesh")
    shifted = replace(denoiser, scaling=replace(denoiser.scaling, mean=(0.5,) * 16))
    given = shifted.conditions(without)
    assert given.hands_bfchw is not None
    assert torch.count_nonzero(given.hands_bfchw[1]) == 0
    assert torch.count_nonzero(given.hands_bfchw[0]) > 0


def test_a_batch_without_what_a_variant_needs_is_refused() -> None:
    clips = two_clips()
    bare = replace(clips, conditions=ConditionLatents(clips.conditions.static_bfchw))
    for name, what in (("hand_mesh", "hand latents"), ("controlnet", "hand latents"), ("adaln_frame", "hand poses")):
        denoiser = small_denoiser(name, FUN_V1_1)
        call = call_of(bare, FUN_V1_1, denoiser)
        with pytest.raises(DwmError, match=f"{name}: the batch has no {what}"):
            denoiser.predict(call.noisy_bfchw, call.conditions, call.text_bld, call.timesteps_b)
