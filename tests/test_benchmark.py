"""Benchmarks: means and intervals, resumable generation, and results against closed forms."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwm_model import generation
from dwm_model.benchmark import run_benchmark
from dwm_model.bootstrap import mean_interval
from dwm_model.checkpoints import RUN_FILE, RunIdentity, checkpoint_folder
from dwm_model.copies import StaticCopy
from dwm_model.generation import generate_chunk, pending_generations, plan_generations, read_generations
from dwm_model.geometry import ClipGeometry
from dwm_model.method_sources import MethodSource
from dwm_model.methods import MethodDescription, Sampled, describe_run
from dwm_model.metrics import MetricOptions
from dwm_model.paired import paired_difference
from dwm_model.results import BenchmarkResult, SectionKind, collect_result, plan_benchmark
from dwm_model.sampling import SamplerConfig
from dwm_model.tables import markdown_report, table_views
from dwm_model.train_config import get_preset
from manifests.benchmarks import BenchmarkSettings, FrozenBenchmark, freeze
from manifests.dataset import Dataset
from manifests.errors import DwmError, UsageError
from manifests.schema import Clip, ClipStatus, GenerationStatus, Group, Source
from render.video import Frames, read_clip_video, read_video, write_video

GEOMETRY = ClipGeometry(width=32, height=24, num_frames=3)


def truth(number: int) -> Frames:
    """Interaction video of the clip with this number; its static video is 10 darker."""
    return np.random.default_rng(number).integers(60, 190, (3, 24, 32, 3), dtype=np.uint8)


def add_clip(dataset: Dataset, number: int, *, group: Group | None = Group.REAL_DYNAMIC, action: str = "push") -> Clip:
    clip_id = f"clip{number}"
    folder = dataset.clip_folder(Source.SYNTHETIC, clip_id)
    hands = np.zeros((3, 24, 32, 3), np.uint8)
    hands[:, 4:8, 4:8] = 200
    videos = {"interaction": truth(number), "static": truth(number) - np.uint8(10), "hands": hands}
    for name, frames in videos.items():
        write_video(folder / f"{name}.mp4", frames, 8.0, lossless=True)
    clip = Clip(
        clip_id=clip_id,
        source=Source.SYNTHETIC,
        group=group,
        scene_id=f"scene{number}",
        recording_id="recording",
        num_frames=3,
        fps=8.0,
        width=32,
        height=24,
        prompt=f"A hand pushes box {number}.",
        action_label=action,
        status=ClipStatus.READY,
        output_hashes={"interaction_path": str(number)},
        **{f"{name}_path": dataset.relative(folder / f"{name}.mp4") for name in videos},
    )
    dataset.clips.upsert([clip])
    return clip


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    for number in range(3):
        group = Group.REAL_DYNAMIC if number else Group.SYNTHETIC_DYNAMIC
        add_clip(dataset, number, group=group, action="push" if number else "open")
    return dataset


def frozen(dataset: Dataset, seeds: tuple[int, ...] = (0, 1), name: str = "test") -> FrozenBenchmark:
    shape = BenchmarkSettings(width=32, height=24, num_frames=3, seeds=seeds)
    return freeze(dataset, name, dataset.clips.keys(), shape)


@dataclass
class TruthPlusOffset:
    """A stand-in model: the ground truth, brighter by ``offset + seed``, so that its PSNR has a closed form."""

    dataset: Dataset
    offset: int = 2
    name: str = "DWM"
    untrained: bool = False
    fails_on: str | None = None
    rows: int = 24
    calls: list[tuple[str, int]] = field(default_factory=list)

    @property
    def description(self) -> MethodDescription:
        return MethodDescription(
            name=self.name,
            uses_seed=True,
            run_id=f"run{self.offset}",
            checkpoint_step=10,
            num_inference_steps=2,
            guidance_scale=6.0,
            base_hash="base",
            base_is_untrained=self.untrained,
        )

    def generate(self, clip: Clip, seed: int) -> Frames:
        self.calls.append((clip.clip_id, seed))
        if clip.clip_id == self.fails_on:
            raise DwmError(f"clip {clip.clip_id}: no latents; run `dwm encode`")
        return truth(int(clip.clip_id[4:]))[:, : self.rows] + np.uint8(self.offset + seed)


def offset_psnr(offset: int) -> float:
    return 20 * math.log10(255 / offset)


def write(dataset: Dataset, out: Path, *methods: TruthPlusOffset, seeds: tuple[int, ...] = (0, 1)) -> BenchmarkResult:
    copy = StaticCopy(dataset, GEOMETRY)
    return run_benchmark(dataset, frozen(dataset, seeds), [copy, *methods], MetricOptions(), out)


def run(dataset: Dataset, *models: TruthPlusOffset, seeds: tuple[int, ...] = (0, 1)) -> BenchmarkResult:
    """Like ``write`` but for the files: what a flow does in its tasks."""
    benchmark = frozen(dataset, seeds)
    methods = [StaticCopy(dataset, GEOMETRY), *models]
    for method in methods:
        plan = plan_benchmark(dataset, benchmark, method.description)
        generate_chunk(dataset, plan, method, MetricOptions())
    return collect_result(dataset, benchmark, [method.description for method in methods], MetricOptions())


def test_seeds_are_averaged_within_a_clip_before_clips_are() -> None:
    result = mean_interval({"a": [1.0, 2.0, 3.0], "b": [10.0]})
    assert result is not None
    assert result.mean == 6.0
    assert (result.num_clips, result.num_videos) == (2, 4)


def test_one_clip_has_no_interval_and_none_has_no_mean() -> None:
    single = mean_interval({"a": [1.0, 5.0]})
    assert single is not None
    assert (single.mean, single.low, single.high) == (3.0, None, None)
    assert mean_interval({"a": []}) is None


def test_the_interval_is_the_normal_one_for_many_clips() -> None:
    values = np.random.default_rng(0).normal(20, 2, 400)
    result = mean_interval({f"{index:03d}": [value] for index, value in enumerate(values)})
    assert result is not None
    assert result.low is not None
    assert result.high is not None
    half = 1.96 * values.std() / 20
    assert result.low == pytest.approx(values.mean() - half, abs=0.03)
    assert result.high == pytest.approx(values.mean() + half, abs=0.03)


@given(st.dictionaries(st.text(min_size=1), st.lists(st.floats(0, 100), min_size=1, max_size=3), min_size=2))
@settings(max_examples=25, deadline=None)
def test_the_interval_is_repeatable_and_within_the_values(values: dict[str, list[float]]) -> None:
    result = mean_interval(values, resamples=200)
    assert result is not None
    assert result == mean_interval(dict(reversed(values.items())), resamples=200)
    means = [float(np.mean(seeds)) for seeds in values.values()]
    assert result.low is not None
    assert result.high is not None
    assert min(means) - 1e-9 <= result.low <= result.high <= max(means) + 1e-9


def test_a_plan_has_one_video_a_clip_and_seed_and_one_a_clip_without_noise(dataset: Dataset) -> None:
    plan = plan_benchmark(dataset, frozen(dataset), TruthPlusOffset(dataset).description)
    assert [(request.clip_id, request.seed) for request in plan] == [
        (f"clip{number}", seed) for number in range(3) for seed in (0, 1)
    ]
    copies = plan_benchmark(dataset, frozen(dataset), StaticCopy(dataset, GEOMETRY).description)
    assert [(request.clip_id, request.seed) for request in copies] == [("clip0", 0), ("clip1", 0), ("clip2", 0)]


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "other"},
        {"checkpoint_step": 11},
        {"name": "other"},
        {"num_inference_steps": 3},
        {"guidance_scale": 1.0},
    ],
)
def test_every_setting_of_a_method_gives_other_ids(dataset: Dataset, change: dict[str, object]) -> None:
    method = TruthPlusOffset(dataset).description
    first = plan_generations(dataset, ["clip0"], [0], GEOMETRY, method)
    second = plan_generations(dataset, ["clip0"], [0], GEOMETRY, method.model_copy(update=change))
    assert first[0].generation_id != second[0].generation_id


def test_size_seed_and_content_of_the_clip_give_other_ids(dataset: Dataset) -> None:
    method = TruthPlusOffset(dataset).description
    larger = ClipGeometry(width=64, height=48, num_frames=3)
    ids = {plan_generations(dataset, ["clip0"], [0], GEOMETRY, method)[0].generation_id}
    ids.add(plan_generations(dataset, ["clip0"], [1], GEOMETRY, method)[0].generation_id)
    ids.add(plan_generations(dataset, ["clip0"], [0], larger, method)[0].generation_id)
    dataset.clips.upsert([dataset.clips.get("clip0").updated(output_hashes={"interaction_path": "built again"})])
    ids.add(plan_generations(dataset, ["clip0"], [0], GEOMETRY, method)[0].generation_id)
    assert len(ids) == 4


def test_figures_are_those_of_the_frames_as_generated(dataset: Dataset) -> None:
    result = run(dataset, TruthPlusOffset(dataset))
    everything = result.sections[0]
    assert everything.kind is SectionKind.ALL
    copy, model = everything.rows
    assert copy.metrics["psnr"] is not None
    assert copy.metrics["psnr"].mean == pytest.approx(offset_psnr(10), abs=1e-9)
    assert model.metrics["psnr"] is not None
    assert model.metrics["psnr"].mean == pytest.approx((offset_psnr(2) + offset_psnr(3)) / 2, abs=1e-9)
    assert (model.metrics["psnr"].num_clips, model.metrics["psnr"].num_videos) == (3, 6)
    assert model.metrics["psnr_hands"] == model.metrics["psnr_rest"] == model.metrics["psnr"]
    assert model.metrics["psnr_object"] is None
    assert model.metrics["dreamsim"] is None


def test_the_table_has_the_groups_of_the_paper_in_its_order_and_every_action(dataset: Dataset) -> None:
    add_clip(dataset, 3, group=None)
    result = run(dataset, TruthPlusOffset(dataset))
    assert [(section.kind, section.name, section.num_clips) for section in result.sections] == [
        ("all", None, 4),
        ("group", "synthetic_dynamic", 1),
        ("group", "real_dynamic", 2),
        ("group", None, 1),
        ("action", "open", 1),
        ("action", "push", 3),
    ]


def test_stored_videos_play_everywhere_and_look_as_generated(dataset: Dataset) -> None:
    result = run(dataset, TruthPlusOffset(dataset))
    video = result.clips[1].videos[-1]
    assert video.path is not None
    assert video.path == f"generations/run2/{video.generation_id}.mp4"
    stored = read_video(dataset.absolute(video.path))
    assert stored.fps == 8
    assert stored.frames.shape == (3, 24, 32, 3)


def test_a_second_run_generates_nothing_and_writes_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    method = TruthPlusOffset(dataset)
    write(dataset, tmp_path / "first", method)
    assert len(method.calls) == 6
    write(dataset, tmp_path / "second", method)
    assert len(method.calls) == 6
    for name in ("benchmark.json", "benchmark.md", "index.html", "figure.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_kill_between_file_and_row_loses_and_doubles_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = TruthPlusOffset(dataset)
    reference = run(dataset, method)
    dataset.generations.delete(dataset.generations.keys())
    method.calls.clear()

    def write_then_die(path: Path, frames: Frames, fps: float, **settings: int) -> None:
        write_video(path, frames, fps, **settings)
        if len(method.calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(generation, "write_video", write_then_die)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, method)
    monkeypatch.undo()
    assert dataset.generations.count() == 3 + 3  # the fourth video has its file and no row
    assert run(dataset, method) == reference
    assert len(method.calls) == 4 + 3
    assert dataset.generations.count() == 9
    assert len(list(dataset.generations_folder.rglob("*.mp4"))) == 9


def test_a_video_whose_file_is_gone_is_made_again(dataset: Dataset) -> None:
    method = TruthPlusOffset(dataset)
    result = run(dataset, method)
    path = result.clips[0].videos[-1].path
    assert path is not None
    dataset.absolute(path).unlink()
    run(dataset, method)
    assert method.calls[6:] == [("clip0", 1)]
    assert dataset.absolute(path).is_file()


def test_a_metric_that_can_be_had_since_is_measured(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    method = TruthPlusOffset(dataset)
    plan = plan_generations(dataset, ["clip0"], [0], GEOMETRY, method.description)
    assert generate_chunk(dataset, plan, method, MetricOptions()).generated == 1
    assert pending_generations(dataset, plan, MetricOptions(dreamsim=True)) == []
    monkeypatch.setattr(generation, "missing_metrics", lambda _: {"lpips_vgg": "-", "lpips_alex": "-"})
    assert pending_generations(dataset, plan, MetricOptions(dreamsim=True)) == plan


def test_a_failing_clip_gets_its_reason_and_the_others_go_on(dataset: Dataset) -> None:
    method = TruthPlusOffset(dataset, fails_on="clip1")
    result = run(dataset, method)
    summary = result.methods[1]
    assert (summary.ready, summary.failed, summary.absent) == (4, 2, 0)
    failed = [video for clip in result.clips for video in clip.videos if video.reason]
    assert [video.reason for video in failed] == ["clip clip1: no latents; run `dwm encode`"] * 2
    assert result.sections[0].rows[1].missing_videos == 2
    assert "2 of 6 failed" in markdown_report(result)
    method.fails_on = None
    assert run(dataset, method).methods[1].ready == 6


def test_frames_of_another_size_fail_with_both_shapes(dataset: Dataset) -> None:
    method = TruthPlusOffset(dataset, rows=20)
    plan = plan_generations(dataset, ["clip0"], [0], GEOMETRY, method.description)
    assert generate_chunk(dataset, plan, method, MetricOptions()).failed == 1
    (row,) = read_generations(dataset, plan)
    assert row.status is GenerationStatus.FAILED
    assert row.reason is not None
    assert "[3, 20, 32, 3]" in row.reason
    assert "[3, 24, 32, 3]" in row.reason


def test_a_clip_without_ground_truth_is_generated_and_not_measured(dataset: Dataset) -> None:
    clip = dataset.clips.get("clip0")
    dataset.clips.upsert([clip.updated(interaction_path=None, status=ClipStatus.CONDITIONS_ONLY)])
    method = StaticCopy(dataset, GEOMETRY)
    plan = plan_generations(dataset, ["clip0"], [0], GEOMETRY, method.description)
    assert generate_chunk(dataset, plan, method, MetricOptions()).generated == 1
    (row,) = read_generations(dataset, plan)
    assert row.path is not None
    assert row.psnr is None
    assert pending_generations(dataset, plan, MetricOptions()) == []


def test_requests_of_another_method_are_refused(dataset: Dataset) -> None:
    plan = plan_generations(dataset, ["clip0"], [0], GEOMETRY, TruthPlusOffset(dataset).description)
    with pytest.raises(DwmError, match="not for this method"):
        generate_chunk(dataset, plan, TruthPlusOffset(dataset, offset=5), MetricOptions())


def test_rows_of_another_benchmark_never_get_into_the_table(dataset: Dataset) -> None:
    method = TruthPlusOffset(dataset)
    run(dataset, method)
    copy = StaticCopy(dataset, GEOMETRY).description
    smaller = freeze(dataset, "one", ["clip0"], BenchmarkSettings(width=32, height=24, num_frames=3, seeds=(1,)))
    result = collect_result(dataset, smaller, [copy, method.description], MetricOptions())
    assert [clip.clip_id for clip in result.clips] == ["clip0"]
    mean = result.sections[0].rows[1].metrics["psnr"]
    assert mean is not None
    assert (mean.mean, mean.num_videos) == (pytest.approx(offset_psnr(3)), 1)
    other_size = BenchmarkSettings(width=16, height=12, num_frames=3, seeds=(0,))
    empty = collect_result(dataset, freeze(dataset, "two", ["clip0"], other_size), [copy], MetricOptions())
    assert empty.methods[0].absent == 1
    assert empty.sections[0].rows[0].metrics["psnr"] is None


def test_two_methods_of_one_name_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DwmError, match="different names"):
        run(dataset, TruthPlusOffset(dataset), TruthPlusOffset(dataset, offset=3))


def test_json_is_sorted_whole_and_without_nan(dataset: Dataset, tmp_path: Path) -> None:
    result = write(dataset, tmp_path / "out", TruthPlusOffset(dataset, offset=0), seeds=(0,))
    text = (tmp_path / "out" / "benchmark.json").read_text()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    loaded = json.loads(text, parse_constant=refuse)
    assert list(loaded) == sorted(loaded)
    assert loaded["benchmark_hash"] == frozen(dataset, (0,)).hash
    assert loaded["sections"][0]["rows"][1]["metrics"]["psnr"]["mean"] == 100.0
    assert BenchmarkResult.model_validate(loaded) == result


def test_an_untrained_base_puts_its_banner_on_every_output(dataset: Dataset, tmp_path: Path) -> None:
    banner = "untrained base: not a result"
    out = tmp_path / "out"
    write(dataset, out, TruthPlusOffset(dataset, untrained=True))
    assert json.loads((out / "benchmark.json").read_text())["banner"] == banner
    assert banner in (out / "benchmark.md").read_text()
    assert banner in (out / "index.html").read_text()
    with_banner = (out / "figure.png").read_bytes()
    write(dataset, out, TruthPlusOffset(dataset, offset=4))
    assert banner not in (out / "benchmark.md").read_text()
    assert banner not in (out / "index.html").read_text()
    assert (out / "figure.png").read_bytes() != with_banner


def test_the_best_value_is_bold_by_each_metrics_direction(dataset: Dataset) -> None:
    result = run(dataset, TruthPlusOffset(dataset))
    view = table_views(result)[0]
    assert view.headers[:3] == ("PSNR ↑", "SSIM ↑", "LPIPS ↓")
    copy, model = view.sections[-1].rows
    assert (copy.cells[0].is_best, model.cells[0].is_best) == (False, True)
    assert (copy.cells[2].value, copy.cells[2].is_best) == ("–", False)  # noqa: RUF001 - the dash of an empty cell
    assert any("LPIPS: not asked for" in note for note in view.footnotes)


def test_lower_is_better_where_the_arrow_says_so(dataset: Dataset) -> None:
    method = TruthPlusOffset(dataset)
    run(dataset, method)
    dataset.generations.upsert(
        [row.updated(lpips_vgg=0.2 if row.method == "DWM" else 0.1) for row in dataset.generations.rows()]
    )
    methods = [StaticCopy(dataset, GEOMETRY).description, method.description]
    result = collect_result(dataset, frozen(dataset), methods, MetricOptions())
    copy, model = table_views(result)[0].sections[-1].rows
    assert (copy.cells[2].is_best, model.cells[2].is_best) == (True, False)


def test_equal_means_are_not_bold(dataset: Dataset) -> None:
    result = run(dataset, TruthPlusOffset(dataset, offset=10), seeds=(0,))
    assert not any(row.cells[0].is_best for row in table_views(result)[0].sections[-1].rows)


def test_markdown_cells_cannot_be_broken_by_names(dataset: Dataset) -> None:
    add_clip(dataset, 4, action="a|b <script>\nc")
    text = markdown_report(run(dataset, TruthPlusOffset(dataset)))
    assert "a\\|b &lt;script> c (1)" in text


def test_static_copy_shows_the_static_video(dataset: Dataset) -> None:
    clip = dataset.clips.get("clip1")
    assert clip.static_path is not None
    expected = read_clip_video(dataset.absolute(clip.static_path), width=32, height=24, num_frames=3)
    assert np.array_equal(StaticCopy(dataset, GEOMETRY).generate(clip, 7), expected)
    with pytest.raises(DwmError, match="has no static video"):
        StaticCopy(dataset, GEOMETRY).generate(clip.updated(static_path=None), 0)


class RecordingSampler:
    """Stands in for the sampler: answers with what it was asked for."""

    run_id = "run"
    checkpoint_step = 20
    geometry = GEOMETRY
    base = SimpleNamespace(description=SimpleNamespace(base_hash="base", is_untrained=True))

    def load_conditions(self, store: object, clip_id: str) -> str:
        return f"{clip_id} of {store.name}"

    def generate(
        self, conditions: str, prompt: str, seeds: list[int], config: SamplerConfig, clip_id: str
    ) -> list[tuple[object, ...]]:
        return [(conditions, prompt, seed, config, clip_id) for seed in seeds]


def test_dwm_samples_from_the_clips_own_latents_and_prompt(dataset: Dataset) -> None:
    store = SimpleNamespace(geometry=GEOMETRY, name="store")
    config = SamplerConfig(num_inference_steps=4, guidance_scale=2.0)
    method = Sampled(RecordingSampler(), store, config)
    asked = method.generate_batch(dataset.clips.get("clip1"), [7, 8])
    assert asked == [("clip1 of store", "A hand pushes box 1.", seed, config, "clip1") for seed in (7, 8)]
    assert method.generate(dataset.clips.get("clip1"), 7) == asked[0]


def test_dwm_refuses_latents_of_another_size_than_its_run() -> None:
    other = SimpleNamespace(geometry=ClipGeometry(width=64, height=48, num_frames=3))
    with pytest.raises(DwmError, match=r"trained at 32x24x3, latents are 64x48x3"):
        Sampled(RecordingSampler(), other, SamplerConfig())


def test_a_run_is_described_without_loading_it_as_its_sampler_describes_itself(tmp_path: Path) -> None:
    identity = RunIdentity(
        run_id="run",
        base_name="tiny",
        base_hash="base",
        base_is_untrained=True,
        dataset_hash="data",
        config=get_preset("tiny"),
    )
    (tmp_path / RUN_FILE).write_text(identity.model_dump_json())
    with pytest.raises(DwmError, match="no checkpoint yet"):
        describe_run(tmp_path, SamplerConfig())
    for step in (10, 20):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    loaded = Sampled(RecordingSampler(), SimpleNamespace(geometry=GEOMETRY), SamplerConfig())
    assert describe_run(tmp_path, SamplerConfig()) == loaded.description
    assert describe_run(tmp_path, SamplerConfig(), 10).checkpoint_step == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DWM", ("DWM", "run", True, True, 1.0)),
        ("DWM without text", ("DWM without text", "run", False, True, 1.0)),
        ("DWM without hands", ("DWM without hands", "run", True, False, 1.0)),
        ("CVX SDEdit", ("CVX SDEdit", "run", True, True, 0.75)),
        ("CVX-Fun fine-tuned=runs/none", ("CVX-Fun fine-tuned", "runs/none", True, True, 1.0)),
        ("hand mask=runs/mask", ("hand mask", "runs/mask", True, True, 1.0)),
    ],
)
def test_rows_of_the_table_name_their_run_and_settings(text: str, expected: tuple[object, ...]) -> None:
    (source,) = MethodSource.of([text], Path("base"), Path("run"), SamplerConfig())
    settings = source.sampler
    found = (source.name, str(source.run), settings.use_text, settings.use_hands, settings.strength)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Magic", "method 'Magic': unknown"),
        ("InterDyn-like", "needs a run trained with conditioning controlnet"),
        ("row=", "write it as ROW=RUN"),
    ],
)
def test_unknown_rows_and_rows_without_their_run_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MethodSource.of([text], Path("base"), Path("run"), SamplerConfig())


def test_a_baselines_row_refuses_a_run_of_another_conditioning(tmp_path: Path) -> None:
    identity = RunIdentity(
        run_id="run",
        base_name="tiny",
        base_hash="base",
        base_is_untrained=True,
        dataset_hash="data",
        config=get_preset("tiny"),
    )
    (tmp_path / RUN_FILE).write_text(identity.model_dump_json())
    with pytest.raises(DwmError, match="trained with conditioning hand_mesh; row 'CVX-Fun fine-tuned' needs none"):
        describe_run(tmp_path, SamplerConfig(), name="CVX-Fun fine-tuned")


def test_videos_without_text_or_hands_have_ids_of_their_own(dataset: Dataset) -> None:
    usual = TruthPlusOffset(dataset).description
    methods = [usual, *(usual.model_copy(update={name: value}) for name, value in CHANGED_SETTINGS.items())]
    ids = {plan_generations(dataset, ["clip0"], [0], GEOMETRY, method)[0].generation_id for method in methods}
    assert len(ids) == 4


CHANGED_SETTINGS = {"use_text": False, "use_hands": False, "strength": 0.75}


@dataclass
class CountingBatches(TruthPlusOffset):
    """A stand-in model that makes the videos of a clip together."""

    batches: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def generate_batch(self, clip: Clip, seeds: list[int]) -> list[Frames]:
        self.batches.append((clip.clip_id, tuple(seeds)))
        return [self.generate(clip, seed) for seed in seeds]


def test_seeds_of_a_clip_are_generated_together_and_a_failing_clip_fails_alone(dataset: Dataset) -> None:
    method = CountingBatches(dataset, fails_on="clip1")
    plan = plan_generations(dataset, dataset.clips.keys(), (0, 1), GEOMETRY, method.description)
    report = generate_chunk(dataset, plan, method, MetricOptions())
    assert method.batches == [("clip0", (0, 1)), ("clip1", (0, 1)), ("clip2", (0, 1))]
    assert (report.generated, report.failed) == (4, 2)
    method.fails_on = None
    assert generate_chunk(dataset, plan, method, MetricOptions()).skipped == 4


def test_differences_are_taken_clip_by_clip(dataset: Dataset) -> None:
    class HarderEachClip(TruthPlusOffset):
        """Twice the offset in every second clip: all methods vary together."""

        def generate(self, clip: Clip, seed: int) -> Frames:  # noqa: ARG002 - the protocol has it
            scale = 2 if int(clip.clip_id[4:]) % 2 else 1
            return truth(int(clip.clip_id[4:])) + np.uint8(self.offset * scale)

    result = run(dataset, HarderEachClip(dataset, 4, "DWM"), HarderEachClip(dataset, 8, "other"), seeds=(0,))
    psnr = next(column for column in result.columns if column.key == "psnr")
    found = paired_difference(result, psnr, "DWM", "other")

    assert found is not None
    assert found.mean == pytest.approx(20 * math.log10(2), abs=1e-6)
    assert found.low == pytest.approx(found.high, abs=1e-6)
    assert "| DWM - other | +6.02" in markdown_report(result)
    assert "DWM - DWM" not in markdown_report(result)
