"""Commands about trained weights, variants and generating, as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dwm_model.base_model import BaseModel
from dwm_model.lora import LORA_FILE, PROJECTION_FILE
from manifests.dataset import Dataset
from manifests.schema import ClipStatus
from render.video import read_video
from tests.helpers_cli import CONFIG, Pipeline, done, dwm, refused

pytest_plugins = ("tests.fixtures_model",)

FILES = (LORA_FILE, PROJECTION_FILE)
QUICK = ("--num-inference-steps", "1")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Pipeline:
    """Trained with hands, and with silhouettes encoded."""
    pipeline = Pipeline(tmp_path_factory.mktemp("pipeline"), tiny_base)
    pipeline.write_raw(4)
    for stage in ("build", "split"):
        done(*pipeline.stage(stage))
    done(*pipeline.stage("encode"), "--hand-masks")
    done(*pipeline.stage("train"))
    return pipeline


def train_variant(pipeline: Pipeline, name: str) -> Path:
    config, run = pipeline.root / f"{name}.json", pipeline.root / f"run-{name}"
    config.write_text(CONFIG.model_copy(update={"conditioning": name}).model_dump_json())
    done("train", pipeline.dataset, "--base", pipeline.base, "--run", run, "--config", config)
    return run


def test_weights_travel_from_a_run_to_another_and_generate_the_same(pipeline: Pipeline, tmp_path: Path) -> None:
    done("export", "lora", pipeline.run, "--out", tmp_path / "weights")
    imported = ["--base", pipeline.base, "--run", tmp_path / "imported"]
    summary = done("import-lora", tmp_path / "weights", *imported, "--profile", "mini", "--json").json()
    assert (summary["rank"], summary["alpha"]) == (2, 2.0)
    done("export", "lora", tmp_path / "imported", "--out", tmp_path / "again", "--step", 0)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "weights" / name).read_bytes()
    take = pipeline.raw / "take_0"
    own = ["--static", take / "videos_static/00000.mp4", "--hands", take / "videos_hands/00000.mp4", *QUICK]
    for run in (pipeline.run, tmp_path / "imported"):
        done("generate", "--base", pipeline.base, "--run", run, *own, "--out", tmp_path / f"{run.name}.mp4")
    assert (tmp_path / "imported.mp4").read_bytes() == (tmp_path / f"{pipeline.run.name}.mp4").read_bytes()


def test_a_merged_model_is_a_base_again(pipeline: Pipeline, tmp_path: Path) -> None:
    done("export", "merged", pipeline.run, "--base", pipeline.base, "--out", tmp_path / "merged", "--dtype", "bfloat16")
    index = json.loads((tmp_path / "merged" / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "CogVideoXTransformer3DModel"]
    again = [pipeline.dataset, "--base", tmp_path / "merged", "--profile", "mini"]
    assert done("encode", *again, "--json").json()["clips"] == 0  # its encoders are those of the base: nothing is new
    line = refused("export", "merged", pipeline.run, "--base", pipeline.base, "--out", tmp_path / "merged")
    assert "exists already" in line


def test_unusable_weights_are_one_line(pipeline: Pipeline, tmp_path: Path) -> None:
    line = refused("import-lora", tmp_path, "--base", pipeline.base, "--run", tmp_path / "run")
    assert f"{LORA_FILE}: not found" in line
    line = refused("export", "lora", tmp_path, "--out", tmp_path / "out")
    assert "holds no training run" in line


def test_seeds_lists_of_clips_and_clips_without_truth_are_generated(pipeline: Pipeline, tmp_path: Path) -> None:
    copy = pipeline.copied_to(tmp_path / "copy")
    dataset = Dataset.open(copy.dataset)
    first, second, *_ = sorted(dataset.clips.keys())
    clip = dataset.clips.get(first)
    dataset.clips.upsert([clip.updated(status=ClipStatus.CONDITIONS_ONLY, interaction_path=None, split=None)])
    done("encode", copy.dataset, "--base", copy.base, "--profile", "mini")
    (tmp_path / "clips.txt").write_text(f"{first}\n{second[:12]}\n")
    model = [copy.dataset, "--base", copy.base, "--run", copy.run, *QUICK]
    made = done("generate", *model, "--clips", f"@{tmp_path / 'clips.txt'}", "--seeds", 2, "--json").json()
    assert (made["generated"], made["skipped"], made["failed"]) == (4, 0, 0)
    assert all(len(read_video(Path(path)).frames) == 17 for path in made["videos"])
    again = done("generate", *model, "--clips", first, "--seeds", 3, "--batch-size", 3, "--json").json()
    assert (again["generated"], again["skipped"]) == (1, 2)
    without = done("generate", *model, "--clips", first, "--no-hands", "--json").json()
    assert without["generated"] == 1
    line = refused("generate", *model, "--clips", f"@{tmp_path / 'absent.txt'}", code=2)
    assert "absent.txt" in line


def test_several_seeds_of_own_videos_go_into_numbered_files_and_need_no_hands(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    static = pipeline.raw / "take_0" / "videos_static/00000.mp4"
    model = ["--base", pipeline.base, "--run", pipeline.run, *QUICK]
    done("generate", *model, "--static", static, "--no-hands", "--seed", 5, "--seeds", 2, "--out", tmp_path / "v.mp4")
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["v-5.mp4", "v-6.mp4"]
    videos = [read_video(path).frames for path in sorted(tmp_path.glob("*.mp4"))]
    assert (videos[0] != videos[1]).any()


def test_memory_switches_reach_the_sampler_and_an_average_must_be_there(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, bool]] = []
    tile = BaseModel.tile_autoencoder

    def watched(base: BaseModel, *, tiling: bool, slicing: bool) -> None:
        asked.append((tiling, slicing))
        tile(base, tiling=tiling, slicing=slicing)

    monkeypatch.setattr(BaseModel, "tile_autoencoder", watched)
    static = pipeline.raw / "take_0" / "videos_static/00000.mp4"
    model = ["--base", pipeline.base, "--run", pipeline.run, *QUICK, "--static", static, "--no-hands"]
    for switches in ((), ("--vae-tiling",), ("--vae-slicing", "--offload")):
        done("generate", *model, *switches, "--out", tmp_path / f"{len(asked)}.mp4")
    assert asked == [(False, False), (True, False), (False, True)]
    whole, tiled, sliced = (read_video(tmp_path / f"{index}.mp4").frames for index in range(3))
    assert np.array_equal(whole, sliced)
    assert tiled.shape == whole.shape
    assert 0 < np.abs(tiled.astype(int) - whole.astype(int)).mean() < 20
    assert "kept no moving average of its weights" in refused("generate", *model, "--ema", "--out", tmp_path / "a.mp4")


@pytest.mark.slow
def test_baselines_and_switches_are_rows_of_one_table(pipeline: Pipeline, tmp_path: Path) -> None:
    runs = {name: train_variant(pipeline, name) for name in ("none", "controlnet")}
    rows = {
        "static copy": "static copy",
        "CVX SDEdit": "CVX SDEdit",
        "CVX-Fun fine-tuned": f"CVX-Fun fine-tuned={runs['none']}",
        "InterDyn-like": f"InterDyn-like={runs['controlnet']}",
        "DWM": "DWM",
        "DWM without text": "DWM without text",
        "DWM without hands": "DWM without hands",
    }
    model = [pipeline.dataset, "--base", pipeline.base, "--run", pipeline.run, "--out", tmp_path / "table"]
    settings = ["--seeds", 1, "--num-inference-steps", 2, "--no-lpips", "--no-dreamsim"]
    done("benchmark", *model, *settings, "--methods", ",".join(rows.values()))
    result = json.loads((tmp_path / "table" / "benchmark.json").read_text())
    assert [row["description"]["name"] for row in result["methods"]] == list(rows)
    assert all(row["failed"] == 0 and row["ready"] > 0 for row in result["methods"])
    values = [row["metrics"]["psnr"]["mean"] for row in result["sections"][0]["rows"]]
    assert len(set(values)) == len(values)
    wrong = refused("benchmark", *model, *settings, "--methods", f"CVX-Fun fine-tuned={runs['controlnet']}")
    assert "trained with conditioning controlnet; row 'CVX-Fun fine-tuned' needs none" in wrong


def test_variants_without_their_data_are_refused_with_the_remedy(pipeline: Pipeline, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(CONFIG.model_copy(update={"conditioning": "adaln_frame"}).model_dump_json())
    outcome = dwm("train", pipeline.dataset, "--base", pipeline.base, "--run", tmp_path / "run", "--config", config)
    assert outcome.code == 1
    assert "hand_motion_path" in outcome.err
