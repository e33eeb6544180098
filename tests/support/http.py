"""Asks the side port."""

import aiohttp


async def fetch(url: str, *, accept: str = "*/*") -> tuple[int, str]:
    """Return the status and the text that a GET of this address is answered with."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Accept": accept}) as response,
    ):
        return response.status, await response.text()
