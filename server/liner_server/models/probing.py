"""What an endpoint turns out to be when it is asked: which models it has, and whether they hear."""

from dataclasses import dataclass

from liner_server.errors import DeadlineError, ProviderError
from liner_server.models import windows
from liner_server.models.chat import Chat, ChatCall

_DEAF = frozenset({"MODEL_REQUEST_REFUSED", "MODEL_SERVER_ERROR", "MODEL_NOT_FOUND"})
"""How endpoints answer to sound that their model does not take."""

_HEARD = frozenset({"MODEL_ANSWER_CUT", "MODEL_DECLINED", "MODEL_REPLY_BROKEN"})
"""Failures of a model that was asked: the sound got there."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What an endpoint turned out to be."""

    ready: bool
    hears_audio: bool | None = None
    """None when it was not found out."""

    reason: str = ""
    """Why it is not ready, or why it does not hear; empty when it does all it is configured for."""


async def probe(chat: Chat, *, text_model: str, audio_model: str, deadline: float) -> Probe:
    """Return whether the endpoint has its models and, if one is to hear, whether it does.

    Costs a list of models and one short call with half a second of silence. Never raises for what
    an endpoint does.
    """
    wanted = {text_model, audio_model} - {""}
    try:
        missing = wanted - set(await chat.models(deadline=deadline))
    except ProviderError as error:
        if error.reason != "MODEL_NOT_FOUND":
            return Probe(ready=False, reason=error.message)
        # Not every endpoint has a list; the first question will tell.
        missing = set()
    except DeadlineError as error:
        return Probe(ready=False, reason=error.message)
    if missing:
        return Probe(
            ready=False, reason=f"its endpoint does not have {' and '.join(sorted(missing))}"
        )
    if not audio_model:
        return Probe(ready=True, hears_audio=False)
    return await _probe_ears(chat, audio_model, deadline)


async def _probe_ears(chat: Chat, model: str, deadline: float) -> Probe:
    content = [*windows.parts([windows.silence()], most=1), {"type": "text", "text": "Say OK."}]
    call = ChatCall(model=model, messages=[{"role": "user", "content": content}], max_tokens=16)
    try:
        await chat.complete(call, deadline=deadline)
    except ProviderError as error:
        if error.reason in _DEAF:
            return Probe(ready=True, hears_audio=False, reason="it takes no sound: text only")
        if error.reason not in _HEARD:
            return Probe(ready=False, reason=error.message)
    except DeadlineError as error:
        return Probe(ready=False, reason=error.message)
    return Probe(ready=True, hears_audio=True)
