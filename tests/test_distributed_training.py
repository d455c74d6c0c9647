"""Several processes: the same losses as one, an end of all when one is lost, and exact resume after any of it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dwm_model.base_model import load_base
from dwm_model.checkpoints import checkpoint_steps
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import RunStatus
from tests.helpers_model import base_with_dropout, encode_all
from tests.helpers_ranks import (
    CONFIG,
    STEPS,
    Runs,
    checkpoint_files,
    journals,
    losses_of,
    processes_naming,
    ranks_of,
    steps_done,
    two_process_dataset,
    wait_until,
)

pytest_plugins = ("tests.fixtures_model",)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return two_process_dataset(tmp_path_factory.mktemp("data") / "dataset", tiny_base)


@pytest.fixture
def runs(dataset: Dataset, tiny_base: Path, tmp_path: Path) -> Runs:
    return Runs(dataset, tiny_base, tmp_path)


@pytest.fixture(scope="module")
def whole_run(dataset: Dataset, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing interrupted."""
    return Runs(dataset, tiny_base, tmp_path_factory.mktemp("whole")).finish("whole", CONFIG)


def kill_rank(launcher: subprocess.Popen[str], number: int) -> str:
    """Kill -9 a rank; returns the launcher's last line. All must have ended soon after."""
    os.kill(ranks_of(launcher)[number], signal.SIGKILL)
    began = time.monotonic()
    _, errors = launcher.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert launcher.returncode == 1
    return errors.splitlines()[-1]


def terminate(launcher: subprocess.Popen[str], run: Path) -> int:
    """SIGTERM to the launcher; returns the step at which all ranks stopped with a checkpoint."""
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + signal.SIGTERM, errors
    stopped_at = steps_done(run)
    assert f"stopped by SIGTERM at step {stopped_at}; continue it with --resume" in errors.splitlines()[-1]
    assert checkpoint_steps(run)[-1] == stopped_at
    return stopped_at


def test_two_processes_learn_what_one_with_the_same_clips_a_step_learns(
    runs: Runs, whole_run: Path, tmp_path: Path
) -> None:
    train(runs.dataset, runs.base, tmp_path / "one", CONFIG.model_copy(update={"batch_size": 2}))
    assert losses_of(whole_run) == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)
    validations = (losses_of(run, "validation.jsonl") for run in (whole_run, tmp_path / "one"))
    assert next(validations) == pytest.approx(next(validations), abs=1e-5)
    assert len(losses_of(whole_run)) == STEPS
    with pytest.raises(DwmError, match="the run trains in 2 processes, now 1; resume with as many"):
        train(runs.dataset, runs.base, Path(shutil.copytree(whole_run, tmp_path / "copy")), CONFIG, resume=True)


def test_run_with_sigterm_and_with_a_killed_rank_equals_an_uninterrupted_one(
    dataset: Dataset, tiny_base: Path, tmp_path: Path
) -> None:
    """Our own launcher begins and torchrun goes on; each process draws dropout from a generator of its own."""
    base = base_with_dropout(tiny_base, tmp_path / "dropping")
    encode_all(dataset, load_base(base))
    runs = Runs(dataset, base, tmp_path)
    whole_run = runs.finish("whole", CONFIG)
    process, run = runs.start("run", CONFIG), runs.folder / "run"
    wait_until(process, lambda: steps_done(run) >= 2)
    assert terminate(process, run) < 8
    process = runs.start("run", CONFIG)
    wait_until(process, lambda: steps_done(run) >= 9)
    last_line = kill_rank(process, 1)
    assert "process 1 of 2 was killed by SIGKILL" in last_line
    assert "checkpoint 8 is kept" in last_line
    assert "another process of this training ended" in (run / "ranks" / "rank0.log").read_text().splitlines()[-1]
    row = next(row for row in runs.dataset.runs.rows() if Path(row.run_path).name == "run")
    assert row.status is RunStatus.FAILED
    assert checkpoint_steps(run)[-1] == 8
    runs.finish("run", CONFIG, torchrun=True)
    assert journals(run) == journals(whole_run)
    assert checkpoint_files(run) == checkpoint_files(whole_run)


def test_sharded_full_training_that_lost_its_parent_learns_what_one_process_learns(runs: Runs, tmp_path: Path) -> None:
    changes = {"mode": "full", "ema_decay": 0.9, "learning_rate": 1e-3, "max_steps": 8, "parallelism": "fsdp2"}
    config = CONFIG.model_copy(update=changes)
    command, run = shlex.join(runs.command("run", config, torchrun=False)), runs.folder / "run"
    parent = subprocess.Popen(["bash", "-c", f"{command} --parent $$ & wait"])
    wait_until(parent, lambda: steps_done(run) >= 2)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while processes_naming(run):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert checkpoint_steps(run)[-1] == steps_done(run) < 8
    runs.finish("run", config)
    one = tmp_path / "one"
    train(runs.dataset, runs.base, one, config.model_copy(update={"batch_size": 2}))
    assert losses_of(run) == pytest.approx(losses_of(one), abs=1e-5)
    for name in ("transformer", "ema/transformer"):
        sharded, whole = (
            load_file(folder / "checkpoints" / "step-000008" / name / "diffusion_pytorch_model.safetensors")
            for folder in (run, one)
        )
        assert sharded.keys() == whole.keys()
        assert max(float((sharded[key] - whole[key]).abs().max()) for key in whole) < 1e-4


def test_error_of_one_rank_is_the_reason_of_all(tmp_path: Path) -> None:
    """One rank cannot do its part of a step; the other would wait for it for ever."""
    script = tmp_path / "rank.py"
    script.write_text(
        """
import sys
from dwm_model.ranks import joined_ranks
from manifests.errors import DwmError

def read_clip():
    if ranks.rank == 1:
        raise DwmError("clip 7: damaged")
    return ranks.rank

with joined_ranks() as ranks:
    assert ranks.all_do(lambda: ranks.rank) == ranks.rank
    assert ranks.on_main(lambda: f"from {ranks.rank}") == "from 0"
    assert ranks.mean(float(ranks.rank)) == 0.5
    assert ranks.agree(stop=ranks.rank == 1)
    try:
        ranks.all_do(read_clip)
    except DwmError as error:
        print(error)
"""
    )
    meeting = {"DWM_RANKS_MEET_AT": (tmp_path / "store").as_uri(), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **meeting, "RANK": str(rank), "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert said == ["process 1: clip 7: damaged", "clip 7: damaged"]
