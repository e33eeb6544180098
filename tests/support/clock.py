"""A clock that only moves when a test says so."""

from datetime import timedelta


class ManualClock:
    """Stands in for a monotonic clock: call it for the seconds, `advance` it by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now

    def advance(self, by: timedelta | float) -> None:
        """Let time pass, by a timedelta or by seconds."""
        self.now += by.total_seconds() if isinstance(by, timedelta) else by
