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
from safetensors.torch import load_file

from dwm_model.base_model import load_base
from dwm_model.checkpoints import checkpoint_steps
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
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
    tensorboard=False,
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


def kill_rank(launcher: subprocess.Popen[str], number: int) -> str:
    """Kill -9 a rank; returns the launcher's last line. All must have ended soon after."""
    os.kill(ranks_of(launcher)[number], signal.SIGKILL)
    began = time.monotonic()
    _, errors = launcher.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert launcher.returncode == 1
    return errors.splitlines()[-1]


def terminate(launcher: subprocess.Popen[str], run: Path) -> int:
    """SIGTERM to the launcher; returns the step at which all ranks stopped with a checkpoint."""
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + signal.SIGTERM, errors
    stopped_at = steps_done(run)
    assert f"stopped by SIGTERM at step {stopped_at}; continue it with --resume" in errors.splitlines()[-1]
    assert checkpoint_steps(run)[-1] == stopped_at
    return stopped_at


def test_two_processes_learn_what_one_with_the_same_clips_a_step_learns(
    runs: Runs, whole_run: Path, tmp_path: Path
) -> None:
    train(runs.dataset, runs.base, tmp_path / "one", CONFIG.model_copy(update={"batch_size": 2}))
    assert losses_of(whole_run) == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)
    validations = (losses_of(run, "validation.jsonl") for run in (whole_run, tmp_path / "one"))
    assert next(validations) == pytest.approx(next(validations), abs=1e-5)
    assert len(losses_of(whole_run)) == STEPS
    with pytest.raises(DwmError, match="the run trains in 2 processes, now 1; resume with as many"):
        train(runs.dataset, runs.base, Path(shutil.copytree(whole_run, tmp_path / "copy")), CONFIG, resume=True)


def test_run_with_sigterm_and_with_a_killed_rank_equals_an_uninterrupted_one(runs: Runs, whole_run: Path) -> None:
    process, run = runs.start("run", CONFIG), runs.folder / "run"
    wait_until(process, lambda: steps_done(run) >= 2)
    assert terminate(process, run) < 8
    process = runs.start("run", CONFIG)
    wait_until(process, lambda: steps_done(run) >= 9)
    last_line = kill_rank(process, 1)
    assert "process 1 of 2 was killed by SIGKILL" in last_line
    assert "checkpoint 8 is kept" in last_line
    assert "another process of this training ended" in (run / "ranks" / "rank0.log").read_text().splitlines()[-1]
    row = next(row for row in runs.dataset.runs.rows() if Path(row.run_path).name == "run")
    assert row.status is RunStatus.FAILED
    assert checkpoint_steps(run)[-1] == 8
    runs.finish("run", CONFIG)
    assert journals(run) == journals(whole_run)
    assert newest_checkpoint(run) == newest_checkpoint(whole_run)


def test_sharded_full_training_with_sigterm_learns_what_one_process_learns(runs: Runs, tmp_path: Path) -> None:
    changes = {"mode": "full", "ema_decay": 0.9, "learning_rate": 1e-3, "max_steps": 8, "parallelism": "fsdp2"}
    config = CONFIG.model_copy(update=changes)
    process, run = runs.start("run", config), runs.folder / "run"
    wait_until(process, lambda: steps_done(run) >= 2)
    assert terminate(process, run) < 8
    runs.finish("run", config)
    one = tmp_path / "one"
    train(runs.dataset, runs.base, one, config.model_copy(update={"batch_size": 2}))
    assert losses_of(run) == pytest.approx(losses_of(one), abs=1e-5)
    for name in ("transformer", "ema/transformer"):
        sharded, whole = (
            load_file(folder / "checkpoints" / "step-000008" / name / "diffusion_pytorch_model.safetensors")
            for folder in (run, one)
        )
        assert sharded.keys() == whole.keys()
        assert max(float((sharded[key] - whole[key]).abs().max()) for key in whole) < 1e-4


def test_error_of_one_rank_is_the_reason_of_all(tmp_path: Path) -> None:
    """One rank cannot do its part of a step; the other would wait for it for ever."""
    script = tmp_path / "rank.py"
    script.write_text(
        """
import sys
from dwm_model.ranks import joined_ranks
from manifests.errors import DwmError

def read_clip():
    if ranks.rank == 1:
        raise DwmError("clip 7: damaged")
    return ranks.rank

with joined_ranks() as ranks:
    assert ranks.all_do(lambda: ranks.rank) == ranks.rank
    assert ranks.on_main(lambda: f"from {ranks.rank}") == "from 0"
    assert ranks.mean(float(ranks.rank)) == 0.5
    assert ranks.agree(stop=ranks.rank == 1)
    try:
        ranks.all_do(read_clip)
    except DwmError as error:
        print(error)
"""
    )
    meeting = {"DWM_RANKS_MEET_AT": (tmp_path / "store").as_uri(), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **meeting, "RANK": str(rank), "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert said == ["process 1: clip 7: damaged", "clip 7: damaged"]
