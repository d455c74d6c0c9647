"""Where a base model lies: a folder, or a repository of the Hugging Face hub that is fetched once and cached."""

from __future__ import annotations

import re
from pathlib import Path

from manifests.errors import DwmError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate_base(path: Path, parts: tuple[str, ...]) -> tuple[Path, str]:
    """Folder and name of a base model.

    Args:
        path: a folder in the diffusers layout, or a hub id such as ``alibaba-pai/CogVideoX-Fun-V1.1-5b-InP``. A folder
            of that name goes first; then the hub's local cache; then the hub.
        parts: sub-folders that are fetched from a hub.

    Returns:
        The folder, absolute, and the model's name.

    Raises:
        DwmError: there is no such folder, and no such repository in the cache, and the hub could not give it.
    """
    if path.is_dir():
        return path.resolve(), path.resolve().name
    hub_id = path.as_posix()
    if path.is_absolute() or not _HUB_ID.fullmatch(hub_id) or path.parent.is_dir():
        raise DwmError(f"{path}: no such folder; give a base model in the diffusers layout, or a hub id")
    return _fetch(hub_id, parts), path.name


def _fetch(hub_id: str, parts: tuple[str, ...]) -> Path:
    """Snapshot of a hub repository, from the cache where it is whole, else from the hub."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = ["model_index.json", *(f"{part}/*" for part in parts)]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=True)).absolute()
    except LocalEntryNotFoundError:
        pass  # not in the cache: the hub is asked next
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns)).absolute()
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        reason = next((line for line in str(error).strip().splitlines() if line), type(error).__name__)[:160]
        raise DwmError(
            f"{hub_id}: no such folder, not in the hub's local cache, and the hub did not give it ({reason}); fetch it "
            "on a machine with access (`hf download`) and give the folder, or check the name"
        ) from error
