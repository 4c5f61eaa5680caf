from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.session import Session


@pytest.fixture(scope="session")
def session(tmp_path_factory) -> Iterator[Session]:
    """A process that reads damaged files."""
    with Session(tmp_path_factory.mktemp("damaged")) as running:
        yield running
