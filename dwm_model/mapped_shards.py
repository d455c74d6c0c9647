"""Fast reading of latents at random: a shard's file is mapped into memory once and its header parsed once.

A safetensors file is the header's length (8 bytes, little endian), a JSON header with the offsets of each tensor, and
the tensors' bytes. Training visits clips in random order, so that opening the file again for each would cost more than
reading the clip.
"""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

_REMEDY = "delete it and run `dwm encode` again"


@dataclass(frozen=True)
class _Place:
    offset: int
    count: int
    shape: tuple[int, ...]


class MappedShard:
    """A shard of float16 tensors in memory that the system fills as it is read.

    Args:
        path: the shard; it has been checked when the store was opened.

    Raises:
        DwmError: it is damaged or gone, or holds something else than float16.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                # A private map: torch wants writable memory, and nothing that it wrote would reach the file.
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
            (length,) = struct.unpack("<Q", self._bytes[:8])
            header = json.loads(self._bytes[8 : 8 + length])
            header.pop("__metadata__", None)
            self._places = {name: self._place(entry, 8 + length) for name, entry in header.items()}
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise DwmError(f"{path}: damaged shard ({error}); {_REMEDY}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def tensor(self, name: str) -> torch.Tensor:
        """A copy of a tensor, float32."""
        import torch

        place = self._places[name]
        stored = torch.frombuffer(self._bytes, dtype=torch.float16, count=place.count, offset=place.offset)
        return stored.view(place.shape).float()

    def _place(self, entry: dict[str, Any], start: int) -> _Place:
        """Where a tensor is, from its entry in the header."""
        first, end = entry["data_offsets"]
        if entry["dtype"] != "F16" or start + end > len(self._bytes):
            raise ValueError(f"{entry['dtype']} tensor up to byte {start + end} of {len(self._bytes)}")
        return _Place(start + first, (end - first) // 2, tuple(entry["shape"]))
