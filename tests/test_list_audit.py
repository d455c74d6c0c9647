"""What train and test lists share, from their paths alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from manifests.errors import DwmError
from manifests.leaks import LeakLevel
from manifests.splits import SplitPolicy, forbidden_levels
from sources.list_audit import ListAudit, audit_lists

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "official_splits"


def listed(path: Path, *entries: str) -> Path:
    path.write_text("# a comment\n" + "".join(f"{entry}\n" for entry in entries))
    return path


def trumans(scene: str, recording: str, clip: int = 0) -> str:
    return f"trumans/ego_render_fov90/{scene}/{recording}/videos/{clip:05d}.mp4"


def counts(audit: ListAudit) -> dict[str, tuple[int, int]]:
    return {one.what: (one.shared, one.total) for one in audit.shared}


def test_scenes_recordings_and_clips_are_counted_once_each(tmp_path: Path) -> None:
    first, second, other = "2023-02-09@14-04-02", "2023-02-09@20-00-00", "2023-03-01@08-00-00"
    train = listed(tmp_path / "train.txt", trumans("a", first, 0), trumans("a", first, 1), trumans("b", other))
    test = listed(tmp_path / "test.txt", trumans("a", first, 1), trumans("a", second, 7), trumans("c", second, 8))
    audit = audit_lists([train], [test])

    assert (audit.train_clips, audit.train_scenes, audit.train_recordings, audit.test_clips) == (3, 2, 2, 3)
    found = counts(audit)
    assert (found["clips"], found["recordings"], found["scenes"]) == ((1, 3), (1, 2), (1, 2))
    assert [one.level for one in audit.broken(forbidden_levels(SplitPolicy.OFFICIAL, None))] == [LeakLevel.CLIP]
    assert len(audit.broken(forbidden_levels(SplitPolicy.SCENE_DISJOINT, None))) == 3


@pytest.mark.parametrize(("seconds", "is_near"), [("14-08-59", True), ("14-09-02", False), ("13-59-03", True)])
def test_near_in_time_means_the_same_scene_and_under_five_minutes(seconds: str, is_near: bool, tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", trumans("a", "2023-02-09@14-04-02"), trumans("b", f"2023-02-09@{seconds}"))
    test = listed(tmp_path / "test.txt", trumans("a", f"2023-02-09@{seconds}", 3))
    near = [one for one in audit_lists([train], [test]).shared if "minutes" in one.what]

    assert [one.shared for one in near] == [int(is_near)]


def test_neighbouring_numbers_are_counted_by_distance(tmp_path: Path) -> None:
    paths = {number: f"taste_rob/DoubleHand/Kitchen/videos/{number}.mp4" for number in (100, 101, 103, 106, 200)}
    train = listed(tmp_path / "train.txt", paths[100])
    test = listed(tmp_path / "test.txt", *(paths[number] for number in (101, 103, 106, 200)))
    found = counts(audit_lists([train], [test]))

    assert found["clips whose number is within 1 of a training clip's"] == (1, 4)
    assert found["clips whose number is within 2 of a training clip's"] == (1, 4)
    train = listed(tmp_path / "train.txt", paths[101])
    found = counts(audit_lists([train], [listed(tmp_path / "test.txt", paths[100], paths[103])]))
    assert found["clips whose number is within 1 of a training clip's"] == (1, 2)
    assert found["clips whose number is within 2 of a training clip's"] == (2, 2)


def test_a_broken_promise_is_told_and_fails_the_command(tmp_path: Path) -> None:
    train = listed(tmp_path / "train.txt", trumans("a", "2023-02-09@14-04-02"))
    test = listed(tmp_path / "test.txt", trumans("a", "2023-02-09@20-04-02"))
    arguments = ["check-lists", "--train", str(train), "--test", str(test)]
    allowed = CliRunner().invoke(app, arguments)
    refused = CliRunner().invoke(app, [*arguments, "--policy", "scene-disjoint"])

    assert (allowed.exit_code, refused.exit_code) == (0, 1)
    assert "scenes: 1 of 1, such as a" in allowed.output
    assert "policy scene-disjoint forbids shared scenes" in refused.output
    told = CliRunner().invoke(app, [*arguments, "--policy", "scene-disjoint", "--may-share", "scene"])
    assert told.exit_code == 0
    with pytest.raises(DwmError, match="no such list file"):
        audit_lists([tmp_path / "none.txt"], [test])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published lists are not here")
def test_the_published_lists_share_what_is_known_of_them() -> None:
    trumans_audit = audit_lists([PUBLISHED / "trumans_train.txt"], [PUBLISHED / "trumans_test.txt"])
    assert (trumans_audit.train_clips, trumans_audit.test_clips) == (13_721, 48)
    assert (trumans_audit.train_scenes, trumans_audit.train_recordings) == (59, 522)
    assert list(counts(trumans_audit).values()) == [(0, 48), (0, 18), (18, 18), (42, 48)]

    taste_rob = audit_lists([PUBLISHED / "taste_rob_train.txt"], [PUBLISHED / "taste_rob_test.txt"])
    assert (taste_rob.train_clips, taste_rob.test_clips) == (3_289, 48)
    assert list(counts(taste_rob).values())[-2:] == [(22, 48), (34, 48)]
