"""The benchmark of the paper's section 4: methods x frozen clips x seeds, as a table, a page and a figure.

A flow runs the steps one by one: ``plan_benchmark``, ``generate_chunk`` on chunks of the plan, ``collect_result``,
``write_benchmark``. ``run_benchmark`` does all of them in one process.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwm_model.figure import write_benchmark_figure
from dwm_model.generation import generate_chunk, pending_generations
from dwm_model.method_sources import MethodSource
from dwm_model.methods import Method
from dwm_model.metrics import MetricOptions
from dwm_model.report import write_report
from dwm_model.results import BenchmarkResult, benchmark_geometry, collect_result, plan_benchmark
from dwm_model.tables import markdown_report
from manifests.atomic import write_text
from manifests.benchmarks import FrozenBenchmark
from manifests.dataset import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkFiles:
    """What a benchmark leaves in its output folder."""

    json: Path
    markdown: Path
    html: Path
    figure: Path | None
    """None when no clip has all its videos."""


def run_benchmark(
    dataset: Dataset,
    benchmark: FrozenBenchmark,
    methods: Sequence[Method],
    options: MetricOptions,
    out: Path,
) -> BenchmarkResult:
    """Generate what is missing, measure it, and write the table, the page and the figure.

    Interrupted at any point, the same call continues; what is there is not generated again. A clip that fails is
    counted in the table and told on the page, and tried again by the next call.

    Args:
        dataset: The dataset; videos and rows go into it.
        benchmark: Clips, size and seeds.
        methods: Rows of the table, in order.
        options: What to measure.
        out: Folder for ``benchmark.json``, ``benchmark.md``, ``index.html`` and ``figure.png``.

    Raises:
        DwmError: a file cannot be written, a clip is not in the manifest, or two methods share a name.
    """
    for method in methods:
        plan = plan_benchmark(dataset, benchmark, method.description)
        report = generate_chunk(dataset, plan, method, options)
        logger.info("%s: %d generated, %d there already, %d failed", method.description.name, *vars(report).values())
    result = collect_result(dataset, benchmark, [method.description for method in methods], options)
    write_benchmark(dataset, result, out)
    return result


def run_sources(
    dataset: Dataset,
    benchmark: FrozenBenchmark,
    sources: Sequence[MethodSource],
    options: MetricOptions,
    out: Path,
) -> BenchmarkResult:
    """`run_benchmark` with methods that are loaded one after another, and only when they have videos to make.

    Raises:
        DwmError: see `run_benchmark`; base, run or latents of a method are missing or do not fit each other.
    """
    for source in sources:
        plan = plan_benchmark(dataset, benchmark, source.describe())
        if pending_generations(dataset, plan, options):
            report = generate_chunk(dataset, plan, source.load(dataset, benchmark_geometry(benchmark)), options)
            logger.info("%s: %d generated, %d there already, %d failed", source.name, *vars(report).values())
            gc.collect()  # the weights of one method go before those of the next come
    result = collect_result(dataset, benchmark, [source.describe() for source in sources], options)
    write_benchmark(dataset, result, out)
    return result


def write_benchmark(dataset: Dataset, result: BenchmarkResult, out: Path) -> BenchmarkFiles:
    """Write a result as JSON (sorted keys, no NaN), Markdown, a self-contained page and a PNG figure.

    Raises:
        DwmError: a file cannot be written.
    """
    files = BenchmarkFiles(out / "benchmark.json", out / "benchmark.md", out / "index.html", out / "figure.png")
    text = json.dumps(result.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(files.json, text + "\n")
    write_text(files.markdown, markdown_report(result))
    write_report(dataset, result, files.html)
    drawn = write_benchmark_figure(dataset, result, out / "figure.png")
    return files if drawn else BenchmarkFiles(files.json, files.markdown, files.html, None)
