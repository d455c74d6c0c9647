"""`dwm build aria` and `dwm build twin`: captures with Aria glasses, and scenes of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, progress, report
from manifests.profiles import get_profile
from render.framing import LengthPolicy


@one_line_errors
def build_aria(
    raw: Annotated[Path, typer.Option(help="Folder of captures (*.vrs with the results of Aria's MPS), or one VRS.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder; made when absent, added to when it exists.")],
    profile: Annotated[str, typer.Option(help="Size, length and frame rate of the clips.")] = "paper",
    reconstruction: Annotated[
        str, typer.Option(help="How scenes are fitted: paper (GPU), aria_mini (CPU), auto for what this machine has.")
    ] = "auto",
    steps: Annotated[int | None, typer.Option(help="Steps of the fit; the profile's when absent.", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many captures.", min=1)] = None,
    only: Annotated[str | None, typer.Option(help="Only captures whose name matches this pattern.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print captures and clips without making them.")] = False,
    workers: Annotated[int, typer.Option(help="Processes, a capture each.", min=1)] = 1,
    interaction_start: Annotated[
        float | None,
        typer.Option(help="Seconds from the first frame to the interaction; phases.json or a proposal when absent."),
    ] = None,
    fov: Annotated[float | None, typer.Option(help="Field of view over the width; 100.4 degrees when absent.")] = None,
    mask_hands: Annotated[bool, typer.Option(help="Leave hands that show in the exploration out of the scene.")] = True,
    explore_masks: Annotated[
        Path | None, typer.Option(help="Masks of the exploration: <capture>/<colour frame, 6 digits>.png.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Clips of one interaction at most, one after the other.", min=1)] = 1,
    short: Annotated[
        LengthPolicy, typer.Option(help="What is done about an interaction shorter than a clip.")
    ] = LengthPolicy.PAD_LAST,
    licence: Annotated[str | None, typer.Option(help="Licence of the captures.")] = None,
    min_psnr: Annotated[float | None, typer.Option(help="Least PSNR of a scene on held-out frames, dB.")] = None,
    max_unseen: Annotated[float | None, typer.Option(help="Largest share of a frame that was never explored.")] = None,
    max_floaters: Annotated[
        float | None, typer.Option(help="Largest share of sight lines to points in which a floater stands.")
    ] = None,
    max_registration: Annotated[
        float | None, typer.Option(help="Largest shift of render and recording, pixels at 720 of width.")
    ] = None,
    estimator: Annotated[str, typer.Option(help="Hand estimator: landmarks, hamer or file.")] = "landmarks",
    hand_files: Annotated[Path | None, typer.Option(help="Estimator 'file': folder of <capture>.npz motions.")] = None,
    hamer_root: Annotated[Path | None, typer.Option(help="Estimator 'hamer': checkout of its repository.")] = None,
    hamer_checkpoint: Annotated[Path | None, typer.Option(help="Estimator 'hamer': hamer.ckpt.")] = None,
    mano: Annotated[Path | None, typer.Option(help="Estimator 'hamer': MANO_RIGHT.pkl.")] = None,
    mano_mean: Annotated[Path | None, typer.Option(help="Estimator 'hamer': mano_mean_params.npz.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Reconstruct what was explored and pair it with what was done, along the same camera path.

    Example: `dwm build aria --raw captures --dataset out/dataset --plan`
    """
    from sources.aria_build import build_aria as build
    from sources.aria_build import plan_build, settings_from
    from sources.aria_settings import reconstruction_settings

    hands = {
        "estimator": estimator,
        "files": hand_files,
        "hamer_root": hamer_root,
        "checkpoint": hamer_checkpoint,
        "mano": mano,
        "mean_params": mano_mean,
    }
    gates = {
        "min_heldout_psnr_db": min_psnr,
        "max_unseen_share": max_unseen,
        "max_floater_share": max_floaters,
        "max_registration_px": max_registration,
    }
    chosen: dict[str, Any] = {
        "reconstruction": reconstruction_settings(reconstruction, steps),
        "mask_hands": mask_hands,
        "explore_masks": explore_masks,
        "windows": windows,
        "short": short,
        "licence": licence,
        "interaction_start_s": interaction_start,
        "hands": hands,
        "gates": {name: value for name, value in gates.items() if value is not None},
    }
    if fov is not None:
        chosen["horizontal_fov_degrees"] = fov
    build_plan = plan_build(raw, settings_from(get_profile(profile), chosen), limit=limit, only=only)
    if plan:
        figures = build_plan.figures()
        report(figures, as_json, figures.lines())
        return
    result = build(dataset, build_plan, workers=workers, watch=lambda works: progress(works, "captures"))
    report(result, as_json, result.lines())
    if result.has_problems:
        raise typer.Exit(EXIT_PROBLEMS)


@one_line_errors
def build_twin(
    scene: Annotated[Path, typer.Option(help="PLY of Gaussians, or GLB, glTF or OBJ meshes (y up, metres).")],
    camera: Annotated[Path, typer.Option(help="Camera path: npz or JSON with world_from_camera.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder; made when absent, added to when it exists.")],
    hands: Annotated[Path | None, typer.Option(help="Hand motion: npz of meshes or poses; none without it.")] = None,
    prompt: Annotated[str, typer.Option(help="What happens, in a sentence.")] = "",
    profile: Annotated[str, typer.Option(help="Size, length and frame rate of the clip.")] = "paper",
    body: Annotated[
        Path | None, typer.Option(help="Your SMPLX_NEUTRAL.npz; the stand-in body that ships when absent.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the conditions of a clip in a scene of one's own: what `dwm generate` starts from.

    Example: `dwm build twin --scene room.glb --camera path.npz --hands hands.npz --dataset out/dataset`
    """
    from render.body import DEFAULT_BODY_PATH
    from sources.twin_build import TwinRequest
    from sources.twin_build import build_twin as build

    request = TwinRequest(
        scene=scene,
        camera=camera,
        hands=hands,
        prompt=prompt,
        profile=get_profile(profile),
        body=body or DEFAULT_BODY_PATH,
    )
    result = build(dataset, request)
    report(result, as_json, result.lines())
