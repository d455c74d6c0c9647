"""Commands about datasets: build, split, check, explain, export, gc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from flows.cli_aria import build_aria, build_twin
from flows.cli_fixed_camera import build_taste_rob
from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, progress, report, say
from manifests.check import Problem, check_manifest
from manifests.dataset import Dataset
from manifests.explain import explain_clip
from manifests.leaks import LeakLevel, require_no_leak
from manifests.profiles import get_profile
from manifests.schema import Group
from manifests.splits import SplitPolicy, SplitSettings, assign_splits, forbidden_levels

build_app = typer.Typer(help="Build a dataset: triplets and manifest rows from raw data.", no_args_is_help=True)
export_app = typer.Typer(help="Write a dataset in another layout.", no_args_is_help=True)

DatasetArgument = Annotated[Path, typer.Argument(help="The dataset folder.", metavar="DATASET")]

MayShareOption = Annotated[
    list[LeakLevel] | None,
    typer.Option(help="Level at which splits may share something, in place of what the policy allows; repeatable."),
]


@build_app.command("official")
@one_line_errors
def build_official(
    raw: Annotated[Path, typer.Option(help="Folder with triplets in the official layout.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder; made when absent, added to when it exists.")],
    lists: Annotated[
        list[Path] | None, typer.Option("--list", help="List file of videos, in order; repeatable.")
    ] = None,
    group: Annotated[
        Group | None, typer.Option(help="Column group of Table 1; guessed from the path when absent.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Import at most this many clips.", min=1)] = None,
    only: Annotated[
        str | None, typer.Option(help="Import only paths that match this pattern, such as '*/videos/0001*'.")
    ] = None,
    refresh: Annotated[bool, typer.Option(help="Import clips again whose raw files have changed.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print clips, hours and disk without importing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import triplets in the official folder layout, original bytes kept.

    Example: `dwm build official --raw triplets --dataset out/dataset --list train.txt`
    """
    from sources.official import ImportSettings, import_official, plan_import

    if plan:
        figures = plan_import(raw, lists or (), limit=limit, only=only).figures()
        report(figures, as_json, figures.lines())
        return
    result = import_official(
        raw,
        dataset,
        ImportSettings(group=group, refresh=refresh),
        lists=lists or (),
        limit=limit,
        only=only,
        watch=lambda chunks: progress(chunks, "import"),
    )
    report(result, as_json, result.lines())
    if result.has_problems:
        raise typer.Exit(EXIT_PROBLEMS)


@build_app.command("trumans")
@one_line_errors
def build_trumans(
    raw: Annotated[Path, typer.Option(help="TRUMANS folder, as released or in the exported form.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder; made when absent, added to when it exists.")],
    profile: Annotated[str, typer.Option(help="Size, length and sampling of the clips.")] = "paper",
    limit: Annotated[int | None, typer.Option(help="Make at most this many clips.", min=1)] = None,
    only: Annotated[
        str | None, typer.Option(help="Only recordings or scenes whose name matches this pattern, such as '2023-02*'.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print clips, hours and disk without drawing.")] = False,
    workers: Annotated[
        int, typer.Option(help="Processes that draw, each with one thread and under 700 MB.", min=1)
    ] = 1,
    scene_mesh: Annotated[
        Path | None, typer.Option(help="OBJ or GLB of the scene, for a folder that names none.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="Your SMPLX_NEUTRAL.npz; the stand-in body that ships when absent.")
    ] = None,
    static_policy: Annotated[
        str, typer.Option(help="Where the static video freezes objects: clip_first or scene_initial.")
    ] = "clip_first",
    msaa: Annotated[int, typer.Option(help="Samples a pixel: 0 or 4.")] = 4,
    shadows: Annotated[bool, typer.Option(help="The sun casts shadows.")] = True,
    actor_shadows: Annotated[bool, typer.Option(help="The actor casts one too.")] = True,
    export_blend: Annotated[
        bool,
        typer.Option(
            "--export-blend", help="First export Recordings_blend/*.blend with textures and true object poses."
        ),
    ] = False,
    exported: Annotated[
        Path | None, typer.Option(help="Where --export-blend writes; beside the dataset when absent.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw TRUMANS recordings as aligned triplets with camera, masks, depth and hand motion.

    Example: `dwm build trumans --raw trumans --dataset out/dataset --profile paper --plan`
    """
    is_exported = True
    if export_blend:
        raw, is_exported = _export_blends(raw, exported, dataset, only)
    from sources.trumans_build import build_trumans as build
    from sources.trumans_build import plan_build, settings_from

    chosen = {"static_policy": static_policy, "samples": msaa, "shadows": shadows, "actor_shadows": actor_shadows}
    settings = settings_from(get_profile(profile), chosen | ({"body": body} if body else {}))
    build_plan = plan_build(raw, settings, scene_mesh=scene_mesh, limit=limit, only=only)
    if plan:
        figures = build_plan.figures()
        report(figures, as_json, figures.lines())
        return
    result = build(dataset, build_plan, workers=workers, watch=lambda chunks: progress(chunks, "render"))
    report(result, as_json, result.lines())
    if result.has_problems or not is_exported:
        raise typer.Exit(EXIT_PROBLEMS)


def _export_blends(raw: Path, exported: Path | None, dataset: Path, only: str | None) -> tuple[Path, bool]:
    """Export the scenes of a release: the folder that holds them, and whether all could be."""
    from sources.trumans_blend import default_export_folder, export_blends

    folder = exported or default_export_folder(raw, dataset)
    result = export_blends(raw, folder, only=only, watch=lambda blends: progress(blends, "export"))
    for line in result.lines():
        say(line)
    return folder, not result.failures


build_app.command("taste-rob")(build_taste_rob)
build_app.command("aria")(build_aria)
build_app.command("twin")(build_twin)


@one_line_errors
def split(
    dataset: DatasetArgument,
    policy: Annotated[
        SplitPolicy, typer.Option(help="Which things no two splits may share.")
    ] = SplitPolicy.SCENE_DISJOINT,
    seed: Annotated[int, typer.Option(help="Seed of the hash that places scenes and recordings.")] = 0,
    ensure_every_split: Annotated[
        bool, typer.Option("--ensure-every-split", help="Fill empty splits of small datasets.")
    ] = False,
    may_share: MayShareOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put every clip into train, validation or test; ends with 1 when they share what the policy forbids.

    Example: `dwm split out/dataset --policy scene-disjoint`
    """
    settings = SplitSettings(seed=seed, ensure_every_split=ensure_every_split, may_share=_levels(may_share))
    result = assign_splits(Dataset.open(dataset), policy, settings)
    lines = [
        f"{count.split:>10}  {count.ready_clips} ready clips of {count.units} scenes or recordings"
        for count in result.counts
    ]
    report(result, as_json, [*lines, *result.leaks.lines(), *result.notes])
    require_no_leak(result.leaks)


def _levels(given: list[LeakLevel] | None) -> tuple[LeakLevel, ...] | None:
    return None if given is None else tuple(given)


@one_line_errors
def check_lists(
    train: Annotated[list[Path], typer.Option(help="List file of training clips; may be given again.")],
    test: Annotated[list[Path], typer.Option(help="List file of test clips; may be given again.")],
    policy: Annotated[SplitPolicy, typer.Option(help="What the lists must not share.")] = SplitPolicy.OFFICIAL,
    may_share: MayShareOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what published train and test lists share, from their paths alone.

    Example: `dwm check-lists --train trumans_train.txt --test trumans_test.txt --policy recording-disjoint`
    """
    from sources.list_audit import audit_lists

    result = audit_lists(train, test)
    broken = result.broken(forbidden_levels(policy, _levels(may_share)))
    report(result, as_json, [*result.lines(), *(f"policy {policy} forbids shared {one.what}" for one in broken)])
    if broken:
        raise typer.Exit(EXIT_PROBLEMS)


_UNREADABLE = ("newer-schema", "damaged-table", "duplicate-id")


class CheckReport(BaseModel):
    """What `dwm check` found."""

    clips: int
    errors: int
    flags: int
    problems: list[Problem]


@one_line_errors
def check(
    dataset: DatasetArgument,
    media: Annotated[bool, typer.Option(help="Decode every video and compare it with its row.")] = True,
    hashes: Annotated[bool, typer.Option(help="Read every file and compare its hash with its row.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Check that files and rows agree, that videos decode and that splits do not leak.

    Example: `dwm check out/dataset`
    """
    from render.media_checks import check_clip_media

    opened = Dataset.open(dataset)
    problems = check_manifest(opened, verify_hashes=hashes)
    clips = list(opened.clips.rows()) if not any(problem.code in _UNREADABLE for problem in problems) else []
    if media:
        for clip in progress(clips, "decode"):
            problems += check_clip_media(opened.root, clip)
    errors = sum(problem.is_error for problem in problems)
    result = CheckReport(clips=len(clips), errors=errors, flags=len(problems) - errors, problems=problems)
    lines = [f"{'error' if problem.is_error else 'flag':>5}  {problem.message}" for problem in problems]
    report(result, as_json, [*lines, f"{len(clips)} clips: {errors} errors, {result.flags} flags"])
    if errors:
        raise typer.Exit(EXIT_PROBLEMS)


@one_line_errors
def explain(
    dataset: DatasetArgument,
    clip_id: Annotated[str, typer.Argument(help="The clip's id, or its first characters.")],
    as_json: JsonOption = False,
) -> None:
    """Say why a clip is as it is: state, origin, files, measurements, split, lineage, generated videos.

    Example: `dwm explain out/dataset 3fa9`
    """
    explanation = explain_clip(Dataset.open(dataset), clip_id)
    report(explanation, as_json, [str(explanation)])


@export_app.command("official")
@one_line_errors
def export_official(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder to write; made when absent.")],
    as_json: JsonOption = False,
) -> None:
    """Write the ready clips in the official folder layout, original bytes and list files.

    Example: `dwm export official out/dataset --out out/exported`
    """
    from sources.official import export_official as export

    result = export(Dataset.open(dataset), out)
    report(result, as_json, result.lines())


@one_line_errors
def gc(
    dataset: DatasetArgument,
    delete: Annotated[bool, typer.Option("--delete", help="Remove; without it, only list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List, or remove, what no row of the manifest refers to.

    Example: `dwm gc out/dataset --delete`
    """
    from manifests.garbage import collect

    result = collect(Dataset.open(dataset), dry_run=not delete)
    lines = [f"{item.size:>12}  {item.path}: {item.reason}" for item in result.items]
    verb = "removed" if result.removed else "could be removed (--delete)"
    lines.append(f"{len(result.items)} items, {result.size} bytes {verb}; {result.kept_recent} recent ones left alone")
    report(result, as_json, lines)
