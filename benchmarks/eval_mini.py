"""What the small base shows of the paper's claims, on rooms and things that it was never trained on.

``python -m benchmarks.eval_mini --dataset D --base B --run DWM_RUN --no-hands-run RUN --out OUT [--image-to-video I]``
generates what is missing (it resumes), writes the usual benchmark report, ``claims.json`` and a contact sheet of the
first clips beside it, and prints the claims. The dataset is the held-out world (`sources/synthetic/world.py`), split so
that all of it is test, and encoded with the base. Nothing may be chosen by looking at its output.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.benchmark import run_sources
from dwm_model.bootstrap import MeanInterval, mean_interval
from dwm_model.copies import PASTED_HANDS, STATIC_COPY, STATIC_DECODED, TRUTH_DECODED
from dwm_model.lpips import LpipsNet
from dwm_model.method_sources import WITHOUT_HANDS, MethodSource
from dwm_model.methods import DWM, FINE_TUNED, NOT_FINE_TUNED
from dwm_model.metrics import MetricOptions, psnr, region_psnr
from dwm_model.paired import paired_difference
from dwm_model.regions import load_regions
from dwm_model.results import COLUMNS, BenchmarkResult
from dwm_model.sampling import SamplerConfig
from dwm_model.train_config import profile_geometry
from manifests.atomic import write_bytes, write_text
from manifests.benchmarks import BenchmarkSettings, FrozenBenchmark, freeze
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, Split
from render.contact_sheet import contact_sheet, encode_jpeg
from render.hand_mask import Mask
from render.video import Frames, read_clip_video

FAR_PX = 8
"""Distance from hands and moved things from which on nothing should change, pixels."""

RIVALS = (STATIC_COPY, STATIC_DECODED, PASTED_HANDS, FINE_TUNED)
NAVIGATION = DWM + WITHOUT_HANDS
_VARIATION = re.compile(r"_variation_\d+$")
_GEOMETRY = profile_geometry("mini")
_SHEET_CLIPS, _SHEET_TILE_PX = 12, 120


class Claim(BaseModel):
    """One sentence that can be false."""

    model_config = ConfigDict(frozen=True)

    what: str = Field(description="What is measured.")
    found: MeanInterval = Field(description="Mean over clips or pairs with its 95 % bootstrap interval.")
    wanted: str = Field(description="What it should be.")
    is_met: bool = Field(description="Whether it is.")


def claims(dataset: Dataset, result: BenchmarkResult) -> Iterator[Claim]:
    """The claims that a benchmark result with the rows of this script supports or not; LPIPS where it was measured."""
    videos = Videos(dataset, result)
    columns = {column.key: column for column in COLUMNS}
    yield _at_least(
        "identity: base with full mask minus autoencoder, PSNR against the static video",
        videos.compare(NOT_FINE_TUNED, STATIC_DECODED, videos.against_static),
        -1.0,
    )
    for rival in RIVALS:
        found = paired_difference(result, columns["psnr_object"], DWM, rival)
        yield _at_least(f"object region: {DWM} minus {rival}, PSNR", _known(found), 1.5, above_zero=True)
    has_lpips = any(column.key == "lpips_vgg" and column.reason is None for column in result.columns)
    for rival in (STATIC_DECODED, FINE_TUNED) if has_lpips else ():
        found = _known(paired_difference(result, columns["lpips_vgg"], DWM, rival))
        better = found.high is not None and found.high < 0
        yield Claim(what=f"{DWM} minus {rival}, LPIPS", found=found, wanted="below 0, interval too", is_met=better)
    yield _at_least(
        f"{FAR_PX} px and more away: {DWM} minus truth through the autoencoder, PSNR",
        videos.compare(DWM, TRUTH_DECODED, videos.far_from_interaction),
        -1.0,
    )
    yield _at_least(
        f"{NAVIGATION} minus autoencoder, PSNR against the static video",
        videos.compare(NAVIGATION, STATIC_DECODED, videos.against_static),
        -1.0,
    )
    yield _at_least("two motions, one text: share of pairs nearer to their own truth", videos.pairs_told_apart(), 0.8)


class Videos:
    """The videos of a result, read again where a claim needs more than their figures.

    Args:
        dataset: where they are.
        result: what was generated.
    """

    def __init__(self, dataset: Dataset, result: BenchmarkResult) -> None:
        self._dataset = dataset
        self._paths = {
            (clip.clip_id, video.method, video.seed): video.path
            for clip in result.clips
            for video in clip.videos
            if video.path is not None
        }
        self._clips = {clip.clip_id: dataset.clips.get(clip.clip_id) for clip in result.clips}

    def compare(self, first: str, second: str, measure: Callable[[Clip, Frames], float | None]) -> MeanInterval:
        """Mean over clips of a measure of one method's videos minus that of another's; seeds averaged before."""
        differences: dict[str, list[float]] = {}
        for clip_id, clip in self._clips.items():
            ours, theirs = (self._mean(clip, method, measure) for method in (first, second))
            if ours is not None and theirs is not None:
                differences[clip_id] = [ours - theirs]
        return _known(mean_interval(differences))

    def against_static(self, clip: Clip, frames: Frames) -> float:
        """PSNR against the static video, dB."""
        return psnr(frames, self._read(clip.static_path))

    def far_from_interaction(self, clip: Clip, frames: Frames) -> float | None:
        """PSNR against the truth far from hands and moved things, dB; None where there is no such pixel."""
        regions = load_regions(self._dataset.root, clip, **_GEOMETRY.model_dump())
        if regions is None:
            return None
        return region_psnr(frames, self._read(clip.interaction_path), ~grown(regions.interaction, FAR_PX))

    def pairs_told_apart(self) -> MeanInterval:
        """Share of pairs of motions, a mean over seeds each, in which both videos are nearer to their own truth.

        Nearer where a thing moves in either of the two.
        """
        found: dict[str, list[float]] = {}
        for first, second in pairs_of(self._clips.values()):
            truths = [self._read(clip.interaction_path) for clip in (first, second)]
            regions = [load_regions(self._dataset.root, clip, **_GEOMETRY.model_dump()) for clip in (first, second)]
            masks = [each.object for each in regions if each is not None and each.object is not None]
            if len(masks) < 2 or not (masks[0] | masks[1]).any():
                continue
            mask = masks[0] | masks[1]
            for seed in self._seeds(first, DWM):
                made = [self._video(clip.clip_id, DWM, seed) for clip in (first, second)]
                if made[0] is None or made[1] is None:
                    continue
                own = [_error(video, truth, mask) for video, truth in zip(made, truths, strict=True)]
                other = [_error(video, truth, mask) for video, truth in zip(made, truths[::-1], strict=True)]
                found.setdefault(first.clip_id, []).append(float(own[0] < other[0] and own[1] < other[1]))
        return _known(mean_interval(found))

    def sheet(self, count: int) -> NDArray[np.uint8]:
        """Contact sheet of the first clips by id: hands, truth and what DWM made of them with the first seed."""
        rows: list[tuple[str, Frames]] = []
        for clip_id in sorted(self._clips)[:count]:
            clip = self._clips[clip_id]
            made = self._video(clip_id, DWM, self._seeds(clip, DWM)[0])
            if made is None:
                raise DwmError(f"clip {clip_id}: its first video is missing; run the script again")
            shown = (
                (clip.prompt, self._read(clip.hands_path)),
                ("truth", self._read(clip.interaction_path)),
                (DWM, made),
            )
            rows.extend(shown)
        return contact_sheet(rows, tile_width=_SHEET_TILE_PX)

    def _mean(self, clip: Clip, method: str, measure: Callable[[Clip, Frames], float | None]) -> float | None:
        videos = (self._video(clip.clip_id, method, seed) for seed in self._seeds(clip, method))
        values = [value for video in videos if video is not None and (value := measure(clip, video)) is not None]
        return float(np.mean(values)) if values else None

    def _seeds(self, clip: Clip, method: str) -> list[int]:
        return sorted(seed for clip_id, name, seed in self._paths if (clip_id, name) == (clip.clip_id, method))

    def _video(self, clip_id: str, method: str, seed: int) -> Frames | None:
        path = self._paths.get((clip_id, method, seed))
        return None if path is None else self._read(path)

    def _read(self, path: str | None) -> Frames:
        if path is None:
            raise DwmError("a clip of the held-out world lacks a video; build it again")
        return read_clip_video(self._dataset.absolute(path), **_GEOMETRY.model_dump())


def pairs_of(clips: Iterable[Clip]) -> Iterator[tuple[Clip, Clip]]:
    """Clips of a recording and of its variation that begin at the same frame and are told the same."""
    groups: dict[tuple[str, int, str], list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.recording_id):
        key = (_VARIATION.sub("", clip.recording_id), clip.start_frame, clip.prompt)
        groups.setdefault(key, []).append(clip)
    yield from ((group[0], group[1]) for group in groups.values() if len(group) == 2 and group[0].start_frame == 0)


def grown(mask: Mask, radius: int) -> Mask:
    """A mask [T, H, W] with everything that is at most ``radius`` pixels away."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.stack([cv2.dilate(frame.astype(np.uint8), kernel) > 0 for frame in mask])


def held_out_benchmark(dataset: Dataset, num_clips: int, seeds: int) -> FrozenBenchmark:
    """The first clips by id of the test split, together with the partners of their pairs.

    Raises:
        DwmError: there are fewer.
    """
    where = (ds.field("status") == ClipStatus.READY.value) & (ds.field("split") == Split.TEST.value)
    ready = sorted(dataset.clips.rows(where), key=lambda clip: clip.clip_id)
    if len(ready) < num_clips:
        raise DwmError(f"{dataset.root}: {len(ready)} test clips, {num_clips} are wanted; build more held-out rooms")
    chosen = {clip.clip_id for clip in ready[:num_clips]}
    for pair in pairs_of(ready):
        ids = {clip.clip_id for clip in pair}
        chosen |= ids if chosen & ids else set()
    settings = BenchmarkSettings(**_GEOMETRY.model_dump(), seeds=tuple(range(seeds)))
    return freeze(dataset, "held-out", chosen, settings)


def _error(video: Frames | None, truth: Frames, mask: Mask) -> float:
    if video is None:
        raise DwmError("a video of a pair is missing; run the script again")
    return float(((video.astype(np.float64) - truth)[mask] ** 2).mean())


def _known(found: MeanInterval | None) -> MeanInterval:
    if found is None:
        raise DwmError("no clip has both figures of a claim; look at the report for what failed")
    return found


def _at_least(what: str, found: MeanInterval, limit: float, *, above_zero: bool = False) -> Claim:
    is_sure = not above_zero or (found.low is not None and found.low > 0)
    wanted = f"at least {limit:g}" + (", interval above 0" if above_zero else "")
    return Claim(what=what, found=found, wanted=wanted, is_met=found.mean >= limit and is_sure)


def claims_table(found: Sequence[Claim]) -> str:
    """Claims as Markdown."""
    lines = ["| Claim | Found | 95 % | Clips | Wanted | Met |", "|:---|---:|:---|---:|:---|:---|"]
    for claim in found:
        mean = claim.found
        interval = "" if mean.low is None or mean.high is None else f"[{mean.low:.2f}, {mean.high:.2f}]"
        is_met = "yes" if claim.is_met else "**no**"
        lines.append(f"| {claim.what} | {mean.mean:.2f} | {interval} | {mean.num_clips} | {claim.wanted} | {is_met} |")
    return "\n".join(lines) + "\n"


def evaluate(options: argparse.Namespace) -> list[Claim]:
    """Generate what is missing, measure, write, and return the claims."""
    dataset = Dataset.open(options.dataset)
    benchmark = held_out_benchmark(dataset, options.clips, options.seeds)
    sampler = SamplerConfig(num_inference_steps=options.steps, guidance_scale=options.guidance)
    names = [*RIVALS[:3], TRUTH_DECODED, NOT_FINE_TUNED, f"{FINE_TUNED}={options.no_hands_run}", DWM, NAVIGATION]
    sources = MethodSource.of(names, options.base, options.run, sampler)
    result = run_sources(dataset, benchmark, sources, MetricOptions(lpips_nets=(LpipsNet.VGG,)), options.out)
    found = list(claims(dataset, result))
    if options.image_to_video:
        rows = MethodSource.of([STATIC_DECODED, NOT_FINE_TUNED], options.image_to_video, options.run, sampler)
        other = run_sources(dataset, benchmark, rows, MetricOptions(), options.out / "image_to_video")
        videos = Videos(dataset, other)
        difference = videos.compare(NOT_FINE_TUNED, STATIC_DECODED, videos.against_static)
        what = "no identity: image-to-video base minus autoencoder, PSNR against the static video"
        found.append(Claim(what=what, found=difference, wanted="below -1", is_met=difference.mean < -1.0))
    write_text(options.out / "claims.json", json.dumps([claim.model_dump() for claim in found], indent=2) + "\n")
    write_text(options.out / "claims.md", claims_table(found))
    sheet = Videos(dataset, result).sheet(_SHEET_CLIPS)
    write_bytes(options.out / "first_clips.jpg", encode_jpeg(sheet))
    return found


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--no-hands-run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image-to-video", type=Path)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.0)
    print(claims_table(evaluate(parser.parse_args())))


if __name__ == "__main__":
    main()
