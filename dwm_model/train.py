"""Training as a process that can be killed: ``python -m dwm_model.train --dataset D --base B --run R --config FILE``.

Exit codes: 0 done, 1 a problem (one line on the error stream), 2 bad usage, 130 or 143 stopped by Ctrl-C or SIGTERM
after the step in hand, with a checkpoint. The last line of the output is the summary as JSON.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from dwm_model.train_config import get_preset, read_train_config
from manifests.dataset import Dataset
from manifests.errors import DwmError


class StopRequest:
    """Remembers the first Ctrl-C or SIGTERM (a second one acts at once), and notices when its parent is gone."""

    def __init__(self, parent: int | None = None) -> None:
        self.signal_number: int | None = None
        self._parent = parent
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def is_asked(self) -> bool:
        """Whether to stop after the step in hand: after a signal, or when the parent process has ended."""
        if self.signal_number is None and self._parent is not None and os.getppid() != self._parent:
            self.signal_number = signal.SIGTERM
        return self.signal_number is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments, train, and tell the outcome by exit code."""
    parser = argparse.ArgumentParser(prog="python -m dwm_model.train", description="Fine-tune a base model with LoRA.")
    parser.add_argument("--dataset", type=Path, required=True, help="dataset folder, encoded")
    parser.add_argument("--base", type=Path, required=True, help="base model's folder")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    settings = parser.add_mutually_exclusive_group(required=True)
    settings.add_argument("--config", type=Path, help="JSON file with training settings")
    settings.add_argument("--preset", help="settings by name: paper, tiny")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--parent", type=int, help="process id of the parent: stop, with a checkpoint, when it ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stop = StopRequest(options.parent)
    try:
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
    except DwmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(summary.model_dump_json() + "\n")
    if stop.signal_number is not None and not summary.is_complete:
        name = signal.Signals(stop.signal_number).name
        sys.stderr.write(f"{options.run}: stopped by {name} at step {summary.steps}; continue it with --resume\n")
        return 128 + stop.signal_number
    return 0


if __name__ == "__main__":
    sys.exit(main())
