"""`dwm up`, `dwm status` and `dwm down`: the Prefect server of this machine, its pools, deployments and workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_run import tell_nobody
from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, report, say
from flows.services import DEFAULT_HOME, ServiceSettings, require_password
from manifests.errors import UsageError

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
    require_password(settings.host)
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


@one_line_errors
def pool_template(
    pool_type: Annotated[str, typer.Argument(help="docker or kubernetes.", metavar="TYPE")],
    image: Annotated[str, typer.Option(help="Image of the jobs; see deploy/.")],
    data: Annotated[str, typer.Option(help="Docker: folder of the host; Kubernetes: persistent volume claim.")],
    gpus: Annotated[int, typer.Option(help="GPUs of a job.", min=0)] = 0,
    memory: Annotated[str | None, typer.Option(help="Memory of a job, such as 64Gi (Docker: 64g).")] = None,
) -> None:
    """Print the job template of a Docker or Kubernetes work pool.

    Example: `dwm pool-template docker --image dwm:cuda --data /srv/dwm --gpus 1 > gpu-pool.json`
    """
    tell_nobody()
    from flows.pool_templates import PoolSettings, PoolType
    from flows.pool_templates import pool_template as template_of

    if pool_type not in set(PoolType):
        raise UsageError(f"pool type '{pool_type}': unknown; choose one of {', '.join(PoolType)}")
    settings = PoolSettings(type=PoolType(pool_type), image=image, data=data, gpus=gpus, memory=memory)
    typer.echo(json.dumps(template_of(settings), indent=2))
