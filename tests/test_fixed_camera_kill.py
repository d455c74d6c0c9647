"""Kill -9 in the middle of a fixed-camera build: the next run completes with the bytes and rows of a whole one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests.atomic import is_temporary
from manifests.dataset import Dataset
from manifests.schema import ClipStatus
from tests.helpers_fixed_camera import write_hands, write_table_video

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
VIDEOS = 8


def start(root: Path, raw: Path, hands: Path) -> subprocess.Popen[str]:
    command = ["build", "taste-rob", "--raw", raw, "--dataset", root, "--profile", "mini"]
    command += ["--estimator", "file", "--hand-files", hands]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    if "OpenGL" in output:
        pytest.skip("no off-screen OpenGL on this machine")
    assert process.returncode == 0, output


def content(root: Path) -> tuple[list[dict[str, object]], dict[str, bytes]]:
    dataset = Dataset.open(root)
    assert dataset.clips.duplicate_keys() == []
    rows = [row.model_dump(mode="json", exclude={"created_at"}) for row in dataset.clips.rows()]
    files = (path for path in root.glob("clips/**/*") if path.is_file() and not is_temporary(path))
    return rows, {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_killed_build_continues(tmp_path: Path) -> None:
    raw, hands = tmp_path / "raw", tmp_path / "hands"
    raw.mkdir()
    for index in range(VIDEOS):
        write_table_video(raw / f"{index}.mp4", num_frames=40, seed=index)
        write_hands(hands, str(index), frames=17, width=96, height=64)
    finish(start(tmp_path / "whole", raw, hands))

    killed = start(tmp_path / "killed", raw, hands)
    while killed.poll() is None and len(list((tmp_path / "killed").glob("clips/*/*/static.mp4"))) < 2:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    dataset = Dataset.open(tmp_path / "killed")
    assert dataset.clips.count() < VIDEOS

    finish(start(tmp_path / "killed", raw, hands))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert [row.status for row in dataset.clips.rows()] == [ClipStatus.READY] * VIDEOS
