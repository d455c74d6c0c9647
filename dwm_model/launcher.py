"""Starts the ranks of a training on one machine, and stops all of them when one is lost or a signal comes.

What `torchrun` does on several machines, this does on one, with the trainer's manners: SIGTERM and Ctrl-C let every
rank finish its step and write the checkpoint, and the one line that is left says which process failed and why.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dwm_model.checkpoints import checkpoint_steps
from dwm_model.ranks import LOST_RANK, MEETING_VARIABLE
from manifests.atomic import make_folder
from manifests.errors import DwmError

REQUESTED_CONFIG_FILE = "requested_config.json"
"""File of a run with the settings that its processes are started with."""

RANK_LOGS_FOLDER = "ranks"
"""Folder of a run with what each process said: ``rank0.log``, ``rank1.log``, ..."""

SECONDS_TO_NOTICE = 20.0
"""How long the others may take to notice a lost rank by themselves before they are told to stop."""

SECONDS_TO_STOP = 300.0
"""How long a rank may take to finish its step and write its checkpoint before it is killed."""

_POLL_S = 0.05


@dataclass
class _Rank:
    """A process of the training.

    Attributes:
        process: the process.
        log_path: where it writes its messages.
        was_killed_by_us: it did not stop when it was told to.
    """

    process: subprocess.Popen[bytes]
    log_path: Path
    was_killed_by_us: bool = False

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self.process.poll()

    @property
    def last_line(self) -> str:
        """What it said last, without the word error."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return re.sub(r"^\[rank\d+\]: |^error: ", "", lines[-1]) if lines else "no message"


@dataclass(frozen=True)
class RanksOutcome:
    """How the ranks ended without a failure.

    Attributes:
        summary: last line of the main rank's output, JSON; empty when a signal came before training began.
        signal_number: the signal that stopped them after a checkpoint; None when they finished.
    """

    summary: str
    signal_number: int | None = field(default=None)


def run_ranks(
    arguments: Sequence[str],
    processes: int,
    run_folder: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_poll: Callable[[], None] = lambda: None,
) -> RanksOutcome:
    """Start ``python -m dwm_model.train`` as ranks of one training and wait for their end.

    Args:
        arguments: arguments of the command, without the number of processes.
        processes: number of ranks.
        run_folder: the run's folder; the ranks' messages are logged there.
        should_stop: asked all the time; True lets the ranks write a checkpoint and go.
        on_poll: called all the time, for a progress bar.

    Returns:
        How they ended.

    Raises:
        DwmError: a rank failed or was lost; all others have been stopped.
    """
    folder = run_folder / RANK_LOGS_FOLDER
    make_folder(folder)
    with tempfile.TemporaryDirectory(prefix="dwm-ranks-") as meeting:
        ranks = [_start(arguments, number, processes, Path(meeting), folder) for number in range(processes)]
        try:
            was_told = _watch(ranks, should_stop, on_poll)
        finally:
            _stop([rank for rank in ranks if rank.code is None], patience_s=0.0)
    summary = (ranks[0].process.stdout.read() if ranks[0].process.stdout else b"").decode().strip()
    codes = {rank.code for rank in ranks}
    stopped = {128 + signal.SIGTERM, 128 + signal.SIGINT}
    if codes <= {0}:
        return RanksOutcome(summary.splitlines()[-1])
    if codes <= stopped or (was_told and codes <= stopped | {0, -signal.SIGTERM}):  # -SIGTERM: it had just begun
        return RanksOutcome(summary.splitlines()[-1] if summary else "", signal.SIGTERM)
    raise DwmError(_failure(run_folder, ranks))


def train_arguments(dataset: Path, base: Path, run: Path, settings: Sequence[str], *, resume: bool) -> list[str]:
    """Arguments of ``python -m dwm_model.train`` for a rank; ``settings`` is ``--config FILE`` or ``--preset NAME``."""
    paths = ["--dataset", str(dataset), "--base", str(base), "--run", str(run)]
    return [*paths, *settings, *(["--resume"] if resume else [])]


def _start(arguments: Sequence[str], number: int, processes: int, meeting: Path, folder: Path) -> _Rank:
    """Start one rank, in a session of its own so that a terminal's Ctrl-C reaches it through us alone."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo",
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        MEETING_VARIABLE: (meeting / "store").as_uri(),
    }
    command = [sys.executable, "-m", "dwm_model.train", *arguments, "--parent", str(os.getpid())]
    log_path = folder / f"rank{number}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)
    return _Rank(process, log_path)


def _watch(ranks: Sequence[_Rank], should_stop: Callable[[], bool], on_poll: Callable[[], None]) -> bool:
    """Wait for the end of all ranks; returns whether they were told to stop."""
    while True:
        running = [rank for rank in ranks if rank.code is None]
        if not running:
            return False
        if should_stop():
            _stop(running, patience_s=SECONDS_TO_STOP)
            return True
        if any(rank.code for rank in ranks):
            _wait(running, SECONDS_TO_NOTICE)
            _stop([rank for rank in running if rank.code is None], patience_s=SECONDS_TO_NOTICE)
            return False
        on_poll()
        time.sleep(_POLL_S)


def _stop(ranks: Sequence[_Rank], *, patience_s: float) -> None:
    """Ask ranks to stop, wait, and kill those that have not."""
    for rank in ranks:
        rank.process.send_signal(signal.SIGTERM)
    _wait(ranks, patience_s)
    for rank in ranks:
        if rank.code is None:
            rank.was_killed_by_us = True
            rank.process.kill()
        rank.process.wait()


def _wait(ranks: Sequence[_Rank], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(rank.code is None for rank in ranks):
        time.sleep(_POLL_S)


def _failure(run_folder: Path, ranks: Sequence[_Rank]) -> str:
    """One line on what went wrong: the rank that failed first is the one that did not merely lose another."""
    kept = checkpoint_steps(run_folder)
    remedy = f"checkpoint {kept[-1]} is kept" if kept else "there is no checkpoint yet"
    for number, rank in enumerate(ranks):
        code = rank.code or 0
        if code < 0 and not rank.was_killed_by_us:
            name = signal.Signals(-code).name
            return (
                f"{run_folder}: process {number} of {len(ranks)} was killed by {name} (out of memory?), the others "
                f"have stopped; {remedy}: run the same command again to continue"
            )
    failed = [rank for rank in ranks if rank.code not in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT)]
    reasons = [rank for rank in failed if LOST_RANK not in rank.last_line] or failed
    if reasons[0].code == 1:
        return reasons[0].last_line
    number = list(ranks).index(reasons[0])
    return f"{reasons[0].log_path}: process {number} stopped with code {reasons[0].code}: {reasons[0].last_line}"
