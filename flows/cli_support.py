"""What every `dwm` command shares: one-line errors, exit codes, progress bars and `--json`."""

from __future__ import annotations

import errno
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
from rich.text import Text

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
    """Print a `DwmError` as one line and exit with its code; Ctrl-C exits with 130 and says how to go on.

    An operating system's refusal that no library function has explained is told in one line, too. ``--debug`` shows the
    traceback of either.
    """

    @wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            function(*args, **kwargs)
        except DwmError as error:
            if CommandLineState.debug:
                raise
            _say_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if CommandLineState.debug or error.errno == errno.EPIPE:  # typer ends quietly when `| head` has closed
                raise
            _say_error(_describe_os_error(error))
            raise typer.Exit(EXIT_PROBLEMS) from None
        except KeyboardInterrupt:
            say("interrupted: what was finished is kept; run the same command again to continue")
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return wrapped


def _say_error(message: str) -> None:
    console.print(Text.assemble(("error:", "bold red"), f" {_one_line(message)}"), soft_wrap=True)


def _describe_os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = "check that the file may be read and written and that the disk has room (`dwm --debug` shows where)"
    return f"{where}{error.strerror or error}; {remedy}"


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def say(text: str) -> None:
    """Print one line for a person; nothing in it is taken for markup."""
    console.print(text, markup=False, emoji=False, soft_wrap=True)


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
    return Progress(*columns, console=console, disable=not console.is_terminal)


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


class ConsoleHandler(logging.Handler):
    """Log messages on standard error, above a progress bar that is running."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        say(self.format(record))


class _RunNameFormatter(logging.Formatter):
    """Names the task or flow run that a message of Prefect is about, else the module that it comes from."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one message."""
        names = (getattr(record, attribute, None) for attribute in ("task_run_name", "flow_run_name"))
        record.source = next((name for name in names if name), record.name)
        return super().format(record)


def _is_told_anyway(record: logging.LogRecord) -> bool:
    """Whether a message is about an error that `one_line_errors` prints (Prefect logs it in every flow)."""
    error = record.exc_info[1] if record.exc_info else None
    return isinstance(error, DwmError | KeyboardInterrupt)


def set_up_logging(debug: bool) -> None:
    """Send the library's log messages to standard error: warnings, or everything with ``--debug``."""
    CommandLineState.debug = debug
    handler = ConsoleHandler()
    handler.setFormatter(_RunNameFormatter("%(asctime)s %(levelname)s %(source)s: %(message)s", "%H:%M:%S"))
    if not debug:
        handler.addFilter(lambda record: not _is_told_anyway(record))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    for noisy in ("matplotlib", "PIL", "numba", "httpx", "httpcore", "OpenGL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
