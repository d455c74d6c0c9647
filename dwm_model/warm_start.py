"""Warm start: a run that begins with the weights of another run's checkpoint instead of fresh ones.

Only weights are taken over; optimizer, learning rate, data order and moving average begin anew. What a run learns
depends on the weights, so their hash is part of its id; where they lie is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dwm_model.checkpoints import AVERAGE_FOLDER, STATE_FILES, checkpoint_folder, checkpoint_steps, read_identity
from dwm_model.train_config import TrainConfig, WarmStart
from dwm_model.weight_files import read_weights
from manifests.errors import DwmError
from manifests.hashing import hash_file, hash_json


def hash_weights(checkpoint: Path) -> str:
    """Hash of the weight files of a checkpoint: names and bytes, without optimizer, generators and moving average.

    Raises:
        DwmError: there are none.
    """
    weights = {
        path.relative_to(checkpoint).as_posix(): hash_file(path)
        for path in checkpoint.rglob("*.safetensors")
        if path.name not in STATE_FILES and path.relative_to(checkpoint).parts[0] != AVERAGE_FOLDER
    }
    if not weights:
        raise DwmError(f"{checkpoint}: no weights here to begin with; name a checkpoint folder of a run")
    return hash_json(weights)


def warm_start_from(run_folder: Path) -> WarmStart:
    """The newest checkpoint of a run, to begin another run with.

    Raises:
        DwmError: the run has no checkpoint.
    """
    steps = checkpoint_steps(run_folder)
    if not steps:
        raise DwmError(f"{run_folder}: no checkpoint to begin another run with; train it first")
    checkpoint = checkpoint_folder(run_folder, steps[-1]).resolve()
    return WarmStart(checkpoint=checkpoint, weights_hash=hash_weights(checkpoint))


def load_warm_start(start: WarmStart, transformer: Any, config: TrainConfig, base_hash: str) -> None:
    """Put the weights that a run begins with into a network.

    Args:
        start: the checkpoint.
        transformer: network with what trains made trainable; changed in place.
        config: the run's own settings.
        base_hash: hash of the run's base.

    Raises:
        DwmError: the checkpoint's weights are not those of the hash, were trained on another base, or do not fit the
            settings (rank, modules, conditioning).
    """
    if hash_weights(start.checkpoint) != start.weights_hash:
        raise DwmError(
            f"{start.checkpoint}: its weights are not those that the run is to begin with "
            f"({start.weights_hash[:12]}); restore them, or train in another folder from what is there"
        )
    trained_on = read_identity(start.checkpoint.parents[1]).base_hash
    if trained_on != base_hash:
        raise DwmError(
            f"{start.checkpoint}: trained on base {trained_on[:12]}, this run's base is {base_hash[:12]}; "
            "begin with a checkpoint of the same base"
        )
    read_weights(transformer, config, start.checkpoint)
