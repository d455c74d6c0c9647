"""`dwm import-lora`, `dwm export lora` and `dwm export merged`: trained weights in the forms that users exchange."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, Field

from flows.cli_data import export_app
from flows.cli_model import BaseOption, RunOption
from flows.cli_support import JsonOption, one_line_errors, report

RunArgument = Annotated[Path, typer.Argument(help="Folder of the training run.", metavar="RUN")]
StepOption = Annotated[int | None, typer.Option(help="Step of the checkpoint; the newest when absent.", min=0)]


class WeightType(StrEnum):
    """Types that merged weights can be written in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class ExportReport(BaseModel):
    """What was written."""

    out: Path = Field(description="The folder.")


@one_line_errors
def import_lora(
    folder: Annotated[
        Path, typer.Argument(help="Folder with pytorch_lora_weights and non_lora_weights.", metavar="FOLDER")
    ],
    base: BaseOption,
    run: RunOption,
    profile: Annotated[str, typer.Option(help="Size and length of the videos that the run makes.")] = "paper",
    conditioning: Annotated[str, typer.Option(help="How hands enter the network.")] = "hand_mesh",
    alpha: Annotated[
        float | None, typer.Option(help="LoRA's alpha, for files that do not tell it (published ones: 64).", min=0)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a run of published weights, to generate and benchmark with like any other.

    Example: `dwm import-lora DWM-CogVideoX-Fun-5b-LoRA --base CogVideoX-Fun-V1.1-5b-InP --run out/published`
    """
    from dwm_model.official_weights import import_run
    from dwm_model.train_config import profile_geometry

    result = import_run(folder, base, run, profile_geometry(profile), conditioning=conditioning, alpha=alpha)
    report(result, as_json, [f"{run}: rank {result.rank}, alpha {result.alpha:g}, {result.conditioning}"])


@export_app.command("lora")
@one_line_errors
def export_lora(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder to write; made when absent.")],
    step: StepOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's weights as the two files that users exchange, byte for byte as its checkpoint has them.

    Example: `dwm export lora out/run --out out/weights`
    """
    from dwm_model.official_weights import export_lora as export

    report(ExportReport(out=export(run, out, step)), as_json, [str(out)])


@export_app.command("merged")
@one_line_errors
def export_merged(
    run: RunArgument,
    base: BaseOption,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    step: StepOption = None,
    dtype: Annotated[WeightType, typer.Option(help="Type of the written weights.")] = WeightType.FLOAT32,
    as_json: JsonOption = False,
) -> None:
    """Write a whole model with a run's weights merged in, which stock diffusers loads.

    Example: `dwm export merged out/run --base models/mini --out out/merged --dtype bfloat16`
    """
    from dwm_model.official_weights import export_merged as export

    report(ExportReport(out=export(run, base, out, step, dtype.value)), as_json, [str(out)])
