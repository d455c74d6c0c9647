"""Training as a task: a subprocess that can be killed, with its progress in the UI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect import get_run_logger, task

import dwm_model
from dwm_model.train_config import TrainConfig
from dwm_model.training import TrainSummary
from manifests import atomic
from manifests.errors import DwmError
from tasks.artifacts import ProgressArtifact

SECONDS_TO_FINISH_A_STEP = 60.0
"""How long the trainer may take after SIGTERM to write its checkpoint before it is killed."""

_POLL_SECONDS = 0.5


def _last_step(losses: Path) -> int:
    """Step of the last whole line of ``losses.jsonl``; 0 when there is none."""
    if not losses.exists():
        return 0
    with losses.open("rb") as stream:
        stream.seek(max(0, losses.stat().st_size - 4096))
        whole_lines = [line for line in stream.read().split(b"\n")[:-1] if line.startswith(b"{")]
    return int(json.loads(whole_lines[-1])["step"]) if whole_lines else 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the trainer to write a checkpoint and go; kill it when it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=SECONDS_TO_FINISH_A_STEP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@task(name="train")
def train_in_subprocess(dataset: Path, base: Path, run: Path, config: TrainConfig) -> TrainSummary:
    """Train from the run's last checkpoint, or from the base, in a process of its own.

    Returns:
        What the trainer reached.

    Raises:
        DwmError: the trainer stopped with an error; its last line is the message.
    """
    config_path = run / "requested_config.json"
    atomic.write_text(config_path, config.model_dump_json(indent=2))
    command = [sys.executable, "-m", "dwm_model.train", "--dataset", str(dataset), "--base", str(base)]
    command += ["--run", str(run), "--config", str(config_path), "--resume", "--parent", str(os.getpid())]
    package_root = str(Path(dwm_model.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((package_root, os.environ.get("PYTHONPATH", "")))}
    log_path = run / "train.log"
    progress = ProgressArtifact("training-progress", f"Training steps of {run.name}, {config.max_steps} in all")
    with log_path.open("ab") as log:
        # A session of its own: Ctrl-C comes from us alone, as a SIGTERM, so that a checkpoint is still written.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                progress.update(_last_step(run / "losses.jsonl"), config.max_steps)
        finally:
            if process.poll() is None:
                _stop(process)
    progress.update(_last_step(run / "losses.jsonl"), config.max_steps)
    if process.returncode != 0:
        lines = log_path.read_text(errors="replace").strip().splitlines()
        raise DwmError(f"{log_path}: training stopped with code {process.returncode}: {lines[-1] if lines else ''}")
    output = process.stdout.read() if process.stdout else b""
    summary = TrainSummary.model_validate_json(output.splitlines()[-1])
    get_run_logger().info("%s: %d steps, loss %s", run, summary.steps, summary.loss_last)
    return summary
