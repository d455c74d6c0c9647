"""Runs of two processes in the tests: how they are started, watched, interrupted and compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dwm_model.base_model import load_base
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig
from manifests.dataset import Dataset
from manifests.schema import Split
from tests.helpers_model import GEOMETRY, add_clip, encode_all

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


def two_process_dataset(root: Path, *bases: Path) -> Dataset:
    """Five train clips, an odd number for two processes, and three validation clips, encoded for some bases."""
    dataset = Dataset.create_or_open(root)
    for index in range(8):
        add_clip(dataset, f"clip{index}", seed=index, split=Split.VALIDATION if index >= 5 else Split.TRAIN)
    for base in bases:
        encode_all(dataset, load_base(base))
    return dataset


class Runs:
    """Starts runs of two processes in a folder."""

    def __init__(self, dataset: Dataset, base: Path, folder: Path) -> None:
        self.dataset, self.base, self.folder = dataset, base, folder

    def command(self, name: str, config: TrainConfig, *, torchrun: bool) -> list[str]:
        """The trainer in two processes that it starts itself, or that torchrun starts."""
        path = self.folder / f"{name}.json"
        path.write_text(config.model_dump_json())
        run = self.folder / name
        module = ["-m", "dwm_model.train", "--dataset", str(self.dataset.root), "--base", str(self.base)]
        module += ["--run-folder" if torchrun else "--run", str(run), "--config", str(path), "--resume"]
        if torchrun:
            launcher = str(Path(sys.executable).with_name("torchrun"))
            return [launcher, "--standalone", "--nproc-per-node", "2", *module]
        return [sys.executable, *module, "--processes", "2"]

    def start(self, name: str, config: TrainConfig, *, torchrun: bool = False) -> subprocess.Popen[str]:
        """Start, or continue, the run of a name."""
        command = self.command(name, config, torchrun=torchrun)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def finish(self, name: str, config: TrainConfig, *, torchrun: bool = False) -> Path:
        """Start, or continue, a run and wait for its end; returns its folder."""
        process = self.start(name, config, torchrun=torchrun)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return self.folder / name


def losses_of(run: Path, file: str = "losses.jsonl") -> list[float]:
    return [json.loads(line)["loss"] for line in (run / file).read_text().splitlines()]


def journals(run: Path) -> tuple[str, str]:
    return (run / "losses.jsonl").read_text(), (run / "validation.jsonl").read_text()


def checkpoint_files(run: Path, step: int = STEPS) -> dict[str, bytes]:
    """Bytes of a checkpoint's files by name."""
    folder = run / "checkpoints" / f"step-{step:06d}"
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


def processes_naming(folder: Path) -> list[int]:
    """Ids of the processes with a folder among their arguments."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in arguments.read_bytes():
                found.append(int(arguments.parent.name))
        except FileNotFoundError:  # it has just ended
            continue
    return found
