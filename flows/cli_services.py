"""`dwm up`, `dwm status` and `dwm down`: the Prefect server of this machine, its pools, deployments and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, report, say
from flows.services import DEFAULT_HOME, ServiceSettings, check_address

HomeOption = Annotated[Path, typer.Option(help="Folder of the server's database, logs and state.")]


@one_line_errors
def up(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str, typer.Option(help="Address to listen on; others need a password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 4200,
    database_url: Annotated[
        str | None, typer.Option(help="Database, such as postgresql+asyncpg://...; a file in the folder when absent.")
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C instead of returning.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start server, work pools, deployments and workers, and keep them running; nothing happens where they run.

    Example: `dwm up`, then `dwm status`, and `dwm down` to stop. A password: `DWM_SERVER_AUTH=user:password dwm up`.
    """
    import torch

    from flows import services
    from flows.supervisor import supervise

    settings = ServiceSettings(
        home=home.resolve(), host=host, port=port, database_url=database_url, has_gpu=torch.cuda.is_available()
    )
    check_address(settings)
    if foreground:
        say(f"{settings.ui_url}: starting; logs in {settings.home}; Ctrl-C stops it")
        supervise(settings)
        return
    result = services.up(settings)
    report(result, as_json, result.lines())


@one_line_errors
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Say what runs and whether it is well.

    Example: `dwm status --home out/prefect`
    """
    from flows import services

    result = services.status(home.resolve())
    report(result, as_json, result.lines())
    if not result.is_healthy:
        raise typer.Exit(EXIT_PROBLEMS)


@one_line_errors
def down(home: HomeOption = DEFAULT_HOME) -> None:
    """Stop workers and server; runs in progress go back to their pool.

    Example: `dwm down --home out/prefect`
    """
    from flows import services

    stopped = services.down(home.resolve())
    say("stopped" if stopped else f"{home}: nothing runs here")
