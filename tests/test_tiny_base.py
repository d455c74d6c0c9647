"""The tiny base: whole, deterministic, readable by the stock classes, and honest about being untrained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dwm_model.base_model import BaseModel, describe_base, load_base
from dwm_model.tiny import make_tiny_base
from manifests.errors import DwmError

pytest_plugins = ("tests.fixtures_model",)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_config(base: Path, part: str, **changes: object) -> None:
    path = base / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def base_copy(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "copy"))


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tiny_base: Path, tmp_path: Path) -> None:
    again = make_tiny_base(tmp_path / "again")
    assert folder_bytes(again) == folder_bytes(tiny_base)
    other = make_tiny_base(tmp_path / "other", seed=1)
    assert describe_base(other).base_hash != describe_base(tiny_base).base_hash


def test_making_it_does_not_disturb_the_global_random_state(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    make_tiny_base(tmp_path / "tiny")
    assert torch.equal(torch.rand(2), expected)


def test_existing_tiny_base_is_kept_and_anything_else_refused(tiny_base: Path, tmp_path: Path) -> None:
    before = folder_bytes(tiny_base)
    assert make_tiny_base(tiny_base) == tiny_base
    assert folder_bytes(tiny_base) == before
    with pytest.raises(DwmError, match="another base model"):
        make_tiny_base(tiny_base, seed=5)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DwmError, match="mine"):
        make_tiny_base(tmp_path / "mine")


def test_description_tells_family_sizes_and_that_it_is_untrained(base: BaseModel) -> None:
    described = base.description
    assert described.family.name == "fun_v1_1"
    assert described.is_untrained
    assert (described.latent_channels, described.spatial_ratio, described.temporal_ratio) == (16, 8, 4)


def test_parts_are_loaded_on_first_use_and_can_be_released(base: BaseModel) -> None:
    assert "transformer" not in vars(base)
    assert base.transformer.config.in_channels == 33
    assert not any(parameter.requires_grad for parameter in base.transformer.parameters())
    assert "vae" not in vars(base)
    base.release("transformer")
    assert "transformer" not in vars(base)


def test_tokenizer_reads_words_and_letters(base: BaseModel) -> None:
    assert base.tokenizer.tokenize("right hand zq") == ["▁right", "▁hand", "▁", "z", "q"]
    assert base.tokenizer("hand").input_ids[-1] == base.tokenizer.eos_token_id


def test_scaled_latents_have_about_unit_variance_and_differ_with_the_pixels(base: BaseModel) -> None:
    generator = torch.Generator().manual_seed(11)
    coarse = torch.rand(2, 3, 1, 4, 6, generator=generator) * 2 - 1
    clips = torch.nn.functional.interpolate(coarse, size=(9, 64, 96), mode="trilinear")
    latents = base.vae.encode(clips).latent_dist.mean * base.vae.config.scaling_factor
    assert 0.3 < latents.std() < 3.0
    changed = clips.clone()
    changed[:, :, :, 24:40, 40:56] *= -1
    moved = base.vae.encode(changed).latent_dist.mean * base.vae.config.scaling_factor - latents
    assert moved.std() > 0.1


@pytest.mark.parametrize("num_frames", [1, 9, 17])
def test_autoencoder_gives_back_the_number_of_frames(base: BaseModel, num_frames: int) -> None:
    latents = base.vae.encode(torch.zeros(1, 3, num_frames, 16, 16)).latent_dist.mean
    assert base.vae.decode(latents).sample.shape == (1, 3, num_frames, 16, 16)


def test_hash_changes_with_weights_and_configuration_but_not_with_the_note(base_copy: Path) -> None:
    first = describe_base(base_copy).base_hash
    (base_copy / "dwm_base.json").write_text('{"untrained": true, "description": "other words"}')
    assert describe_base(base_copy).base_hash == first
    weights = base_copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    second = describe_base(base_copy).base_hash
    assert second != first
    change_config(base_copy, "vae", scaling_factor=0.5)
    assert describe_base(base_copy).base_hash not in (first, second)


def test_bases_that_differ_in_their_transformer_share_what_is_encoded(base_copy: Path) -> None:
    first = describe_base(base_copy)
    weights = base_copy / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    second = describe_base(base_copy)
    assert second.base_hash != first.base_hash
    assert second.latent_name == first.latent_name
    change_config(base_copy, "text_encoder", dropout_rate=0.25)
    assert describe_base(base_copy).latent_name != first.latent_name


def test_large_files_are_hashed_once(base_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("dwm_model.base_model._ALWAYS_HASHED_BYTES", 0)
    first = describe_base(base_copy).base_hash

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr("dwm_model.base_model.hash_file", refuse)
    assert describe_base(base_copy).base_hash == first


def test_family_of_a_linear_patch_base_is_v1_5(base_copy: Path) -> None:
    change_config(base_copy, "transformer", patch_size_t=2)
    assert describe_base(base_copy).family.name == "fun_v1_5"


@pytest.mark.parametrize(("key", "value"), [("in_channels", 17), ("patch_size_t", 3)])
def test_unknown_family_is_refused_with_file_and_value(base_copy: Path, key: str, value: int) -> None:
    change_config(base_copy, "transformer", **{key: value})
    with pytest.raises(DwmError, match=rf"config\.json: {key} is {value}"):
        describe_base(base_copy)


def test_missing_folder_part_and_broken_config_are_named(base_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="nowhere: no such folder"):
        describe_base(tmp_path / "nowhere")
    (base_copy / "transformer" / "config.json").write_text("{")
    with pytest.raises(DwmError, match=r"config\.json: not readable"):
        describe_base(base_copy)
    shutil.rmtree(base_copy / "tokenizer")
    with pytest.raises(DwmError, match="tokenizer: missing"):
        describe_base(base_copy)


def test_damaged_weights_are_one_line(base_copy: Path) -> None:
    weights = base_copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DwmError, match="could not be loaded") as caught:
        _ = load_base(base_copy).vae
    assert "\n" not in str(caught.value)


def test_schedule_that_does_not_predict_velocity_is_refused(base_copy: Path) -> None:
    path = base_copy / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    with pytest.raises(DwmError, match="prediction_type is epsilon"):
        _ = load_base(base_copy).scheduler


def in_hub_cache(cache: Path, base: Path, name: str) -> None:
    """Put a base where `hf download` puts it."""
    repository = cache / f"models--someone--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(base, repository / "snapshots" / ("0" * 40))


def test_a_hub_id_is_found_in_the_local_cache(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    in_hub_cache(tmp_path / "hub", tiny_base, "tiny-base")
    described = describe_base(Path("someone/tiny-base"))
    assert described.name == "tiny-base"
    assert described.base_hash == describe_base(tiny_base).base_hash
    assert load_base(Path("someone/tiny-base")).transformer.config.in_channels == 33


def test_a_hub_id_that_cannot_be_had_offline_is_one_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DwmError, match="someone/nothing: no such folder, not in the hub's local cache") as caught:
        describe_base(Path("someone/nothing"))
    assert "\n" not in str(caught.value)
    assert "hf download" in str(caught.value)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "a/b/c", "nowhere"])
def test_a_path_that_is_no_hub_id_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(DwmError, match="no such folder; give a base model in the diffusers layout, or a hub id"):
        describe_base(Path(name))
