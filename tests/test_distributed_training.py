"""Several processes: the same losses as one, an end of all when one is lost, and exact resume after any of it."""

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

import pytest

from dwm_model.base_model import load_base
from dwm_model.checkpoints import checkpoint_steps
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.schema import RunStatus, Split
from tests.helpers_model import GEOMETRY, add_clip, encode_all

pytest_plugins = ("tests.fixtures_model",)
pytestmark = pytest.mark.slow

STEPS = 12
CONFIG = TrainConfig(
    geometry=GEOMETRY,
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=STEPS,
    batch_size=1,
    accumulation_steps=2,
    learning_rate=1e-2,
    warmup_steps=2,
    hand_dropout=0.2,
    prompt_dropout=0.2,
    gradient_checkpointing="none",
    checkpoint_every=4,
    keep_checkpoints=2,
    validate_every=6,
    num_validation_timesteps=3,
)


@pytest.fixture(scope="module")
def dataset(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five train clips, an odd number for two processes, and three validation clips."""
    dataset = Dataset.create_or_open(tmp_path_factory.mktemp("data") / "dataset")
    for index in range(8):
        add_clip(dataset, f"clip{index}", seed=index, split=Split.VALIDATION if index >= 5 else Split.TRAIN)
    encode_all(dataset, load_base(tiny_base))
    return dataset


class Runs:
    """Starts runs of two processes in a folder."""

    def __init__(self, dataset: Dataset, base: Path, folder: Path) -> None:
        self.dataset, self.base, self.folder = dataset, base, folder

    def command(self, name: str, config: TrainConfig) -> list[str]:
        path = self.folder / f"{name}.json"
        path.write_text(config.model_dump_json())
        run = self.folder / name
        paths = ["--dataset", str(self.dataset.root), "--base", str(self.base), "--run", str(run)]
        return [sys.executable, "-m", "dwm_model.train", *paths, "--config", str(path), "--resume", "--processes", "2"]

    def start(self, name: str, config: TrainConfig) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self.command(name, config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def finish(self, name: str, config: TrainConfig) -> Path:
        process = self.start(name, config)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return self.folder / name


@pytest.fixture
def runs(dataset: Dataset, tiny_base: Path, tmp_path: Path) -> Runs:
    return Runs(dataset, tiny_base, tmp_path)


@pytest.fixture(scope="module")
def whole_run(dataset: Dataset, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing interrupted."""
    return Runs(dataset, tiny_base, tmp_path_factory.mktemp("whole")).finish("whole", CONFIG)


def losses_of(run: Path, file: str = "losses.jsonl") -> list[float]:
    return [json.loads(line)["loss"] for line in (run / file).read_text().splitlines()]


def journals(run: Path) -> tuple[str, str]:
    return (run / "losses.jsonl").read_text(), (run / "validation.jsonl").read_text()


def newest_checkpoint(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS:06d}"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def wait_until(process: subprocess.Popen[str], is_reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if is_reached():
            return
        time.sleep(0.002)
    process.kill()
    raise AssertionError(process.communicate())


def steps_done(run: Path) -> int:
    path = run / "losses.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def ranks_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Process id of each rank, by its number."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    found = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        numbers = [one.removeprefix(b"RANK=") for one in variables if one.startswith(b"RANK=")]
        found.update({int(number): int(child) for number in numbers})
    return found


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2"])
def test_two_processes_learn_what_one_with_the_same_clips_a_step_learns(
    runs: Runs, whole_run: Path, tmp_path: Path, parallelism: str
) -> None:
    changes = {"ema_decay": 0.9, "parallelism": parallelism}
    two = whole_run if parallelism == "ddp" else runs.finish("two", CONFIG.model_copy(update=changes))
    one = tmp_path / "one"
    train(Dataset.open(runs.dataset.root), runs.base, one, CONFIG.model_copy(update={"batch_size": 2}))
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    assert losses_of(two, "validation.jsonl") == pytest.approx(losses_of(one, "validation.jsonl"), abs=1e-5)
    assert len(losses_of(two)) == STEPS


def test_killed_rank_ends_the_others_with_the_reason_and_the_run_resumes_exactly(runs: Runs, whole_run: Path) -> None:
    process = runs.start("run", CONFIG)
    run = runs.folder / "run"
    wait_until(process, lambda: steps_done(run) >= 6)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode == 1
    assert "process 1 of 2 was killed by SIGKILL" in errors.splitlines()[-1]
    assert "checkpoint 4 is kept" in errors.splitlines()[-1]
    assert "another process of this training ended" in (run / "ranks" / "rank0.log").read_text().splitlines()[-1]
    row = next(row for row in runs.dataset.runs.rows() if Path(row.run_path).name == "run")
    assert row.status is RunStatus.FAILED
    assert checkpoint_steps(run) == [4]
    runs.finish("run", CONFIG)
    assert journals(run) == journals(whole_run)
    assert newest_checkpoint(run) == newest_checkpoint(whole_run)


def test_sigterm_writes_a_checkpoint_exits_143_and_the_run_resumes_exactly(runs: Runs, whole_run: Path) -> None:
    process = runs.start("run", CONFIG)
    run = runs.folder / "run"
    wait_until(process, lambda: steps_done(run) >= 2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    stopped_at = steps_done(run)
    assert stopped_at < STEPS
    assert f"stopped by SIGTERM at step {stopped_at}; continue it with --resume" in errors.splitlines()[-1]
    assert checkpoint_steps(run)[-1] == stopped_at
    runs.finish("run", CONFIG)
    assert journals(run) == journals(whole_run)
    assert newest_checkpoint(run) == newest_checkpoint(whole_run)


def test_sharded_full_training_resumes_exactly_and_only_in_as_many_processes(runs: Runs, tmp_path: Path) -> None:
    changes = {"mode": "full", "parallelism": "fsdp2", "ema_decay": 0.9, "max_steps": 6, "learning_rate": 1e-3}
    config = CONFIG.model_copy(update={**changes, "checkpoint_every": 3})
    whole = runs.finish("whole", config)
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step-000006")
    single = [*runs.command("half", config)[:-1], "1"]
    refused = subprocess.run(single, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "the run trains in 2 processes, now 1" in refused.stderr.splitlines()[-1]
    runs.finish("half", config)
    assert journals(half) == journals(whole)
    for name in (
        "transformer/diffusion_pytorch_model.safetensors",
        "ema/transformer/diffusion_pytorch_model.safetensors",
    ):
        one, other = (run / "checkpoints" / "step-000006" / name for run in (half, whole))
        assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes() != (whole / "checkpoints/step-000006/transformer" / Path(name).name).read_bytes()


def test_error_of_one_process_is_the_reason_of_all(runs: Runs) -> None:
    """A shard that is damaged under the running training: whichever process needs it, both stop and say so."""
    config = CONFIG.model_copy(update={"max_steps": 4000, "validate_every": 4000, "checkpoint_every": 4000})
    copied = Dataset.open(Path(shutil.copytree(runs.dataset.root, runs.folder / "copied")))
    moved = Runs(copied, runs.base, runs.folder)
    process = moved.start("run", config)
    run = runs.folder / "run"
    wait_until(process, lambda: steps_done(run) >= 2)
    for embedding in copied.latents_folder.glob("*/prompts/*.safetensors"):
        embedding.unlink()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no embedding of" in errors.splitlines()[-1]
    for number in (0, 1):
        assert "no embedding of" in (run / "ranks" / f"rank{number}.log").read_text().splitlines()[-1]
