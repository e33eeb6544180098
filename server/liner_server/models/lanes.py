"""The models that the settings name, each with its guard, ready to be routed to."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from functools import partial

import structlog
from pydantic import SecretStr

from liner_server.core.breaker import Breaker
from liner_server.core.calibration import Calibration
from liner_server.core.costs import DailyBudget, Price, Prices, Spending, Spent
from liner_server.core.experiment import EXPERIMENTAL
from liner_server.core.lane import Guard, Lane, LaneObserver
from liner_server.core.rates import Places, RateLimit
from liner_server.core.retry import Backoff, RetryBudget
from liner_server.core.router import Lanes
from liner_server.models.openai import openai_provider
from liner_server.models.probing import Probe
from liner_server.models.provider import ChatProvider, ModelSettings
from liner_server.models.qwen2 import qwen2_provider
from liner_server.models.spending_file import SpendingFile
from liner_server.models.transport import Endpoint
from liner_server.settings import Settings

_log = structlog.get_logger()

_PROBE_TIMEOUT = 10.0
_PROBE_EVERY = timedelta(minutes=5)
_PROBE_AGAIN = timedelta(seconds=15)
"""A model that was not ready is looked at sooner: somebody is about to start it."""


class LanesFactory:
    """Makes lanes that share one purse."""

    def __init__(
        self,
        settings: Settings,
        *,
        calibration: Calibration,
        observer: LaneObserver,
        used: Callable[[Spent], None],
    ) -> None:
        self._settings = settings
        self._calibration = calibration
        self._observer = observer
        self._used = used
        limit = settings.daily_budget_usd
        self._budget = DailyBudget(Decimal(str(limit)) if limit else None)
        self._spending = Spending(self._budget)
        self._prices = Prices(
            {
                model: Price(prompt=Decimal(str(sent)), completion=Decimal(str(received)))
                for model, (sent, received) in settings.model_prices.items()
            }
        )

    @property
    def budget_spent(self) -> float:
        """Part of the day's budget that is spent; 0 without a budget."""
        return self._budget.spent_share

    async def open(self, stack: AsyncExitStack) -> Lanes:
        """Return the lanes; their connections and probes end with the stack."""
        await stack.enter_async_context(
            SpendingFile(self._settings.data_dir / "spending.json", self._spending)
        )
        return Lanes(
            primary=self._lane(stack, "primary", self._qwen2()),
            fallback=self._lane(stack, "fallback", self._openai()),
            experimental=self._lane(stack, EXPERIMENTAL, self._experimental()),
        )

    async def probe(self, name: str, *, deadline: float) -> Probe | None:
        """Return what the endpoint of one model turns out to be; None where none is configured."""
        make = {"qwen2": self._qwen2, "openai": self._openai, EXPERIMENTAL: self._experimental}
        provider = make[name]()
        if provider is None:
            return None
        try:
            return await provider.probe(deadline=deadline)
        finally:
            await provider.aclose()

    def _qwen2(self) -> ChatProvider | None:
        settings = self._settings
        if settings.qwen2_endpoint is None:
            return None
        return qwen2_provider(
            base_url=settings.qwen2_endpoint,
            api_key=_secret(settings.qwen2_api_key),
            model=settings.qwen2_model,
            excerpts=settings.model_audio_windows,
            pack=settings.model_pack,
            calibration=self._calibration,
            prices=self._prices,
            spent=self._spent,
        )

    def _openai(self) -> ChatProvider | None:
        settings = self._settings
        key = _secret(settings.openai_api_key)
        if not key:
            return None
        return openai_provider(
            api_key=key,
            base_url=settings.openai_endpoint,
            text_model=settings.openai_model,
            audio_model=settings.openai_audio_model or "",
            excerpts=settings.model_audio_windows,
            pack=settings.model_pack,
            calibration=self._calibration,
            prices=self._prices,
            spent=self._spent,
        )

    def _experimental(self) -> ChatProvider | None:
        settings = self._settings
        if settings.experimental_endpoint is None or settings.experimental_model is None:
            return None
        model = settings.experimental_model
        return ChatProvider(
            Endpoint(
                provider=EXPERIMENTAL,
                base_url=settings.experimental_endpoint,
                api_key=_secret(settings.experimental_api_key),
            ),
            ModelSettings(
                name=EXPERIMENTAL,
                text_model=model,
                audio_model=model if settings.model_audio_windows else "",
                excerpts=settings.model_audio_windows,
                pack=settings.model_pack,
            ),
            calibration=self._calibration,
            prices=self._prices,
            spent=self._spent,
        )

    def _lane(self, stack: AsyncExitStack, role: str, provider: ChatProvider | None) -> Lane | None:
        if provider is None:
            return None
        stack.push_async_callback(provider.aclose)
        settings = self._settings
        lane = Lane(
            provider,
            Guard(
                breaker=Breaker(clock=time.monotonic),
                rates=RateLimit(
                    requests_a_minute=settings.model_requests_per_minute or None,
                    tokens_a_minute=settings.model_tokens_per_minute or None,
                    clock=time.monotonic,
                ),
                places=Places(settings.model_max_in_flight),
                backoff=Backoff(),
                retries=RetryBudget(),
                budget=self._budget,
                timeout=timedelta(seconds=settings.model_timeout_seconds),
                pack=settings.model_pack,
            ),
            role=role,
            observer=self._observer,
            today=partial(self._spending.today, provider.name),
        )
        probing = asyncio.create_task(_probe(lane, provider))
        stack.callback(probing.cancel)
        return lane

    def _spent(self, spent: Spent) -> None:
        self._spending.add(spent)
        self._used(spent)


async def _probe(lane: Lane, provider: ChatProvider) -> None:
    """Find out again and again what an endpoint is, and log what changed."""
    loop = asyncio.get_running_loop()
    while True:
        found = await provider.probe(deadline=loop.time() + _PROBE_TIMEOUT)
        if (found.ready, found.reason) != (lane.ready, lane.status):
            _log.info("model", model=lane.name, ready=found.ready, status=found.reason)
        lane.ready, lane.status = found.ready, found.reason
        wait = _PROBE_EVERY if found.ready else _PROBE_AGAIN
        await asyncio.sleep(wait.total_seconds())


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""
