"""The SQLite store of results stays fast as it grows."""

import itertools
import sqlite3
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from liner.v1 import enrichment_pb2
from liner_server.results.pages import Listing, Ranks
from liner_server.results.sqlite import SqliteResultStore, _query

FILTERS = [
    {"needs_review": True},
    {"model": "qwen2"},
    {"create_time_from": Timestamp(seconds=1), "create_time_before": Timestamp(seconds=9)},
]


@pytest.mark.parametrize("order", [1, 2])
async def test_no_page_is_sorted_from_all_there_is(tmp_path: Path, order: int):
    """Whatever the filters, a page is read off an index and ends when it is full."""
    async with SqliteResultStore(tmp_path / "results.sqlite"):
        db = sqlite3.connect(tmp_path / "results.sqlite")
        for count in range(len(FILTERS) + 1):
            for chosen in itertools.combinations(FILTERS, count):
                asked = {name: value for one in chosen for name, value in one.items()}
                request = enrichment_pb2.ListEnrichmentsRequest(order=order, **asked)
                listing = Listing.of(request)
                request.page_token = listing.token(Ranks.of(enrichment_pb2.Enrichment()))
                query, values = _query(Listing.of(request))

                plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values)]

                assert len(plan) == 1, plan
                assert "SEARCH enrichments USING INDEX" in plan[0], plan
        db.close()
