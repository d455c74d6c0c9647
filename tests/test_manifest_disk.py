"""Tables of the manifest on full disks and in read-only folders."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests import parts
from manifests.dataset import Dataset
from manifests.errors import DwmError
from tests.helpers_manifest import CHANGES, REPOSITORY, assert_one_line, clip, clips_table, snapshot, table_of_six


def _raise_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", CHANGES)
def test_full_disk_is_one_line_and_loses_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of_six(tmp_path)
    before = snapshot(table)
    with monkeypatch.context() as patch:
        patch.setattr(parts.pq, "write_table", _raise_full)
        with pytest.raises(DwmError) as error:
            CHANGES[name](table)
    assert_one_line(error.value, "disk is full")
    assert snapshot(table) == before
    assert list((tmp_path / "manifest" / ".clips" / "aside").iterdir()) == []
    CHANGES[name](table)


def test_disk_that_fills_at_any_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_replace = os.replace
    for failing in range(20):
        table = table_of_six(tmp_path / str(failing))
        renames = itertools.count()

        def replace(source: str, target: str, renames: Iterator[int] = renames, failing: int = failing) -> None:
            if next(renames) == failing:
                _raise_full()
            real_replace(source, target)

        failed = False
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                CHANGES["upsert"](table)
            except DwmError as error:
                failed = True
                assert_one_line(error, "disk is full")
        assert [row.prompt for row in table.rows()] in ([""] * 6, ["", "new", "", "", "new", "", ""])
        CHANGES["upsert"](table)
        assert table.get("clip-0004").prompt == "new"
        if not failed:
            assert failing > 3
            return
    pytest.fail("the upsert never succeeded")


_READ_AND_TRY_TO_WRITE = """
import os, sys
from pathlib import Path
from manifests.errors import DwmError
from manifests.dataset import Dataset
from manifests.schema import Clip

def read_and_try_to_write(root):
    dataset = Dataset.open(root)
    print(sorted(dataset.clips.keys()), dataset.runs.count())
    try:
        dataset.clips.append([dataset.clips.get("clip-0001").updated(clip_id="other")])
    except DwmError as error:
        print(error)

read_and_try_to_write(Path(sys.argv[1]))  # so that everything is imported while that is allowed
if os.geteuid() == 0:
    os.seteuid(65534)
read_and_try_to_write(Path(sys.argv[2]))
"""


def _as_unprivileged_reader(warm_up: Path, root: Path) -> list[str]:
    """What a process that may not write in ``root`` prints."""
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", _READ_AND_TRY_TO_WRITE, str(warm_up), str(root)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("with_lock_file", [True, False])
def test_read_only_dataset_is_readable_and_says_that_it_cannot_be_written(with_lock_file: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        warm_up, root = Path(folder) / "warm-up", Path(folder) / "dataset"
        for made in (warm_up, root):
            Dataset.create_or_open(made).clips.append([clip(1)])
        if not with_lock_file:
            shutil.rmtree(root / "manifest" / ".clips")
        *_, keys, complaint = _as_unprivileged_reader(warm_up, root)
    assert keys == "['clip-0001'] 0"
    assert "no permission to write" in complaint


def test_interrupted_change_in_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    (tmp_path / "manifest" / ".clips" / "journal.json").write_text('{"add": [], "remove": []}')
    real_open = os.open

    def read_only_open(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only_open)
    with pytest.raises(DwmError) as error:
        table.count()
    assert_one_line(error.value, "journal.json", "write permission")
