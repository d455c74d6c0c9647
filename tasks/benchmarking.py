"""Benchmarking as tasks: generate a chunk of videos with one method, then collect and publish."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from dwm_model.benchmark import write_benchmark
from dwm_model.generation import ChunkReport, GenerationRequest, generate_chunk
from dwm_model.method_sources import MethodSource
from dwm_model.metrics import MetricOptions
from dwm_model.results import BenchmarkResult, collect_result
from dwm_model.tables import markdown_report
from manifests.benchmarks import FrozenBenchmark
from manifests.dataset import Dataset
from tasks.artifacts import show_image, show_markdown, show_table
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
    rows = [row for section in result.sections for row in section.rows]
    show_table("benchmark-table", rows, result.banner or f"Benchmark {result.benchmark_name}")
    show_markdown("benchmark-report", markdown_report(result), f"Page with the videos: {files.html}")
    if files.figure is not None:
        show_image("benchmark-figure", files.figure.read_bytes(), "Frames of each method beside the ground truth")
    return result
