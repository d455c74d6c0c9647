"""The command line in this process, and a small pipeline to use it on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from dwm_model.geometry import ClipGeometry
from dwm_model.lora import LoraSettings
from dwm_model.run_log import SPEED_FILE
from dwm_model.train_config import TrainConfig
from flows.cli import app
from manifests.atomic import TEMPORARY_MARK
from manifests.dataset import Dataset
from manifests.schema import Clip
from render.video import write_video
from tests.helpers_video import hands_of_moving_box, moving_box, write_triplet

CLIPS = 5
STEPS = 4
CONFIG = TrainConfig(
    geometry=ClipGeometry(width=96, height=64, num_frames=17),
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=STEPS,
    batch_size=1,
    accumulation_steps=1,
    warmup_steps=1,
    checkpoint_every=2,
    validate_every=2,
    num_validation_clips=1,
    num_validation_timesteps=1,
)
FEW_VIDEOS = ("--seeds", "2", "--num-inference-steps", "2", "--no-lpips", "--no-dreamsim")
STAGES = ("build", "split", "encode", "train", "benchmark")


@dataclass(frozen=True)
class Outcome:
    """What a user sees of a command."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one JSON object, which is the last line of the output and the only one."""
        (line,) = self.out.splitlines()
        value = json.loads(line)
        assert isinstance(value, dict)
        return value


def dwm(*arguments: object) -> Outcome:
    """Run the command line in this process; anything but an exit by its own code is a failure of the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []  # the command line is the first to set up logging, as in a process
    try:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    finally:
        root.handlers = handlers
        for number, handler in before.items():
            signal.signal(number, handler)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output, result.output
    return Outcome(result.exit_code, result.stdout, result.stderr)


def done(*arguments: object) -> Outcome:
    """Run a command that must succeed."""
    outcome = dwm(*arguments)
    assert outcome.code == 0, outcome
    return outcome


def refused(*arguments: object, code: int = 1) -> str:
    """Run a command that must end with one line on standard error and nothing on standard output; returns the line."""
    outcome = dwm(*arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: "), line
    return line


class Pipeline:
    """Folders of one pipeline, and the arguments of its stages."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.base = root, base
        self.raw, self.dataset, self.run, self.report = (root / name for name in ("raw", "dataset", "run", "report"))
        self.config = root / "config.json"

    def write_raw(self, clips: int = CLIPS) -> None:
        """Write the raw triplets and the training settings."""
        roles = {"videos": moving_box(17), "videos_static": moving_box(17, box=False)}
        roles["videos_hands"] = hands_of_moving_box(17)
        for index in range(clips):
            write_triplet(self.raw / f"take_{index}", f"{index:05d}", num_frames=17, prompt=f"I push {index}.".encode())
            for folder, frames in roles.items():  # every take looks into another direction: no two are the same clip
                video = self.raw / f"take_{index}" / folder / f"{index:05d}.mp4"
                write_video(video, np.roll(frames, 16 * index, axis=2), 8)
        self.config.write_text(CONFIG.model_dump_json())

    def stage(self, name: str) -> list[str]:
        """Arguments of a stage's command."""
        dataset, base, run = str(self.dataset), str(self.base), str(self.run)
        return {
            "build": ["build", "official", "--raw", str(self.raw), "--dataset", dataset],
            "split": ["split", dataset, "--policy", "in-order", "--ensure-every-split"],
            "encode": ["encode", dataset, "--base", base, "--profile", "mini", "--shard-size", "2"],
            "train": ["train", dataset, "--base", base, "--run", run, "--config", str(self.config)],
            "benchmark": ["benchmark", dataset, "--base", base, "--run", run, "--out", str(self.report), *FEW_VIDEOS],
        }[name]

    def clips(self) -> list[Clip]:
        """Rows of the clips in the order of their takes."""
        return sorted(Dataset.open(self.dataset).clips.rows(), key=lambda clip: clip.official_path or "")

    def state(self) -> dict[str, Any]:
        """Everything that must not depend on interruptions: rows, media, latents, losses and tables.

        But for times, and for the steps that have a checkpoint: being interrupted writes one more.
        """
        dataset = Dataset.open(self.dataset)
        changing = {"created_at", "checkpoints"}
        kept = ("dataset/clips/**/*", "dataset/latents/**/*", "dataset/generations/**/*", "run/*.jsonl", "report/*")
        files = {path.relative_to(self.root): path for pattern in kept for path in self.root.glob(pattern)}
        return {
            "rows": [row.model_dump(mode="json", exclude=changing) for table in dataset.tables for row in table.rows()],
            "files": {
                str(name): path.read_bytes()
                for name, path in files.items()
                if path.is_file() and path.name != SPEED_FILE  # what the clock says
            },
        }

    def leftovers(self) -> list[Path]:
        """Unfinished files."""
        return [path for path in self.root.rglob("*") if TEMPORARY_MARK in path.name]

    def copied_to(self, root: Path) -> Pipeline:
        """A copy that a test may break."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Pipeline(root, self.base)

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start a stage as a process of its own."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *self.stage(name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )


def whole_pipeline(root: Path, base: Path) -> dict[str, Pipeline]:
    """A pipeline that nothing interrupted: how it was before each stage, and at the ``end``."""
    pipeline = Pipeline(root / "whole", base)
    pipeline.write_raw()
    before = {}
    for stage in STAGES:
        before[stage] = pipeline.copied_to(root / f"before-{stage}")
        done(*pipeline.stage(stage))
    return {**before, "end": pipeline}


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount an empty disk of a given size; yields False where this process may not do so."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
