"""Tracing, where the settings name a collector."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from liner_server.settings import Settings, SettingsError
from liner_server.tracing import traced


@asynccontextmanager
async def traced_as(settings: Settings, service: str) -> AsyncIterator[None]:
    """Send spans under this name while the context is open, if a collector is set.

    Raises:
        SettingsError: it is, and the extra that sends spans is not installed.

    """
    if settings.otlp_endpoint is None:
        yield
        return
    try:
        # 0.3 s of CPU that only those who trace shall spend.
        from liner_server.tracing_otel import OtelTracer
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT: tracing needs the extra liner[tracing]; it is not "
            f"installed ({error})"
        ) from error
    tracer = OtelTracer(
        endpoint=settings.otlp_endpoint,
        share=settings.traces_share,
        service=service,
        version=version("liner"),
    )
    try:
        with traced(tracer):
            yield
    finally:
        await tracer.close()
