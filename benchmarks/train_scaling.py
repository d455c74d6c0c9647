"""Two processes on two cores against one: clips a second of the trainer itself, started as a user starts it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.train_loading import GEOMETRY, random_dataset
from dwm_model.base_model import load_base
from dwm_model.prompts import encode_prompts
from dwm_model.run_log import SPEED_FILE, SpeedRecord
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import TrainConfig

STEPS = 30
_WARM_UP = 8
CONFIG = TrainConfig(
    geometry=GEOMETRY,
    max_steps=STEPS,
    batch_size=8,
    accumulation_steps=1,
    warmup_steps=2,
    gradient_checkpointing="none",
    checkpoint_every=STEPS,
    validate_every=STEPS,
    tensorboard=False,
)


def scaling_figures(folder: Path) -> dict[str, float]:
    """Clips a second (wall clock, median step) of one single-threaded process and of two, and their ratio."""
    base_path = make_tiny_base(folder / "base")
    base = load_base(base_path)
    dataset = random_dataset(folder / "dataset", base.description, 64)
    encode_prompts(dataset, base)
    config = folder / "config.json"
    config.write_text(CONFIG.model_dump_json(), encoding="utf-8")
    rates = {count: _rate(folder / f"run{count}", dataset.root, base_path, config, count) for count in (1, 2)}
    return {
        "one_process_clips_per_s": round(rates[1], 2),
        "two_process_clips_per_s": round(rates[2], 2),
        "two_process_scaling": round(rates[2] / rates[1], 3),
    }


def _rate(run: Path, dataset: Path, base: Path, config: Path, processes: int) -> float:
    command = [sys.executable, "-m", "dwm_model.train", "--dataset", str(dataset), "--base", str(base)]
    command += ["--run", str(run), "--config", str(config), "--processes", str(processes)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **threads})
    lines = (run / SPEED_FILE).read_text(encoding="utf-8").splitlines()
    return statistics.median(SpeedRecord.model_validate_json(line).samples_per_s for line in lines[_WARM_UP:])
