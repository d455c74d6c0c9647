"""How well the small autoencoder gives videos of rooms back that it was never trained on, beside linear components.

``python -m benchmarks.eval_mini_vae --world D --held-out H --parts models/mini`` fits the principal components to the
training world, measures both on every test clip of the held-out world, and prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dwm_model.mini.base import read_parts
from dwm_model.mini.vae import VaeSettings
from dwm_model.mini.vae_training import fit_clips_pca, reconstruction_psnr
from dwm_model.mini.videos import ROLES, read_videos
from dwm_model.train_config import profile_geometry
from manifests.dataset import Dataset
from manifests.schema import Split


def measure(world: Path, held_out: Path, parts: Path, cache: Path) -> dict[str, float | int]:
    """Held-out PSNR in dB by kind of video, of the autoencoder as ``vae_<kind>`` and linear as ``pca_<kind>``."""
    geometry = profile_geometry("mini")
    pca = fit_clips_pca(VaeSettings(), read_videos(Dataset.open(world), Split.TRAIN, geometry, cache))
    videos = read_videos(Dataset.open(held_out), Split.TEST, geometry, cache)
    vae, _ = read_parts(parts)
    found: dict[str, float | int] = {"clips": len(videos)}
    for role in ROLES:
        found[f"vae_{role.value}"] = round(reconstruction_psnr(vae, videos, role), 2)
        found[f"pca_{role.value}"] = round(reconstruction_psnr(pca, videos, role), 2)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("out/mini/videos"))
    options = parser.parse_args()
    print(json.dumps(measure(options.world, options.held_out, options.parts, options.cache)))


if __name__ == "__main__":
    main()
