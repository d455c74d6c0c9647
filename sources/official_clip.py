"""One clip of the official layout: its files checked and measured, copied into the dataset, described by a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from manifests.atomic import copy_file
from manifests.dataset import Dataset
from manifests.dataset_files import COMPANION_FILES
from manifests.errors import DwmError
from manifests.hashing import code_version, hash_file
from manifests.schema import Clip, ClipStatus, Group, Source
from render.media_checks import check_sidecar, describe_difference
from render.triplet import measure_triplet
from render.video import VideoInfo, probe
from sources.caption_tables import read_text
from sources.official_layout import (
    PROMPT_FOLDERS,
    SIDECAR_FOLDERS,
    VIDEO_FOLDERS,
    ClipMetadata,
    ClipRequest,
    group_of_path,
    scene_and_recording,
)

_GENERATED = (Source.TRUMANS, Source.SYNTHETIC)
_REAL_GROUPS = (Group.REAL_STATIC, Group.REAL_DYNAMIC)


def stored_name(role: str, suffix: str = "") -> str:
    """Name of a member in a clip's folder; ``suffix`` matters for videos only.

    The names are fixed, so that export finds again what import stored.
    """
    if role in VIDEO_FOLDERS:
        return f"{role}{suffix}"
    return COMPANION_FILES.get(role, f"{role}.npz")


def hash_members(request: ClipRequest) -> dict[str, str]:
    """SHA-256 of every file of a clip that exists, by role: what a row keeps as ``input_hashes``."""
    return {role: hash_file(path) for role, path in request.members().items()}


def read_prompt(path: Path) -> str:
    """The whole text of a prompt file: UTF-8, all lines, line ends as newlines, without blank space at both ends.

    Raises:
        DwmError: the file is empty or not UTF-8.
    """
    text = read_text(path)
    if not text:
        raise DwmError(f"{path}: the prompt is empty; write what happens in the video")
    return text


def build_row(dataset: Dataset, request: ClipRequest, hashes: Mapping[str, str], group: Group | None) -> Clip:
    """Check, measure and copy a clip; anything wrong with its files becomes a ``failed`` row with the reason.

    Args:
        dataset: Where the files are copied to.
        request: The clip.
        hashes: Result of ``hash_members``.
        group: Column group that the caller wants; None to take it from metadata or the path.

    Raises:
        DwmError: the dataset cannot be written, or a file changed while it was copied.
    """
    members = request.members()
    try:
        metadata = _read_metadata(members)
    except DwmError as error:
        return failed_row(request, hashes, _without_root(error, request), group)
    row = _described(request, hashes, metadata, group)
    try:
        check_group(row.source, group or metadata.group, request.official_path)
        checked = _checked(row, request, members)
    except DwmError as error:
        return row.updated(reason=_without_root(error, request))
    return _stored(dataset, checked, members)


def _without_root(error: DwmError, request: ClipRequest) -> str:
    """A message that names files relative to the raw root: the same wherever that lies."""
    return str(error).replace(f"{request.raw_root}/", "")


def failed_row(request: ClipRequest, hashes: Mapping[str, str], reason: str, group: Group | None) -> Clip:
    """Row of a clip that could not be imported; nothing of it is stored."""
    return _described(request, hashes, ClipMetadata(), group).updated(reason=reason)


def _read_metadata(members: Mapping[str, Path]) -> ClipMetadata:
    path = members.get("metadata")
    if path is None:
        return ClipMetadata()
    try:
        return ClipMetadata.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise DwmError(f"{path}: {where}: {first['msg']}; mend or remove the file") from error


def check_group(source: Source, group: Group | None, path: str) -> None:
    """Refuse a group of real video for generated clips.

    Raises:
        DwmError: the source is generated and the group is not.
    """
    if source in _GENERATED and group in _REAL_GROUPS:
        raise DwmError(f"{path}: group {group} is for real video and the source is {source}; use a synthetic group")


def _described(request: ClipRequest, hashes: Mapping[str, str], metadata: ClipMetadata, group: Group | None) -> Clip:
    """What path, metadata and caller say about a clip; its status stays failed until the files are checked."""
    source = metadata.source or Source.OFFICIAL
    group = group or metadata.group or group_of_path(request.collection, request.official_path)
    if source in _GENERATED and group in _REAL_GROUPS:
        group = None
    scene_id, recording_id = scene_and_recording(request.collection, request.official_path)
    return Clip(
        clip_id=request.clip_id,
        source=source,
        group=group,
        scene_id=metadata.scene_id or scene_id,
        recording_id=metadata.recording_id or recording_id,
        official_path=request.official_path,
        list_order=request.list_order,
        action_label=metadata.action_label,
        static_policy=metadata.static_policy,
        hand_estimator=metadata.hand_estimator,
        calibration_source=metadata.calibration_source,
        body_model=metadata.body_model,
        licence=metadata.licence,
        object_motion_m=metadata.object_motion_m,
        status=ClipStatus.FAILED,
        input_hashes=dict(hashes),
        code_version=code_version(),
    )


def _checked(row: Clip, request: ClipRequest, members: Mapping[str, Path]) -> Clip:
    """The row with prompt, geometry, measurements and its final status.

    Raises:
        DwmError: a member is missing, broken, or disagrees with the others.
    """
    _require(request, members, ("static", "hands"))
    origin = next((folder for folder in PROMPT_FOLDERS if folder in members), None)
    if origin is None:
        expected = " or ".join(request.expected(folder) for folder in PROMPT_FOLDERS)
        raise DwmError(f"{expected} is missing; write the prompt of the clip there")
    prompt = read_prompt(members[origin])
    infos = {role: probe(members[role]) for role in VIDEO_FOLDERS if role in members}
    reference_role = "interaction" if "interaction" in infos else "static"
    reference = infos[reference_role]
    for role, info in infos.items():
        difference = describe_difference(f"{role} video", info, f"{reference_role} video", reference)
        if difference:
            raise DwmError(f"{members[role]}: {difference}; make the videos of a triplet alike")
    _check_sidecars(members, reference)
    measures = measure_triplet(members.get("interaction"), members["static"], members["hands"], members.get("masks"))
    whole = "interaction" in members
    expected = request.expected(VIDEO_FOLDERS["interaction"])
    return row.updated(
        num_frames=reference.num_frames,
        fps=reference.fps,
        width=reference.width,
        height=reference.height,
        prompt=prompt,
        prompt_origin=origin,
        hand_visible_frames=measures.hand_visible_frames,
        background_psnr_db=measures.background_psnr_db,
        time_offset_frames=measures.time_offset_frames,
        flags=measures.flags,
        status=ClipStatus.READY if whole else ClipStatus.CONDITIONS_ONLY,
        reason=None if whole else f"{expected} is missing: no ground truth to train on or to compare with",
    )


def _require(request: ClipRequest, members: Mapping[str, Path], roles: tuple[str, ...]) -> None:
    if not any(role in members for role in VIDEO_FOLDERS):
        expected = ", ".join(request.expected(folder) for folder in VIDEO_FOLDERS.values())
        raise DwmError(f"nothing of this clip is on disk; looked for {expected} in the raw folder")
    for role in roles:
        if role not in members:
            raise DwmError(f"{request.expected(VIDEO_FOLDERS[role])} is missing; copy it there and import again")


def _check_sidecars(members: Mapping[str, Path], reference: VideoInfo) -> None:
    for role in SIDECAR_FOLDERS:
        if role in members:
            check_sidecar(f"{role}_path", members[role], reference.num_frames, reference.width, reference.height)


def _stored(dataset: Dataset, row: Clip, members: Mapping[str, Path]) -> Clip:
    """Copy the members into the clip's folder, with their original bytes; files that are there already stay.

    Raises:
        DwmError: a raw file changed since it was hashed, or the dataset cannot be written.
    """
    folder = dataset.clip_folder(row.source, row.clip_id)
    columns: dict[str, str] = {}
    for role, path in members.items():
        target = folder / stored_name(role, path.suffix)
        if not (target.is_file() and hash_file(target) == row.input_hashes[role]):
            copy_file(path, target)
            if hash_file(target) != row.input_hashes[role]:
                raise DwmError(f"{path}: changed while it was imported; run the same command again")
        if f"{role}_path" in Clip.FILE_COLUMNS:
            columns[f"{role}_path"] = dataset.relative(target)
    output_hashes = {column: row.input_hashes[column.removesuffix("_path")] for column in columns}
    return row.updated(**columns, output_hashes=output_hashes)
