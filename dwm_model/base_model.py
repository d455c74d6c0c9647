"""Base models: folders in the diffusers layout, described without loading weights and loaded part by part."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwm_model.autoencoder_tiles import enable_tiles
from dwm_model.families import ModelFamily, detect_family, read_json_object
from dwm_model.latent_scaling import LatentScaling
from dwm_model.model_hub import locate_base
from dwm_model.schedules import WAN_SHIFT, FlowSchedule, NoiseSchedule, VelocitySchedule
from manifests.atomic import write_text
from manifests.errors import DwmError
from manifests.hashing import hash_file, hash_json

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXDDIMScheduler
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PART_FOLDERS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
"""Sub-folders of a base model; their files make its hash."""

_ENCODER_PREFIXES = ("text_encoder/", "tokenizer/", "vae/")
"""Those that cached latents and prompt embeddings come from."""

NOTE_FILE = "dwm_base.json"
"""Optional note beside ``model_index.json``: ``untrained``, ``description``, ``licence``, ``seed``."""

WAN_TEXT_TOKENS = 512
"""Length of a Wan prompt embedding (diffusers' Wan pipelines)."""

_ALWAYS_HASHED_BYTES = 64 * 1024 * 1024
_SMALLEST_VOCABULARY = 32


@dataclass(frozen=True)
class BaseDescription:
    """What is known of a base model without loading its weights.

    Attributes:
        path: its folder, absolute.
        name: the folder's name.
        family: how it patches latents.
        base_hash: SHA-256 over the names and bytes of the weight and configuration files of all parts.
        encoder_hash: the same over autoencoder, text encoder, tokenizer and the embeddings' length: what was cached
            with a base serves every other one with the same encoders.
        is_untrained: it has random weights; what it generates is no result.
        latent_channels: channels of a latent.
        spatial_ratio: pixels a latent cell is wide and high.
        temporal_ratio: frames a latent frame stands for (the first frame stands alone).
        text_tokens: length of a prompt embedding.
        text_dim: width of a prompt embedding.
        scaling: from the autoencoder's latents to the network's.
        scaling_factor: what the mask channel is multiplied by: CogVideoX scales it like the latents, Wan does not.
    """

    path: Path
    name: str
    family: ModelFamily
    base_hash: str
    encoder_hash: str
    is_untrained: bool
    latent_channels: int
    spatial_ratio: int
    temporal_ratio: int
    text_tokens: int
    text_dim: int
    scaling: LatentScaling
    scaling_factor: float

    @property
    def latent_name(self) -> str:
        """Folder name of what is encoded with this base's encoders."""
        return f"encoders-{self.encoder_hash[:8]}"


class BaseModel:
    """A base model whose parts are loaded on first use, so that nobody pays memory for parts not needed.

    Training loads ``transformer`` only, encoding ``vae`` and then ``text_encoder``.
    """

    def __init__(
        self, description: BaseDescription, device: str | torch.device, dtype: torch.dtype, *, offload: bool = False
    ) -> None:
        self.description = description
        self.device = device
        self.dtype = dtype
        self._offload = offload
        self._tiling = self._slicing = False

    @property
    def path(self) -> Path:
        """The base's folder."""
        return self.description.path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.description.name

    @property
    def family(self) -> ModelFamily:
        """How the base patches latents."""
        return self.description.family

    @property
    def base_hash(self) -> str:
        """SHA-256 over weights and configuration."""
        return self.description.base_hash

    @property
    def is_untrained(self) -> bool:
        """Whether the weights are random."""
        return self.description.is_untrained

    @cached_property
    def vae(self) -> Any:
        """Video autoencoder, frozen: diffusers' ``AutoencoderKLCogVideoX`` or ``AutoencoderKLWan``."""
        from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan

        kind = AutoencoderKLWan if self.family.is_wan else AutoencoderKLCogVideoX
        vae = self._frozen(self._load(kind, "vae", torch_dtype=self.dtype))
        if self._tiling:
            enable_tiles(vae, self.description.spatial_ratio, is_wan=self.family.is_wan)
        if self._slicing:
            vae.enable_slicing()
        return vae

    @cached_property
    def transformer(self) -> Any:
        """Diffusion transformer as stored (33 channels unless already widened, Wan 36), frozen."""
        from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

        kind = WanTransformer3DModel if self.family.is_wan else CogVideoXTransformer3DModel
        return self._frozen(self._load(kind, "transformer", torch_dtype=self.dtype))

    @cached_property
    def text_encoder(self) -> Any:
        """T5 encoder (Wan: UMT5), frozen."""
        from transformers import T5EncoderModel, UMT5EncoderModel

        kind = UMT5EncoderModel if self.family.is_wan else T5EncoderModel
        return self._frozen(self._load(kind, "text_encoder", dtype=self.dtype))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """T5 tokenizer.

        Raises:
            DwmError: the folder gives a vocabulary of a few special tokens only (a sentencepiece file that was not
                read), with which every prompt would look the same.
        """
        from transformers import T5Tokenizer

        tokenizer: PreTrainedTokenizerBase = self._load(T5Tokenizer, "tokenizer")
        if len(tokenizer) < _SMALLEST_VOCABULARY:
            raise DwmError(
                f"{self.path / 'tokenizer'}: only {len(tokenizer)} tokens were read; copy the tokenizer again"
            )
        return tokenizer

    @cached_property
    def scheduler(self) -> CogVideoXDDIMScheduler:
        """Noise schedule, used for training and sampling.

        Raises:
            DwmError: the schedule does not predict velocity, which the training loss assumes.
        """
        from diffusers import CogVideoXDDIMScheduler

        scheduler: CogVideoXDDIMScheduler = self._load(CogVideoXDDIMScheduler, "scheduler")
        if scheduler.config.prediction_type != "v_prediction":
            raise DwmError(
                f"{self.path / 'scheduler'}: prediction_type is {scheduler.config.prediction_type}; "
                "only v_prediction bases can be used"
            )
        return scheduler

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """How latents are noised and sampled.

        Raises:
            DwmError: a CogVideoX schedule does not predict velocity.
        """
        if not self.family.is_wan:
            return VelocitySchedule(self.scheduler)
        config = read_json_object(self.path / "scheduler" / "scheduler_config.json")
        return FlowSchedule(shift=float(config.get("flow_shift", config.get("shift", WAN_SHIFT))))

    def tile_autoencoder(self, *, tiling: bool, slicing: bool) -> None:
        """Let the autoencoder work in overlapping tiles, and video by video, to need less memory.

        Tiles are blended where they overlap, so that pixels differ a little from those of the whole picture.
        """
        self._tiling, self._slicing = tiling, slicing
        self.release("vae")

    @contextmanager
    def placed(self, part: str) -> Iterator[None]:
        """While inside, a part is on the base's device; with ``offload`` it is moved there and back.

        Offloading keeps one part at a time on a GPU that cannot hold them all.
        """
        if not self._offload:
            yield
            return
        module = getattr(self, part).to(self.device)
        try:
            yield
        finally:
            module.to("cpu")

    def release(self, part: str) -> None:
        """Drop a loaded part (``vae``, ``text_encoder``, ...) from memory; it loads again on its next use."""
        self.__dict__.pop(part, None)

    def _frozen(self, part: Any) -> Any:
        return part.to("cpu" if self._offload else self.device).eval().requires_grad_(False)

    def _load(self, part_class: Any, part: str, **options: Any) -> Any:
        """Load one part from its local sub-folder with its library's own loader."""
        folder = self.path / part
        hide_progress_bars()
        try:
            return part_class.from_pretrained(str(folder), local_files_only=True, **options)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise DwmError(f"{folder}: could not be loaded ({reason}); copy the base model again") from error


def describe_base(path: Path) -> BaseDescription:
    """Read what a base model is from its configuration files, and hash its files.

    Args:
        path: a folder in the diffusers layout, or a hub id; see `locate_base`.

    Raises:
        DwmError: no such folder or repository, a part is missing, or the family is unknown.
    """
    folder, name = locate_base(Path(path), PART_FOLDERS)
    for part in PART_FOLDERS:
        if not (folder / part).is_dir():
            raise DwmError(f"{folder / part}: missing; a base model has the folders {', '.join(PART_FOLDERS)}")
    family = detect_family(folder / "transformer" / "config.json")
    note_path = folder / NOTE_FILE
    note = read_json_object(note_path) if note_path.exists() else {}
    digests = _digests(folder)
    encoders = {name: digest for name, digest in digests.items() if name.startswith(_ENCODER_PREFIXES)}
    try:
        sizes = _wan_sizes(folder) if family.is_wan else _cogvideox_sizes(folder)
        return BaseDescription(
            path=folder,
            name=name,
            family=family,
            base_hash=hash_json(digests),
            encoder_hash=hash_json([sizes["text_tokens"], encoders]),
            is_untrained=bool(note.get("untrained", False)),
            **sizes,
        )
    except KeyError as error:
        raise DwmError(
            f"{folder}: {error} is in neither vae/config.json nor transformer/config.json; copy the base model again"
        ) from error


def _cogvideox_sizes(folder: Path) -> dict[str, Any]:
    transformer = read_json_object(folder / "transformer" / "config.json")
    vae = read_json_object(folder / "vae" / "config.json")
    factor = float(vae["scaling_factor"])
    return {
        "latent_channels": int(vae["latent_channels"]),
        "spatial_ratio": 2 ** (len(vae["block_out_channels"]) - 1),
        "temporal_ratio": int(vae["temporal_compression_ratio"]),
        "text_tokens": int(transformer["max_text_seq_length"]),
        "text_dim": int(transformer["text_embed_dim"]),
        "scaling": LatentScaling((factor,)),
        "scaling_factor": factor,
    }


def _wan_sizes(folder: Path) -> dict[str, Any]:
    """Wan scales each channel by its own mean and deviation; its mask is 1 where pixels are known."""
    transformer = read_json_object(folder / "transformer" / "config.json")
    vae = read_json_object(folder / "vae" / "config.json")
    return {
        "latent_channels": int(vae["z_dim"]),
        "spatial_ratio": int(vae["scale_factor_spatial"]),
        "temporal_ratio": int(vae["scale_factor_temporal"]),
        "text_tokens": WAN_TEXT_TOKENS,
        "text_dim": int(transformer["text_dim"]),
        "scaling": LatentScaling(
            factor=tuple(1.0 / float(deviation) for deviation in vae["latents_std"]),
            mean=tuple(float(mean) for mean in vae["latents_mean"]),
        ),
        "scaling_factor": 1.0,
    }


def load_base(
    path: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, offload: bool = False
) -> BaseModel:
    """Open a base model; its parts load on first use.

    Args:
        path: folder in the diffusers layout, or a hub id.
        device: where the parts work.
        dtype: type of the weights, float32 unless given.
        offload: keep each part in main memory but while it works; see `BaseModel.placed`.

    Raises:
        DwmError: see `describe_base`.
    """
    import torch

    return BaseModel(describe_base(path), device, dtype or torch.float32, offload=offload)


def hide_progress_bars() -> None:
    """Keep the libraries' own progress bars, one for every file read or written, off the terminal."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def default_device() -> str:
    """``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the parts by relative name; the note and the index do not count."""
    cache = _HashCache()
    digests = {
        file.relative_to(folder).as_posix(): cache.digest(file)
        for part in PART_FOLDERS
        for file in sorted((folder / part).rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    }
    cache.save()
    return digests


class _HashCache:
    """SHA-256 of large files, remembered in the user's cache folder by path, size and time of change.

    A 5B base has 20 GB of weights; hashing them at each command would take a minute. Small files are always hashed.
    The file lies outside the base, which may be read-only; where it cannot be written, hashing is only slower.
    """

    def __init__(self) -> None:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self._path = Path(root) / "dwm" / "file_hashes.json"
        self._entries: dict[str, str] = {}
        self._is_changed = False
        if self._path.exists():
            try:
                self._entries = {str(key): str(value) for key, value in read_json_object(self._path).items()}
            except DwmError as error:
                logger.warning("%s; hashing the base's files again", error)

    def digest(self, file: Path) -> str:
        """SHA-256 of a file, from the cache where it is large and unchanged."""
        status = file.stat()
        if status.st_size < _ALWAYS_HASHED_BYTES:
            return hash_file(file)
        key = hashlib.sha256(f"{file}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}".encode()).hexdigest()
        if key not in self._entries:
            logger.info("hashing %s (%d MB)", file, status.st_size // 2**20)
            self._entries[key] = hash_file(file)
            self._is_changed = True
        return self._entries[key]

    def save(self) -> None:
        """Write the cache where something new was hashed."""
        if not self._is_changed:
            return
        try:
            write_text(self._path, json.dumps(self._entries, sort_keys=True, indent=1) + "\n")
        except DwmError as error:
            logger.warning("%s; the base's files will be hashed again next time", error)
