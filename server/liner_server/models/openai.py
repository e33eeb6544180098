"""OpenAI's chat models, or any service that speaks as they do."""

from collections.abc import Callable

from liner_server.core.calibration import Calibration
from liner_server.core.costs import Prices, Spent
from liner_server.models.provider import ChatProvider, ModelSettings
from liner_server.models.transport import Endpoint

NAME = "openai"
DEFAULT_BASE_URL = "https://api.openai.com/v1"


def openai_provider(
    *,
    api_key: str,
    text_model: str,
    calibration: Calibration,
    prices: Prices,
    spent: Callable[[Spent], None],
    audio_model: str = "",
    base_url: str = DEFAULT_BASE_URL,
    excerpts: int = 2,
    pack: int = 8,
) -> ChatProvider:
    """Return the provider "openai": a model that reads, and another that hears if one is named."""
    return ChatProvider(
        Endpoint(provider=NAME, base_url=base_url, api_key=api_key),
        ModelSettings(
            name=NAME,
            text_model=text_model,
            audio_model=audio_model if excerpts else "",
            excerpts=excerpts,
            pack=pack,
        ),
        calibration=calibration,
        prices=prices,
        spent=spent,
    )
