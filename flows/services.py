"""The Prefect server of this machine with its pools, deployments and workers: settings, state, start, stop.

`dwm up` starts a supervisor (`flows.supervisor`) that keeps them running; `dwm status` and `dwm down` find it through
a state file in its folder. One folder holds everything: database, logs, state, lock.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.atomic import make_folder
from manifests.errors import DwmError, UsageError
from manifests.locks import exclusive_lock

DEFAULT_HOME = Path("out/prefect")
PROJECT_ROOT = Path(__file__).resolve().parent.parent
AUTH_VARIABLE = "DWM_SERVER_AUTH"
"""``user:password`` that the server asks for; an environment variable, so that it never stands in a command line."""

LOCK_FILE, STATE_FILE, SUPERVISOR_LOG = ".lock", "services.json", "supervisor.log"
_START_PATIENCE_S = 240.0
_STOP_PATIENCE_S = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServiceSettings(BaseModel):
    """Where the server listens and keeps its things."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(description="Folder of database, logs and state.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; this machine only by default.")
    port: int = Field(default=4200, description="Port to listen on.", gt=0, lt=65536)
    database_url: str | None = Field(
        default=None, description="Database, such as postgresql+asyncpg://...; a file in the folder by default."
    )
    has_gpu: bool = Field(description="Whether gpu-pool has a GPU here; else a CPU worker serves it, with a warning.")

    @property
    def ui_url(self) -> str:
        """Address of the UI."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"

    def environment(self, outer: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Environment of the server, of the workers and of the flows that they run."""
        result = {
            **outer,
            "PREFECT_HOME": str(self.home),
            "PREFECT_PROFILES_PATH": str(self.home / "profiles.toml"),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.home / "storage"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PROJECT_ROOT": str(PROJECT_ROOT),
        }
        if self.database_url is not None:
            result["PREFECT_API_DATABASE_CONNECTION_URL"] = self.database_url
        if outer.get(AUTH_VARIABLE):
            result["PREFECT_SERVER_API_AUTH_STRING"] = result["PREFECT_API_AUTH_STRING"] = outer[AUTH_VARIABLE]
        return result


class Service(BaseModel):
    """One process that the supervisor keeps running."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="server, or a worker's name.")
    pid: int | None = Field(description="Its process; null while it is down.")
    restarts: int = Field(default=0, description="How often it ended and was started again.")
    log: str = Field(description="Its log, in the folder.")


class ServicesState(BaseModel):
    """Content of the state file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int = Field(description="The supervisor.")
    settings: ServiceSettings = Field(description="What it was started with.")
    is_ready: bool = Field(description="Whether pools, deployments and workers are there.")
    services: tuple[Service, ...] = Field(description="The processes.")
    warnings: tuple[str, ...] = Field(default=(), description="What a user should know.")


class ServicesReport(BaseModel):
    """What `dwm status` says."""

    home: Path = Field(description="Folder of the services.")
    is_running: bool = Field(description="Whether a supervisor runs there.")
    is_healthy: bool = Field(default=False, description="Whether the server answers and every process runs.")
    ui_url: str | None = Field(default=None, description="Address of the UI.")
    services: tuple[Service, ...] = Field(default=(), description="The processes.")
    warnings: tuple[str, ...] = Field(default=(), description="What a user should know.")

    def lines(self) -> list[str]:
        """The report for people."""
        if not self.is_running:
            return [f"{self.home}: nothing runs here; start it with `dwm up`"]
        state = "healthy" if self.is_healthy else "not healthy (yet)"
        lines = [f"{self.ui_url}: {state}; logs in {self.home}"]
        for each in self.services:
            place = f"process {each.pid}" if each.pid else "down"
            lines.append(f"  {each.name:<16} {place}, {each.restarts} restarts, {each.log}")
        return lines + [f"warning: {warning}" for warning in self.warnings]


def require_password(host: str) -> None:
    """Refuse to listen to the outside without a password.

    Raises:
        UsageError: the address is not this machine's own and `AUTH_VARIABLE` is not set.
    """
    if host not in _LOOPBACK and not os.environ.get(AUTH_VARIABLE):
        raise UsageError(
            f"--host {host}: others could do anything here; set {AUTH_VARIABLE}=user:password, or leave the host at "
            "127.0.0.1"
        )


def read_state(home: Path) -> ServicesState | None:
    """State of the supervisor that runs in a folder; None when none does."""
    if not _is_locked(home):
        return None
    try:
        return ServicesState.model_validate_json((home / STATE_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):  # it has just begun
        return None


def _is_locked(home: Path) -> bool:
    if not (home / LOCK_FILE).exists():
        return False
    try:
        with exclusive_lock(home / LOCK_FILE, patience_s=0.0, busy="held"):
            return False
    except DwmError:
        return True


def answers(api_url: str) -> bool:
    """Whether the server of an address answers."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=3) as reply:  # noqa: S310 - an address of our own
            return bool(reply.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for the password
    except (OSError, ValueError):
        return False


def status(home: Path) -> ServicesReport:
    """What runs in a folder, and whether it is well."""
    state = read_state(home)
    if state is None:
        return ServicesReport(home=home, is_running=_is_locked(home))
    healthy = state.is_ready and all(each.pid for each in state.services) and answers(state.settings.api_url)
    return ServicesReport(
        home=home,
        is_running=True,
        is_healthy=healthy,
        ui_url=state.settings.ui_url,
        services=state.services,
        warnings=state.warnings,
    )


def up(settings: ServiceSettings) -> ServicesReport:
    """Start the supervisor in the background and wait until everything is ready; nothing happens where one runs.

    Raises:
        DwmError: another one with other settings runs there, or it ended before it was ready.
    """
    running = read_state(settings.home)
    if running is not None:
        if running.settings != settings:
            raise DwmError(
                f"{settings.home}: services with other settings run here ({running.settings.ui_url}); stop them with "
                "`dwm down`, or choose another --home"
            )
        return _wait_until_ready(settings.home, running.pid)
    make_folder(settings.home)
    (settings.home / STATE_FILE).unlink(missing_ok=True)
    with (settings.home / SUPERVISOR_LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.supervisor", settings.model_dump_json()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PROJECT_ROOT,
            start_new_session=True,
        )
    return _wait_until_ready(settings.home, process.pid, process)


def _wait_until_ready(home: Path, pid: int, process: subprocess.Popen[bytes] | None = None) -> ServicesReport:
    deadline = time.monotonic() + _START_PATIENCE_S
    while time.monotonic() < deadline:
        report = status(home)
        if report.is_healthy:
            return report
        if process is not None and process.poll() is not None:
            raise DwmError(f"{home}: the services ended while they started ({_last_line(home / SUPERVISOR_LOG)})")
        if process is None and not _is_locked(home):
            raise DwmError(f"{home}: the services of process {pid} ended; run `dwm up` again")
        time.sleep(0.5)
    raise DwmError(f"{home}: the services are not ready after {_START_PATIENCE_S:.0f} s; see the logs there")


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word in the log"


def down(home: Path) -> bool:
    """Stop what runs in a folder; tells whether anything did.

    Raises:
        DwmError: it does not stop.
    """
    state = read_state(home)
    if state is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_PATIENCE_S
    while _is_locked(home):
        if time.monotonic() > deadline:
            raise DwmError(f"{home}: process {state.pid} does not stop; see {SUPERVISOR_LOG}, then kill it")
        time.sleep(0.2)
    return True
