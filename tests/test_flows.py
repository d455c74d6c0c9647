"""The flows: the whole DAG through Prefect at its smallest, its artifacts, and the deployments."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from prefect import task
from prefect.client.orchestration import SyncPrefectClient

from dwm_model.base_model import describe_base
from dwm_model.mini.base import TransformerSettings
from dwm_model.mini.curve import FIRST_STEPS, recorded_curve
from dwm_model.mini.shipped import shipped_base
from dwm_model.mini.text_encoder import TextSettings
from dwm_model.mini.vae import VaePhase, VaeSettings
from dwm_model.tiny import make_tiny_base
from dwm_model.training import train
from flows.build_aria import BuildAriaParameters, build_aria
from flows.build_dataset import BuildDatasetParameters
from flows.build_fixed_camera import BuildFixedCameraParameters, build_fixed_camera
from flows.demo import DemoParameters, DemoResult, demo
from flows.encode import EncodeParameters, encode
from flows.pool_templates import PoolSettings, PoolType, pool_template
from flows.pretrain_mini import PretrainMiniParameters, PretrainMiniResult, pretrain_mini, pretraining_config
from flows.retrain import RetrainParameters
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Split
from render.hand_estimation.settings import HandEstimationSettings
from tasks.mini_base import borrow_mini_parts
from tasks.retrying import is_worth_retrying
from tests.helpers_aria import tiny_capture
from tests.helpers_fixed_camera import write_hands, write_release
from tests.helpers_video import REAL_TRIPLETS, write_triplet

pytest_plugins = ("tests.fixtures_prefect",)
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]


def small(out: Path, raw: Path) -> DemoParameters:
    base = make_tiny_base(out.parent / "base")
    return DemoParameters(out=out, raw=raw, base=base, preset="tiny", steps=3, seeds=2, num_inference_steps=2)


@pytest.fixture(scope="module")
def result(client: SyncPrefectClient, tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    root = tmp_path_factory.mktemp("demo")
    for index in range(3):
        write_triplet(root / "raw" / f"take_{index}", f"{index:05d}", num_frames=17)
    return demo(small(root / "out", root / "raw"))


def test_demo_runs_every_stage(result: DemoResult) -> None:
    assert (result.ready_clips, result.failed_clips, result.steps) == (3, 0, 3)
    for path in (result.page, result.table, result.run / "losses.jsonl"):
        assert path.stat().st_size > 0
    report = json.loads((result.table.parent / "benchmark.json").read_text())
    assert [method["description"]["name"] for method in report["methods"]] == ["static copy", "DWM"]
    assert report["banner"] == "untrained base: not a result"
    assert "untrained base: not a result" in result.page.read_text()


def test_demo_trains_validates_and_tests_on_different_clips(result: DemoResult) -> None:
    splits = {clip.recording_id: clip.split for clip in Dataset.open(result.dataset).clips.rows()}
    assert splits == {
        "take_0/00000": Split.TRAIN,
        "take_1/00001": Split.VALIDATION,
        "take_2/00002": Split.TEST,
    }


def test_a_second_run_changes_nothing(result: DemoResult) -> None:
    losses = (result.run / "losses.jsonl").read_bytes()
    kept = ("dataset/clips/**/*", "dataset/generations/**/*.mp4", "dataset/latents/**/*.safetensors")
    before = {path: path.stat().st_mtime_ns for pattern in kept for path in result.dataset.parent.glob(pattern)}
    again = demo(small(result.dataset.parent, result.dataset.parents[1] / "raw"))
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (result.run / "losses.jsonl").read_bytes() == losses
    assert Dataset.open(result.dataset).generations.count() == 3


def test_runs_leave_tables_images_and_progress_in_the_ui(result: DemoResult, client: SyncPrefectClient) -> None:
    artifacts = client.request("POST", "/artifacts/filter", json={"limit": 100}).json()
    kinds = {artifact["key"]: artifact["type"] for artifact in artifacts}
    assert kinds["benchmark-comparison"] == "table"
    assert kinds["benchmark-report"] == "markdown"
    assert kinds["dataset-contact-sheet"] == kinds["benchmark-figure"] == "image"
    assert kinds["training-progress"] == "progress"
    comparison = next(artifact for artifact in artifacts if artifact["key"] == "benchmark-comparison")
    assert [row["method"] for row in json.loads(comparison["data"])] == ["static copy", "DWM"]
    assert "untrained base" in comparison["description"]


def test_fixed_camera_flow_shows_failures_and_a_sheet_a_scene(client: SyncPrefectClient, tmp_path: Path) -> None:
    raw = write_release(tmp_path / "raw", {"DoubleHand/Kitchen/9": 1, "DoubleHand/Kitchen/10": 2}, [])
    (raw / "DoubleHand/Kitchen/11.mp4").write_bytes(b"")
    for name in ("9", "10"):
        write_hands(tmp_path / "hands", name, frames=17, width=96, height=64)
    hands = HandEstimationSettings(estimator="file", files=tmp_path / "hands")
    report = build_fixed_camera(
        BuildFixedCameraParameters(raw=raw, dataset=tmp_path / "dataset", profile="mini", hands=hands)
    )
    assert (report.ready, len(report.failures)) == (2, 1)
    artifacts = client.request("POST", "/artifacts/filter", json={"limit": 100}).json()
    kinds = {artifact["key"]: artifact["type"] for artifact in artifacts}
    assert kinds["fixed-kitchen"] == "image"
    assert kinds["build-failures"] == "table"


@pytest.mark.usefixtures("client")
def test_only_what_a_person_must_mend_is_not_tried_again() -> None:
    calls: list[str] = []

    @task(retries=1, retry_condition_fn=is_worth_retrying)
    def fail(error: Exception) -> None:
        calls.append(type(error).__name__)
        raise error

    for error in (DwmError("clip.mp4: broken"), OSError("network")):
        fail(error, return_state=True)
    assert calls == ["DwmError", "OSError", "OSError"]


def test_every_deployment_names_a_flow_and_runs_from_any_machine() -> None:
    settings = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    assert settings["pull"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PROJECT_ROOT }}"}}
    ]
    for deployment in settings["deployments"]:
        path, _, name = deployment["entrypoint"].partition(":")
        assert f"\ndef {name}(" in (REPOSITORY / path).read_text()
        assert deployment["work_pool"]["name"] in {"cpu-pool", "gpu-pool"}
        assert deployment["description"]
        assert deployment["tags"]


def test_schedules_are_off_but_for_retraining_and_heavy_flows_wait_for_each_other() -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    active = []
    for deployment in deployments:
        flow_name = deployment["entrypoint"].partition(":")[2]
        for schedule in deployment["schedules"]:
            assert {"cron", "timezone"} <= set(schedule)
            active += [(flow_name, deployment["name"])] if schedule["active"] else []
        if flow_name in {"train", "retrain"}:
            assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert active == [("retrain", "scheduled")]
    assert [each["name"] for each in deployments if "triggers" in each] == ["on-build"], "one way to start a training"


def test_parameters_of_deployments_are_what_their_flows_take() -> None:
    models = {"demo": DemoParameters, "build_dataset": BuildDatasetParameters, "retrain": RetrainParameters}
    for deployment in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]:
        if "parameters" in deployment:
            model = models[deployment["entrypoint"].partition(":")[2]]
            model.model_validate(deployment["parameters"]["parameters"])


def test_every_parameter_has_a_description_for_the_form() -> None:
    for deployment in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]:
        path, _, name = deployment["entrypoint"].partition(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        schema = getattr(module, name).parameters.model_dump()
        for model_name, model in schema["definitions"].items():
            for field, described in model.get("properties", {}).items():
                assert described.get("description"), f"{name}: {model_name}.{field} has no description"


@pytest.mark.skipif(not REAL_TRIPLETS.exists(), reason="the real triplets are not on this machine")
def test_real_triplets_come_back_byte_for_byte(tmp_path: Path) -> None:
    from sources.official import export_official, import_official

    import_official(REAL_TRIPLETS, tmp_path / "dataset")
    export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out")
    originals = {path.relative_to(REAL_TRIPLETS): path.read_bytes() for path in REAL_TRIPLETS.rglob("*.*")}
    exported = {path.relative_to(tmp_path / "out"): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert exported == originals


@pytest.mark.usefixtures("client")
def test_aria_flow_records_what_is_wrong_with_each_capture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny = tiny_capture(tmp_path / "raw" / name, frames=12, name=name)
        tiny.vrs.with_name("phases.json").write_text('{"explore_frames": 1}')
    (tmp_path / "raw" / "a" / "a.vrs").write_bytes(b"nothing")
    (tmp_path / "hands").mkdir()
    hands = HandEstimationSettings(estimator="file", files=tmp_path / "hands")
    parameters = BuildAriaParameters(
        raw=tmp_path / "raw", dataset=tmp_path / "dataset", profile="mini", reconstruction="demo", hands=hands
    )
    report = build_aria(parameters)
    assert (len(report.failures), report.dropped) == (1, 1)
    reasons = {clip.recording_id: clip.reason or "" for clip in Dataset.open(tmp_path / "dataset").clips.rows()}
    assert "is no VRS file" in reasons["aria/a/a"]
    assert "explore the scene first" in reasons["aria/b/b"]


def small_base(out: Path, **changes: object) -> PretrainMiniParameters:
    """Everything that the small base is made of, much smaller still."""
    whole = VaeSettings(
        widths=(4, 4, 8, 8), pca_clips=3, phases=(VaePhase(frames=17, batch_size=2, steps=4, anchor=1.0),)
    )
    decoder = VaePhase(frames=17, batch_size=2, steps=2, anchor=0.0)
    vae = (whole, whole.model_copy(update={"only_decoder": True, "phases": (decoder,)}))
    training = pretraining_config().model_copy(
        update={"max_steps": 3, "batch_size": 2, "warmup_steps": 1, "num_validation_clips": 1, "tensorboard": False}
    )
    parameters = PretrainMiniParameters(
        out=out,
        base=out / "base",
        num_scenes=3,
        recordings_per_scene=1,
        workers=1,
        vae=vae,
        text=TextSettings(steps=4, batch_size=4),
        transformer=TransformerSettings(layers=1, heads=1),
        training=training,
    )
    return parameters.model_copy(update=changes)


@pytest.fixture(scope="module")
def made(client: SyncPrefectClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PretrainMiniResult]]:
    """Folder of a much smaller base, and what the call said that was interrupted and the one that finished."""
    out = tmp_path_factory.mktemp("mini")
    return out, [pretrain_mini(small_base(out, minutes=minutes)) for minutes in (1e-6, None)]


def test_the_small_base_is_made_in_stages(made: tuple[Path, list[PretrainMiniResult]]) -> None:
    out, (interrupted, finished) = made
    assert interrupted.base is None
    assert interrupted.vae is not None
    assert (interrupted.vae.step, interrupted.vae.is_complete) == (1, False)
    assert finished.vae is not None
    assert finished.training is not None
    assert (finished.vae.step, finished.training.steps) == (2, 3)
    assert set(finished.vae.psnr_db) == {"interaction", "static", "hands", "pca_interaction", "pca_static", "pca_hands"}
    description = describe_base(out / "base")
    assert not description.is_untrained
    assert (description.text_tokens, description.latent_channels) == (32, 16)
    note = json.loads((out / "base" / "dwm_base.json").read_text())
    assert (note["steps"], note["licence"]) == (3, "CC0-1.0")
    assert len(recorded_curve(out / "base").first) == 3


def test_a_base_may_take_over_the_parts_of_another(made: tuple[Path, list[PretrainMiniResult]], tmp_path: Path) -> None:
    out = tmp_path / "second"
    for folder in ("raw", "world"):
        shutil.copytree(made[0] / folder, out / folder)
    finished = pretrain_mini(small_base(out, minutes=None, parts=made[0] / "base", kind="image_to_video"))

    assert finished.vae is None
    assert finished.base is not None
    config = json.loads((out / "base" / "transformer" / "config.json").read_text())
    assert config["in_channels"] == 32
    assert describe_base(out / "base").latent_name == describe_base(made[0] / "base").latent_name


def test_the_shipped_base_was_trained_as_the_settings_say(
    made: tuple[Path, list[PretrainMiniResult]], tmp_path: Path
) -> None:
    """Fifty steps from nothing on a few rooms fall as the recorded losses did on a whole world.

    The latents of a few rooms have another variance, which the first losses show: what falls is compared in shares.
    """
    world, parts, recorded = made[0] / "world", tmp_path / "parts", recorded_curve(shipped_base())
    borrow_mini_parts.fn(shipped_base(), parts, TransformerSettings(), "inpainting")
    encode(EncodeParameters(dataset=world, base=parts, profile="mini"))
    losses: list[float] = []
    train(
        Dataset.open(world),
        parts,
        tmp_path / "run",
        pretraining_config(),
        should_stop=lambda: len(losses) >= FIRST_STEPS,
        on_step=lambda record: losses.append(record.loss),
    )

    for start in (20, 30, 40):
        found, expected = (fmean(curve[start : start + 10]) / fmean(curve[:10]) for curve in (losses, recorded.first))
        assert found == pytest.approx(expected, rel=0.15)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("kind", list(PoolType))
def test_job_templates_have_image_data_and_gpu(kind: PoolType) -> None:
    settings = PoolSettings(type=kind, image="dwm:cuda", data="store", gpus=2, memory="64Gi")
    template = pool_template(settings)
    variables, job = template["variables"]["properties"], template["job_configuration"]

    assert variables["image"]["default"] == "dwm:cuda"
    assert variables["env"]["default"]["PROJECT_ROOT"] == "/app"
    used = set(re.findall(r"{{ *(\w+) *}}", json.dumps(job)))
    assert used <= set(variables)
    if kind is PoolType.DOCKER:
        assert variables["volumes"]["default"] == ["store:/data"]
        assert variables["mem_limit"]["default"] == "64Gi"
        assert job["container_create_kwargs"]["device_requests"][0]["Count"] == 2
        assert job["container_create_kwargs"]["shm_size"] == "8g"
    else:
        pod = job["job_manifest"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
        assert {volume["name"] for volume in pod["volumes"]} == {
            mount["name"] for mount in pod["containers"][0]["volumeMounts"]
        }
        assert variables["memory_limit"]["default"] == "64Gi"


def test_images_are_made_from_files_that_are_here() -> None:
    for name in ("Dockerfile", "Dockerfile.cuda"):
        text = (REPOSITORY / "deploy" / name).read_text()
        assert "PROJECT_ROOT=/app" in text
        assert (REPOSITORY / re.findall(r"bash (\S+)", text)[0]).is_file()
        assert "COPY . ." in text
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert {".git", "out"} <= set(ignored)
