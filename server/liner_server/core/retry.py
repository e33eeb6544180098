"""Whether another attempt is worth its cost."""


class RetryBudget:
    """Keeps retries to a share of the first attempts, so that an outage is not multiplied.

    Every first attempt deposits `ratio` of a token, every retry withdraws a whole one. The
    reserve lets a quiet service retry at all, and bounds what a burst may withdraw.
    """

    def __init__(self, *, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve

    def deposit(self) -> None:
        """Count one first attempt."""
        self._tokens = min(self._reserve, self._tokens + self._ratio)

    def withdraw(self) -> bool:
        """Return whether one retry may be made, and count it if so."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
