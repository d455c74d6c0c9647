"""The Prefect server of this machine: one command starts all of it, keeps it running, and stops it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dwm_model.checkpoints import checkpoint_steps
from flows.services import AUTH_VARIABLE, ServiceSettings, answers, require_password, status
from flows.train import TrainParameters
from manifests.dataset import Dataset
from manifests.errors import UsageError
from manifests.schema import RunStatus
from tests.helpers_cli import done, refused
from tests.helpers_ranks import CONFIG, processes_naming, steps_done, two_process_dataset

pytest_plugins = ("tests.fixtures_model",)

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


SLOW_FLOW = """
import time
from prefect import flow

@flow
def slow():
    time.sleep(12)
"""


def flow_runs(settings: ServiceSettings, kind: str, name: str) -> list[dict[str, Any]]:
    """Flow runs of ``flows`` or ``deployments`` of a name."""
    request = urllib.request.Request(  # noqa: S310 - an address of our own
        f"{settings.api_url}/flow_runs/filter",
        data=json.dumps({kind: {"name": {"any_": [name]}}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        found: list[dict[str, Any]] = json.load(reply)
    return found


@pytest.mark.slow
def test_schedules_fire_and_an_overlapping_run_waits(services: ServiceSettings, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_FLOW)
    subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "slow.py:slow", "--name", "often"),
            *("--pool", "cpu-pool", "--interval", "4", "--concurrency-limit", "1", "--collision-strategy", "ENQUEUE"),
        ],
        env=services.environment(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    seen: set[str] = set()

    def due() -> list[dict[str, Any]]:
        return [run for run in flow_runs(services, "flows", "slow") if run["state_name"] != "Scheduled"]

    def one_is_done_and_another_waited() -> bool:
        states = [run["state_name"] for run in due()]
        assert states.count("Running") <= 1
        seen.update(states)
        return "Completed" in states and "Running" in states and "AwaitingConcurrencySlot" in seen

    try:
        wait_until(one_is_done_and_another_waited, 120)
        runs = due()
        assert len({run["expected_start_time"] for run in runs}) == len(runs)
    finally:
        prefect(services, "deployment", "delete", "slow/often")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu-pool-worker", "server"])
def test_what_is_killed_is_started_again(services: ServiceSettings, name: str) -> None:
    def pid() -> int | None:
        return next(each.pid for each in status(services.home).services if each.name == name)

    before = pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pid() not in {before, None} and status(services.home).is_healthy)


@pytest.mark.slow
def test_cancelling_a_training_of_two_processes_leaves_a_checkpoint_and_no_process(
    services: ServiceSettings, tiny_base: Path, tmp_path: Path
) -> None:
    dataset, run = two_process_dataset(tmp_path / "dataset", tiny_base), tmp_path / "run"
    config = CONFIG.model_copy(update={"max_steps": 5000, "checkpoint_every": 5000})
    asked = TrainParameters(dataset=dataset.root, base=tiny_base, run=run, config=config, processes=2)
    parameters = json.dumps({"parameters": asked.model_dump(mode="json")})
    told = prefect(services, "deployment", "run", "train/train", "--params", parameters)
    (flow_run,) = set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", told))
    wait_until(lambda: steps_done(run) >= 2, 120)
    assert len(processes_naming(run)) == 3  # the launcher and its two ranks
    prefect(services, "flow-run", "cancel", flow_run)
    wait_until(lambda: not processes_naming(run), 60)
    assert checkpoint_steps(run) == [steps_done(run)]
    wait_until(lambda: "CANCELLED" in prefect(services, "flow-run", "inspect", flow_run).upper(), 60)
    row = next(Dataset.open(dataset.root).runs.rows())
    assert row.status is RunStatus.RUNNING
    assert row.reason == f"stopped at step {steps_done(run)}; continue it with --resume"


@pytest.mark.slow
def test_a_built_dataset_starts_one_training_on_it(services: ServiceSettings, tmp_path: Path) -> None:
    resource = {"prefect.resource.id": "dwm.dataset.abc", "dwm.dataset.is_encoded": "true"}
    payload = {"dataset": str(tmp_path / "absent"), "base": str(tmp_path / "base"), "profile": "mini"}
    for is_encoded in ("false", "true"):
        told = json.dumps(resource | {"dwm.dataset.is_encoded": is_encoded})
        prefect(
            services, "event", "emit", "dataset.build.completed", "--resource", told, "--payload", json.dumps(payload)
        )

    def started() -> list[dict[str, Any]]:
        return [run for run in flow_runs(services, "deployments", "on-build") if not run["auto_scheduled"]]

    wait_until(lambda: bool(started()), 90)
    time.sleep(3)
    (run,) = started()
    assert run["parameters"] == {"parameters": payload}


def test_nothing_runs_in_an_empty_folder(tmp_path: Path) -> None:
    assert not status(tmp_path).is_running
    assert "nothing runs here" in done("down", "--home", tmp_path).err


def test_listening_to_the_outside_needs_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = ServiceSettings(home=tmp_path, host="0.0.0.0", has_gpu=False)  # noqa: S104 - not bound here
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"set DWM_SERVER_AUTH=user:password"):
        require_password(settings.host)
    monkeypatch.setenv(AUTH_VARIABLE, "user:password")
    require_password(settings.host)
    assert settings.environment()["PREFECT_SERVER_API_AUTH_STRING"] == "user:password"
    assert settings.ui_url == "http://127.0.0.1:4200"
