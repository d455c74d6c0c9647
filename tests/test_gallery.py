"""The gallery: what it finds, shows and hands out, whom it listens to, and the verdicts that it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.cli_gallery import find_dataset
from gallery.clip_search import CLIPS_A_PAGE, ClipQuery, find_clips, neighbours
from gallery.pages import curve_of
from gallery.run_comparison import compare_runs
from gallery.server import MAX_FORM_BYTES, make_app
from manifests.benchmarks import BenchmarkSettings, freeze
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.registry import PromotionRule, promote
from manifests.schema import ClipStatus, Generation, GenerationStatus, Review, Run, RunStatus, Split, utc_now
from render.video import write_video
from tests.helpers_manifest import assert_one_line, clip
from tests.helpers_video import colour_patches

HOME = "http://127.0.0.1:4300"
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four ready clips, a dropped one, one video file that three of the clips name."""
    opened = Dataset.create_or_open(tmp_path / "dataset")
    write_video(opened.root / "clips/v.mp4", colour_patches(9), 8.0)
    video = {"interaction_path": "clips/v.mp4", "split": Split.TEST}
    opened.clips.append([
        clip(0, prompt="Open the drawer.", action_label="open drawer", **video),
        clip(1, prompt="Push the box.", flags=("hands far",), **video),
        clip(2, prompt=f"Push {EVIL} away.", **video),
        clip(3, interaction_path="../secret.mp4", split=Split.TRAIN),
        clip(4, status=ClipStatus.DROPPED, reason="too dark to see"),
    ])  # fmt: skip
    return opened


@pytest.fixture
def browser(dataset: Dataset) -> TestClient:
    return TestClient(make_app(dataset, ["127.0.0.1"]), base_url=HOME, follow_redirects=False)


def ids(dataset: Dataset, **fields: object) -> list[str]:
    return [card.clip_id for card in find_clips(dataset, ClipQuery.model_validate(fields)).cards]


def test_words_are_found_anywhere_and_filters_narrow(dataset: Dataset) -> None:
    assert ids(dataset) == ["clip-0000", "clip-0001", "clip-0002", "clip-0003", "clip-0004"]
    assert ids(dataset, words="PUSH box") == ["clip-0001"]
    assert ids(dataset, words="hands far") == ["clip-0001"]
    assert ids(dataset, words="dark") == ["clip-0004"]
    assert ids(dataset, words="drawer dark") == []
    assert ids(dataset, split="test", words="0002") == ["clip-0002"]
    assert ids(dataset, split="none") == ["clip-0004"]
    assert ids(dataset, review="none", status="ready") == ["clip-0000", "clip-0001", "clip-0002", "clip-0003"]
    dataset.clips.update("clip-0001", review=Review.ACCEPTED)
    assert ids(dataset, review="accepted") == ["clip-0001"]


def test_ready_clips_come_first_and_pages_hold_all_of_them(dataset: Dataset) -> None:
    dataset.clips.append([clip(number) for number in range(100, 100 + CLIPS_A_PAGE)])
    first = find_clips(dataset, ClipQuery())
    second = find_clips(dataset, ClipQuery(page=2))
    assert (first.found, first.total, first.pages) == (CLIPS_A_PAGE + 5, CLIPS_A_PAGE + 5, 2)
    assert len(first.cards) == CLIPS_A_PAGE
    assert second.cards[-1].clip_id == "clip-0004"  # dropped: after all ready ones
    assert len({card.clip_id for page in (first, second) for card in page.cards}) == CLIPS_A_PAGE + 5


def test_neighbours_follow_the_list_that_was_asked_for(dataset: Dataset) -> None:
    asked = ClipQuery(words="push")
    assert neighbours(dataset, asked, "clip-0001") == (None, "clip-0002")
    assert neighbours(dataset, asked, "clip-0000") == (None, "clip-0001")  # does not fit, but is looked at
    assert neighbours(dataset, ClipQuery(), "clip-0004") == ("clip-0003", None)


def test_pages_show_clips_and_escape_what_rows_say(browser: TestClient) -> None:
    listed, page = browser.get("/?words=push"), browser.get("/clip/clip-0002?words=push")
    for answer in (listed, page):
        assert answer.status_code == 200
        assert EVIL not in answer.text
        assert "&lt;script&gt;alert" in answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "2 of 5 clips" in listed.text
    assert 'src="/media/clip-0002/interaction_path"' in page.text
    assert 'href="/clip/clip-0001?words=push"' in page.text
    assert "too dark to see" in browser.get("/").text


def test_a_verdict_is_kept_with_time_and_reason_and_the_next_clip_follows(
    browser: TestClient, dataset: Dataset
) -> None:
    form = {"verdict": "rejected", "reason": "  the hand\n slips "}
    answer = browser.post("/clip/clip-0001/verdict?review=none", data=form, headers={"origin": HOME})
    assert (answer.status_code, answer.headers["location"]) == (303, "/clip/clip-0002?review=none")
    row = dataset.clips.get("clip-0001")
    assert (row.review, row.review_reason) == (Review.REJECTED, "the hand slips")
    assert row.review_at is not None
    assert utc_now() - row.review_at < timedelta(minutes=1)
    assert row.flags == ("hands far",)
    assert "the hand slips" in browser.get("/clip/clip-0001").text
    browser.post("/clip/clip-0001/verdict", data={"verdict": "none"}, headers={"origin": HOME})
    row = dataset.clips.get("clip-0001")
    assert (row.review, row.review_at, row.review_reason) == (None, None, None)


@pytest.mark.parametrize(
    ("form", "origin", "answered"),
    [
        ({"verdict": "rejected"}, HOME, (400, "say why it is rejected")),
        ({"verdict": "maybe"}, HOME, (400, "give accepted, rejected or none")),
        ({"verdict": "accepted", "reason": "x" * (MAX_FORM_BYTES + 1)}, HOME, (400, "give a shorter reason")),
        ({"verdict": "accepted"}, "http://elsewhere.example", (403, "own pages")),
        ({"verdict": "accepted"}, None, (403, "own pages")),
    ],
)
def test_other_forms_change_nothing(
    browser: TestClient, dataset: Dataset, form: dict[str, str], origin: str | None, answered: tuple[int, str]
) -> None:
    headers = {} if origin is None else {"origin": origin}
    answer = browser.post("/clip/clip-0001/verdict", data=form, headers=headers)
    assert answer.status_code == answered[0]
    assert answered[1] in answer.text
    assert dataset.clips.get("clip-0001").review is None


def test_videos_are_handed_out_by_their_rows_and_only_from_the_dataset(browser: TestClient, dataset: Dataset) -> None:
    whole = (dataset.root / "clips/v.mp4").read_bytes()
    assert browser.get("/media/clip-0000/interaction_path").content == whole
    part = browser.get("/media/clip-0000/interaction_path", headers={"range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole[2:6])
    assert browser.get("/poster/clip-0000").content.startswith(b"\xff\xd8")
    (dataset.root.parent / "secret.mp4").write_bytes(b"secret")
    (dataset.root / "clips/link.mp4").symlink_to(dataset.root.parent / "secret.mp4")
    dataset.clips.append([clip(5, interaction_path="clips/link.mp4")])
    for address in ("/media/clip-0003/interaction_path", "/media/clip-0005/interaction_path", "/poster/clip-0005"):
        answer = browser.get(address)
        assert answer.status_code == 404
        assert "leads out of the dataset folder" in answer.text
    assert browser.get("/media/clip-0000/masks_path").status_code == 404
    assert browser.get("/media/clip-0000/hands_path").status_code == 404
    assert browser.get("/static/../pages.py").status_code == 404


def test_only_known_names_and_the_password_open_it(dataset: Dataset) -> None:
    app = make_app(dataset, ["127.0.0.1"], auth="anna:secret")
    stranger = TestClient(app, base_url="http://rebound.example")
    assert stranger.get("/").status_code == 400
    visitor = TestClient(app, base_url=HOME)
    assert visitor.get("/").status_code == 401
    assert visitor.get("/static/gallery.js").status_code == 401
    assert visitor.get("/", auth=("anna", "wrong")).status_code == 401
    assert visitor.get("/", auth=("anna", "secret")).status_code == 200


def test_problems_are_told_on_a_page(browser: TestClient) -> None:
    for address, status, words in (("/clip/nothing", 404, "no row"), ("/?page=0", 400, "give a number from 1")):
        answer = browser.get(address)
        assert answer.status_code == status
        assert words in answer.text


def add_run(dataset: Dataset, run_id: str, gain: float, clips: int = 3) -> None:
    folder = dataset.root.parent / run_id
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"run_id": run_id}))
    losses = [{"step": 0, "loss": 0.5}, {"step": 100, "loss": 0.25}]
    (folder / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    facts = {"base_hash": "b", "dataset_hash": "d", "config_json": "{}", "steps": 100, "status": RunStatus.COMPLETED}
    dataset.runs.append([Run(run_id=run_id, run_path=f"../{run_id}", **facts)])
    dataset.generations.append(
        Generation(
            generation_id=f"{run_id}-{number}-{seed}", clip_id=f"clip-{number:04d}", run_id=run_id, checkpoint_step=100,
            method="DWM", seed=seed, num_inference_steps=4, guidance_scale=1.0, width=96, height=64, num_frames=9,
            psnr=20.0 + 5 * number + gain + 0.1 * seed, status=GenerationStatus.READY,
        )
        for number in range(clips)
        for seed in (0, 1)
    )  # fmt: skip


def test_runs_are_compared_with_the_one_in_use_on_one_frozen_benchmark(dataset: Dataset, browser: TestClient) -> None:
    assert "No run yet" in browser.get("/runs").text
    for run_id, gain, clips in (("used", 0.0, 3), ("better", 1.0, 3), ("begun", 9.0, 1)):
        add_run(dataset, run_id, gain, clips)
    settings = BenchmarkSettings(width=96, height=64, num_frames=9, seeds=(0, 1))
    benchmark = freeze(dataset, "test", Split.TEST, settings)
    promote(dataset, "used", PromotionRule(), decided_by="anna")
    found = compare_runs(dataset, benchmark)
    rows = {row.candidate.run_id: row for row in found.rows}
    assert [column.key for column in found.columns] == ["psnr"]
    assert rows["used"].is_in_use
    assert rows["used"].cells["psnr"].difference is None
    difference = rows["better"].cells["psnr"].difference
    assert difference is not None
    # Clips differ by 10 dB, the runs by 1 dB on each: the paired interval knows.
    assert (difference.mean, difference.low, difference.high) == pytest.approx((1.0, 1.0, 1.0))
    assert [(rows[name].ready, rows[name].wanted) for name in ("better", "begun")] == [(6, 6), (2, 6)]
    page = browser.get("/runs?benchmark=test").text
    assert "+1.00 [+1.00, +1.00]" in page
    assert page.count("not comparable yet") == 1
    assert "0.5000 → 0.2500" in page
    assert "anna" in page
    assert browser.get("/runs?benchmark=other").status_code == 404


def test_a_curve_keeps_to_its_size_and_rises_with_the_loss() -> None:
    points = [
        tuple(map(float, point.split(","))) for point in (curve_of([(0, 1.0), (50, 0.2), (100, 0.6)]) or "").split()
    ]
    assert [x for x, _ in points] == [2.0, 110.0, 218.0]
    assert points[0][1] == 2.0  # the highest loss is at the top
    assert points[1][1] == 54.0
    assert curve_of([(0, 1.0)]) is None


def test_a_run_leads_to_the_dataset_that_lists_it(dataset: Dataset, tmp_path: Path) -> None:
    add_run(dataset, "known", 0.0)
    assert find_dataset(dataset.root) == dataset.root
    assert find_dataset(tmp_path / "known").resolve() == dataset.root.resolve()
    dataset.runs.delete(["known"])
    with pytest.raises(DwmError) as caught:
        find_dataset(tmp_path / "known")
    assert_one_line(caught.value, "known", "give the dataset's folder")
    with pytest.raises(DwmError, match="no dataset here"):
        find_dataset(tmp_path)


def test_the_command_serves_until_it_is_stopped(dataset: Dataset) -> None:
    command = [sys.executable, "-m", "flows.cli", "gallery", str(dataset.root), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split(": ")[0]
        began = time.monotonic()
        text = ""
        while not text and time.monotonic() - began < 30:
            try:
                text = urllib.request.urlopen(address, timeout=5).read().decode()  # noqa: S310 - its own address
            except OSError:
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert "5 of 5 clips" in text
