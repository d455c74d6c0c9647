"""Quality and time of a run's videos by number of denoising steps: is a quick look with 4 to 8 steps good enough?

For each number of steps and clip one video is sampled, with the same seed. PSNR and SSIM are against the interaction
video. "As decoded" is the PSNR against what the autoencoder makes of that video, which no network can beat on purpose;
"same as longest" against the video of the most steps, which tells how far from finished it is. Seconds are CPU time of
the process without a GPU, wall-clock time with one, decoding included.

Example:
    python -m benchmarks.sampler_steps --dataset out/demo/dataset --base models/mini --run out/demo/run
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.dataset as ds
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from dwm_model.checkpoints import read_identity
from dwm_model.latents import LatentStore, VideoRole, posterior_mean
from dwm_model.metrics import psnr, ssim
from dwm_model.results import UNTRAINED_BANNER
from dwm_model.sampling import Sampler, SamplerConfig, decode_frames
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, Split
from render.video import Frames, read_clip_video

DEFAULT_STEPS = (4, 6, 8, 12, 25, 50)


@dataclass(frozen=True)
class StepRow:
    """Means over clips at one number of steps."""

    steps: int
    seconds: float
    """CPU seconds a video without a GPU, wall-clock seconds with one; decoding included."""
    psnr: float
    ssim: float
    psnr_as_decoded: float
    """Against the interaction video as the autoencoder gives it back."""
    psnr_to_longest: float | None
    """None for the most steps themselves."""


def measure(
    dataset: Dataset, sampler: Sampler, store: LatentStore, clips: Sequence[Clip], steps: Sequence[int]
) -> list[StepRow]:
    """Sample every clip with every number of steps, most first."""
    truth = {clip.clip_id: interaction(dataset, clip, store) for clip in clips}
    decoded = {clip.clip_id: decoded_interaction(sampler, clip, store) for clip in clips}
    clock = time.process_time if torch.device(sampler.base.device).type == "cpu" else time.perf_counter
    longest: dict[str, Frames] = {}
    rows = []
    for count in sorted(set(steps), reverse=True):
        config, began = SamplerConfig(num_inference_steps=count), clock()
        videos = {}
        for clip in clips:
            conditions = sampler.load_conditions(store, clip.clip_id)
            videos[clip.clip_id] = sampler.generate(conditions, clip.prompt, [0], config, clip_id=clip.clip_id)[0]
        seconds = (clock() - began) / len(clips)
        longest = longest or videos
        rows.append(
            StepRow(
                steps=count,
                seconds=round(seconds, 3),
                psnr=mean_psnr(videos, truth),
                ssim=round(statistics.fmean(ssim(video, truth[one]) for one, video in videos.items()), 4),
                psnr_as_decoded=mean_psnr(videos, decoded),
                psnr_to_longest=mean_psnr(videos, longest) if videos is not longest else None,
            )
        )
    return rows[::-1]


def interaction(dataset: Dataset, clip: Clip, store: LatentStore) -> Frames:
    """A clip's ground truth at the run's size."""
    if clip.interaction_path is None:
        raise DwmError(f"clip {clip.clip_id}: has no interaction video; choose ready clips")
    return read_clip_video(dataset.absolute(clip.interaction_path), **store.geometry.model_dump())


def decoded_interaction(sampler: Sampler, clip: Clip, store: LatentStore) -> Frames:
    """A clip's ground truth as the autoencoder gives it back from its cached latent."""
    latent = posterior_mean(store.moments(clip.clip_id, VideoRole.INTERACTION))
    frames: Frames = decode_frames(sampler.base, latent[None])[0]
    return frames


def mean_psnr(videos: Mapping[str, Frames], references: Mapping[str, Frames]) -> float:
    """Mean over clips."""
    return round(statistics.fmean(psnr(video, references[clip_id]) for clip_id, video in videos.items()), 2)


def table(rows: Sequence[StepRow]) -> str:
    """The rows as Markdown."""
    titles = ("steps", "seconds a video", "PSNR", "SSIM", "as decoded, dB", "same as longest, dB")
    lines = [f"| {' | '.join(titles)} |", f"|{'---:|' * len(titles)}"]
    for row in rows:
        same = "-" if row.psnr_to_longest is None else f"{row.psnr_to_longest:.2f}"
        quality = f"{row.psnr:.2f} | {row.ssim:.3f} | {row.psnr_as_decoded:.2f}"
        lines.append(f"| {row.steps} | {row.seconds:.2f} | {quality} | {same} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (
        ("dataset", "dataset folder, encoded"),
        ("base", "base model's folder"),
        ("run", "run's folder"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    parser.add_argument("--steps", default=",".join(map(str, DEFAULT_STEPS)), help="numbers of steps, comma-separated")
    parser.add_argument(
        "--split",
        choices=[one.value for one in Split],
        default=Split.TEST.value,
        help="clips of which split; train shows what the network has learned by heart",
    )
    parser.add_argument("--clips", type=int, default=4, help="how many clips of it, first by id")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args(arguments)
    dataset = Dataset.open(options.dataset)
    sampler = Sampler.from_run(options.base, options.run)
    store = LatentStore(dataset, sampler.base.description, read_identity(options.run).config.geometry)
    where = (ds.field("split") == options.split) & (ds.field("status") == ClipStatus.READY.value)
    clips = sorted(dataset.clips.rows(where=where), key=lambda clip: clip.clip_id)[: options.clips]
    if not clips:
        sys.exit(f"{options.dataset}: no ready clip in the {options.split} split; run `dwm split` first")
    rows = measure(dataset, sampler, store, clips, [int(count) for count in options.steps.split(",")])
    if sampler.base.is_untrained:
        print(UNTRAINED_BANNER)
    print(table(rows))
    if options.json:
        print(json.dumps({"clips": len(clips), "untrained": sampler.base.is_untrained, "rows": [*map(asdict, rows)]}))


if __name__ == "__main__":
    main()
