"""Generated videos: planned, made in chunks, scored, and recorded so that any interruption can be resumed.

A video's row in the ``generations`` table is written after its file, so a row that says ``ready`` has its file. The
figures in the row come from the frames as generated; the file is an H.264 copy for looking at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.geometry import ClipGeometry
from dwm_model.methods import BatchMethod, Method, MethodDescription
from dwm_model.metrics import PERCEPTUAL_METRICS, MetricOptions, VideoMetrics, compare_videos, missing_metrics
from dwm_model.regions import load_regions
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import code_version, short_id
from manifests.schema import Clip, Generation, GenerationStatus
from render.video import Frames, read_clip_video, write_video

logger = logging.getLogger(__name__)

VIEWING_CRF = 12
"""x264 quality of the stored copies: finer than what the eye tells apart."""


class GenerationRequest(BaseModel):
    """One video to generate. Small and serialisable, so that a task can be handed a chunk of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation_id: str = Field(description="Hash of all that defines the video.")
    clip_id: str = Field(description="Clip whose conditions are used.")
    seed: int = Field(description="Seed of the initial noise.")
    geometry: ClipGeometry = Field(description="Size and length of the video.")
    method: MethodDescription = Field(description="What makes it.")


@dataclass(frozen=True)
class ChunkReport:
    """What became of a chunk of requests."""

    generated: int
    """Videos made and recorded now."""
    skipped: int
    """Videos that were there already."""
    failed: int
    """Videos that could not be made; their rows say why, and running again tries them again."""


def plan_generations(
    dataset: Dataset,
    clip_ids: Iterable[str],
    seeds: Sequence[int],
    geometry: ClipGeometry,
    method: MethodDescription,
) -> list[GenerationRequest]:
    """List the videos that a method is to make: one a clip and seed, or one a clip when it uses no seed.

    The ids depend on the clip's content, the run and step, the method, seed, sampler settings and geometry: the same
    request has the same id, and a clip that was built anew with other content is generated anew.

    Raises:
        DwmError: a clip is not in the manifest.
    """
    settings = _defining_settings(method)
    return [
        GenerationRequest(
            generation_id=short_id(
                clip_id, content, *settings, seed, geometry.width, geometry.height, geometry.num_frames
            ),
            clip_id=clip_id,
            seed=seed,
            geometry=geometry,
            method=method,
        )
        for clip_id in sorted(set(clip_ids))
        for content in [dataset.content_hash([clip_id])]
        for seed in (seeds if method.uses_seed else seeds[:1])
    ]


def _defining_settings(method: MethodDescription) -> tuple[str | int | float | None, ...]:
    """What of a method goes into ids; settings that came later only where they are not the usual ones."""
    settings: list[str | int | float | None] = [
        method.run_id,
        method.checkpoint_step,
        method.name,
        method.num_inference_steps,
        method.guidance_scale,
    ]
    usual = {"use_text": True, "use_hands": True, "strength": 1.0, "use_average": False}
    settings += [f"{name} {getattr(method, name)}" for name, value in usual.items() if getattr(method, name) != value]
    if method.run_id is None and method.base_hash is not None:
        settings.append(method.base_hash)
    return tuple(settings)


def pending_generations(
    dataset: Dataset, requests: Sequence[GenerationRequest], options: MetricOptions
) -> list[GenerationRequest]:
    """Requests that still have to be made: no ready row, no file, or a wanted metric that can be had now is absent."""
    missing = missing_metrics(options)
    wanted = [name for name in PERCEPTUAL_METRICS if name not in missing]
    done = {
        row.generation_id
        for row in read_generations(dataset, requests)
        if row.status is GenerationStatus.READY
        and row.path is not None
        and dataset.absolute(row.path).is_file()
        and (row.psnr is None or all(getattr(row, name) is not None for name in wanted))
    }
    return [request for request in requests if request.generation_id not in done]


def read_generations(dataset: Dataset, requests: Sequence[GenerationRequest]) -> list[Generation]:
    """Rows of the requests that have one, sorted by id."""
    wanted = [request.generation_id for request in requests]
    return list(dataset.generations.rows(where=ds.field("generation_id").isin(wanted)))


def generate_chunk(
    dataset: Dataset, requests: Sequence[GenerationRequest], method: Method, options: MetricOptions
) -> ChunkReport:
    """Make, score and record the requested videos that are not there yet.

    A clip that cannot be read or generated gets a ``failed`` row with the reason, and the others go on.

    Raises:
        DwmError: a request is for another method, or a file or row cannot be written (disk full, no permission).
    """
    for request in requests:
        if request.method != method.description:
            raise DwmError(f"generation {request.generation_id}: planned for {request.method}, not for this method")
    pending = pending_generations(dataset, requests, options)
    failed = 0
    together = isinstance(method, BatchMethod)
    for _, group in groupby(pending, key=lambda request: request.clip_id if together else request.generation_id):
        for row in _generate(dataset, list(group), method, options):
            dataset.generations.upsert([row])
            failed += row.status is GenerationStatus.FAILED
    return ChunkReport(generated=len(pending) - failed, skipped=len(requests) - len(pending), failed=failed)


def score(
    dataset: Dataset, clip: Clip, prediction: Frames, geometry: ClipGeometry, options: MetricOptions
) -> VideoMetrics | None:
    """Metrics of a prediction against the clip's interaction video at the generated size; None without one.

    Raises:
        DwmError: the interaction video, hand video or masks are broken or too short.
    """
    if clip.interaction_path is None:
        return None
    reference = read_clip_video(dataset.absolute(clip.interaction_path), **geometry.model_dump())
    regions = load_regions(dataset.root, clip, **geometry.model_dump())
    return compare_videos(prediction, reference, options, regions)


def _generate(
    dataset: Dataset, requests: Sequence[GenerationRequest], method: Method, options: MetricOptions
) -> Iterator[Generation]:
    """Make videos of one clip together and yield their rows, each when its file is written."""
    clip_id = requests[0].clip_id
    try:
        clip = dataset.clips.get(clip_id)
        videos = _videos(method, clip, [request.seed for request in requests])
    except (DwmError, RuntimeError) as error:  # torch reports a lack of memory, and much else, as RuntimeError
        yield from (_failed(request, error) for request in requests)
        return
    for request, frames in zip(requests, videos, strict=True):
        try:
            _check_size(frames, request)
            metrics = score(dataset, clip, frames, request.geometry, options)
        except (DwmError, RuntimeError) as error:
            yield _failed(request, error)
            continue
        folder = request.method.run_id or request.method.name.replace(" ", "_")
        path = dataset.generations_folder / folder / f"{request.generation_id}.mp4"
        write_video(path, frames, clip.fps, crf=VIEWING_CRF)
        values = {} if metrics is None else metrics.model_dump(exclude={"reasons", "num_frames"})
        yield _row(request, GenerationStatus.READY).updated(path=dataset.relative(path), **values)


def _videos(method: Method, clip: Clip, seeds: Sequence[int]) -> Sequence[Frames]:
    """Videos of a clip, together where the method can."""
    if isinstance(method, BatchMethod):
        return method.generate_batch(clip, seeds)
    return [method.generate(clip, seed) for seed in seeds]


def _failed(request: GenerationRequest, error: Exception) -> Generation:
    """Row of a video that could not be made."""
    logger.warning("generation %s of clip %s failed: %s", request.generation_id, request.clip_id, error)
    return _row(request, GenerationStatus.FAILED).updated(reason=str(error).strip() or type(error).__name__)


def _check_size(frames: Frames, request: GenerationRequest) -> None:
    geometry = request.geometry
    expected = (geometry.num_frames, geometry.height, geometry.width, 3)
    if frames.shape != expected:
        raise DwmError(
            f"{request.method.name}: made a video of {list(frames.shape)} where {list(expected)} was asked for; "
            "benchmark at the size that the run was trained with"
        )


def _row(request: GenerationRequest, status: GenerationStatus) -> Generation:
    return Generation(
        generation_id=request.generation_id,
        clip_id=request.clip_id,
        run_id=request.method.run_id,
        checkpoint_step=request.method.checkpoint_step,
        method=request.method.name,
        seed=request.seed,
        num_inference_steps=request.method.num_inference_steps,
        guidance_scale=request.method.guidance_scale,
        base_hash=request.method.base_hash,
        base_is_untrained=request.method.base_is_untrained,
        **request.geometry.model_dump(),
        status=status,
        code_version=code_version(),
    )
