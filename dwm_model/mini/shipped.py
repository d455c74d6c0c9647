"""Where the small base is that ships with the project."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import DwmError

SHIPPED_BASE = Path(__file__).resolve().parents[2] / "models" / "mini"
"""Autoencoder, transformer, text encoder and scheduler in the diffusers layout; see its README.md."""


def shipped_base() -> Path:
    """The base that ships with the project.

    Raises:
        DwmError: this installation has none.
    """
    if not (SHIPPED_BASE / "model_index.json").exists():
        raise DwmError(f"{SHIPPED_BASE}: no base here; give one with --base, or run dwm from a clone of the repository")
    return SHIPPED_BASE
