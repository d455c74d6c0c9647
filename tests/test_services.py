"""The Prefect server of this machine: one command starts all of it, keeps it running, and stops it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.services import AUTH_VARIABLE, ServiceSettings, answers, check_address, status
from manifests.errors import UsageError
from tests.helpers_cli import done, refused

REPOSITORY = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def prefect(settings: ServiceSettings, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=settings.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceSettings]:
    settings = ServiceSettings(home=tmp_path_factory.mktemp("prefect"), port=free_port(), has_gpu=False)
    done("up", "--home", settings.home, "--port", settings.port)
    yield settings
    done("down", "--home", settings.home)
    assert not answers(settings.api_url)
    assert not (settings.home / "services.json").exists()


@pytest.mark.slow
def test_pools_deployments_and_automation_are_there(services: ServiceSettings) -> None:
    report = done("status", "--home", services.home, "--json").json()
    assert (report["is_running"], report["is_healthy"]) == (True, True)
    assert [each["name"] for each in report["services"]] == ["server", "cpu-pool-worker", "gpu-pool-worker"]
    assert "gpu-pool is served by a CPU worker" in report["warnings"][0]
    pools = json.loads(prefect(services, "work-pool", "inspect", "gpu-pool", "-o", "json"))
    assert pools["concurrency_limit"] == 1
    assert "demo/demo" in prefect(services, "deployment", "ls")
    assert "within" in prefect(services, "automation", "inspect", "Crash runs whose process is gone")


@pytest.mark.slow
def test_starting_again_changes_nothing_and_other_settings_are_refused(services: ServiceSettings) -> None:
    before = status(services.home).services
    done("up", "--home", services.home, "--port", services.port)
    assert status(services.home).services == before
    message = refused("up", "--home", services.home, "--port", free_port())
    assert "services with other settings run here" in message


@pytest.mark.slow
def test_a_second_supervisor_in_one_folder_is_refused(services: ServiceSettings) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "flows.supervisor", services.model_dump_json()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert "other services run here" in second.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu-pool-worker", "server"])
def test_what_is_killed_is_started_again(services: ServiceSettings, name: str) -> None:
    def pid() -> int | None:
        return next(each.pid for each in status(services.home).services if each.name == name)

    before = pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pid() not in {before, None} and status(services.home).is_healthy)


def test_nothing_runs_in_an_empty_folder(tmp_path: Path) -> None:
    assert not status(tmp_path).is_running
    assert "nothing runs here" in done("down", "--home", tmp_path).err


def test_listening_to_the_outside_needs_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = ServiceSettings(home=tmp_path, host="0.0.0.0", has_gpu=False)  # noqa: S104 - not bound here
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"set DWM_SERVER_AUTH=user:password"):
        check_address(settings)
    monkeypatch.setenv(AUTH_VARIABLE, "user:password")
    check_address(settings)
    assert settings.environment()["PREFECT_SERVER_API_AUTH_STRING"] == "user:password"
    assert settings.ui_url == "http://127.0.0.1:4200"
