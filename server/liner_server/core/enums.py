"""Names for the value types of the contract's enums.

At run time enum values are plain ints and the generated wrappers carry no type; only the stubs do.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    from liner.v1 import enrichment_pb2, queue_admin_pb2, track_pb2

    Basis: TypeAlias = track_pb2.ConfidenceBasis.ValueType
    Cause: TypeAlias = queue_admin_pb2.DeadLetterCause.ValueType
    Decision: TypeAlias = track_pb2.Decision.ValueType
    OverwritePolicy: TypeAlias = enrichment_pb2.OverwritePolicy.ValueType
    Priority: TypeAlias = enrichment_pb2.Priority.ValueType
    Profile: TypeAlias = enrichment_pb2.DeliveryProfile.ValueType
    Severity: TypeAlias = enrichment_pb2.Severity.ValueType
    Source: TypeAlias = track_pb2.Source.ValueType
    State: TypeAlias = enrichment_pb2.EnrichmentState.ValueType
else:
    Basis = Cause = Decision = OverwritePolicy = Priority = Profile = Severity = Source = State = (
        int
    )
