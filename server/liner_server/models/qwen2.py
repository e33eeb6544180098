"""Qwen2-Audio behind an OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama)."""

from collections.abc import Callable

from liner_server.core.calibration import Calibration
from liner_server.core.costs import Prices, Spent
from liner_server.models.provider import ChatProvider, ModelSettings
from liner_server.models.transport import Endpoint

NAME = "qwen2"
DEFAULT_MODEL = "Qwen/Qwen2-Audio-7B-Instruct"


def qwen2_provider(
    *,
    base_url: str,
    calibration: Calibration,
    spent: Callable[[Spent], None],
    api_key: str = "",
    model: str = DEFAULT_MODEL,
    excerpts: int = 2,
    pack: int = 8,
    prices: Prices | None = None,
) -> ChatProvider:
    """Return the provider "qwen2": one model that reads and hears.

    `excerpts` above what the server allows in a prompt (vLLM: --limit-mm-per-prompt) would be
    refused; 0 makes it a reader only.
    """
    return ChatProvider(
        Endpoint(provider=NAME, base_url=base_url, api_key=api_key),
        ModelSettings(
            name=NAME,
            text_model=model,
            audio_model=model if excerpts else "",
            excerpts=excerpts,
            pack=pack,
        ),
        calibration=calibration,
        prices=prices or Prices(),
        spent=spent,
    )
