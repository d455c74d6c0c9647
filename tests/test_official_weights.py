"""Exchanged weights: into a run and out of it byte for byte, refused when they do not fit, merged into whole models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from dwm_model.base_model import describe_base, load_base
from dwm_model.checkpoints import checkpoint_steps, read_identity
from dwm_model.condition_data import ConditionBatch
from dwm_model.conditioning import get_conditioning
from dwm_model.denoiser import make_denoiser
from dwm_model.families import FUN_V1_1
from dwm_model.latents import LatentStore
from dwm_model.lora import LORA_FILE, PROJECTION_FILE, LoraSettings, add_lora, export_adapter, trainable_parameters
from dwm_model.network_call import NetworkCall
from dwm_model.official_weights import export_lora, export_merged, import_run
from dwm_model.sampling import Sampler, SamplerConfig
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from tests.helpers_model import GEOMETRY
from tests.helpers_variants import noise

pytest_plugins = ("tests.fixtures_model",)

SETTINGS = LoraSettings(rank=4, alpha=2.0)
FILES = (LORA_FILE, PROJECTION_FILE)


def publish(folder: Path, base: Path, name: str = "hand_mesh", settings: LoraSettings = SETTINGS) -> Path:
    """Trained weights as they are published."""
    transformer = make_denoiser(load_base(base), name).transformer
    add_lora(transformer, settings, seed=0)
    for index, parameter in enumerate(trainable_parameters(transformer).values()):
        parameter.data = parameter.data + 0.05 * noise(*parameter.shape, seed=index)
    folder.mkdir()
    export_adapter(transformer, settings, folder)
    return folder


@pytest.fixture
def published(tiny_base: Path, tmp_path: Path) -> Path:
    return publish(tmp_path / "published", tiny_base)


def forget_metadata(folder: Path) -> None:
    save_file(load_file(folder / LORA_FILE), folder / LORA_FILE)


def test_weights_come_out_of_a_run_as_they_went_in(published: Path, tiny_base: Path, tmp_path: Path) -> None:
    summary = import_run(published, tiny_base, tmp_path / "run", GEOMETRY)
    assert (summary.rank, summary.alpha, summary.conditioning) == (4, 2.0, "hand_mesh")
    assert checkpoint_steps(tmp_path / "run") == [0]
    out = export_lora(tmp_path / "run", tmp_path / "out")
    for name in FILES:
        assert (out / name).read_bytes() == (published / name).read_bytes()
    again = import_run(out, tiny_base, tmp_path / "run2", GEOMETRY)
    assert again.run_id == summary.run_id


def test_an_imported_run_generates_with_its_own_alpha(
    published: Path, tiny_base: Path, encoded_dataset: Dataset, tmp_path: Path
) -> None:
    store = LatentStore(encoded_dataset, describe_base(tiny_base), GEOMETRY)
    videos = []
    for index, alpha in enumerate((2.0, 4.0)):
        forget_metadata(published)
        import_run(published, tiny_base, tmp_path / f"run{index}", GEOMETRY, alpha=alpha)
        assert read_identity(tmp_path / f"run{index}").config.lora == SETTINGS.model_copy(update={"alpha": alpha})
        sampler = Sampler.from_run(tiny_base, tmp_path / f"run{index}", store=store)
        few = SamplerConfig(num_inference_steps=2)
        videos.append(sampler.generate(sampler.load_conditions(store, "clip0"), "push", [0], few)[0])
    assert not np.array_equal(*videos)


def test_alpha_is_never_assumed_nor_contradicted(published: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DwmError, match=r"tells alpha 2, not 4; leave --alpha out"):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY, alpha=4)
    forget_metadata(published)
    with pytest.raises(DwmError, match=r"does not tell its alpha; give the one of its training with --alpha"):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("told", ["{", "[]", "{}", '{"transformer.r": 0, "transformer.lora_alpha": 1}'])
def test_metadata_that_tells_nonsense_is_one_line(published: Path, tiny_base: Path, tmp_path: Path, told: str) -> None:
    save_file(load_file(published / LORA_FILE), published / LORA_FILE, {"lora_adapter_metadata": told})
    with pytest.raises(DwmError, match="its adapter metadata is incomplete"):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY)
    with pytest.raises(DwmError, match=r"--alpha 0: not above 0"):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY, alpha=0)


@dataclass(frozen=True)
class Wrong:
    """What is done to published weights, and what is said of them."""

    name: str
    message: str


def spoil(folder: Path, name: str) -> None:
    lora, whole = load_file(folder / LORA_FILE), load_file(folder / PROJECTION_FILE)
    first = min(lora)
    if name == "missing key":
        forget_metadata(folder)
        save_file({key: one for key, one in lora.items() if key != first}, folder / LORA_FILE)
    elif name == "extra key":
        forget_metadata(folder)
        save_file(
            lora | {"transformer.transformer_blocks.9.attn1.to_q.lora_A.weight": lora[first].clone()},
            folder / LORA_FILE,
        )
    elif name == "ranks":
        forget_metadata(folder)
        save_file(lora | {first: torch.zeros(9, 128)}, folder / LORA_FILE)
    elif name == "family":
        save_file(whole | {"patch_embed.proj.weight": torch.zeros(128, 49 * 8)}, folder / PROJECTION_FILE)
    else:
        (folder / PROJECTION_FILE).unlink()


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("missing key", "1 adapter tensors are missing"),
        Wrong("extra key", "1 adapter tensors are extra"),
        Wrong("ranks", "tensors of 2 ranks"),
        Wrong("family", r"patch_embed.proj.weight is \[128, 392\], the network needs \[128, 49, 2, 2\]"),
        Wrong("file", f"{PROJECTION_FILE}: not found"),
    ],
    ids=lambda wrong: wrong.name,
)
def test_weights_that_do_not_fit_are_refused_and_leave_no_run(
    published: Path, tiny_base: Path, tmp_path: Path, wrong: Wrong
) -> None:
    spoil(published, wrong.name)
    alpha = 2.0 if wrong.name in ("missing key", "extra key", "ranks") else None
    with pytest.raises(DwmError, match=wrong.message):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY, alpha=alpha)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_conditioning_are_refused(published: Path, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DwmError, match=r"patch_embed.proj.weight is \[128, 49, 2, 2\], the network needs \[128, 33"):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY, conditioning="none")
    with pytest.raises(DwmError, match=r"adapter tensors are missing, such as time_embedding\.pose"):
        import_run(published, tiny_base, tmp_path / "run", GEOMETRY, conditioning="adaln_frame")


@pytest.mark.parametrize("name", ["adaln_frame", "controlnet"])
def test_what_a_variant_adds_travels_in_the_second_file(name: str, tiny_base: Path, tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", tiny_base, name)
    prefixes = {key.split(".")[0] for key in load_file(folder / PROJECTION_FILE)}
    assert prefixes == {"patch_embed", "time_embedding" if name == "adaln_frame" else "control_branch"}
    import_run(folder, tiny_base, tmp_path / "run", GEOMETRY, conditioning=name)
    loaded = Sampler.from_run(tiny_base, tmp_path / "run")._denoiser.transformer
    kept = dict(loaded.named_parameters())
    assert all(torch.equal(kept[key], one) for key, one in load_file(folder / PROJECTION_FILE).items())
    with pytest.raises(DwmError, match=f"conditioning {name} adds modules that stock diffusers does not have"):
        export_merged(tmp_path / "run", tiny_base, tmp_path / "merged")


def test_a_merged_model_is_loaded_by_stock_diffusers_and_gives_the_same(
    published: Path, tiny_base: Path, tmp_path: Path
) -> None:
    import_run(published, tiny_base, tmp_path / "run", GEOMETRY)
    merged = export_merged(tmp_path / "run", tiny_base, tmp_path / "merged")
    stock = CogVideoXTransformer3DModel.from_pretrained(merged / "transformer")
    assert stock.config.in_channels == 49
    assert not any("lora" in key for key in stock.state_dict())
    denoiser = Sampler.from_run(tiny_base, tmp_path / "run")._denoiser
    call = NetworkCall(
        noise(1, 3, 16, 4, 6),
        denoiser.conditions(some_conditions()),
        noise(1, 64, 64, seed=3),
        torch.tensor([500]),
        denoiser.mask_value,
        FUN_V1_1.rotary_embedding(stock, 4, 6, 3),
    )
    with torch.no_grad():
        expected = denoiser.predict(call.noisy_bfchw, call.conditions, call.text_bld, call.timesteps_b)
        found = get_conditioning("hand_mesh").predict(stock, FUN_V1_1, call)
    assert (found - expected).abs().max() <= 1e-5
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
    pipeline = CogVideoXPipeline.from_pretrained(merged)
    assert pipeline.vae.config.latent_channels == 16
    described = describe_base(merged)
    assert described.family.name == "fun_v1_1"
    assert described.is_untrained
    with pytest.raises(DwmError, match="merged: exists already"):
        export_merged(tmp_path / "run", tiny_base, tmp_path / "merged")


def some_conditions() -> ConditionBatch:
    return ConditionBatch(noise(1, 16, 3, 4, 6, seed=1), noise(1, 16, 3, 4, 6, seed=2))


def test_merged_weights_can_be_smaller_and_need_the_right_base(
    published: Path, tiny_base: Path, tmp_path: Path
) -> None:
    import_run(published, tiny_base, tmp_path / "run", GEOMETRY)
    merged = export_merged(tmp_path / "run", tiny_base, tmp_path / "merged", dtype="bfloat16")
    kinds = {one.dtype for one in load_file(merged / "transformer" / "diffusion_pytorch_model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    with pytest.raises(DwmError, match="trained on base tiny, not on"):
        export_merged(tmp_path / "run", make_tiny_base(tmp_path / "other", seed=3), tmp_path / "wrong")


def test_a_run_that_trained_everything_is_merged_but_has_no_adapter(
    tiny_base: Path, encoded_dataset: Dataset, tmp_path: Path
) -> None:
    config = TrainConfig(
        geometry=GEOMETRY,
        mode="full",
        max_steps=1,
        batch_size=1,
        accumulation_steps=1,
        warmup_steps=0,
        tensorboard=False,
    )
    train(encoded_dataset, tiny_base, tmp_path / "run", config)
    with pytest.raises(DwmError, match="trained the whole network, there is no adapter; use `dwm export merged`"):
        export_lora(tmp_path / "run", tmp_path / "out")
    merged = export_merged(tmp_path / "run", tiny_base, tmp_path / "merged")
    stock = CogVideoXTransformer3DModel.from_pretrained(merged / "transformer").state_dict()
    sampled = Sampler.from_run(tiny_base, tmp_path / "run")._denoiser.transformer.state_dict()
    assert stock.keys() == sampled.keys()
    assert all(torch.equal(stock[key], sampled[key]) for key in stock)
