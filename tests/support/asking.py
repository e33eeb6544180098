"""Questions to a chat provider, and the answers a model may give to them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from liner.v1 import track_pb2
from liner_server.audio.measurements import (
    Content,
    Format,
    Key,
    Listening,
    Loudness,
    Technical,
    Tempo,
)
from liner_server.context import Principal, RequestContext
from liner_server.core.calibration import Calibration
from liner_server.core.costs import Prices, Spent
from liner_server.core.retry import RetryBudget
from liner_server.models.provider import ChatProvider, ModelSettings
from liner_server.models.transport import Endpoint
from liner_server.ports import Question

from support.scripted_model import Reply, says

_TRACK = track_pb2.Track(title="Blue Hour", artists=[track_pb2.Artist(name="Ada North")])


def question(
    track: track_pb2.Track | None = None,
    *fields: str,
    seconds: float = 20.0,
    listening: Listening | None = None,
    audio_wav: Sequence[bytes] = (),
    retry_budget: RetryBudget | None = None,
) -> Question:
    """Return a question about a track, to be answered within so many seconds from now."""
    return Question(
        track=track if track is not None else _TRACK,
        fields=frozenset(fields),
        listening=listening,
        context=RequestContext(
            request_id="test",
            principal=Principal(name="test", roles=frozenset({"enrich"})),
            deadline=asyncio.get_running_loop().time() + seconds,
            retry_budget=retry_budget or RetryBudget(),
        ),
        audio_wav=audio_wav,
    )


def listening(**tags: str) -> Listening:
    """Return what was heard of a piece of music whose file has these tags."""
    return Listening(
        format=Format(
            container="flac",
            codec="flac",
            sample_rate_hz=44_100,
            channels=2,
            bit_depth=16,
            bit_rate_bps=900_000,
            duration_seconds=183.4,
            size_bytes=20_000_000,
            sha256="ab" * 32,
            crc32c=1,
        ),
        tags=tags,
        content=Content.MUSIC,
        content_score=0.9,
        tempo=Tempo(bpm=96.0, score=0.8),
        key=Key(key="A minor", score=0.7),
        loudness=Loudness(integrated_lufs=-9.26, range_lu=5.0, true_peak_dbtp=-0.5),
        technical=Technical(),
    )


@asynccontextmanager
async def asking(
    base_url: str,
    *,
    prices: Prices | None = None,
    spent: list[Spent] | None = None,
    calibration: Calibration | None = None,
    api_key: str = "",
    max_reply_bytes: int = 1 << 20,
    connect_timeout: timedelta = timedelta(seconds=5),
    **settings: Any,
) -> AsyncIterator[ChatProvider]:
    """Yield a provider "qwen2" that asks the model "scripted" there, and close it."""
    provider = ChatProvider(
        Endpoint(
            provider="qwen2",
            base_url=base_url,
            api_key=api_key,
            max_reply_bytes=max_reply_bytes,
            connect_timeout=connect_timeout,
        ),
        ModelSettings(**{"name": "qwen2", "text_model": "scripted", **settings}),
        calibration=calibration or Calibration({}),
        prices=prices or Prices(),
        spent=(spent if spent is not None else []).append,
    )
    try:
        yield provider
    finally:
        await provider.aclose()


def answer(fields: Mapping[str, object], *, confidence: object = 0.7) -> dict[str, Any]:
    """Return the fields of one answer, each with the same stated confidence."""
    return {path: {"value": value, "confidence": confidence} for path, value in fields.items()}


def answers(**by_id: Mapping[str, Any]) -> str:
    """Return a whole content: `answers(r1=answer({"genre": "Jazz"}))`."""
    return json.dumps({"answers": [{"id": name, "fields": f} for name, f in by_id.items()]})


def recordings(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the recordings that a request asks about, as the model reads them."""
    content = request["messages"][1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return list(json.loads(text)["recordings"])


def questions_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a request asks for, and how they are described."""
    content = request["messages"][1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return dict(json.loads(text)["questions"])


def answering(*, confidence: float = 0.7, **fields: object) -> Callable[[Mapping[str, Any]], Reply]:
    """Return a script that answers these fields for every recording, and "cannot tell" for others.

    A probe is told OK. A callable value is called with the recording as the model reads it.
    """

    def script(request: Mapping[str, Any]) -> Reply:
        if len(request["messages"]) == 1:
            return says("OK")
        asked = questions_of(request)
        by_id = {}
        for recording in recordings(request):
            known = {path: _said(fields[path], recording) for path in asked if path in fields}
            blank = {path: _UNKNOWN.get(path, []) for path in asked}
            by_id[recording["id"]] = answer({**blank, **known}, confidence=confidence)
        return says(answers(**by_id))

    return script


def _said(value: object, recording: Mapping[str, Any]) -> object:
    return value(recording) if callable(value) else value


_UNKNOWN: dict[str, object] = {
    **dict.fromkeys(("genre", "parental_warning"), "Unknown"),
    **dict.fromkeys(("title", "version_title", "language"), ""),
    **dict.fromkeys(("energy", "danceability"), None),
}
