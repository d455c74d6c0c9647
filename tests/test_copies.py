"""The methods that only copy: what each shows, from its name to its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dwm_model.base_model import load_base
from dwm_model.copies import DECODED_COPIES, PASTED_HANDS, STATIC_DECODED, TRUTH_DECODED
from dwm_model.latents import LatentStore, VideoRole, encode_frames, posterior_mean
from dwm_model.method_sources import MethodSource
from dwm_model.methods import NOT_FINE_TUNED
from dwm_model.sampling import SamplerConfig, decode_frames
from manifests.dataset import Dataset
from render.video import Frames, read_clip_video
from tests.helpers_model import GEOMETRY

pytest_plugins = ("tests.fixtures_model",)


def shown(name: str, base: Path, dataset: Dataset, clip_id: str = "clip3") -> Frames:
    """What a row of the table shows; no run is needed."""
    sampler = SamplerConfig(num_inference_steps=2, guidance_scale=1.0)
    (source,) = MethodSource.of([name], base, Path("no run"), sampler)
    method = source.load(dataset, GEOMETRY)
    assert method.description == source.describe()
    assert method.description.name == name
    return method.generate(dataset.clips.get(clip_id), 0)


def decoded(base_folder: Path, dataset: Dataset, role: VideoRole) -> Frames:
    base = load_base(base_folder)
    clip = dataset.clips.get("clip3")
    video = read_clip_video(dataset.absolute(getattr(clip, role.column)), **GEOMETRY.model_dump())
    return decode_frames(base, posterior_mean(encode_frames(base, [video])))[0]


@pytest.mark.parametrize(("name", "role"), [(STATIC_DECODED, VideoRole.STATIC), (TRUTH_DECODED, VideoRole.INTERACTION)])
def test_a_decoded_copy_is_the_video_through_the_autoencoder(
    name: str, role: VideoRole, tiny_base: Path, encoded_dataset: Dataset
) -> None:
    found, expected = shown(name, tiny_base, encoded_dataset), decoded(tiny_base, encoded_dataset, role)

    assert found.shape == (9, 32, 48, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1  # latents are cached in float16


def test_pasted_hands_lie_on_the_decoded_static_video(tiny_base: Path, encoded_dataset: Dataset) -> None:
    found = shown(PASTED_HANDS, tiny_base, encoded_dataset)
    below = shown(STATIC_DECODED, tiny_base, encoded_dataset)
    path = encoded_dataset.clips.get("clip3").hands_path
    assert path is not None
    hands = read_clip_video(encoded_dataset.absolute(path), **GEOMETRY.model_dump())
    is_hand = hands.max(axis=-1) > 24

    assert is_hand.any()
    assert np.array_equal(found[is_hand], hands[is_hand])
    assert np.array_equal(found[~is_hand], below[~is_hand])


def test_a_base_that_is_not_fine_tuned_is_told_the_whole_static_scene(
    tiny_base: Path, encoded_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    predict = "dwm_model.families.CogVideoXFamily.predict"
    monkeypatch.setattr(predict, lambda _self, _net, channels, *_rest: given.append(channels) or channels[:, :, :16])
    shown(NOT_FINE_TUNED, tiny_base, encoded_dataset)
    base = load_base(tiny_base)
    moments = LatentStore(encoded_dataset, base.description, GEOMETRY).moments("clip3", VideoRole.STATIC)
    static = base.description.scaling.to_network(posterior_mean(moments)[None])

    assert len(given) == 2
    for channels in given:
        assert bool((channels[:, :, 16] == base.description.scaling_factor).all())
        np.testing.assert_allclose(channels[:, :, 17:], static, atol=1e-6)


def test_copies_are_offered_by_name() -> None:
    assert not any("," in name for name in (*DECODED_COPIES, NOT_FINE_TUNED))
