"""What every `dwm` command shares: one-line errors, exit codes, progress bars and `--json`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from manifests.errors import DwmError

console = Console(stderr=True, highlight=False)
"""Messages for people go to standard error, so that `--json` output can be piped."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
"""The `--json` switch of reporting commands."""

EXIT_PROBLEMS = 1
"""Exit code of a command that worked and found problems."""

EXIT_INTERRUPTED = 130
"""Exit code of a command that Ctrl-C or SIGTERM stopped; what was finished is kept."""

_Item = TypeVar("_Item")


class CommandLineState:
    """Switches given before the command's name."""

    debug: bool = False


def one_line_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Print a `DwmError` as one line and exit with its code; Ctrl-C exits with 130 and says how to go on."""

    @wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            function(*args, **kwargs)
        except DwmError as error:
            if CommandLineState.debug:
                raise
            console.print(f"[bold red]error:[/] {_plain(str(error))}", soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            console.print("interrupted: what was finished is kept; run the same command again to continue")
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return wrapped


def _plain(text: str) -> str:
    """Escape what rich would read as markup."""
    return text.replace("[", r"\[")


def say(text: str) -> None:
    """Print one line for a person."""
    console.print(_plain(text), soft_wrap=True)


def report(result: object, as_json: bool, lines: Iterable[str]) -> None:
    """Print a result, a Pydantic model or a data class: ``lines`` for people, or one JSON object."""
    if as_json:
        values = TypeAdapter(type(result)).dump_python(result, mode="json")
        sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
        return
    for line in lines:
        sys.stdout.write(line + "\n")


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=not console.is_terminal)


def progress(items: list[_Item], label: str) -> Iterator[_Item]:
    """Yield ``items`` under a progress bar."""
    with _progress_bar() as bar:
        yield from bar.track(items, description=label)


@contextmanager
def step_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over ``total`` steps; yields a function that is told the number of steps done."""
    with _progress_bar() as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def set_up_logging(debug: bool) -> None:
    """Show everything that the library logs with ``--debug``; without it Python's default shows warnings.

    Prefect only formats its own messages when nothing has set logging up before it.
    """
    CommandLineState.debug = debug
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
        for noisy in ("matplotlib", "PIL", "numba", "httpx", "httpcore", "OpenGL"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
