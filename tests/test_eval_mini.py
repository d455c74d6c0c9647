"""The claims about the small base: each is true of stand-in models that it should be true of, and of no others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from benchmarks.eval_mini import (
    NAVIGATION,
    Claim,
    claims,
    claims_table,
    grown,
    held_out_benchmark,
    pairs_of,
)
from dwm_model.copies import PASTED_HANDS, STATIC_COPY, STATIC_DECODED, TRUTH_DECODED
from dwm_model.generation import generate_chunk
from dwm_model.methods import DWM, FINE_TUNED, NOT_FINE_TUNED, MethodDescription
from dwm_model.metrics import MetricOptions
from dwm_model.results import collect_result, plan_benchmark
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, MaskId, Source, Split
from render.arrays import write_npz
from render.video import Frames, read_clip_video, write_video

SIZE = {"width": 96, "height": 64, "num_frames": 17}


def scene(left: int | None) -> Frames:
    """A grey ramp with a white thing whose left edge is here, uint8 [64, 96, 3]; without it when None."""
    frame = np.repeat(np.linspace(60, 120, 96).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    if left is not None:
        frame[24:36, left : left + 10] = 240
    return frame


def add_clip(dataset: Dataset, clip_id: str, recording: str, speed: int) -> Clip:
    """A thing that moves ``speed`` pixels a frame, and a hand below it."""
    folder = dataset.clip_folder(Source.SYNTHETIC, clip_id)
    interaction = np.stack([scene(10 + speed * frame) for frame in range(17)])
    hands, ids = np.zeros_like(interaction), np.zeros((17, 64, 96), np.uint8)
    for frame in range(17):
        left = 10 + speed * frame
        hands[frame, 38:44, left : left + 8] = 200
        interaction[frame, 38:44, left : left + 8] = 200
        ids[frame, 38:44, left : left + 8] = MaskId.HANDS
        ids[frame, 24:36, 10:20] = ids[frame, 24:36, left : left + 10] = MaskId.MOVED_OBJECT
    videos = {"interaction": interaction, "static": np.stack([scene(10)] * 17), "hands": hands}
    for name, frames in videos.items():
        write_video(folder / f"{name}.mp4", frames, 8.0, lossless=True)
    write_npz(folder / "masks.npz", {"ids": ids})
    clip = Clip(
        clip_id=clip_id,
        source=Source.SYNTHETIC,
        scene_id="scene",
        recording_id=recording,
        fps=8.0,
        prompt="Push the white box.",
        split=Split.TEST,
        status=ClipStatus.READY,
        masks_path=dataset.relative(folder / "masks.npz"),
        output_hashes={"interaction_path": clip_id},
        **SIZE,
        **{f"{name}_path": dataset.relative(folder / f"{name}.mp4") for name in videos},
    )
    dataset.clips.upsert([clip])
    return clip


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    for number in range(2):
        add_clip(dataset, f"clip{number}a", f"recording_{number}", speed=4)
        add_clip(dataset, f"clip{number}b", f"recording_{number}_variation_1", speed=2)
    return dataset


@dataclass
class Shows:
    """A stand-in: a video of the clip, or of another clip, made darker."""

    name: str
    dataset: Dataset
    column: str
    darker: int = 0
    of: dict[str, str] = field(default_factory=dict)

    @property
    def description(self) -> MethodDescription:
        return MethodDescription(name=self.name, uses_seed=False)

    def generate(self, clip: Clip, seed: int) -> Frames:  # noqa: ARG002 - the protocol has it
        shown = self.dataset.clips.get(self.of.get(clip.clip_id, clip.clip_id))
        frames = read_clip_video(self.dataset.absolute(getattr(shown, self.column)), **SIZE)
        return frames - np.uint8(self.darker)


def found_claims(dataset: Dataset, **changes: Shows) -> dict[str, Claim]:
    """Claims about an ideal model, but for the rows that are changed."""
    methods = {
        "static": Shows(STATIC_COPY, dataset, "static_path"),
        "decoded": Shows(STATIC_DECODED, dataset, "static_path", darker=4),
        "pasted": Shows(PASTED_HANDS, dataset, "static_path", darker=4),
        "truth": Shows(TRUTH_DECODED, dataset, "interaction_path", darker=4),
        "base": Shows(NOT_FINE_TUNED, dataset, "static_path", darker=4),
        "no_hands": Shows(FINE_TUNED, dataset, "static_path", darker=5),
        "dwm": Shows(DWM, dataset, "interaction_path", darker=4),
        "navigation": Shows(NAVIGATION, dataset, "static_path", darker=4),
    } | changes
    benchmark = held_out_benchmark(dataset, 4, 1)
    for method in methods.values():
        generate_chunk(dataset, plan_benchmark(dataset, benchmark, method.description), method, MetricOptions())
    result = collect_result(dataset, benchmark, [each.description for each in methods.values()], MetricOptions())
    return {claim.what: claim for claim in claims(dataset, result)}


def test_an_ideal_model_meets_every_claim(dataset: Dataset) -> None:
    found = found_claims(dataset)

    assert [what for what, claim in found.items() if not claim.is_met] == []
    assert len([what for what in found if what.startswith("object region")]) == 4
    assert "**no**" not in claims_table(list(found.values()))


def test_a_model_that_copies_the_static_scene_gains_nothing(dataset: Dataset) -> None:
    found = found_claims(dataset, dwm=Shows(DWM, dataset, "static_path", darker=4))

    unmet = {what for what, claim in found.items() if not claim.is_met}
    assert {what for what in found if what.startswith("object region")} <= unmet
    assert "two motions, one text: share of pairs nearer to their own truth" in unmet


def test_a_model_that_ignores_which_hands_it_sees_cannot_tell_pairs_apart(dataset: Dataset) -> None:
    always_first = {f"clip{number}b": f"clip{number}a" for number in range(2)}
    found = found_claims(dataset, dwm=Shows(DWM, dataset, "interaction_path", of=always_first))

    pairs = found["two motions, one text: share of pairs nearer to their own truth"]
    assert (pairs.found.mean, pairs.is_met) == (0.0, False)
    assert pairs.found.num_clips == 2


def test_a_base_that_changes_the_scene_is_no_identity(dataset: Dataset) -> None:
    found = found_claims(dataset, base=Shows(NOT_FINE_TUNED, dataset, "static_path", darker=8))

    identity = next(claim for what, claim in found.items() if what.startswith("identity"))
    assert identity.found.mean == pytest.approx(-6.02, abs=0.6)  # what is read again has been through H.264
    assert not identity.is_met


def test_a_model_that_changes_the_far_background_is_found(dataset: Dataset) -> None:
    found = found_claims(dataset, dwm=Shows(DWM, dataset, "interaction_path", darker=12))

    far = next(claim for what, claim in found.items() if what.startswith("8 px"))
    assert far.found.mean == pytest.approx(-9.54, abs=1.0)
    assert not far.is_met


def test_pairs_begin_together_and_are_told_the_same(dataset: Dataset) -> None:
    clips = list(dataset.clips.rows())
    assert [(first.clip_id, second.clip_id) for first, second in pairs_of(clips)] == [
        (f"clip{number}a", f"clip{number}b") for number in range(2)
    ]
    later = [clip.updated(start_frame=54) for clip in clips]
    assert list(pairs_of(later)) == []
    other = [clip.updated(prompt=clip.recording_id) for clip in clips]
    assert list(pairs_of(other)) == []


def test_a_mask_grows_by_its_radius() -> None:
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 20, 20] = True
    far = grown(mask, 8)

    assert far[0, 20, 28]
    assert not far[0, 20, 29]
    assert not far[0, 27, 27]


def test_too_few_held_out_clips_are_told(dataset: Dataset) -> None:
    with pytest.raises(DwmError, match="4 test clips, 64 are wanted"):
        held_out_benchmark(dataset, 64, 3)
