"""Commands about the model: encode and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, Field

from flows.cli_data import DatasetArgument
from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, progress, report
from manifests.dataset import Dataset
from manifests.errors import UsageError

BaseOption = Annotated[Path, typer.Option(help="Base model: a folder in the diffusers layout, or a hub id.")]
RunOption = Annotated[Path, typer.Option(help="Folder of the training run.")]


@one_line_errors
def metrics(
    prediction: Annotated[Path, typer.Option(help="Video to judge.")],
    reference: Annotated[Path, typer.Option(help="Ground-truth video of the same size and length.")],
    frames: Annotated[
        str | None, typer.Option(help="Frames to use for all metrics, such as 0,8,16; all when absent.")
    ] = None,
    lpips_net: Annotated[list[str] | None, typer.Option(help="LPIPS network, vgg or alex; repeatable.")] = None,
    dreamsim: Annotated[bool, typer.Option("--dreamsim", help="Compute DreamSim as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two videos: PSNR, SSIM, LPIPS, DreamSim.

    Example: `dwm metrics --prediction generated.mp4 --reference truth.mp4 --lpips-net vgg`
    """
    from dwm_model.lpips import LpipsNet
    from dwm_model.metrics import MetricOptions, compare_videos
    from render.video import read_video

    unknown = [net for net in lpips_net or () if net not in tuple(LpipsNet)]
    if unknown:
        raise UsageError(f"--lpips-net {unknown[0]}: unknown; choose from {', '.join(LpipsNet)}")
    options = MetricOptions(
        frames=_frame_numbers(frames),
        lpips_nets=tuple(LpipsNet(net) for net in lpips_net or ()),
        dreamsim=dreamsim,
    )
    result = compare_videos(read_video(prediction).frames, read_video(reference).frames, options)
    lines = [
        f"{name:>10}  " + (f"{value:.5f}" if value is not None else result.reasons[name])
        for name in ("psnr", "ssim", "lpips_vgg", "lpips_alex", "dreamsim")
        for value in (getattr(result, name),)
    ]
    report(result, as_json, lines)


def _frame_numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--frames {text}: not a list of whole numbers; write it as 0,8,16") from None


class EncodeSummary(BaseModel):
    """What `dwm encode` did."""

    prompts: int = Field(description="Prompts that were embedded now.")
    clips: int = Field(description="Clips that were encoded now.")
    failures: dict[str, str] = Field(description="Reason for each clip that could not be encoded.")


@one_line_errors
def encode(
    dataset: DatasetArgument,
    base: BaseOption,
    profile: Annotated[str, typer.Option(help="Size and length of the clips as the model sees them.")] = "paper",
    shard_size: Annotated[int, typer.Option(help="Clips a shard.", min=1)] = 16,
    hand_masks: Annotated[
        bool,
        typer.Option("--hand-masks", help="Encode silhouettes of the hands as well, for hand_mask and controlnet."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Cache latents and prompt embeddings of a dataset; only what is missing is computed.

    Example: `dwm encode out/dataset --base models/mini --profile mini`
    """
    from dwm_model.base_model import load_base
    from dwm_model.latents import ShardKind, encode_shard, plan_encoding, record_failures
    from dwm_model.prompts import encode_prompts
    from dwm_model.train_config import profile_geometry

    opened, geometry, model = Dataset.open(dataset), profile_geometry(profile), load_base(base)
    kinds = tuple(ShardKind) if hand_masks else (ShardKind.VIDEOS,)
    plan = [
        (kind, chunk)
        for kind in kinds
        for chunk in plan_encoding(opened, model.description, geometry, shard_size, kind)
    ]
    prompts = encode_prompts(opened, model)
    reports = [encode_shard(opened, model, geometry, chunk, kind) for kind, chunk in progress(plan, "encode")]
    for shard in reports:
        record_failures(opened, shard)
    failures = {clip: reason for shard in reports for clip, reason in shard.failures.items()}
    clips = {clip for shard in reports for clip in shard.encoded}
    result = EncodeSummary(prompts=prompts, clips=len(clips), failures=failures)
    lines = [f"failed  {clip}: {reason}" for clip, reason in failures.items()]
    report(result, as_json, [*lines, f"encoded {result.clips} clips at {geometry} and {prompts} prompts"])
    if failures:
        raise typer.Exit(EXIT_PROBLEMS)
