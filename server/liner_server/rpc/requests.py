"""Checks of requests: a message in, every violation out. Nothing is changed."""

import math
import re
from collections.abc import Collection, Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

from liner_server.core.fields import FIELDS
from liner_server.errors import InvalidRequestError

MAX_TEXT_BYTES = 1024
MAX_LIST = 100
MAX_INLINE_BYTES = 2 << 20
MAX_ITEMS_A_MESSAGE = 200
MAX_ITEM_ID_BYTES = 256
_LONGER_TEXT = {"lyrics": 65_536, "object_name": 4096}
"""Object names are judged where objects are named; here only absurd ones stop."""

_TAG_NAME_BYTES = 128
_LONGEST_SECONDS = 315_576_000_000
_BATCH_ID = re.compile(r"[A-Za-z0-9._-]{0,128}")
_REQUEST_ID = re.compile(r"[\x20-\x7e]{0,128}")
_PARENTS = {path.rpartition(".")[0] for path in FIELDS} - {""}

Violations = Iterator[track_pb2.FieldViolation]


def check(violations: Violations) -> None:
    """Pass if there is no violation.

    Raises:
        InvalidRequestError: with all of them.

    """
    found = list(violations)
    if found:
        raise InvalidRequestError(found)


def enrich_violations(request: enrichment_pb2.EnrichMetadataRequest) -> Violations:
    """Yield what is wrong with a request to enrich."""
    yield from track_violations(request, "track")
    yield from options_violations(request.options)
    yield from request_id_violations(request.request_id)


def validate_violations(request: enrichment_pb2.ValidateMetadataRequest) -> Violations:
    """Yield what is wrong with a request to validate."""
    yield from track_violations(request, "track")
    if request.profile not in enrichment_pb2.DeliveryProfile.values():
        yield violation("profile", "no such profile", "ENUM_UNKNOWN")


def config_violations(config: enrichment_pb2.BatchConfig) -> Violations:
    """Yield what is wrong with a batch's config."""
    if not _BATCH_ID.fullmatch(config.batch_id):
        yield violation(
            "config.batch_id", "at most 128 of A-Z a-z 0-9 - _ . characters", "BATCH_ID_FORMAT"
        )
    if config.validate_profile not in enrichment_pb2.DeliveryProfile.values():
        yield violation("config.validate_profile", "no such profile", "ENUM_UNKNOWN")
    if config.max_in_flight < 0:
        yield violation("config.max_in_flight", "must not be negative", "NUMBER_RANGE")
    if config.resume_after < 0:
        yield violation("config.resume_after", "must not be negative", "NUMBER_RANGE")
    for name, least in (("item_timeout", 0.001), ("progress_interval", 0.1)):
        if config.HasField(name):  # type: ignore[arg-type]
            duration = getattr(config, name)
            if not is_duration(duration):
                yield violation(
                    f"config.{name}",
                    "must not be negative, nor longer than 10,000 years",
                    "DURATION_RANGE",
                )
            elif duration.seconds + duration.nanos / 1e9 < least:
                yield violation(f"config.{name}", f"at least {least} s", "DURATION_RANGE")
    yield from options_violations(config.options, "config.options")


def item_violations(item: enrichment_pb2.BatchItem, seen: Collection[str]) -> Violations:
    """Yield what is wrong with one item, given the batch's ids so far; such an item fails alone."""
    if not item.item_id:
        yield violation("item_id", "required", "REQUIRED")
    elif len(item.item_id.encode()) > MAX_ITEM_ID_BYTES:
        yield violation("item_id", f"at most {MAX_ITEM_ID_BYTES} bytes", "TEXT_TOO_LONG")
    elif item.item_id in seen:
        yield violation("item_id", "was sent before in this batch", "ITEM_ID_DUPLICATE")
    yield from track_violations(item, "track")


def track_violations(
    owner: enrichment_pb2.EnrichMetadataRequest
    | enrichment_pb2.ValidateMetadataRequest
    | enrichment_pb2.BatchItem
    | enrichment_pb2.SubmitEnrichmentRequest
    | queue_admin_pb2.EnrichmentJob,
    path: str,
) -> Violations:
    """Yield what is wrong with the track that a request carries."""
    if not owner.HasField("track"):
        yield violation(path, "required", "REQUIRED")
        return
    track = owner.track
    has_audio = track.HasField("audio")
    if has_audio and not track.audio.WhichOneof("content"):
        yield violation(f"{path}.audio", "names neither an object nor bytes", "AUDIO_REQUIRED")
    elif not has_audio and not track.title.strip():
        yield violation(path, "needs a title or audio", "TITLE_OR_AUDIO_REQUIRED")
    if len(track.audio.inline) > MAX_INLINE_BYTES:
        yield violation(
            f"{path}.audio.inline",
            f"{len(track.audio.inline)} bytes; at most {MAX_INLINE_BYTES}: upload it first",
            "AUDIO_INLINE_TOO_LARGE",
        )
    if track.audio.WhichOneof("content") == "inline" and not track.audio.inline:
        yield violation(f"{path}.audio.inline", "there are no bytes in it", "AUDIO_EMPTY")
    if track.audio.WhichOneof("content") == "object_name" and not track.audio.object_name:
        yield violation(f"{path}.audio.object_name", "is empty", "AUDIO_REQUIRED")
    yield from _message_violations(track, path)


def options_violations(options: enrichment_pb2.EnrichOptions, path: str = "options") -> Violations:
    """Yield what is wrong with options."""
    if len(options.model) > 64:
        yield violation(f"{path}.model", "at most 64 bytes", "TEXT_TOO_LONG")
    if options.HasField("min_confidence") and not 0 <= options.min_confidence <= 1:
        # NaN is not in the range either.
        yield violation(f"{path}.min_confidence", "a number from 0 to 1", "NUMBER_RANGE")
    if options.overwrite_policy not in enrichment_pb2.OverwritePolicy.values():
        yield violation(f"{path}.overwrite_policy", "no such policy", "ENUM_UNKNOWN")
    if len(options.fields.paths) > MAX_LIST:
        yield violation(f"{path}.fields", f"at most {MAX_LIST} paths", "LIST_TOO_LONG")
    for asked in list(options.fields.paths)[:MAX_LIST]:
        if asked not in FIELDS and asked not in _PARENTS:
            yield violation(
                f"{path}.fields", f"{asked[:64]!r} is no field of Track", "FIELD_UNKNOWN"
            )


def _message_violations(message: Message, path: str) -> Violations:
    """Walk a message: lengths of texts and lists, numbers that are numbers, known enum values."""
    for descriptor, value in message.ListFields():
        here = f"{path}.{descriptor.name}"
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            yield from _map_violations(value, here)
        elif descriptor.is_repeated:
            if len(value) > MAX_LIST:
                yield violation(here, f"{len(value)} entries; at most {MAX_LIST}", "LIST_TOO_LONG")
            for index, entry in enumerate(value[:MAX_LIST]):
                yield from _value_violations(descriptor, entry, f"{here}[{index}]")
        else:
            yield from _value_violations(descriptor, value, here)


def _value_violations(descriptor: FieldDescriptor, value: object, path: str) -> Violations:
    if isinstance(value, Message):
        if value.DESCRIPTOR.full_name.startswith("liner."):
            yield from _message_violations(value, path)
        elif not is_duration(value):  # type: ignore[arg-type]
            yield violation(
                path, "must not be negative, nor longer than 10,000 years", "DURATION_RANGE"
            )
    elif isinstance(value, str):
        limit = _LONGER_TEXT.get(descriptor.name, MAX_TEXT_BYTES)
        size = len(value.encode())
        if size > limit:
            yield violation(path, f"{size} bytes; at most {limit}", "TEXT_TOO_LONG")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield violation(path, "must be a finite number", "NUMBER_NOT_FINITE")
    elif descriptor.enum_type is not None:
        if value not in descriptor.enum_type.values_by_number:
            yield violation(path, "no such value", "ENUM_UNKNOWN")
    elif isinstance(value, int) and value < 0:
        yield violation(path, "must not be negative", "NUMBER_RANGE")


def _map_violations(pairs: dict[str, str], path: str) -> Violations:
    if len(pairs) > MAX_LIST:
        yield violation(path, f"{len(pairs)} entries; at most {MAX_LIST}", "LIST_TOO_LONG")
        return
    for name, text in pairs.items():
        if len(name.encode()) > _TAG_NAME_BYTES:
            yield violation(path, f"names have at most {_TAG_NAME_BYTES} bytes", "TEXT_TOO_LONG")
        if len(text.encode()) > MAX_TEXT_BYTES:
            yield violation(
                f"{path}[{name[:32]}]", f"at most {MAX_TEXT_BYTES} bytes", "TEXT_TOO_LONG"
            )


def request_id_violations(value: str) -> Violations:
    """Yield what is wrong with an id that names a request."""
    if not _REQUEST_ID.fullmatch(value):
        yield violation("request_id", "at most 128 printable characters", "REQUEST_ID_FORMAT")


def is_duration(value: Duration) -> bool:
    """Whether this is a length of time: others cannot be counted with, nor shown as JSON."""
    return 0 <= value.seconds <= _LONGEST_SECONDS and 0 <= value.nanos < 1_000_000_000


def violation(field: str, description: str, reason: str) -> track_pb2.FieldViolation:
    """Return one violation."""
    return track_pb2.FieldViolation(field=field, description=description, reason=reason)
