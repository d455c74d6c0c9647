"""Several clips of a capture, several captures at once: the same files as one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.dataset import Dataset
from manifests.schema import Clip, ClipStatus
from sources.aria_build import build_aria, plan_build
from sources.aria_hands import recording_hands_path
from sources.aria_settings import AriaGates
from tests.helpers_aria import quick_settings, tiny_capture, write_empty_hands


def built(root: Path, raw: Path, workers: int) -> tuple[dict[str, bytes], list[Clip]]:
    """Files below a dataset's clips and scenes, and its rows, of two captures with two clips each."""
    gates = AriaGates(min_heldout_psnr_db=0.0, max_unseen_share=1.0, max_floater_share=1.0, max_registration_px=500.0)
    settings = quick_settings(hands={"estimator": "file", "files": raw / "hands"}, windows=2, gates=gates)
    plan = plan_build(raw, settings)
    assert plan.figures().clips == 4
    report = build_aria(root, plan, workers=workers)
    rows = sorted(Dataset.open(root).clips.rows(), key=lambda clip: clip.clip_id)
    assert report.ready == 4, [clip.reason for clip in rows]
    kept = [root / "clips", root / "contact_sheets", *(root / "reconstructions").glob("*/*.ply")]
    paths = [path for top in kept for path in ([top] if top.is_file() else sorted(top.rglob("*"))) if path.is_file()]
    stamp = rows[0].created_at
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}, [
        clip.updated(created_at=stamp) for clip in rows
    ]


@pytest.mark.slow
def test_two_workers_and_two_windows_give_the_same_bytes_as_one_worker(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for name in ("a", "b"):
        tiny = tiny_capture(raw / name, frames=36, name=name)
        tiny.vrs.with_name("phases.json").write_text('{"explore_frames": 10}')
        write_empty_hands(recording_hands_path(raw / "hands", name))
    alone, alone_rows = built(tmp_path / "alone", raw, 1)
    together, together_rows = built(tmp_path / "together", raw, 2)
    assert len(alone) == 4 * 5 + 2 + 2  # five files a clip, a sheet and a scene a capture
    assert together == alone
    stamp = alone_rows[0].created_at
    assert [row.updated(created_at=stamp) for row in together_rows] == alone_rows
    # The windows follow each other: nine frames at 8 a second of ten a second.
    starts = {row.recording_id: [] for row in alone_rows}
    for row in alone_rows:
        assert row.status is ClipStatus.READY
        starts[row.recording_id].append(row.start_frame)
    assert {tuple(sorted(found)) for found in starts.values()} == {(10, 21)}
