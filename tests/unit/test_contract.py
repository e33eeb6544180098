"""The contract's own promises that buf has no rule for."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor, MethodDescriptor
from liner.v1 import (
    enrichment_pb2,
    experiment_pb2,
    queue_admin_pb2,
    storage_pb2,
    track_pb2,
)

_FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (enrichment_pb2, experiment_pb2, queue_admin_pb2, storage_pb2, track_pb2)
]

_RPCS = {
    "EnrichmentService": {
        "EnrichMetadata",
        "ValidateMetadata",
        "BatchProcess",
        "SubmitEnrichment",
        "GetEnrichment",
        "ListEnrichments",
        "ReviewEnrichment",
        "ListModels",
    },
    "QueueAdmin": {
        "GetStats",
        "WatchStats",
        "PauseQueue",
        "ResumeQueue",
        "ListMessages",
        "GetMessage",
        "RetryMessage",
        "ListDeadLetters",
        "ReplayDeadLetters",
        "PurgeDeadLetters",
    },
    "StorageService": {
        "Upload",
        "QueryUpload",
        "Download",
        "Delete",
        "GetSignedURL",
        "StatObject",
        "ListObjects",
        "RunCleanup",
    },
    "ExperimentAdmin": {"GetReport", "ListExperiments", "SetTraffic", "ReplayEnrichments"},
}


def _methods() -> Iterator[MethodDescriptor]:
    for file in _FILES:
        for service in file.services_by_name.values():
            yield from service.methods


def test_every_promised_call_is_in_the_contract() -> None:
    """Callers were given these names; removing one must not pass as a tidy-up."""
    present = {
        service.name: {method.name for method in service.methods}
        for file in _FILES
        for service in file.services_by_name.values()
    }

    assert present == _RPCS


def test_no_two_calls_share_a_message() -> None:
    """A field added for one call must not appear in another."""
    used = [kind.full_name for m in _methods() for kind in (m.input_type, m.output_type)]

    assert len(used) == len(set(used))


def test_only_the_well_known_protos_are_imported() -> None:
    """Callers in other languages must be able to compile the contract with nothing else."""
    imported = {dependency.name for file in _FILES for dependency in file.dependencies}

    assert {name for name in imported if not name.startswith(("google/protobuf/", "liner/"))} == (
        set()
    )


@pytest.mark.parametrize(
    "method",
    [m for m in _methods() if "page_token" in m.input_type.fields_by_name],
    ids=lambda method: method.name,
)
def test_a_paged_call_pages_as_all_others_do(method: MethodDescriptor) -> None:
    """One loop in a client serves every list."""
    size = method.input_type.fields_by_name["page_size"]
    following = method.output_type.fields_by_name["next_page_token"]

    assert size.type == FieldDescriptor.TYPE_INT32
    assert following.type == FieldDescriptor.TYPE_STRING
    assert any(field.is_repeated for field in method.output_type.fields)


def test_every_list_is_paged() -> None:
    """A list without pages outgrows the message limit on the day it matters."""
    lists = {m.name for m in _methods() if m.name.startswith("List")}
    paged = {m.name for m in _methods() if "page_token" in m.input_type.fields_by_name}

    # Models are configured, a handful at most.
    assert lists - paged == {"ListModels"}


def test_absence_differs_from_zero_in_a_track() -> None:
    """A tempo that nobody stated is not 0 BPM; the answer to it is another one."""
    ambiguous = [
        field.name
        for field in track_pb2.Track.DESCRIPTOR.fields
        if not (field.is_repeated or field.has_presence)
        # The zero of an enum is _UNSPECIFIED, which says it.
        and field.type != FieldDescriptor.TYPE_ENUM
    ]

    assert ambiguous == []
