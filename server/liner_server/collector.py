"""Python's garbage collector, set up for a process that serves.

As it comes, the collector looks again and again through everything that was loaded at the start,
for a tenth of a second each time, in which the event loop stands still, and once for every 700
objects that calls under way add.
"""

import gc

_YOUNG = 10_000
"""Objects added before the young ones are looked at: those of many calls, most of them gone again
by then without the collector's help."""


def settle_collector() -> None:
    """Leave what is loaded by now out of all collections to come; call it when ready to serve."""
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
