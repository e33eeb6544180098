"""The garbage collector of a serving process."""

import subprocess
import sys

_LOADS_AND_SETTLES = """
import gc
import liner_server.models.chat
from liner_server.collector import settle_collector
before = len(gc.get_objects())
settle_collector()
gc.collect()
print(before, len(gc.get_objects()), gc.get_threshold()[0], gc.isenabled())
"""


def test_what_was_loaded_is_looked_through_no_more() -> None:
    """Each full collection over all of it stopped the event loop for a tenth of a second."""
    run = subprocess.run(
        [sys.executable, "-c", _LOADS_AND_SETTLES], capture_output=True, text=True, check=True
    )

    before, after, threshold, enabled = run.stdout.split()
    assert int(before) > 20_000
    assert int(after) < 1_000
    assert int(threshold) > 700
    assert enabled == "True", "cycles that calls leave must still be found"
