"""One whole service in process for each test that asks for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.server import Stubs, served


@pytest.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    """Stubs of a running service with every default but its ports and folder."""
    async with served(tmp_path) as (_, stubs):
        yield stubs
