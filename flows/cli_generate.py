"""`dwm benchmark` and `dwm generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, Field

from flows.cli_data import DatasetArgument
from flows.cli_model import BaseOption, RunOption
from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, progress, report, say, step_progress
from manifests.dataset import Dataset
from manifests.errors import UsageError

if TYPE_CHECKING:
    from dwm_model.method_sources import MethodSource

StepsOption = Annotated[int, typer.Option(help="Denoising steps a video.", min=1)]
GuidanceOption = Annotated[float, typer.Option(help="Weight of the text; 1 turns guidance off.", min=1.0)]
BatchOption = Annotated[int, typer.Option(help="Videos of one clip that are denoised together.", min=1)]
TilingOption = Annotated[bool, typer.Option("--vae-tiling", help="Decode and encode in tiles: less memory.")]
SlicingOption = Annotated[bool, typer.Option("--vae-slicing", help="Encode and decode video by video: less memory.")]
AverageOption = Annotated[
    bool, typer.Option("--ema", help="Take the moving average of the weights, of runs trained with ema_decay.")
]
OffloadOption = Annotated[bool, typer.Option("--offload", help="Keep each part on the GPU only while it works.")]


@one_line_errors
def benchmark(
    dataset: DatasetArgument,
    base: BaseOption,
    run: RunOption,
    out: Annotated[Path, typer.Option(help="Folder for table, page and figure.")],
    name: Annotated[str, typer.Option(help="Name under which clips and settings are frozen.")] = "test",
    seeds: Annotated[int, typer.Option(help="Videos a clip and method.", min=1)] = 3,
    methods: Annotated[
        str,
        typer.Option(
            help="Rows of the table, comma-separated: static copy, CVX SDEdit, DWM (the run), or ROW=RUN for a row "
            "from a run of its own, such as 'CVX-Fun fine-tuned=out/run-none'; ' without text' or ' without hands' "
            "after a name leaves them out."
        ),
    ] = "static copy,DWM",
    num_inference_steps: StepsOption = 50,
    guidance_scale: GuidanceOption = 6.0,
    batch_size: BatchOption = 1,
    ema: AverageOption = False,
    vae_tiling: TilingOption = False,
    vae_slicing: SlicingOption = False,
    offload: OffloadOption = False,
    lpips: Annotated[bool, typer.Option(help="Compute LPIPS (VGG).")] = True,
    dreamsim: Annotated[bool, typer.Option(help="Compute DreamSim where its weights are.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Compare methods on the frozen test split: table, page with the videos side by side, figure.

    Example: `dwm benchmark out/dataset --base models/mini --run out/run --out out/benchmark --seeds 3`
    """
    from dwm_model.benchmark import run_sources
    from dwm_model.sampling import SamplerOptions
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
        use_average=ema,
        options=SamplerOptions(batch_size=batch_size, vae_tiling=vae_tiling, vae_slicing=vae_slicing, offload=offload),
        lpips=lpips,
        dreamsim=dreamsim,
    )
    opened, sources = Dataset.open(dataset), parameters.sources()
    frozen = freeze(opened, name, Split.TEST, parameters.settings())
    result = run_sources(opened, frozen, sources, parameters.metric_options(), out)
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
    clips: Annotated[
        str | None, typer.Option(help="Clip ids, comma-separated, or @FILE with one a line; all usable when absent.")
    ] = None,
    static: Annotated[Path | None, typer.Option(help="Static-scene video, instead of a dataset.")] = None,
    hands: Annotated[Path | None, typer.Option(help="Hand-mesh video of the same camera path.")] = None,
    hand_motion: Annotated[Path | None, typer.Option(help="Pose file (npz), for runs that take hand poses.")] = None,
    prompt: Annotated[str, typer.Option(help="What the hands do; with --static.")] = "",
    out: Annotated[Path, typer.Option(help="Video to write; with --static.")] = Path("generated.mp4"),
    seed: Annotated[int, typer.Option(help="Seed of the first video's noise.", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="Videos a clip, of seeds one after another.", min=1)] = 1,
    num_inference_steps: StepsOption = 50,
    guidance_scale: GuidanceOption = 6.0,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the prompt out.")] = False,
    no_hands: Annotated[bool, typer.Option("--no-hands", help="Leave the hands out: navigation only.")] = False,
    batch_size: BatchOption = 1,
    ema: AverageOption = False,
    vae_tiling: TilingOption = False,
    vae_slicing: SlicingOption = False,
    offload: OffloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate interaction videos for clips of a dataset, or for a static video, a hand video and a prompt.

    Clips without ground truth (one's own scene) are generated as well. 4 to 8 steps give a quick look.

    Example: `dwm generate out/dataset --base models/mini --run out/run` or
    `dwm generate --static room.mp4 --hands hands.mp4 --prompt "I open the door." --base models/mini --run out/run`
    """
    from dwm_model.method_sources import MethodSource
    from dwm_model.methods import DWM
    from dwm_model.sampling import SamplerConfig, SamplerOptions

    sampler = SamplerConfig(
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        use_text=not no_text,
        use_hands=not no_hands,
        use_average=ema,
    )
    options = SamplerOptions(batch_size=batch_size, vae_tiling=vae_tiling, vae_slicing=vae_slicing, offload=offload)
    source = MethodSource(name=DWM, base=base, run=run, sampler=sampler, options=options)
    chosen_seeds = tuple(range(seed, seed + seeds))
    if dataset is not None:
        result = _generate_for_clips(Dataset.open(dataset), source, clips, chosen_seeds)
    elif static is not None and (hands is not None or hand_motion is not None or no_hands):
        result = _generate_for_videos(source, OwnVideos(static, hands, hand_motion, prompt), chosen_seeds, out)
    else:
        raise UsageError("dwm generate: give a DATASET, or both --static and --hands (or --no-hands)")
    lines = [str(path) for path in result.videos]
    report(result, as_json, [*lines, f"{result.generated} generated, {result.skipped} there already"])
    if result.failed:
        say(f"{result.failed} failed; `dwm explain` says why")
        raise typer.Exit(EXIT_PROBLEMS)


def _generate_for_clips(
    dataset: Dataset, source: MethodSource, clips: str | None, seeds: tuple[int, ...]
) -> GenerateReport:
    """Videos of clips, recorded in the generations table without metrics that need weights."""
    from itertools import groupby

    from dwm_model.checkpoints import read_identity
    from dwm_model.generation import generate_chunk, plan_generations, read_generations
    from dwm_model.metrics import MetricOptions

    geometry = read_identity(source.run).config.geometry
    plan = plan_generations(dataset, _chosen_clips(dataset, clips), seeds, geometry, source.describe())
    method, options = source.load(dataset, geometry), MetricOptions()
    chunks = [list(group) for _, group in groupby(plan, key=lambda request: request.clip_id)]
    reports = [generate_chunk(dataset, chunk, method, options) for chunk in progress(chunks, "generate")]
    rows = read_generations(dataset, plan)
    return GenerateReport(
        generated=sum(chunk.generated for chunk in reports),
        skipped=sum(chunk.skipped for chunk in reports),
        failed=sum(chunk.failed for chunk in reports),
        videos=[dataset.absolute(row.path) for row in rows if row.path is not None],
    )


def _chosen_clips(dataset: Dataset, clips: str | None) -> list[str]:
    """The clips that are named, or all that can be generated: ready ones and those without ground truth."""
    import pyarrow.dataset as ds

    from manifests.explain import resolve_clip_id
    from manifests.schema import ClipStatus

    if clips is None:
        usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
        return sorted(dataset.clips.keys(usable))
    if clips.startswith("@"):
        try:
            names = Path(clips[1:]).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--clips {clips}: could not be read ({error}); give a text file of clip ids") from error
    else:
        names = [name.strip() for name in clips.split(",")]
    return [resolve_clip_id(dataset, name) for name in names]


@dataclass(frozen=True)
class OwnVideos:
    """A user's own conditions."""

    static: Path
    hands: Path | None
    hand_motion: Path | None
    prompt: str


def _generate_for_videos(source: MethodSource, own: OwnVideos, seeds: tuple[int, ...], out: Path) -> GenerateReport:
    """Videos from a user's own static and hand videos and prompt; several seeds go into numbered files."""
    from dwm_model.sampling import Sampler
    from manifests.hashing import hash_file
    from render.video import probe, read_clip_video, write_video

    averaged = source.sampler.use_average
    sampler = Sampler.from_run(source.base, source.run, use_average=averaged, options=source.options)
    size = sampler.geometry.model_dump()
    static = read_clip_video(own.static, **size)
    hands = None if own.hands is None else read_clip_video(own.hands, **size)
    conditions = sampler.encode_conditions(static, hands, own.hand_motion)
    key = "".join(hash_file(path) for path in (own.static, own.hands, own.hand_motion) if path is not None)
    paths = [out] if len(seeds) == 1 else [out.with_stem(f"{out.stem}-{seed}") for seed in seeds]
    with step_progress("generate", len(seeds) * sampler.num_steps(source.sampler)) as advance_to:
        videos = sampler.generate(conditions, own.prompt, seeds, source.sampler, clip_id=key, on_step=advance_to)
    for path, frames in zip(paths, videos, strict=True):
        write_video(path, frames, probe(own.static).fps)
    return GenerateReport(generated=len(videos), skipped=0, failed=0, videos=paths)
