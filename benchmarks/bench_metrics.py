"""CPU seconds of PSNR and SSIM for one clip of the paper's size (49 frames of 720x480).

Example:
    python benchmarks/bench_metrics.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where the package is not installed

from dwm_model.metrics import psnr, ssim
from render.video import Frames

TARGET_S = 2.0
SHAPE = (49, 480, 720, 3)


def make_clips() -> tuple[Frames, Frames]:
    """Two similar textured videos, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    prediction = (reference * 0.8 + rng.integers(0, 51, SHAPE, dtype=np.uint8)).astype(np.uint8)
    return prediction, reference


def median_cpu_s(measure: Callable[[], object], repeats: int) -> float:
    """Median CPU time of the whole process (all threads) over ``repeats`` calls, seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        measure()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, of which the median is taken")
    arguments = parser.parse_args()
    prediction, reference = make_clips()
    psnr_s = median_cpu_s(lambda: psnr(prediction, reference), arguments.repeats)
    ssim_s = median_cpu_s(lambda: ssim(prediction, reference), arguments.repeats)
    print(f"PSNR {psnr_s:.3f} s, SSIM {ssim_s:.3f} s of CPU time for {SHAPE[0]} frames of 720x480")
    print(f"together {psnr_s + ssim_s:.3f} s (target: under {TARGET_S:.1f} s)")
    if arguments.json:
        figures = {"psnr_ssim_cpu_s": psnr_s + ssim_s, "psnr_cpu_s": psnr_s, "ssim_cpu_s": ssim_s}
        print(json.dumps({**figures, "target_s": TARGET_S, "repeats": arguments.repeats}))


if __name__ == "__main__":
    main()
