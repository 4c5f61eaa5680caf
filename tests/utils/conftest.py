"""What the tests of this folder share."""

from __future__ import annotations

from tests.log_fixture import log  # noqa: F401 (a fixture)
