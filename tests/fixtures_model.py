"""Fixtures of the model's tests: the tiny base, made once a session, and a small encoded dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwm_model.base_model import BaseModel, load_base
from dwm_model.tiny import make_tiny_base
from manifests.dataset import Dataset
from manifests.schema import Split
from tests.helpers_model import add_clip, encode_all


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture
def base(tiny_base: Path) -> BaseModel:
    return load_base(tiny_base)


@pytest.fixture(scope="session")
def encoded_dataset_root(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three train clips and one validation clip, encoded; tests that change it copy it first."""
    root = tmp_path_factory.mktemp("data") / "dataset"
    dataset = Dataset.create_or_open(root)
    for index in range(4):
        add_clip(dataset, f"clip{index}", seed=index, split=Split.VALIDATION if index == 3 else Split.TRAIN)
    encode_all(dataset, load_base(tiny_base))
    return root


@pytest.fixture
def encoded_dataset(encoded_dataset_root: Path) -> Dataset:
    return Dataset.open(encoded_dataset_root)
