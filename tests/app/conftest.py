"""Fixtures of the server's tests: a model folder, and a client of its server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import ENCODER, KINDS, served, teach


@pytest.fixture(scope="session", autouse=True)
def server_packages() -> None:
    pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
    pytest.importorskip("multipart", reason="the server needs python-multipart: pip install 'metarep[serve]'")
    pytest.importorskip("httpx2", reason="its test client needs httpx2: pip install 'metarep[test]'")


@pytest.fixture(scope="session")
def representation(server_packages: None) -> Any:
    from metarep.weights.named import load_representation

    return load_representation(ENCODER)


@pytest.fixture
def folder(representation: Any, tmp_path: Path) -> Any:
    """A new and empty model folder, called letters."""
    from metarep.model.folder import ModelFolder
    from metarep.model.gallery import Gallery
    from metarep.model.model import Model

    return ModelFolder.create(tmp_path / "letters", Model(representation, None, Gallery.empty()))


@pytest.fixture
def client(folder: Any) -> Iterator[Any]:
    """A client of a server of the empty model."""
    with served(folder) as opened:
        yield opened


@pytest.fixture
def taught(client: Any) -> Any:
    """The client, after the model has learned two drawings of each of two kinds."""
    for kind in KINDS[:2]:
        teach(client, kind, 0, 1)
    return client
