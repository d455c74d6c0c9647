"""Profiles: the size and sampling of clips. A profile is configuration; code never asks which one it has."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import UsageError


class Profile(BaseModel):
    """Size, length and sampling of a clip (paper section 4 and Appendix A give the ``paper`` values)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name on the command line.")
    width: int = Field(description="Width of the videos that the model sees, pixels.", gt=0, multiple_of=8)
    height: int = Field(description="Height of the videos that the model sees, pixels.", gt=0, multiple_of=8)
    num_frames: int = Field(description="Frames a clip; stock CogVideoX VAEs decode 1, 9, 17, 49 right.", gt=0)
    fps: float = Field(description="Frames a second at which clips are written.", gt=0)
    frame_step: int = Field(description="Every n-th source frame is taken (30 fps recordings).", gt=0)
    stride: int = Field(description="Sampled frames between the starts of neighbouring clips.", gt=0)
    render_scale: int = Field(
        default=1, description="Generated videos are rendered this much larger and reduced.", gt=0
    )


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="paper", width=720, height=480, num_frames=49, fps=8.0, frame_step=3, stride=25),
        Profile(name="mini", width=96, height=64, num_frames=17, fps=8.0, frame_step=6, stride=9, render_scale=2),
    )
}
"""The profiles that ship with the project, by name."""


def get_profile(name: str) -> Profile:
    """Look a profile up by its name.

    Raises:
        UsageError: no such profile.
    """
    if name not in PROFILES:
        raise UsageError(f"profile '{name}': unknown; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
