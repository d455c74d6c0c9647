"""Memory of encoding one real-size video: the autoencoder of the 5B bases with random weights, tiled, on the CPU.

    python -m benchmarks.vae_memory --frames 9

Takes minutes (about 3 TFLOP a frame), so `make bench` leaves it out. Figures: ``peak_gb``, the largest resident memory
of the process in decimal gigabytes, ``seconds``, and the shape of the latent. `docs/model.md` records a run.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import torch

from dwm_model.families import LATENT_CHANNELS

WIDTH, HEIGHT = 720, 480


def measure(frames: int, *, tiled: bool) -> dict[str, object]:
    """Encode one random video of ``frames`` frames in float32."""
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(  # the 5B bases' own sizes
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(128, 256, 256, 512),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=3,
        temporal_compression_ratio=4,
        scaling_factor=0.7,
    ).eval()
    del vae.decoder  # encoding needs the encoder only
    if tiled:
        vae.enable_tiling()
    video = torch.rand(1, 3, frames, HEIGHT, WIDTH) * 2 - 1
    began = time.perf_counter()
    with torch.inference_mode():
        latent = vae.encode(video).latent_dist.mean
    seconds = time.perf_counter() - began
    return {
        "frames": frames,
        "tiled": tiled,
        "latent_shape": list(latent.shape),
        "is_finite": bool(torch.isfinite(latent).all()),
        "seconds": round(seconds, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=49, help="frames of the video: 1 more than a multiple of 8")
    parser.add_argument("--untiled", action="store_true", help="encode whole frames, to compare")
    options = parser.parse_args()
    print(json.dumps(measure(options.frames, tiled=not options.untiled)))


if __name__ == "__main__":
    main()
