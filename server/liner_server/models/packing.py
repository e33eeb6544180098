"""Which questions share a prompt."""

from collections.abc import Callable, Iterator, Sequence

from liner_server.models import prompt
from liner_server.ports import Question

MOST_CHARACTERS = 24_000
"""Text of a shared prompt: enough for eight tracks with lyrics of ordinary length."""


def packs(
    questions: Sequence[Question],
    fields: Sequence[frozenset[str]],
    *,
    most: int,
    alone: Callable[[Question], bool],
) -> Iterator[list[int]]:
    """Yield the places of those to be asked together; each place comes once.

    They want the same `fields`, are at most `most`, and none of them must be `alone`. Questions
    about no field are left out.
    """
    open_packs: dict[frozenset[str], list[int]] = {}
    sizes: dict[frozenset[str], int] = {}
    for place, (question, wanted) in enumerate(zip(questions, fields, strict=True)):
        if not wanted:
            continue
        if alone(question) or len(questions) == 1 or prompt.suspicious(question):
            yield [place]
            continue
        size = sum(len(text) for text in prompt.texts(question).values())
        pack = open_packs.setdefault(wanted, [])
        full = sizes.get(wanted, 0) + size > MOST_CHARACTERS
        if pack and (full or len(pack) >= most):
            yield pack
            pack = open_packs[wanted] = []
            sizes[wanted] = 0
        pack.append(place)
        sizes[wanted] = sizes.get(wanted, 0) + size
    yield from open_packs.values()
