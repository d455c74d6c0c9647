"""Kill -9 in the middle of every stage: the next run completes, with the bytes and rows of an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dwm_model.geometry import ClipGeometry
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig
from manifests.atomic import is_temporary
from manifests.dataset import Dataset
from manifests.schema import Row
from tests.helpers_video import write_triplet

pytest_plugins = ("tests.fixtures_model",)
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
CLIPS = 6
STEPS = 14
FEW_VIDEOS = ("--seeds", "2", "--num-inference-steps", "3", "--no-lpips")
CONFIG = TrainConfig(
    geometry=ClipGeometry(width=96, height=64, num_frames=17),
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=STEPS,
    batch_size=1,
    accumulation_steps=1,
    learning_rate=1e-3,
    warmup_steps=2,
    checkpoint_every=5,
    validate_every=5,
    num_validation_clips=1,
    num_validation_timesteps=2,
)


class Places:
    """Folders of one pipeline."""

    def __init__(self, root: Path, raw: Path, base: Path) -> None:
        self.root, self.raw, self.base = root, raw, base
        self.dataset, self.run, self.report = root / "dataset", root / "run", root / "benchmark"
        self.config = root / "config.json"

    def command(self, stage: str) -> list[str]:
        """Arguments of `dwm` for a stage."""
        dataset, base, run = str(self.dataset), str(self.base), str(self.run)
        return {
            "build": ["build", "official", "--raw", str(self.raw), "--dataset", dataset],
            "split": ["split", dataset, "--policy", "in-order", "--may-share", "clip"],
            "encode": ["encode", dataset, "--base", base, "--profile", "mini", "--shard-size", "2"],
            "train": ["train", dataset, "--base", base, "--run", run, "--config", str(self.config)],
            "benchmark": ["benchmark", dataset, "--base", base, "--run", run, "--out", str(self.report), *FEW_VIDEOS],
        }[stage]

    def dwm(self, stage: str, kill_when: Callable[[], bool] | None = None) -> None:
        """Run a stage to its end, or SIGKILL it as soon as ``kill_when`` says so."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        log = self.root / f"{stage}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *self.command(stage)], stdout=output, stderr=output, env=environment
            )
            while kill_when is not None and process.poll() is None:
                if kill_when():
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.005)
            code = process.wait(timeout=300)
        if kill_when is None:
            assert code == 0, log.read_text()
        else:
            assert code == -signal.SIGKILL, f"{stage} ended before it was killed: {log.read_text()}"

    def count(self, pattern: str) -> int:
        """Number of finished files below the root that fit a pattern."""
        return sum(not path.name.startswith(".") for path in self.root.glob(pattern))

    def losses(self) -> list[dict[str, Any]]:
        """Lines of losses.jsonl."""
        path = self.run / "losses.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Places:
    """A pipeline that nothing interrupted, with copies of its dataset after each stage."""
    root = tmp_path_factory.mktemp("whole")
    raw = tmp_path_factory.mktemp("raw") / "captures"
    for index in range(CLIPS):
        write_triplet(raw / f"take_{index}", f"{index:05d}", num_frames=17, prompt=f"I push box {index}.".encode())
    places = Places(root, raw, tiny_base)
    places.config.write_text(CONFIG.model_dump_json())
    for stage in ("build", "split", "encode", "train", "benchmark"):
        places.dwm(stage)
        shutil.copytree(root, root.parent / f"after-{stage}")
    return places


def continue_from(whole: Places, stage: str, tmp_path: Path) -> Places:
    """A copy of the whole pipeline as it was after ``stage``."""
    root = tmp_path / "killed"
    shutil.copytree(whole.root.parent / f"after-{stage}", root)
    return Places(root, whole.raw, whole.base)


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    """Finished files with their bytes; unfinished ones of the killed process are what `dwm gc` removes."""
    finished = (path for path in folder.glob(pattern) if path.is_file() and not is_temporary(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in finished}


def rows(table: Any) -> list[dict[str, Any]]:
    """Rows without the time they were made at, and a check that no key is doubled."""
    assert table.duplicate_keys() == []
    listed: list[Row] = list(table.rows())
    return [row.model_dump(mode="json", exclude={"created_at"}) for row in listed]


def test_build_continues(whole: Places, tmp_path: Path) -> None:
    killed = Places(tmp_path, whole.raw, whole.base)
    killed.dwm("build", kill_when=lambda: killed.count("dataset/clips/*/*/static.mp4") >= 2)
    assert Dataset.open(killed.dataset).clips.count() < CLIPS
    killed.dwm("build")
    killed.dwm("split")
    assert rows(Dataset.open(killed.dataset).clips) == rows(Dataset.open(whole.dataset).clips)
    assert files(killed.dataset, "clips/**/*") == files(whole.dataset, "clips/**/*")


def test_encode_continues(whole: Places, tmp_path: Path) -> None:
    killed = continue_from(whole, "split", tmp_path)
    killed.dwm("encode", kill_when=lambda: killed.count("dataset/latents/**/shard-*") >= 1)
    assert killed.count("dataset/latents/**/shard-*") < CLIPS // 2
    killed.dwm("encode")
    assert files(killed.dataset, "latents/**/*") == files(whole.dataset, "latents/**/*")


def test_training_continues(whole: Places, tmp_path: Path) -> None:
    killed = continue_from(whole, "encode", tmp_path)
    killed.dwm("train", kill_when=lambda: len(killed.losses()) >= 7)
    assert 7 <= len(killed.losses()) < STEPS
    killed.dwm("train")
    assert killed.losses() == whole.losses()
    assert len(killed.losses()) == STEPS
    assert (killed.run / "validation.jsonl").read_bytes() == (whole.run / "validation.jsonl").read_bytes()
    newest = f"checkpoints/step-{STEPS:06d}/*.safetensors"
    assert files(killed.run, newest) == files(whole.run, newest)
    assert rows(Dataset.open(killed.dataset).runs) == rows(Dataset.open(whole.dataset).runs)


def test_benchmark_continues(whole: Places, tmp_path: Path) -> None:
    killed = continue_from(whole, "train", tmp_path)
    killed.dwm("benchmark", kill_when=lambda: killed.count("dataset/generations/**/*.mp4") >= 1)
    assert not (killed.report / "benchmark.json").exists()
    killed.dwm("benchmark")
    assert rows(Dataset.open(killed.dataset).generations) == rows(Dataset.open(whole.dataset).generations)
    assert files(killed.dataset, "generations/**/*") == files(whole.dataset, "generations/**/*")
    assert files(killed.report, "benchmark.*") == files(whole.report, "benchmark.*")
