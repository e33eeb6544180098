"""What the metrics show of the parts they watch."""

import math
from pathlib import Path

from liner_server.telemetry import Telemetry


def test_breakers_and_budget_are_asked_at_each_scrape() -> None:
    """A breaker opens while nothing is counted: a value set once would be old."""
    telemetry = Telemetry()
    is_open, spent = False, 0.25
    telemetry.watch_models({"qwen2": lambda: is_open}, lambda: spent)
    read = telemetry.registry.get_sample_value
    assert read("ai_breaker_open", {"model": "qwen2"}) == 0
    assert read("ai_budget_spent_ratio") == 0.25

    is_open, spent = True, 0.9

    assert read("ai_breaker_open", {"model": "qwen2"}) == 1
    assert read("ai_budget_spent_ratio") == 0.9


def test_the_disk_of_the_data_folder_is_shown(tmp_path: Path) -> None:
    """The disk fills while the server is idle too."""
    telemetry = Telemetry()
    telemetry.watch_disk(tmp_path)
    read = telemetry.registry.get_sample_value

    free, size = read("liner_data_free_bytes"), read("liner_data_size_bytes")

    assert free is not None
    assert size is not None
    assert 0 < free <= size


def test_a_folder_that_is_gone_does_not_spoil_the_other_metrics(tmp_path: Path) -> None:
    """A scrape that fails as a whole hides everything just when something is wrong."""
    telemetry = Telemetry()
    telemetry.watch_disk(tmp_path / "gone")

    free = telemetry.registry.get_sample_value("liner_data_free_bytes")

    assert free is not None
    assert math.isnan(free)
