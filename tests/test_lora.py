"""Adapters: exchanged files as diffusers writes and reads them, alpha kept, wrong files refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline
from safetensors.torch import load_file, save_file

from dwm_model.base_model import BaseModel, load_base
from dwm_model.conditioning import get_conditioning
from dwm_model.families import FUN_V1_1
from dwm_model.lora import (
    LORA_FILE,
    PROJECTION_FILE,
    LoraSettings,
    add_lora,
    export_adapter,
    import_adapter,
    read_settings,
    trainable_parameters,
)
from manifests.errors import DwmError

pytest_plugins = ("tests.fixtures_model",)

SETTINGS = LoraSettings(rank=4, alpha=2.0)


def adapted(base: BaseModel, settings: LoraSettings = SETTINGS) -> torch.nn.Module:
    get_conditioning("hand_mesh").prepare(base.transformer, base.family)
    add_lora(base.transformer, settings, seed=0)
    return base.transformer


def randomise(transformer: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in trainable_parameters(transformer).values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def output(transformer: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        found: torch.Tensor = transformer(
            torch.randn(1, 2, 49, 4, 6, generator=generator),
            torch.randn(1, 64, 64, generator=generator),
            torch.tensor([7]),
            return_dict=False,
        )[0]
    return found


@pytest.fixture
def exported(base: BaseModel, tmp_path: Path) -> Path:
    transformer = adapted(base)
    randomise(transformer)
    export_adapter(transformer, SETTINGS, tmp_path)
    return tmp_path


@pytest.fixture
def fresh(tiny_base: Path) -> torch.nn.Module:
    transformer = load_base(tiny_base).transformer
    get_conditioning("hand_mesh").prepare(transformer, FUN_V1_1)
    return transformer


def test_only_adapter_and_patch_projection_train_and_in_float32(tiny_base: Path) -> None:
    transformer = adapted(load_base(tiny_base, dtype=torch.bfloat16))
    trained = trainable_parameters(transformer)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    kinds = {name.split(".")[-3] if ".lora_" in name else name for name in trained}
    assert kinds == {"lora_A", "lora_B", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    layers = {name.split(".lora_")[0].split("attn1.")[1] for name in trained if ".lora_" in name}
    assert layers == {"to_q", "to_k", "to_v", "to_out.0"}


def test_new_adapter_changes_nothing_and_its_seed_decides_its_weights(fresh: torch.nn.Module, tiny_base: Path) -> None:
    before = output(fresh)
    add_lora(fresh, SETTINGS, seed=1)
    assert torch.equal(output(fresh), before)
    same, other = adapted(load_base(tiny_base)), adapted(load_base(tiny_base))
    name = next(name for name in trainable_parameters(same) if "lora_A" in name)
    assert torch.equal(trainable_parameters(same)[name], trainable_parameters(other)[name])
    assert not torch.equal(trainable_parameters(same)[name], trainable_parameters(fresh)[name])


def test_round_trip_is_bit_equal_and_keeps_alpha(exported: Path, base: BaseModel, fresh: torch.nn.Module) -> None:
    assert read_settings(exported) == SETTINGS
    import_adapter(fresh, exported)
    assert torch.equal(output(fresh), output(base.transformer))
    again = exported / "again"
    again.mkdir()
    export_adapter(fresh, SETTINGS, again)
    for name in (LORA_FILE, PROJECTION_FILE):
        first, second = load_file(exported / name), load_file(again / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_diffusers_reads_the_file_with_its_alpha(exported: Path, base: BaseModel, fresh: torch.nn.Module) -> None:
    weights, metadata = CogVideoXPipeline.lora_state_dict(exported, return_lora_metadata=True)
    CogVideoXPipeline.load_lora_into_transformer(weights, fresh, adapter_name="default", metadata=metadata)
    projection = load_file(exported / PROJECTION_FILE)
    fresh.load_state_dict(projection, strict=False)
    assert torch.equal(output(fresh), output(base.transformer))


def test_keys_are_those_that_are_exchanged(exported: Path) -> None:
    keys = set(load_file(exported / LORA_FILE))
    assert "transformer.transformer_blocks.0.attn1.to_out.0.lora_B.weight" in keys
    assert all(key.startswith("transformer.transformer_blocks.") for key in keys)
    assert set(load_file(exported / PROJECTION_FILE)) == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_file_without_metadata_needs_its_alpha_given(exported: Path, base: BaseModel, fresh: torch.nn.Module) -> None:
    save_file(load_file(exported / LORA_FILE), exported / LORA_FILE)
    with pytest.raises(DwmError, match="does not tell its alpha"):
        import_adapter(fresh, exported)
    import_adapter(fresh, exported, SETTINGS)
    assert torch.equal(output(fresh), output(base.transformer))


def test_wrong_rank_is_refused_with_both_shapes(exported: Path, fresh: torch.nn.Module) -> None:
    with pytest.raises(DwmError, match=r"lora_A.* is \[4, 128\], the network needs \[8, 128\]"):
        import_adapter(fresh, exported, LoraSettings(rank=8, alpha=8))


def test_missing_and_extra_keys_are_counted(exported: Path, fresh: torch.nn.Module) -> None:
    weights = load_file(exported / LORA_FILE)
    first = min(weights)
    save_file({key: value for key, value in weights.items() if key != first}, exported / LORA_FILE)
    with pytest.raises(DwmError, match="1 adapter tensors are missing"):
        import_adapter(fresh, exported, SETTINGS)
    save_file(weights | {"transformer.other.lora_A.weight": torch.zeros(1)}, exported / LORA_FILE)
    with pytest.raises(DwmError, match="1 adapter tensors are extra"):
        import_adapter(fresh, exported, SETTINGS)


def test_adapter_of_a_33_channel_network_is_refused(exported: Path, tiny_base: Path) -> None:
    with pytest.raises(DwmError, match=r"patch_embed\.proj\.weight is \[128, 49, 2, 2\].*needs \[128, 33, 2, 2\]"):
        import_adapter(load_base(tiny_base).transformer, exported)


def test_damaged_or_absent_file_is_named(exported: Path, fresh: torch.nn.Module) -> None:
    (exported / PROJECTION_FILE).write_bytes(b"x" * 20)
    with pytest.raises(DwmError, match=f"{PROJECTION_FILE}: damaged"):
        import_adapter(fresh, exported)
    (exported / LORA_FILE).unlink()
    with pytest.raises(DwmError, match=f"{LORA_FILE}: not found"):
        import_adapter(fresh, exported, SETTINGS)
