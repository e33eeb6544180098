"""A stand-in for a language model, for demonstrations: it looks words up and understands nothing.

It speaks as an OpenAI-compatible endpoint does, so that routing, fallback and cost can be shown on
a machine that has no model. Its answers come from the words of the data in the prompt, always the
same ones; it is never used unless somebody starts it and points the server at it.
"""

import asyncio
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_MOODS = {
    "night": "Dark",
    "rain": "Melancholic",
    "slow": "Calm",
    "quiet": "Peaceful",
    "summer": "Happy",
    "party": "Party",
    "love": "Romantic",
    "fire": "Energetic",
}
_LANGUAGES = {
    "en": frozenset({"the", "of", "and", "in", "for", "by"}),
    "de": frozenset({"der", "die", "das", "und", "im"}),
    "fr": frozenset({"le", "la", "les", "et", "dans"}),
    "es": frozenset({"el", "los", "una", "del"}),
}
_VERSION = re.compile(
    r"[(\[]([^)\]]*\b(?:live|remix|edit|mix|acoustic)\b[^)\]]*)[)\]]", re.IGNORECASE
)
_WORD = re.compile(r"[^\W_]+")
_CONFIDENCE = 0.7


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a stand-in plays."""

    models: Sequence[str]
    """Names it lists as its models."""

    delay: float = 0.0
    """Seconds before each answer."""

    unsure: Collection[str] = field(default=())
    """Fields that it never can tell."""


async def serve(part: Part, *, port: int) -> None:
    """Serve on loopback until cancelled; port 0 takes a free one.

    Prints `play-model ready URL` on standard output once it listens.

    Raises:
        OSError: the port is taken.

    """

    async def list_models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": m} for m in part.models]})

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(part.delay)
        try:
            content = answer(body["messages"], unsure=part.unsure)
        except (KeyError, IndexError, TypeError, ValueError):
            error = {"message": "this stand-in answers Liner's questions only"}
            return web.json_response({"error": error}, status=400)
        return web.json_response(_completion(body, content))

    app = web.Application(client_max_size=16 << 20)
    app.router.add_get("/v1/models", list_models)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sys.stdout.write(f"play-model ready http://127.0.0.1:{runner.addresses[0][1]}/v1\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def answer(messages: Sequence[Mapping[str, Any]], *, unsure: Collection[str] = ()) -> str:
    """Return the content with which the stand-in answers a prompt of Liner's.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the prompt is none of Liner's.

    """
    content = messages[1]["content"]
    data = json.loads(content if isinstance(content, str) else content[-1]["text"])
    return json.dumps(
        {
            "answers": [
                {
                    "id": recording["id"],
                    "fields": {
                        path: {
                            "value": _value(path, question, {} if path in unsure else recording),
                            "confidence": _CONFIDENCE,
                        }
                        for path, question in data["questions"].items()
                    },
                }
                for recording in data["recordings"]
            ]
        },
        ensure_ascii=False,
    )


def _value(path: str, question: Mapping[str, Any], recording: Mapping[str, Any]) -> object:
    """Return what the words of a recording say of a field; without any, that it cannot tell."""
    stated = recording.get("stated", {})
    told = " ".join(str(stated.get(name, "")) for name in ("title", "album", "label", "lyrics"))
    words = [word.casefold() for word in _WORD.findall(told)]
    choices = {choice.casefold(): choice for choice in question.get("choices", ())}
    named = list(dict.fromkeys(choices[word] for word in words if word in choices))
    match path:
        case "genre":
            return named[0] if named else "Unknown"
        case "moods":
            return list(dict.fromkeys(_MOODS[word] for word in words if word in _MOODS))
        case "subgenres" | "instruments":
            return named
        case "parental_warning":
            return "NOT_EXPLICIT" if stated.get("lyrics") else "Unknown"
        case "energy" | "danceability":
            return None
        case "artists":
            return []
        case "title":
            return _VERSION.sub("", str(stated.get("title", ""))).strip()
        case "version_title":
            found = _VERSION.search(str(stated.get("title", "")))
            return found[1] if found else ""
        case "language":
            return next((tag for tag, small in _LANGUAGES.items() if small & set(words)), "")
    return ""


def _completion(body: Mapping[str, Any], content: str) -> dict[str, Any]:
    """Return a chat completion; four characters count as a token."""
    prompt = sum(len(str(message["content"])) for message in body["messages"]) // 4
    completion = len(content) // 4
    return {
        "id": "chatcmpl-played",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }
