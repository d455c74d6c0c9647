"""The two training steps that `bench_train` compares, on one setting: ours and the public one, time and memory.

Run as a module with the name of a side, it prints the peak memory of a few steps in a process of its own:
``python -m benchmarks.train_step ours|public --policy full``.
"""

from __future__ import annotations

import argparse
import gc
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from safetensors.torch import save_file

from benchmarks.public_step import ROLES, PublicTrainer, write_items
from dwm_model.base_model import BaseModel, load_base
from dwm_model.condition_data import ConditionBatch
from dwm_model.denoiser import Denoiser
from dwm_model.latents import sample_posterior
from dwm_model.mapped_shards import MappedShard
from dwm_model.ranks import Ranks
from dwm_model.recomputation import RecomputationPolicy
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import TrainConfig
from dwm_model.trainable import TrainableNetwork, make_trainable_denoiser
from dwm_model.training_data import Batch, TrainingBatch

BATCH, FRAMES, HEIGHT, WIDTH = 2, 13, 64, 96
TEXT_TOKENS = 226
ROOT = Path(__file__).resolve().parents[1]
"""Of the repository."""

EXACT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"}
"""Environment in which a tensor that is freed goes back to the system at once, so that what is resident lives."""

ALONE = Ranks(rank=0, count=1, device="cpu")


@dataclass(frozen=True)
class Setting:
    """What both sides work on.

    Attributes:
        folder: where everything lies.
        base: the tiny base: four blocks of width 128.
        videos: pixels of the videos of each role, [B, 3, T, H, W] in [-1, 1].
        moments: their posteriors, float16 [B, 2C, F, H, W].
        text_bld: prompt embeddings.
    """

    folder: Path
    base: BaseModel
    videos: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    text_bld: torch.Tensor

    def denoiser(self) -> Denoiser:
        """The network with its adapter of rank 64, as training makes it."""
        return make_trainable_denoiser(self.base.path, TrainConfig(precision="float32"), "cpu")

    def items(self) -> list[Path]:
        """Cached items of the public side."""
        return write_items(self.folder / "items", self.moments, self.text_bld)

    def public(self, *resident: object) -> PublicTrainer:
        """The public side."""
        denoiser = self.denoiser()
        denoiser.transformer.transformer_blocks[-1].__class__ = CogVideoXBlock  # as diffusers has it, text and all
        return PublicTrainer(denoiser, self.text_bld, torch.Generator().manual_seed(0), resident)

    def ours(self, policy: RecomputationPolicy) -> Callable[[], None]:
        """Our step from a shard: posterior samples, noise, timesteps, forward and backward pass, update."""
        shard_path = self.folder / "shard.safetensors"
        tensors = {
            f"{index}.{role}": moments[index].contiguous()
            for role, moments in self.moments.items()
            for index in range(BATCH)
        }
        save_file(tensors, shard_path)
        shard = MappedShard(shard_path)
        config = TrainConfig(precision="float32", gradient_checkpointing=policy)
        network = TrainableNetwork(self.denoiser(), config, ALONE)
        generator = torch.Generator().manual_seed(0)

        def step() -> None:
            latents = {
                role: torch.stack(
                    [sample_posterior(shard.tensor(f"{index}.{role}"), generator) for index in range(BATCH)]
                )
                for role in ROLES
            }
            clips = Batch(latents["interaction"], ConditionBatch(latents["static"], latents["hands"]), self.text_bld)
            noise = torch.randn(latents["interaction"].transpose(1, 2).shape, generator=generator)
            timesteps = torch.randint(0, network.num_timesteps, (BATCH,), generator=generator)
            network.backward(TrainingBatch(clips, noise, timesteps), share=1.0)
            network.clip_gradients()
            network.update(1e-4)

        return step


def make_setting(folder: Path) -> Setting:
    """Make the tiny base, the videos and their posteriors."""
    torch.manual_seed(0)
    base = load_base(make_tiny_base(folder / "base"))
    generator = torch.Generator().manual_seed(0)
    videos = {role: torch.rand(BATCH, 3, FRAMES, HEIGHT, WIDTH, generator=generator) * 2 - 1 for role in ROLES}
    with torch.inference_mode():
        moments = {role: base.vae.encode(video).latent_dist.parameters.half() for role, video in videos.items()}
    text = torch.randn(BATCH, TEXT_TOKENS, base.description.text_dim, generator=generator)
    return Setting(folder, base, videos, {role: one.clone() for role, one in moments.items()}, text)


def picture_vae() -> AutoencoderKLCogVideoX:
    """An autoencoder of widths 16, 32, 64, 96, the least that reconstructs pictures."""
    widths = (16, 32, 64, 96)
    vae: AutoencoderKLCogVideoX = AutoencoderKLCogVideoX(
        block_out_channels=widths, latent_channels=16, layers_per_block=1, norm_num_groups=2
    )
    return vae.eval()


def cpu_seconds(step: Callable[[], None]) -> float:
    """CPU time of a step, all threads of the process."""
    began = time.process_time()
    step()
    return time.process_time() - began


def resident_bytes() -> int:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Print the peak memory of one side above what its process had before, bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("ours", "public"))
    parser.add_argument("--policy", default="full", help="checkpointing of our side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        setting = make_setting(Path(folder))
        warm = setting.ours("full")  # imports and thread pools of both sides
        warm()
        del warm
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
        before = resident_bytes()
        if options.side == "ours":
            setting.base.release("vae")
            step = setting.ours(options.policy)
            for _ in range(5):
                step()
        else:
            items = setting.items()
            trainer = setting.public(setting.base.vae, setting.base.text_encoder)
            for _ in range(5):
                trainer.cached_step(items)
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(peak.split()[1]) * 1024 - before)


if __name__ == "__main__":
    main()
