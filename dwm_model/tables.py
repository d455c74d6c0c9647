"""Result tables as text: one layout for the Markdown file and the HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dwm_model.bootstrap import MeanInterval
from dwm_model.methods import DWM
from dwm_model.paired import paired_difference
from dwm_model.results import BenchmarkResult, MethodSummary, MetricColumn, Section, SectionKind, SectionRow

GROUP_LABELS = {
    "synthetic_dynamic": "Synthetic, dynamic camera",
    "synthetic_static": "Synthetic, static camera",
    "real_static": "Real world, static camera",
    "real_dynamic": "Real world, dynamic camera",
}
"""Column groups as Table 1 names them."""

INTERVAL_NOTE = (
    "Means over clips; a clip's seeds are averaged first. In brackets the 95 % percentile bootstrap interval over "
    "clips. Equal videos have a PSNR of 100 dB."
)
"""How to read the tables."""

ABSENT = "–"  # noqa: RUF001 - the dash that papers put into empty cells
"""What a cell without a value shows."""


@dataclass(frozen=True)
class Cell:
    """One mean."""

    value: str
    """The mean, or a dash."""
    interval: str
    """The 95 % interval, or nothing."""
    is_best: bool
    """Whether no other method in the section is better."""


@dataclass(frozen=True)
class TableRow:
    """One method in one section."""

    method: str
    note: str
    """How many videos are missing, or nothing."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TableSection:
    """The methods over some of the clips."""

    title: str
    num_clips: int
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class TableView:
    """A table ready to be written."""

    title: str
    headers: tuple[str, ...]
    """Metric names with arrows that point to the better side."""
    sections: tuple[TableSection, ...]
    footnotes: tuple[str, ...]


def table_views(result: BenchmarkResult) -> tuple[TableView, ...]:
    """The tables of a result: by group as in Table 1, by region where one was measured, paired, and by action."""
    metrics = [column for column in result.columns if not column.is_region]
    regions = [column for column in result.columns if column.is_region and column.reason is None]
    groups = [section for section in result.sections if section.kind is SectionKind.GROUP]
    actions = [section for section in result.sections if section.kind is SectionKind.ACTION]
    everything = [section for section in result.sections if section.kind is SectionKind.ALL]
    overall = groups if len(groups) == 1 else [*groups, *everything]
    views = [_view("Comparison", overall, metrics)]
    if regions:
        views.append(_view("PSNR by region", overall, regions))
    if differences := _differences(result, [*metrics, *regions]):
        views.append(differences)
    if len(actions) > 1:
        views.append(_view("By action", actions, metrics))
    return tuple(views)


def format_value(value: float | None, column: MetricColumn) -> str:
    """A figure with the digits of its column; a dash for none."""
    return ABSENT if value is None else f"{value:.{column.digits}f}"


def section_title(section: Section) -> str:
    """Name of a section as readers see it."""
    if section.kind is SectionKind.ALL:
        return "All clips"
    if section.name is None:
        return f"No {section.kind.value} given"
    return GROUP_LABELS.get(section.name, section.name)


def describe_method(summary: MethodSummary) -> str:
    """One line on what made a method's videos."""
    method = summary.description
    parts = [
        f"run {method.run_id}" if method.run_id else "",
        f"step {method.checkpoint_step}" if method.checkpoint_step is not None else "",
        f"{method.num_inference_steps} denoising steps" if method.num_inference_steps else "",
        f"guidance {method.guidance_scale:g}" if method.guidance_scale is not None else "",
        f"base {method.base_hash[:12]}" if method.base_hash else "",
        f"seeds {', '.join(map(str, summary.seeds))}" if method.uses_seed else "one video a clip",
        _incomplete(summary),
    ]
    return ", ".join(part for part in parts if part)


def _incomplete(summary: MethodSummary) -> str:
    total = summary.ready + summary.failed + summary.absent
    parts = [f"{summary.failed} of {total} failed" if summary.failed else ""]
    parts.append(f"{summary.absent} of {total} not generated" if summary.absent else "")
    return ", ".join(part for part in parts if part)


def _missing_note(row: SectionRow) -> str:
    if not row.missing_videos:
        return ""
    return f"{row.missing_videos} video{'' if row.missing_videos == 1 else 's'} missing"


def _view(title: str, sections: Sequence[Section], columns: Sequence[MetricColumn]) -> TableView:
    return TableView(
        title=title,
        headers=tuple(f"{column.label} {'↑' if column.higher_is_better else '↓'}" for column in columns),
        sections=tuple(
            TableSection(
                title=section_title(section),
                num_clips=section.num_clips,
                rows=tuple(
                    TableRow(row.method, _missing_note(row), tuple(_cells(row, section, columns)))
                    for row in section.rows
                ),
            )
            for section in sections
        ),
        footnotes=tuple(f"{column.label}: {column.reason}" for column in columns if column.reason),
    )


def _differences(result: BenchmarkResult, columns: Sequence[MetricColumn]) -> TableView | None:
    """The model minus each other method, clip by clip; None where there is nothing to subtract."""
    others = [name for method in result.methods if (name := method.description.name) != DWM]
    if len(others) == len(result.methods) or not others:
        return None
    rows = tuple(
        TableRow(f"{DWM} - {other}", "", tuple(_difference(result, column, other) for column in columns))
        for other in others
    )
    headers = tuple(f"{column.label} {'↑' if column.higher_is_better else '↓'}" for column in columns)
    section = TableSection(title="All clips", num_clips=result.num_clips, rows=rows)
    return TableView(title="Differences clip by clip", headers=headers, sections=(section,), footnotes=())


def _difference(result: BenchmarkResult, column: MetricColumn, other: str) -> Cell:
    found = paired_difference(result, column, DWM, other)
    if found is None:
        return Cell(value=ABSENT, interval="", is_best=False)
    return Cell(value=f"{found.mean:+.{column.digits}f}", interval=_interval(found, column), is_best=False)


def _cells(row: SectionRow, section: Section, columns: Sequence[MetricColumn]) -> Iterable[Cell]:
    for column in columns:
        mean = row.metrics[column.key]
        best = _best_value(section, column)
        shown = format_value(mean.mean if mean else None, column)
        yield Cell(value=shown, interval=_interval(mean, column), is_best=shown == best)


def _best_value(section: Section, column: MetricColumn) -> str | None:
    """The best mean as it is shown; None where all methods show the same, or only one has a mean."""
    means = [mean.mean for row in section.rows if (mean := row.metrics[column.key]) is not None]
    if len({format_value(mean, column) for mean in means}) < 2:
        return None
    return format_value(max(means) if column.higher_is_better else min(means), column)


def _interval(mean: MeanInterval | None, column: MetricColumn) -> str:
    if mean is None or mean.low is None or mean.high is None:
        return ""
    return f"[{format_value(mean.low, column)}, {format_value(mean.high, column)}]"


def markdown_report(result: BenchmarkResult) -> str:
    """The whole result as Markdown: what was compared, the tables, what is missing."""
    lines = [f"# Benchmark {result.benchmark_name}", ""]
    if result.banner:
        lines += [f"> **{result.banner}**", ""]
    lines += [
        _compared(result),
        "",
        *(f"- **{_escaped(summary.description.name)}**: {describe_method(summary)}" for summary in result.methods),
        "",
    ]
    for view in table_views(result):
        lines += _markdown_table(view)
    lines.append(INTERVAL_NOTE)
    return "\n".join(lines) + "\n"


def _compared(result: BenchmarkResult) -> str:
    geometry = result.geometry
    return (
        f"{result.num_clips} clip{'' if result.num_clips == 1 else 's'} of {geometry.width}x{geometry.height}, "
        f"{geometry.num_frames} frames; "
        f"seeds {', '.join(map(str, result.seeds))}; benchmark hash `{result.benchmark_hash[:16]}`."
    )


def _markdown_table(view: TableView) -> Iterable[str]:
    yield from (f"## {view.title}", "")
    yield "| Clips | Method | " + " | ".join(view.headers) + " |"
    yield "|:---|:---|" + "---:|" * len(view.headers)
    for section in view.sections:
        for row in section.rows:
            cells = (
                f"{f'**{cell.value}**' if cell.is_best else cell.value} {cell.interval}".rstrip() for cell in row.cells
            )
            name = f"{_escaped(row.method)} ({row.note})" if row.note else _escaped(row.method)
            yield f"| {_escaped(section.title)} ({section.num_clips}) | {name} | " + " | ".join(cells) + " |"
    yield ""
    yield from (f"- {_escaped(note)}" for note in view.footnotes)
    if view.footnotes:
        yield ""


def _escaped(text: str) -> str:
    """Text that cannot break out of a Markdown table cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
