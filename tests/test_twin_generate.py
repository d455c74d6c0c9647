"""From a scene, a camera path and hands of one's own to a generated video: `dwm build twin`, `encode`, `generate`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dwm_model.base_model import load_base
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.schema import ClipStatus
from render.video import read_video
from tests.helpers_cli import done, dwm
from tests.helpers_model import GEOMETRY, encode_all
from tests.test_twin import make_camera, make_poses, make_scene

pytest_plugins = ("tests.fixtures_model",)

QUICK = ("--num-inference-steps", 2)


@pytest.fixture(scope="module")
def run_folder(tiny_base: Path, encoded_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of two steps, trained on other clips than the one that is generated from."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(
        geometry=GEOMETRY,
        lora=LoraSettings(rank=2, alpha=2),
        max_steps=2,
        batch_size=1,
        accumulation_steps=1,
        warmup_steps=0,
        gradient_checkpointing=False,
        checkpoint_every=2,
    )
    dataset = Dataset.open(Path(shutil.copytree(encoded_dataset_root, folder.with_name("dataset"))))
    train(dataset, tiny_base, folder, config)
    return folder


@pytest.mark.slow
def test_a_clip_of_ones_own_scene_is_generated_from(tiny_base: Path, run_folder: Path, tmp_path: Path) -> None:
    scene, camera, hands = make_scene(tmp_path), make_camera(tmp_path), make_poses(tmp_path)
    own = ("--scene", scene, "--camera", camera, "--hands", hands, "--profile", "mini", "--prompt", "Touch the box")
    made = done("build", "twin", *own, "--dataset", tmp_path / "dataset", "--json").json()
    model = (tmp_path / "dataset", "--base", tiny_base, "--run", run_folder, *QUICK)
    early = dwm("generate", *model)  # nothing is encoded yet
    assert early.code == 1
    assert "run `dwm encode`" in early.err
    dataset = Dataset.open(tmp_path / "dataset")
    encode_all(dataset, load_base(tiny_base))
    result = done("generate", *model, "--seeds", 2, "--json").json()
    assert (result["generated"], result["skipped"], result["failed"]) == (2, 0, 0)
    videos = [read_video(Path(path)).frames for path in result["videos"]]
    assert [video.shape for video in videos] == [(GEOMETRY.num_frames, GEOMETRY.height, GEOMETRY.width, 3)] * 2
    assert (videos[0] != videos[1]).any()
    rows = list(dataset.generations.rows())
    assert {row.clip_id for row in rows} == {made["clip_id"]}
    assert {row.status for row in rows} == {"ready"}
    assert dataset.clips.get(made["clip_id"]).status is ClipStatus.CONDITIONS_ONLY
    # The conditions matter: without the hands it is another video, from the same noise.
    without = done("generate", *model, "--no-hands", "--json").json()
    assert np.any(read_video(Path(without["videos"][0])).frames != videos[0])
    assert done("generate", *model, "--seeds", 2, "--json").json()["skipped"] == 2
