"""`dwm build taste-rob`: fixed-camera videos to triplets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, progress, report
from manifests.profiles import get_profile
from render.framing import FitPolicy, LengthPolicy
from sources.taste_rob import Subset


@one_line_errors
def build_taste_rob(
    raw: Annotated[
        Path, typer.Option(help="TASTE-Rob's release or a part of it, or any folder of fixed-camera videos.")
    ],
    dataset: Annotated[Path, typer.Option(help="Dataset folder; made when absent, added to when it exists.")],
    profile: Annotated[str, typer.Option(help="Size, length and frame rate of the clips.")] = "paper",
    subset: Annotated[Subset, typer.Option(help="Part of the release.")] = Subset.DOUBLE_HAND,
    captions: Annotated[
        Path | None, typer.Option(help="Caption file (xlsx, csv, txt), where the folder's own is not the one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Make clips of at most this many videos.", min=1)] = None,
    only: Annotated[
        str | None, typer.Option(help="Only videos or scenes whose name matches this pattern, such as 'Kitchen'.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print clips, hours and disk without making them.")] = False,
    workers: Annotated[int, typer.Option(help="Processes, each with its own hand estimator.", min=1)] = 1,
    fit: Annotated[FitPolicy, typer.Option(help="How a picture gets the clip's size.")] = FitPolicy.PAD,
    short: Annotated[
        LengthPolicy, typer.Option(help="What is done about a video that is shorter than a clip.")
    ] = LengthPolicy.PAD_LAST,
    windows: Annotated[int, typer.Option(help="Clips of one video at most, one after the other.", min=1)] = 1,
    moving_camera: Annotated[str, typer.Option(help="Clips whose camera moves: flag or drop.")] = "flag",
    no_hands: Annotated[str, typer.Option(help="Clips in which no hand is found: flag or drop.")] = "flag",
    licence: Annotated[str | None, typer.Option(help="Licence of the videos; known for the release.")] = None,
    estimator: Annotated[str, typer.Option(help="Hand estimator: landmarks, hamer or file.")] = "landmarks",
    hand_files: Annotated[
        Path | None, typer.Option(help="Estimator 'file': folder of <video name>.npz hand motions.")
    ] = None,
    hamer_root: Annotated[Path | None, typer.Option(help="Estimator 'hamer': checkout of its repository.")] = None,
    hamer_checkpoint: Annotated[Path | None, typer.Option(help="Estimator 'hamer': hamer.ckpt.")] = None,
    mano: Annotated[Path | None, typer.Option(help="Estimator 'hamer': MANO_RIGHT.pkl.")] = None,
    mano_mean: Annotated[Path | None, typer.Option(help="Estimator 'hamer': mano_mean_params.npz.")] = None,
    device: Annotated[str, typer.Option(help="Estimator 'hamer': auto, cpu or cuda.")] = "auto",
    mirrored: Annotated[bool, typer.Option("--mirrored", help="The videos are mirrored, as selfies are.")] = False,
    vlm: Annotated[
        Path | None, typer.Option(help="Folder of a local vision-language model that captions the clips.")
    ] = None,
    rewrite: Annotated[str, typer.Option(help="First-person prompts: none, template or text_model.")] = "none",
    text_model: Annotated[
        Path | None, typer.Option(help="Folder of a local text model, for --rewrite text_model.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make triplets of fixed-camera videos: the first frame repeated, and estimated hands.

    Example: `dwm build taste-rob --raw videos --dataset out/dataset --plan`
    """
    from sources.fixed_camera_build import build_fixed_camera, plan_build, settings_from

    hands: dict[str, Any] = {
        "estimator": estimator,
        "files": hand_files,
        "hamer_root": hamer_root,
        "checkpoint": hamer_checkpoint,
        "mano": mano,
        "mean_params": mano_mean,
        "device": device,
        "mirrored": mirrored,
    }
    prompts = {"captioning": "vlm" if vlm else "given", "vlm": vlm, "rewriting": rewrite, "text_model": text_model}
    chosen = {
        "fit": fit,
        "short": short,
        "windows": windows,
        "moving_camera": moving_camera,
        "no_hands": no_hands,
        "licence": licence,
        "hands": hands,
        "captions": prompts,
    }
    settings = settings_from(get_profile(profile), chosen)
    build_plan = plan_build(raw, settings, subset=subset, captions=captions, limit=limit, only=only)
    if plan:
        figures = build_plan.figures()
        report(figures, as_json, figures.lines())
        return
    result = build_fixed_camera(
        dataset, build_plan, workers=workers, watch=lambda chunks: progress(chunks, "fixed-camera clips")
    )
    report(result, as_json, result.lines())
    if result.has_problems:
        raise typer.Exit(EXIT_PROBLEMS)
