"""Tables of the manifest under many writers and kill -9 at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from manifests import parts
from tests.helpers_manifest import CHANGES, REPOSITORY, clip, clips_table, snapshot, table_of_six


def _append_many(root: str, worker: int) -> None:
    table = clips_table(Path(root))
    for start in range(0, 40, 4):
        shared = [clip(number) for number in range(start, start + 2)]  # every worker offers these
        own = [clip(1000 * (worker + 1) + number) for number in range(start, start + 2)]
        table.append([*shared, *own])


@pytest.mark.slow
def test_many_writing_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(str(tmp_path), worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    expected = {
        clip(base + start + offset).clip_id
        for base in (0, 1000, 2000, 3000, 4000)
        for start in range(0, 40, 4)
        for offset in (0, 1)
    }
    table = clips_table(tmp_path)
    assert [row.clip_id for row in table.rows()] == sorted(expected)
    assert table.duplicate_keys() == []


def test_reader_never_sees_a_change_half_done(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1), clip(2)])
    table.append([clip(3)])
    stop = threading.Event()

    def write() -> None:
        version = 0
        while not stop.is_set():
            version += 1
            table.upsert(clip(number, prompt=str(version)) for number in (1, 2, 3))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(25):
            prompts = table.read(["prompt"]).column("prompt").to_pylist()
            assert len(prompts) == 3
            assert len(set(prompts)) == 1
    finally:
        stop.set()
        writer.join()


class Killed(BaseException):
    """Stands for the end of the process: from then on no file system call does anything."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the process "die" before its ``step``-th change of the file system; yields the names of the calls."""
    calls: list[str] = []

    def dying(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if len(calls) > step:
                raise Killed
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "fsync", "mkdir"):
            patch.setattr(os, name, dying(name, getattr(os, name)))
        patch.setattr(parts.pq, "write_table", dying("write_table", pq.write_table))
        yield calls


@pytest.mark.parametrize("name", CHANGES)
def test_kill_at_any_step_leaves_the_rows_as_before_or_as_after(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = table_of_six(tmp_path / "original")
    before = snapshot(original)
    shutil.copytree(tmp_path / "original", tmp_path / "done")
    CHANGES[name](clips_table(tmp_path / "done"))
    after = snapshot(clips_table(tmp_path / "done"))

    outcomes = []
    for step in range(200):
        root = tmp_path / f"step-{step}"
        shutil.copytree(tmp_path / "original", root)
        finished = False
        with killed_at(step, monkeypatch):
            try:
                CHANGES[name](clips_table(root))
                finished = True
            except Killed:
                pass
        table = clips_table(root)
        found = snapshot(table)
        assert found in (before, after), f"killed before step {step}"
        outcomes.append(found == after)
        assert len(pd.read_parquet(table.parts.folder)) == len(found)
        CHANGES[name](table)
        assert snapshot(table) == after
        assert list((root / "manifest" / ".clips").glob("journal.json")) == []
        assert list((root / "manifest" / ".clips" / "aside").iterdir()) == []
        if finished:
            break
    assert finished
    assert len(outcomes) > 3
    assert outcomes == sorted(outcomes)  # once decided, a change is never undone


def test_kill_while_a_change_is_being_finished_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = table_of_six(tmp_path / "original")

    def carry_out_nothing(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(parts.PartFolder, "_carry_out", carry_out_nothing)
        with pytest.raises(Killed):
            CHANGES["upsert"](original)
    assert (tmp_path / "original" / "manifest" / ".clips" / "journal.json").exists()
    for step in range(60):
        root = tmp_path / f"step-{step}"
        shutil.copytree(tmp_path / "original", root)
        with killed_at(step, monkeypatch) as calls, suppress(Killed):
            clips_table(root).count()
        table = clips_table(root)
        assert [row.prompt for row in table.rows()] == ["", "new", "", "", "new", "", ""]
        if len(calls) <= step:
            break
    else:
        pytest.fail("the change was never finished")


def test_half_written_part_of_a_killed_process_is_no_part_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])

    def half(_: object, path: Path, **__: object) -> None:
        Path(path).write_bytes(b"PAR1 half of a part")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(parts.pq, "write_table", half)
        patch.setattr(os, "unlink", lambda *_: None)  # a killed process tidies nothing
        with pytest.raises(Killed):
            table.append([clip(2)])
    assert list((tmp_path / "manifest" / ".clips" / "aside").iterdir()) != []
    assert table.keys() == {"clip-0001"}
    assert table.append([clip(2)]) == 1
    assert list((tmp_path / "manifest" / ".clips" / "aside").iterdir()) == []


_UPSERT_FOREVER = """
import sys
from pathlib import Path
from tests.helpers_manifest import clip, clips_table
table = clips_table(Path(sys.argv[1]))
print("ready", flush=True)
version = 0
while True:
    version += 1
    table.upsert(clip(number, prompt=str(version)) for number in range(12))
"""


@pytest.mark.slow
def test_kill_9_of_an_upserting_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    for start in range(0, 12, 3):
        table.append(clip(number) for number in range(start, start + 3))
    keys = table.keys()
    generator = random.Random(0)
    for _ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", _UPSERT_FOREVER, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.0, 0.25))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        rows = list(table.rows())
        assert {row.clip_id for row in rows} == keys
        assert len(rows) == len(keys)
        assert len({row.prompt for row in rows}) == 1  # an upsert happens entirely or not at all
