"""The benchmark page and figure: self-contained, escaped, complete, and playable in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from dwm_model.figure import FigureBlock, FigureRow, write_benchmark_figure, write_figure
from dwm_model.geometry import ClipGeometry
from dwm_model.methods import MethodDescription
from dwm_model.report import MIN_PAGE_WIDTH, PAGE_VIDEO_BYTES, page_size, write_report
from dwm_model.results import COLUMNS, BenchmarkResult, ClipResult, GeneratedVideo, MethodSummary
from manifests.dataset import Dataset
from manifests.errors import DwmError
from render.video import probe, write_video

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = '<script>alert("prompt")</script>\nsecond line & more'


def frames(shade: int, num_frames: int = 5) -> np.ndarray:
    video = np.full((num_frames, 32, 48, 3), shade, np.uint8)
    for index in range(num_frames):
        video[index, :, 4 * index : 4 * index + 8] = 255 - shade
    return video


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    for index, name in enumerate(("static", "hands", "truth", "copy", "seed0", "seed1")):
        write_video(dataset.root / f"{name}.mp4", frames(30 * index), 8.0)
    return dataset


def generated(method: str, seed: int, path: str | None, reason: str | None = None) -> GeneratedVideo:
    values = {column.key: 20.0 + seed if path and column.key == "psnr" else None for column in COLUMNS}
    return GeneratedVideo(
        generation_id=f"{method}{seed}", method=method, seed=seed, path=path, metrics=values, reason=reason
    )


def result_of(num_clips: int = 1, **changes: object) -> BenchmarkResult:
    copy = MethodSummary(
        description=MethodDescription(name="static copy", uses_seed=False), seeds=(0,), ready=1, failed=0, absent=0
    )
    model = MethodSummary(
        description=MethodDescription(name="DWM", uses_seed=True, run_id="run", checkpoint_step=10),
        seeds=(0, 1, 2),
        ready=2,
        failed=1,
        absent=0,
    )
    clips = tuple(
        ClipResult(
            clip_id=f"clip{number}",
            scene_id="kitchen",
            group="real_dynamic",
            action_label="push",
            prompt=NASTY,
            fps=8.0,
            static_path="static.mp4",
            hands_path="hands.mp4",
            interaction_path="truth.mp4",
            videos=(
                generated("static copy", 0, "copy.mp4"),
                generated("DWM", 0, "seed0.mp4"),
                generated("DWM", 1, "seed1.mp4"),
                generated("DWM", 2, None, "out of <memory>"),
            ),
        )
        for number in range(num_clips)
    )
    values: dict[str, object] = {
        "banner": None,
        "benchmark_name": "test",
        "benchmark_hash": "ab" * 32,
        "geometry": ClipGeometry(width=48, height=32, num_frames=5),
        "num_clips": num_clips,
        "seeds": (0, 1, 2),
        "methods": (copy, model),
        "columns": COLUMNS,
        "sections": (),
        "clips": clips,
    }
    return BenchmarkResult.model_validate({**values, **changes})


class Page(HTMLParser):
    """Collects what the page shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def embedded_videos(text: str) -> dict[str, str]:
    found = re.search(r'<script type="application/json" id="videos">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    videos: dict[str, str] = json.loads(found.group(1))
    return videos


def written(dataset: Dataset, result: BenchmarkResult) -> str:
    path = dataset.root / "out" / "index.html"
    write_report(dataset, result, path)
    return path.read_text()


def test_the_page_shows_every_video_in_order_and_each_file_once(dataset: Dataset, tmp_path: Path) -> None:
    text = written(dataset, result_of(num_clips=2))
    videos = embedded_videos(text)
    tiles = [tile["data-video"] for tile in Page(text).named("video")]
    assert len(tiles) == 2 * 6
    assert set(tiles) == set(videos)
    assert len(videos) == 6
    for name, key in zip(("static", "hands", "copy", "seed0", "seed1", "truth"), tiles, strict=False):
        copy = tmp_path / "copy.mp4"
        copy.write_bytes(base64.b64decode(videos[str(key)]))
        info = probe(copy)
        assert (info.codec, info.pixel_format, info.num_frames) == ("h264", "yuv420p", 5), name
        assert (info.width, info.height, info.fps) == (48, 32, 8.0), name


def test_the_page_needs_nothing_from_outside(dataset: Dataset) -> None:
    text = written(dataset, result_of())
    assert "http:" not in text
    assert "https:" not in text
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "poster"):
            assert str(attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    policy = next(meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_text_of_the_data_cannot_become_markup(dataset: Dataset) -> None:
    text = written(dataset, result_of(benchmark_name="<b>name</b>"))
    assert "alert(" in text
    assert "<script>alert" not in text
    assert "<b>name</b>" not in text
    assert NASTY in Page(text).texts


def test_one_seed_is_shown_and_the_others_can_be_chosen(dataset: Dataset) -> None:
    page = Page(written(dataset, result_of()))
    figures = [attributes for attributes in page.named("figure") if "data-seed" in attributes]
    assert [(figure["data-seed"], "hidden" in figure) for figure in figures] == [
        ("0", False),
        ("1", True),
        ("2", True),
    ]
    assert [option["value"] for option in page.named("option")][-3:] == ["0", "1", "2"]


def test_a_failed_video_says_why_in_its_place(dataset: Dataset) -> None:
    assert "failed: out of <memory>" in Page(written(dataset, result_of())).texts


def test_a_video_that_is_gone_is_told_and_the_page_is_still_made(dataset: Dataset) -> None:
    (dataset.root / "hands.mp4").unlink()
    page = Page(written(dataset, result_of()))
    assert len(page.named("video")) == 5
    assert any("hands.mp4: no such file" in text for text in page.texts)


def test_the_banner_is_at_the_top(dataset: Dataset) -> None:
    page = Page(written(dataset, result_of(banner="untrained base: not a result")))
    shown = [text for text in page.texts if text]
    assert shown.index("untrained base: not a result") < shown.index("Dexterous World Models")


def test_the_same_result_gives_the_same_bytes(dataset: Dataset) -> None:
    assert written(dataset, result_of()) == written(dataset, result_of())


@pytest.mark.parametrize("num_clips", [1, 12, 100])
@pytest.mark.parametrize("size", [(96, 64, 17), (720, 480, 49)])
def test_videos_are_even_and_shrink_so_that_the_page_stays_in_bounds(num_clips: int, size: tuple[int, ...]) -> None:
    width, height, num_frames = size
    geometry = ClipGeometry(width=width, height=height, num_frames=num_frames)
    page_width, page_height = page_size(result_of(num_clips, geometry=geometry))
    assert page_width % 2 == page_height % 2 == 0
    assert MIN_PAGE_WIDTH <= page_width <= min(width, 480)
    assert page_height / page_width == pytest.approx(height / width, rel=0.03)
    assert num_clips * 7 * num_frames * page_width * page_height * 0.06 < PAGE_VIDEO_BYTES * 1.05


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_chromium_decodes_every_video_of_the_page(dataset: Dataset, tmp_path: Path) -> None:
    """Load all videos at once; the browser's load event waits for their first frames."""
    loader = """<script>
      const files = JSON.parse(document.getElementById("videos").textContent);
      const videos = [...document.querySelectorAll("video")];
      videos.forEach((video) => { video.src = "data:video/mp4;base64," + files[video.dataset.video]; });
      addEventListener("load", () => {
        document.title = videos.map((video) => `${video.videoWidth}x${video.videoHeight}@${video.duration}`).join(" ");
      });
    </script></body>"""
    page = tmp_path / "page.html"
    page.write_text(written(dataset, result_of()).replace("</body>", loader))
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    dom = subprocess.run(
        [str(CHROMIUM), *switches, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    assert found.group(1).split() == ["48x32@0.625"] * 6


def test_the_figure_has_the_rows_at_equal_times(tmp_path: Path) -> None:
    rows = tuple(FigureRow(label, frames(shade)) for label, shade in (("Static", 0), ("Truth", 60)))
    path = tmp_path / "figure.png"
    write_figure(path, [FigureBlock("Push $the$ box", rows)], columns=3)
    picture = cv2.imread(str(path))
    assert picture is not None
    tile_height, gap, title, label = 200, 6, 64, 210
    assert picture.shape == (title + 2 * (tile_height + gap), label + 3 * (300 + gap), 3)
    for column, moment in enumerate((0, 2, 4)):
        left = label + column * (300 + gap)
        tile = picture[title : title + tile_height, left : left + 300, ::-1]
        expected = cv2.resize(rows[0].frames[moment], (300, 200), interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(tile, expected)
    labels = picture[title:, : label - 10]
    assert labels.min() < 60
    assert labels.mean() > 200


def test_the_figure_is_the_same_every_time_and_its_banner_shows(tmp_path: Path) -> None:
    block = FigureBlock("Clip", (FigureRow("Truth", frames(0)),))
    for name, banner in (("a", None), ("b", None), ("c", "untrained base: not a result")):
        write_figure(tmp_path / f"{name}.png", [block], banner=banner)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_figures_of_nothing_or_of_unequal_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="no videos to draw"):
        write_figure(tmp_path / "figure.png", [])
    rows = (FigureRow("Static", frames(0)), FigureRow("Truth", frames(0, num_frames=4)))
    with pytest.raises(DwmError, match="differ in length"):
        write_figure(tmp_path / "figure.png", [FigureBlock("Clip", rows)])


def test_clips_without_all_videos_are_left_out_of_the_figure(dataset: Dataset, tmp_path: Path) -> None:
    whole = result_of(num_clips=2)
    broken = whole.clips[0].model_copy(update={"static_path": None})
    assert write_benchmark_figure(
        dataset, whole.model_copy(update={"clips": (broken, whole.clips[1])}), tmp_path / "a.png"
    )
    assert write_benchmark_figure(dataset, result_of(), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not write_benchmark_figure(dataset, whole.model_copy(update={"clips": (broken,)}), tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()
