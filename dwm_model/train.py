"""Training as a process that can be killed: ``python -m dwm_model.train --dataset D --base B --run R --config FILE``.

Several processes train together when it is started by ``torchrun --nproc-per-node N -m dwm_model.train ...``, or with
``--processes N``, which starts them itself on this machine. Torchrun takes ``--run`` for its own ``--run-path`` and
stops; ``--run-folder`` is the same option under a name that it lets by.

Exit codes: 0 done, 1 a problem (one line on the error stream), 2 bad usage, 130 or 143 stopped by Ctrl-C or SIGTERM
after the step in hand, with a checkpoint. The last line of the output is the summary as JSON.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from dwm_model.train_config import get_preset, read_train_config
from manifests.dataset import Dataset
from manifests.errors import DwmError

ONE_REQUEST_S = 2.0
"""Signals that come within this time are one request: a terminal and a launcher may both pass a Ctrl-C on."""


class StopRequest:
    """Remembers the first Ctrl-C or SIGTERM (a later second one acts at once), and notices when its parent is gone."""

    def __init__(self, parent: int | None = None) -> None:
        self.signal_number: int | None = None
        self._asked_at = 0.0
        self._parent = parent
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at > ONE_REQUEST_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def is_asked(self) -> bool:
        """Whether to stop after the step in hand: after a signal, or when the parent process has ended."""
        if self.signal_number is None and self._parent is not None and os.getppid() != self._parent:
            self.signal_number = signal.SIGTERM
        return self.signal_number is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments, train, and tell the outcome by exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stop = StopRequest(options.parent)
    try:
        if options.processes > 1 and "RANK" not in os.environ:
            return _launch(options, stop)
        return _train(options, stop)
    except DwmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dwm_model.train", description="Fine-tune a base model.")
    parser.add_argument("--dataset", type=Path, required=True, help="dataset folder, encoded")
    parser.add_argument("--base", type=Path, required=True, help="base model's folder")
    parser.add_argument(
        "--run", "--run-folder", type=Path, required=True, help="folder of the run; torchrun lets only --run-folder by"
    )
    settings = parser.add_mutually_exclusive_group(required=True)
    settings.add_argument("--config", type=Path, help="JSON file with training settings")
    settings.add_argument("--preset", help="settings by name: paper, mini, tiny")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--processes", type=int, default=1, help="processes on this machine, one a GPU")
    parser.add_argument("--parent", type=int, help="process id of the parent: stop, with a checkpoint, when it ends")
    return parser


def _train(options: argparse.Namespace, stop: StopRequest) -> int:
    """Train in this process, alone or as one of several."""
    from dwm_model.training import train

    config = read_train_config(options.config) if options.config else get_preset(options.preset)
    summary = train(
        Dataset.open(options.dataset),
        options.base,
        options.run,
        config,
        resume=options.resume,
        should_stop=stop.is_asked,
    )
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(summary.model_dump_json() + "\n")
    if summary.is_complete:
        return 0
    return _stopped(options.run, summary.steps, stop.signal_number or signal.SIGTERM)


def _launch(options: argparse.Namespace, stop: StopRequest) -> int:
    """Train in several processes that this one starts and watches."""
    from dwm_model.launcher import run_ranks, train_arguments
    from dwm_model.training import TrainSummary

    settings = ["--config", str(options.config)] if options.config else ["--preset", options.preset]
    arguments = train_arguments(options.dataset, options.base, options.run, settings, resume=options.resume)
    outcome = run_ranks(arguments, options.processes, options.run, should_stop=stop.is_asked)
    if outcome.summary:
        sys.stdout.write(outcome.summary + "\n")
    if outcome.signal_number is None:
        return 0
    steps = TrainSummary.model_validate_json(outcome.summary).steps if outcome.summary else 0
    return _stopped(options.run, steps, stop.signal_number or outcome.signal_number)


def _stopped(run_folder: Path, steps: int, number: int) -> int:
    """Say how to go on after a signal; returns the exit code."""
    name = signal.Signals(number).name
    sys.stderr.write(f"{run_folder}: stopped by {name} at step {steps}; continue it with --resume\n")
    return 128 + number


if __name__ == "__main__":
    exit_code = main()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Torch's communication threads may abort a process that tears itself down; its files are closed by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
