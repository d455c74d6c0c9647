"""Keeps a Prefect server and its workers running, in a process of its own: ``python -m flows.supervisor SETTINGS``.

It starts the server, waits until it answers, makes the pools, the deployments and the automation that ends runs whose
process is gone, starts the workers, and starts again whatever ends. SIGTERM stops all of it, workers first.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from flows.services import LOCK_FILE, PROJECT_ROOT, STATE_FILE, Service, ServiceSettings, ServicesState, answers
from manifests.atomic import write_text
from manifests.errors import DwmError
from manifests.locks import exclusive_lock

POOLS = {"cpu-pool": None, "gpu-pool": 1}
"""Work pools and how many runs each may have at once."""

NO_GPU_WARNING = "no CUDA device here: gpu-pool is served by a CPU worker, real sizes will be slow"

_SERVER_PATIENCE_S = 180.0
_POLL_S = 1.0
_LONGEST_PAUSE_S = 60.0
_GRACE_S = 20.0
"""How long a worker may take to hand its runs back before it is killed."""

logger = logging.getLogger("flows.supervisor")


@dataclass
class Child:
    """A process that is kept running.

    Attributes:
        name: its name.
        arguments: of this Python, after ``-m``.
        process: the process; None while it is down.
        restarts: how often it was started again.
        next_start: not before this time (monotonic), so that one that ends at once does not spin.
    """

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    next_start: float = field(default=0.0)

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """The server, the workers, and the loop over them."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._environment = settings.environment()
        self._server = Child(
            "server", ("prefect", "server", "start", "--host", settings.host, "--port", str(settings.port))
        )
        self._workers = [
            Child(f"{pool}-worker", ("prefect", "worker", "start", "--pool", pool, "--name", f"{pool}-worker"))
            for pool in POOLS
        ]
        self._is_ready = False
        self._should_stop = False

    def run(self) -> None:
        """Start everything, keep it running, and stop it when asked to.

        Raises:
            DwmError: the port is taken, or the server, a pool or a deployment could not be made.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        if answers(self._settings.api_url):
            raise DwmError(f"port {self._settings.port}: another server answers there; choose another with --port")
        try:
            self._start(self._server)
            self._write_state()
            self._wait_for_server()
            if not self._should_stop:
                self._prepare_server()
                for worker in self._workers:
                    self._start(worker)
                self._is_ready = True
                self._write_state()
            while not self._should_stop:
                self._revive()
                time.sleep(_POLL_S)
        finally:
            self._stop_all()

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._should_stop = True

    def _start(self, child: Child) -> None:
        with (self._settings.home / f"{child.name}.log").open("ab") as log:
            child.process = subprocess.Popen(
                [sys.executable, "-m", *child.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=PROJECT_ROOT,
                start_new_session=True,  # a signal to this process reaches them only through `_stop`
                restore_signals=True,
            )
        logger.info("%s: process %d", child.name, child.process.pid)

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + _SERVER_PATIENCE_S
        while not answers(self._settings.api_url) and not self._should_stop:
            if not self._server.is_running:
                raise DwmError(f"the server ended while it started; see {self._settings.home / 'server.log'}")
            if time.monotonic() > deadline:
                raise DwmError(f"the server does not answer; see {self._settings.home / 'server.log'}")
            time.sleep(0.5)

    def _prepare_server(self) -> None:
        for pool, limit in POOLS.items():
            self._prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
            if limit is not None:
                self._prefect("work-pool", "set-concurrency-limit", pool, str(limit))
        self._prefect("--no-prompt", "deploy", "--all")
        self._run("flows.zombies")

    def _prefect(self, *arguments: str) -> None:
        self._run("prefect", *arguments)

    def _run(self, *arguments: str) -> None:
        """Run a Python module to its end; PROJECT_ROOT is unset, so that deployments stay portable.

        Raises:
            DwmError: it failed.
        """
        environment = {name: value for name, value in self._environment.items() if name != "PROJECT_ROOT"}
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=environment,
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        with (self._settings.home / "setup.log").open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        if done.returncode != 0:
            raise DwmError(f"{' '.join(arguments)}: failed; see {self._settings.home / 'setup.log'}")

    def _revive(self) -> None:
        """Start again what has ended, later each time."""
        changed = False
        for child in (self._server, *self._workers):
            if child.is_running:
                continue
            if child.process is not None:
                logger.warning("%s ended with %s", child.name, child.process.returncode)
                child.process = None
                child.next_start = time.monotonic() + min(2.0**child.restarts - 1, _LONGEST_PAUSE_S)
                changed = True
            if time.monotonic() >= child.next_start:
                child.restarts += 1
                self._start(child)
                changed = True
        if changed:
            self._write_state()

    def _stop_all(self) -> None:
        logger.info("stopping")
        for group in (self._workers, [self._server]):
            for child in group:
                self._signal(child, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            for child in group:
                if child.process is None:
                    continue
                try:
                    child.process.wait(timeout=max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._signal(child, signal.SIGKILL)
                    child.process.wait()
        (self._settings.home / STATE_FILE).unlink(missing_ok=True)

    @staticmethod
    def _signal(child: Child, number: signal.Signals) -> None:
        if child.process is not None and child.is_running:
            with suppress(ProcessLookupError):
                if number is signal.SIGKILL:
                    os.killpg(child.process.pid, number)
                else:
                    child.process.send_signal(number)

    def _write_state(self) -> None:
        services = tuple(
            Service(
                name=child.name,
                pid=child.process.pid if child.process is not None and child.is_running else None,
                restarts=child.restarts,
                log=f"{child.name}.log",
            )
            for child in (self._server, *self._workers)
        )
        state = ServicesState(
            pid=os.getpid(),
            settings=self._settings,
            is_ready=self._is_ready,
            services=services,
            warnings=() if self._settings.has_gpu else (NO_GPU_WARNING,),
        )
        write_text(self._settings.home / STATE_FILE, state.model_dump_json(indent=1) + "\n")


def supervise(settings: ServiceSettings) -> None:
    """Run a supervisor in this process until it is asked to stop.

    Raises:
        DwmError: another one holds the folder, or something could not be started.
    """
    busy = f"{settings.home}: other services run here; stop them with `dwm down`, or choose another --home"
    with exclusive_lock(settings.home / LOCK_FILE, patience_s=1.0, busy=busy):
        Supervisor(settings).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        supervise(ServiceSettings.model_validate_json(sys.argv[1]))
    except DwmError as problem:
        sys.exit(str(problem))
