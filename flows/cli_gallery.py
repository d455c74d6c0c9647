"""`dwm gallery`: browse a dataset and its runs, accept or reject clips."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_support import one_line_errors, say
from flows.services import AUTH_VARIABLE, require_password
from manifests.dataset import DATASET_FILE, Dataset
from manifests.errors import DwmError, UsageError


@one_line_errors
def gallery(
    place: Annotated[Path, typer.Argument(help="A dataset folder, or the folder of a training run beside or in one.")],
    host: Annotated[str, typer.Option(help="Address to listen on; others need a password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 4300,
    name: Annotated[
        list[str] | None, typer.Option(help="Name that browsers may call this machine by, besides the address.")
    ] = None,
) -> None:
    """Serve pages to search and watch clips, accept or reject them, and compare runs; Ctrl-C stops it.

    Verdicts are kept in the manifest; rejected clips are not trained on. A password:
    `DWM_SERVER_AUTH=user:password dwm gallery out/demo/dataset --host 0.0.0.0 --name box.lan`.

    Example: `dwm gallery out/demo/dataset`
    """
    import socket

    import uvicorn

    from gallery.server import make_app

    require_password(host)
    found = find_dataset(place)
    page = "/runs" if found.resolve() != place.resolve() else "/"
    app = make_app(Dataset.open(found), [host, "localhost", *(name or [])], os.environ.get(AUTH_VARIABLE) or None)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UsageError(f"--port {port}: {error.strerror}; choose another port, or 0 for a free one") from error
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{listener.getsockname()[1]}{page}: {found}; Ctrl-C stops it")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def find_dataset(place: Path) -> Path:
    """The dataset that a folder is, or that the training run in it belongs to.

    Raises:
        DwmError: neither; no dataset near the run lists it.
    """
    run_file = place / "run.json"
    if (place / DATASET_FILE).exists() or not run_file.exists():
        return Dataset.open(place).root
    run_id = json.loads(run_file.read_text())["run_id"]
    above = list(place.resolve().parents)[:3]
    near = [file for folder in above for file in (folder / DATASET_FILE, *folder.glob(f"*/{DATASET_FILE}"))]
    for info in near:
        if info.exists() and run_id in Dataset.open(info.parent).runs.keys():  # noqa: SIM118 - a table, not a dict
            return info.parent
    raise DwmError(f"{place}: no dataset beside or above it lists run {run_id}; give the dataset's folder")
