"""Benchmarking as tasks: generate a chunk of videos with one method, then collect and publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from prefect import get_run_logger, task

from dwm_model.benchmark import write_benchmark
from dwm_model.generation import ChunkReport, GenerationRequest, generate_chunk
from dwm_model.method_sources import MethodSource
from dwm_model.metrics import MetricOptions
from dwm_model.results import BenchmarkResult, collect_result
from dwm_model.tables import TableView, markdown_report, table_views
from manifests.benchmarks import FrozenBenchmark
from manifests.dataset import Dataset
from tasks.artifacts import artifact_key, show_image, show_markdown, show_table
from tasks.retrying import is_worth_retrying


@task(name="generate-videos", retries=1, retry_condition_fn=is_worth_retrying)
def generate_video_chunk(
    dataset: Path, requests: list[GenerationRequest], source: MethodSource, options: MetricOptions
) -> ChunkReport:
    """Generate, measure and record the videos of a chunk that are not there yet."""
    opened = Dataset.open(dataset)
    report = generate_chunk(opened, requests, source.load(opened, requests[0].geometry), options)
    get_run_logger().info(
        "%s: %d made, %d there already, %d failed", source.name, report.generated, report.skipped, report.failed
    )
    return report


@task(name="report")
def publish_report(
    dataset: Path, frozen: FrozenBenchmark, sources: list[MethodSource], options: MetricOptions, out: Path
) -> BenchmarkResult:
    """Gather the rows into the table, write JSON, Markdown, page and figure, and show them in the UI."""
    opened = Dataset.open(dataset)
    result = collect_result(opened, frozen, [source.describe() for source in sources], options)
    files = write_benchmark(opened, result, out)
    banner = result.banner or f"benchmark {result.benchmark_name}"
    for view in table_views(result):
        show_table(artifact_key(f"benchmark {view.title}"), _artifact_rows(view), f"{view.title}: {banner}")
    show_markdown("benchmark-report", markdown_report(result), f"{banner}. Page with the videos: {files.html}")
    if files.figure is not None:
        show_image("benchmark-figure", np.asarray(Image.open(files.figure).convert("RGB")), f"Frames: {banner}")
    return result


def _artifact_rows(view: TableView) -> list[dict[str, str]]:
    """A table's rows with their cells by heading."""
    return [
        {"clips": f"{section.title} ({section.num_clips})", "method": row.method}
        | {
            heading: f"{cell.value} {cell.interval}".strip()
            for heading, cell in zip(view.headers, row.cells, strict=True)
        }
        for section in view.sections
        for row in section.rows
    ]
