"""The folders that programs load, made once."""

from pathlib import Path

import pytest
from client_folders import quantized_classifier, quantized_embedder


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized_classifier(tmp_path_factory.mktemp("classifier"))
