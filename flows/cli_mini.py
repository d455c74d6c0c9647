"""`dwm pretrain-mini`: make the small base that ships with the project again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_run import start_temporary_api, use_own_prefect_home
from flows.cli_support import JsonOption, one_line_errors, report, say


@one_line_errors
def pretrain_mini(
    out: Annotated[Path, typer.Option(help="Folder of what is made on the way; continued when there.")] = Path(
        "out/mini"
    ),
    base: Annotated[Path | None, typer.Option(help="Where the finished base goes; `base` in the folder.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop with checkpoints after this time.", min=0.1)] = 75.0,
    parts: Annotated[
        Path | None, typer.Option(help="Take autoencoder and text encoder from this base instead of training them.")
    ] = None,
    image_to_video: Annotated[
        bool, typer.Option("--image-to-video", help="An image-to-video base instead of an inpainting base.")
    ] = False,
    scenes: Annotated[int, typer.Option(help="Generated rooms.", min=3)] = 320,
    as_json: JsonOption = False,
) -> None:
    """Generate rooms, then train autoencoder, text encoder and transformer of the small base on them.

    Run the same command again to continue after the time is over.

    Example: `dwm pretrain-mini --out out/mini --minutes 75`
    """
    if use_own_prefect_home(out):
        start_temporary_api()
    from flows.pretrain_mini import PretrainMiniParameters
    from flows.pretrain_mini import pretrain_mini as pretrain_flow

    result = pretrain_flow(
        PretrainMiniParameters(
            out=out,
            base=base or out / "base",
            minutes=minutes,
            parts=parts,
            num_scenes=scenes,
            kind="image_to_video" if image_to_video else "inpainting",
        )
    )
    lines = []
    if result.vae is not None:
        quality = ", ".join(f"{name} {value} dB" for name, value in result.vae.psnr_db.items())
        lines.append(f"autoencoder  step {result.vae.step}{f', held out: {quality}' if quality else ''}")
    if result.training is not None:
        lines.append(f"transformer  step {result.training.steps}")
    report(result, as_json, [*lines, f"base         {result.base or 'not finished'}"])
    if result.base is None:
        say(f"{out}: the time is over; run the same command again to continue")
