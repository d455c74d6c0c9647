"""Training as a task: a subprocess that can be killed, with its progress in the UI."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect import get_run_logger, task

import dwm_model
from dwm_model.launcher import REQUESTED_CONFIG_FILE, SECONDS_TO_STOP, train_arguments
from dwm_model.run_log import LOSSES_FILE, last_step
from dwm_model.train_config import TrainConfig
from dwm_model.training import TrainSummary
from manifests import atomic
from manifests.errors import DwmError
from tasks.artifacts import ProgressArtifact

SECONDS_TO_FINISH_A_STEP = SECONDS_TO_STOP + 30.0
"""How long the trainer may take after SIGTERM to write its checkpoint before it is killed."""

_POLL_SECONDS = 0.5
_STOPPED_BY_SIGTERM = 128 + signal.SIGTERM


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the trainer to write a checkpoint and go; kill it when it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=SECONDS_TO_FINISH_A_STEP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@task(name="train")
def train_in_subprocess(
    dataset: Path, base: Path, run: Path, config: TrainConfig, processes: int = 1, *, seconds: float | None = None
) -> TrainSummary:
    """Train from the run's last checkpoint, or from the base, in a process of its own, or in several.

    Args:
        dataset: the dataset's folder.
        base: the base model's folder.
        run: the run's folder.
        config: settings.
        processes: ranks on this machine; the subprocess starts and watches them.
        seconds: after which it is asked to write a checkpoint and stop; None lets it finish.

    Returns:
        What the trainer reached.

    Raises:
        DwmError: the trainer stopped with an error; its last line is the message.
    """
    config_path = run / REQUESTED_CONFIG_FILE
    atomic.write_text(config_path, config.model_dump_json(indent=2))
    arguments = train_arguments(dataset, base, run, ["--config", str(config_path)], resume=True)
    command = [sys.executable, "-m", "dwm_model.train", *arguments, "--processes", str(processes)]
    command += ["--parent", str(os.getpid())]
    package_root = str(Path(dwm_model.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((package_root, os.environ.get("PYTHONPATH", "")))}
    log_path = run / "train.log"
    progress = ProgressArtifact("training-progress", f"Training steps of {run.name}, {config.max_steps} in all")
    with log_path.open("ab") as log:
        # A session of its own: Ctrl-C comes from us alone, as a SIGTERM, so that a checkpoint is still written.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                progress.update(last_step(run / LOSSES_FILE), config.max_steps)
        finally:
            if process.poll() is None:
                _stop(process)
    progress.update(last_step(run / LOSSES_FILE), config.max_steps)
    was_asked_to_stop = time.monotonic() >= deadline and process.returncode == _STOPPED_BY_SIGTERM
    if process.returncode != 0 and not was_asked_to_stop:
        lines = log_path.read_text(errors="replace").strip().splitlines()
        raise DwmError(f"{log_path}: training stopped with code {process.returncode}: {lines[-1] if lines else ''}")
    output = process.stdout.read() if process.stdout else b""
    summary = TrainSummary.model_validate_json(output.splitlines()[-1])
    get_run_logger().info("%s: %d steps, loss %s", run, summary.steps, summary.loss_last)
    return summary
