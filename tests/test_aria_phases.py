"""Where a capture's interaction begins: given, written beside it, or proposed with evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import DwmError
from sources.aria_phases import (
    BoundaryOrigin,
    explored_frames,
    propose_by_change,
    propose_by_hands,
    split_by_setting,
    split_by_sidecar,
)

TIMES_S = np.arange(60) / 10.0
TIMES_NS = (8_000_000_000 + np.arange(60) * 100_000_000).astype(np.int64)


@pytest.mark.parametrize(
    ("content", "frame"),
    [
        ('{"interaction_start_s": 2.05}', 21),
        ('{"interaction_start_s": 2.0}', 20),
        ('{"interaction_start_ns": 10000000000}', 20),
        ('{"explore_frames": 33}', 33),
        ('{"explore_frames": 0}', 0),
    ],
)
def test_sidecar_names_the_boundary(tmp_path: Path, content: str, frame: int) -> None:
    path = tmp_path / "phases.json"
    path.write_text(content)
    split = split_by_sidecar(TIMES_S, TIMES_NS, path)
    assert (split.origin, split.first_frame) == (BoundaryOrigin.SIDECAR, frame)
    assert split.start_s == pytest.approx(frame / 10)
    assert split.flag() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "json"),
        ("[]", "object"),
        ("{}", "give one of interaction_start_s, interaction_start_ns, explore_frames, not 0"),
        ('{"interaction_start_s": 1, "explore_frames": 3}', "not 2"),
        ('{"interaction_start_s": -1}', "interaction_start_s"),
        ('{"start": 1}', "start: extra inputs"),
        ('{"interaction_start_s": 99}', r"the recording is 5\.90 s long"),
        ('{"explore_frames": 60}', "explore_frames is 60, the recording has 60 colour frames"),
    ],
)
def test_broken_sidecar_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "phases.json"
    path.write_text(content)
    with pytest.raises(DwmError, match=message) as caught:
        split_by_sidecar(TIMES_S, TIMES_NS, path)
    assert "phases.json" in str(caught.value)


def test_setting_names_the_boundary() -> None:
    assert split_by_setting(TIMES_S, 3.14).first_frame == 32
    with pytest.raises(DwmError, match="give a time within it"):
        split_by_setting(TIMES_S, 100.0)


def test_first_hand_is_proposed_with_its_evidence() -> None:
    looked_at = np.arange(0, 60, 3)
    hands = np.zeros(20, np.int64)
    hands[4] = 1  # a single false alarm
    hands[12:] = 2
    hands[15] = 0
    split = propose_by_hands(TIMES_S, looked_at, hands)
    assert split is not None
    assert (split.origin, split.first_frame) == (BoundaryOrigin.FIRST_HAND, 36)
    assert "hands in 7 of 8 frames from there and in 1 of 12 before" in split.evidence
    assert split.flag() == f"phase_proposed: {split.evidence}"
    assert propose_by_hands(TIMES_S, looked_at, np.zeros(20, np.int64)) is None


def test_change_against_the_reconstruction_is_proposed() -> None:
    looked_at = np.arange(30, 60, 2)
    changed = np.full(15, 0.04)
    changed[2] = 0.5  # one blurred frame
    changed[8:] = 0.2
    split = propose_by_change(TIMES_S, looked_at, changed, usual=np.full(5, 0.03))
    assert split is not None
    assert (split.origin, split.first_frame) == (BoundaryOrigin.SCENE_CHANGE, 46)
    assert "20.0% of the picture differ from the reconstruction, 3.0% are usual" in split.evidence
    assert propose_by_change(TIMES_S, looked_at, np.full(15, 0.08), usual=np.full(5, 0.03)) is None


def test_explored_frames_are_those_before_with_a_pose() -> None:
    has_pose = np.ones(60, np.bool_)
    has_pose[5:8] = False
    split = split_by_setting(TIMES_S, 2.0)
    frames = explored_frames(split, has_pose, 10, "walk")
    assert frames.tolist() == [*range(5), *range(8, 20)]
    with pytest.raises(
        DwmError, match=r"walk: the interaction begins at colour frame 20 .* leaves 17 frames .* 18 are"
    ):
        explored_frames(split, has_pose, 18, "walk")
    with pytest.raises(DwmError, match="explore the scene first"):
        explored_frames(split_by_setting(TIMES_S, 0.0), has_pose, 1, "walk")
