"""Stored enrichments: looked up, listed a page at a time, reviewed."""

from collections.abc import AsyncGenerator, Iterable

from liner.v1 import enrichment_pb2

from liner_client.connection import Connection, new_request_id


async def get(connection: Connection, enrichment_id: str) -> enrichment_pb2.Enrichment:
    """Return a stored enrichment, or where a submitted job stands; NotFoundError without one."""
    request = enrichment_pb2.GetEnrichmentRequest(enrichment_id=enrichment_id)
    return (await connection.unary(connection.enrichment.GetEnrichment, request)).enrichment


async def list_all(
    connection: Connection, asked: enrichment_pb2.ListEnrichmentsRequest
) -> AsyncGenerator[enrichment_pb2.Enrichment, None]:
    """Yield all enrichments that were asked for, a page at a time."""
    request = enrichment_pb2.ListEnrichmentsRequest()
    request.CopyFrom(asked)
    while True:
        page = await connection.unary(connection.enrichment.ListEnrichments, request)
        for found in page.enrichments:
            yield found
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def review(
    connection: Connection,
    enrichment_id: str,
    reviews: Iterable[enrichment_pb2.FieldReview],
    *,
    request_id: str | None,
) -> enrichment_pb2.Enrichment:
    """Store a judgement once, however often the call has to be made; return the enrichment."""
    request = enrichment_pb2.ReviewEnrichmentRequest(
        enrichment_id=enrichment_id, reviews=reviews, request_id=request_id or new_request_id()
    )
    response = await connection.unary(connection.enrichment.ReviewEnrichment, request)
    return response.enrichment
