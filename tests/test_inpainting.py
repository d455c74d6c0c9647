"""Inpainting as training of a base: what is known is never everything, is given as it is, and the rest as zeros."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dwm_model.base_model import BaseModel, load_base
from dwm_model.conditioning import get_conditioning
from dwm_model.denoiser import make_denoiser
from dwm_model.inpainting_masks import MASK_SHARES, draw_known
from dwm_model.latents import LatentStore, VideoRole, posterior_mean
from dwm_model.mini.base import TransformerSettings, make_mini_transformer
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from tests.helpers_model import GEOMETRY

pytest_plugins = ("tests.fixtures_model",)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 6), height=st.integers(1, 9), width=st.integers(1, 12))
def test_never_everything_is_known(seed: int, frames: int, height: int, width: int) -> None:
    known = draw_known(frames, height, width, torch.Generator().manual_seed(seed))

    assert known.shape == (frames, height, width)
    assert set(known.unique().tolist()) <= {0.0, 1.0}
    assert float(known.min()) == 0.0


def test_all_kinds_of_masks_are_drawn() -> None:
    assert sum(MASK_SHARES.values()) == pytest.approx(1.0)
    generator = torch.Generator().manual_seed(0)
    masks = [draw_known(5, 8, 12, generator) for _ in range(300)]

    nothing = sum(not bool(mask.any()) for mask in masks) / len(masks)
    first_frames = sum(_is_constant_a_frame(mask) and bool(mask.any()) for mask in masks) / len(masks)
    same_in_all_frames = sum(bool((mask == mask[:1]).all()) and bool(mask.any()) for mask in masks) / len(masks)
    assert nothing == pytest.approx(0.2, abs=0.07)
    assert first_frames == pytest.approx(0.2, abs=0.07)
    assert 0.2 < same_in_all_frames < 0.65


def test_the_same_generator_draws_the_same_mask() -> None:
    first, second = (draw_known(5, 8, 12, torch.Generator().manual_seed(7)) for _ in range(2))

    assert torch.equal(first, second)


def test_the_network_sees_what_is_known_and_nothing_else(base: BaseModel, encoded_dataset: Dataset) -> None:
    inpainting = get_conditioning("inpainting")
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    target, conditions = inpainting.example(store, "clip0", torch.Generator().manual_seed(3))
    assert conditions.known_bfhw is not None
    seen = _input_of(base, "inpainting", conditions)

    known = conditions.known_bfhw[:, :, None]
    scaled = base.description.scaling.to_network(target)
    torch.testing.assert_close(seen[:, :, 16:17], known * base.description.scaling_factor)
    torch.testing.assert_close(seen[:, :, 17:], scaled * known)


def test_a_base_learns_from_interactions_and_static_scenes(base: BaseModel, encoded_dataset: Dataset) -> None:
    inpainting = get_conditioning("inpainting")
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    means = {role: posterior_mean(store.moments("clip0", role)) for role in (VideoRole.INTERACTION, VideoRole.STATIC)}
    counts = dict.fromkeys(means, 0)
    for seed in range(60):
        target, _ = inpainting.example(store, "clip0", torch.Generator().manual_seed(seed))
        nearest = min(means, key=lambda role: float((means[role] - target[0]).square().mean()))
        counts[nearest] += 1

    assert counts[VideoRole.INTERACTION] > counts[VideoRole.STATIC] > 5


def test_generating_with_an_inpainting_base_gives_it_the_whole_static_scene(
    base: BaseModel, encoded_dataset: Dataset
) -> None:
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    conditions = get_conditioning("inpainting").load(store, ["clip0"])
    seen = _input_of(base, "inpainting", conditions)

    assert bool((seen[:, :, 16] == base.description.scaling_factor).all())
    torch.testing.assert_close(seen[:, :, 17:], base.description.scaling.to_network(conditions.static_bcfhw))


def test_an_image_to_video_base_sees_the_first_frame_only(tiny_base: Path, encoded_dataset: Dataset) -> None:
    base = load_base(tiny_base)
    base.__dict__["transformer"] = make_mini_transformer(TransformerSettings(layers=1, heads=1), 64, "image_to_video")
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    target, conditions = get_conditioning("first_frame").example(store, "clip0", torch.Generator().manual_seed(3))
    seen = _input_of(base, "first_frame", conditions)

    assert seen.shape[2] == 32
    torch.testing.assert_close(seen[:, :1, 16:], base.description.scaling.to_network(target)[:, :1])
    assert not bool(seen[:, 1:, 16:].any())


def test_the_ordinary_trainer_trains_a_base(tiny_base: Path, encoded_dataset: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(
        geometry=GEOMETRY,
        conditioning="inpainting",
        mode="full",
        max_steps=12,
        batch_size=3,
        accumulation_steps=1,
        learning_rate=2e-3,
        warmup_steps=2,
        gradient_checkpointing="none",
        ema_decay=0.5,
        tensorboard=False,
        validate_every=12,
    )
    summary = train(encoded_dataset, tiny_base, tmp_path / "run", config)

    assert summary.validation_loss_first is not None
    assert summary.validation_loss_last is not None
    assert summary.validation_loss_last < summary.validation_loss_first
    assert (tmp_path / "run/checkpoints/step-000012/ema/transformer/config.json").is_file()


def _is_constant_a_frame(mask: torch.Tensor) -> bool:
    """Whether each frame is known as a whole or not at all."""
    flat = mask.flatten(1)
    return bool((flat.min(dim=1).values == flat.max(dim=1).values).all())


def _input_of(base: BaseModel, name: str, conditions: object) -> torch.Tensor:
    """What the transformer is given, [B, F, C, H, W]."""
    denoiser = make_denoiser(base, name)
    seen: list[torch.Tensor] = []
    hook = denoiser.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    latents = denoiser.conditions(conditions)  # type: ignore[arg-type]
    text = torch.zeros(1, base.description.text_tokens, base.description.text_dim)
    with torch.no_grad():
        denoiser.predict(torch.randn_like(latents.static_bfchw), latents, text, torch.tensor([500]))
    hook.remove()
    return seen[0]
