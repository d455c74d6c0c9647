"""`dwm benchmark` and `dwm generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, Field

from flows.cli_data import DatasetArgument
from flows.cli_model import BaseOption, RunOption
from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, progress, report, say
from manifests.dataset import Dataset
from manifests.errors import UsageError

if TYPE_CHECKING:
    from dwm_model.method_sources import MethodSource

StepsOption = Annotated[int, typer.Option(help="Denoising steps a video.", min=1)]
GuidanceOption = Annotated[float, typer.Option(help="Weight of the text; 1 turns guidance off.", min=1.0)]


@one_line_errors
def benchmark(
    dataset: DatasetArgument,
    base: BaseOption,
    run: RunOption,
    out: Annotated[Path, typer.Option(help="Folder for table, page and figure.")],
    name: Annotated[str, typer.Option(help="Name under which clips and settings are frozen.")] = "test",
    seeds: Annotated[int, typer.Option(help="Videos a clip and method.", min=1)] = 3,
    methods: Annotated[str, typer.Option(help="Rows of the table, comma-separated.")] = "static copy,DWM",
    num_inference_steps: StepsOption = 50,
    guidance_scale: GuidanceOption = 6.0,
    lpips: Annotated[bool, typer.Option(help="Compute LPIPS (VGG).")] = True,
    dreamsim: Annotated[bool, typer.Option(help="Compute DreamSim where its weights are.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Compare methods on the frozen test split: table, page with the videos side by side, figure.

    Example: `dwm benchmark out/dataset --base out/demo/base --run out/run --out out/benchmark --seeds 3`
    """
    from dwm_model.benchmark import run_benchmark
    from dwm_model.results import benchmark_geometry
    from dwm_model.tables import markdown_report
    from flows.benchmark import BenchmarkParameters
    from manifests.benchmarks import freeze
    from manifests.schema import Split

    parameters = BenchmarkParameters(
        dataset=dataset,
        base=base,
        run=run,
        out=out,
        name=name,
        seeds=seeds,
        methods=[method.strip() for method in methods.split(",")],
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        lpips=lpips,
        dreamsim=dreamsim,
    )
    opened, sources = Dataset.open(dataset), parameters.sources()
    frozen = freeze(opened, name, Split.TEST, parameters.settings())
    loaded = [source.load(opened, benchmark_geometry(frozen)) for source in sources]
    result = run_benchmark(opened, frozen, loaded, parameters.metric_options(), out)
    report(result, as_json, [markdown_report(result), f"page: {out / 'index.html'}"])
    failed = sum(method.failed for method in result.methods)
    if failed:
        say(f"{failed} videos failed; the page and `dwm explain` say why; run the same command again to try them again")
        raise typer.Exit(EXIT_PROBLEMS)


class GenerateReport(BaseModel):
    """What `dwm generate` made."""

    generated: int = Field(description="Videos made now.")
    skipped: int = Field(description="Videos that were there already.")
    failed: int = Field(description="Videos that could not be made; their rows say why.")
    videos: list[Path] = Field(description="The videos.")


@one_line_errors
def generate(
    base: BaseOption,
    run: RunOption,
    dataset: Annotated[Path | None, typer.Argument(help="Dataset to generate from.", metavar="[DATASET]")] = None,
    clips: Annotated[str | None, typer.Option(help="Clip ids, comma-separated; all usable clips when absent.")] = None,
    static: Annotated[Path | None, typer.Option(help="Static-scene video, instead of a dataset.")] = None,
    hands: Annotated[Path | None, typer.Option(help="Hand-mesh video of the same camera path.")] = None,
    prompt: Annotated[str, typer.Option(help="What the hands do; with --static and --hands.")] = "",
    out: Annotated[Path, typer.Option(help="Video to write; with --static and --hands.")] = Path("generated.mp4"),
    seed: Annotated[int, typer.Option(help="Seed of the initial noise.", min=0)] = 0,
    num_inference_steps: StepsOption = 50,
    guidance_scale: GuidanceOption = 6.0,
    as_json: JsonOption = False,
) -> None:
    """Generate interaction videos for clips of a dataset, or for a static video, a hand video and a prompt.

    Example: `dwm generate out/dataset --base out/demo/base --run out/run` or
    `dwm generate --static room.mp4 --hands hands.mp4 --prompt "I open the door." --base out/demo/base --run out/run`
    """
    from dwm_model.method_sources import MethodSource
    from dwm_model.methods import DWM
    from dwm_model.sampling import SamplerConfig

    sampler = SamplerConfig(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
    source = MethodSource(name=DWM, base=base, run=run, sampler=sampler)
    if dataset is not None:
        result = _generate_for_clips(Dataset.open(dataset), source, clips, seed)
    elif static is not None and hands is not None:
        result = _generate_for_videos(source, static, hands, prompt, seed, out)
    else:
        raise UsageError("dwm generate: give a DATASET, or both --static and --hands")
    lines = [str(path) for path in result.videos]
    report(result, as_json, [*lines, f"{result.generated} generated, {result.skipped} there already"])
    if result.failed:
        say(f"{result.failed} failed; `dwm explain` says why")
        raise typer.Exit(EXIT_PROBLEMS)


def _generate_for_clips(dataset: Dataset, source: MethodSource, clips: str | None, seed: int) -> GenerateReport:
    """One video a clip, recorded in the generations table without metrics that need weights."""
    import pyarrow.dataset as ds

    from dwm_model.checkpoints import read_identity
    from dwm_model.generation import generate_chunk, plan_generations, read_generations
    from dwm_model.metrics import MetricOptions
    from manifests.explain import resolve_clip_id
    from manifests.schema import ClipStatus

    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    chosen = (
        [resolve_clip_id(dataset, part.strip()) for part in clips.split(",")] if clips else dataset.clips.keys(usable)
    )
    geometry = read_identity(source.run).config.geometry
    plan = plan_generations(dataset, chosen, (seed,), geometry, source.describe())
    method, options = source.load(dataset, geometry), MetricOptions()
    reports = [generate_chunk(dataset, [request], method, options) for request in progress(plan, "generate")]
    rows = read_generations(dataset, plan)
    return GenerateReport(
        generated=sum(chunk.generated for chunk in reports),
        skipped=sum(chunk.skipped for chunk in reports),
        failed=sum(chunk.failed for chunk in reports),
        videos=[dataset.absolute(row.path) for row in rows if row.path is not None],
    )


def _generate_for_videos(
    source: MethodSource, static: Path, hands: Path, prompt: str, seed: int, out: Path
) -> GenerateReport:
    """One video from two video files and a prompt."""
    from dwm_model.sampling import Sampler
    from manifests.hashing import hash_file
    from render.video import probe, read_clip_video, write_video

    sampler = Sampler.from_run(source.base, source.run)
    size = sampler.geometry.model_dump()
    moments = sampler.encode([read_clip_video(path, **size) for path in (static, hands)])
    key = hash_file(static) + hash_file(hands)
    frames = sampler.generate(moments[0], moments[1], prompt, seed, source.sampler, clip_id=key)
    write_video(out, frames, probe(static).fps)
    return GenerateReport(generated=1, skipped=0, failed=0, videos=[out])
