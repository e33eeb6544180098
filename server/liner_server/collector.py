"""Python's garbage collector, set up for a process that serves.

As it comes, the collector looks again and again through everything that was loaded at the start,
for a tenth of a second each time, in which the event loop stands still, and once for every 700
objects that calls under way add.
"""

import gc

_YOUNG = 2_000
"""Objects added before the young ones are looked at. Most are gone by then without the collector's
help; but a call that failed may leave a cycle that holds two mebibytes of audio, so not many more
than Python's 700 (`test_refusing` in tests/performance/bench_server.py measures it)."""


def settle_collector() -> None:
    """Leave what is loaded by now out of all collections to come; call it when ready to serve."""
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
