"""What every piece of work knows about the call it belongs to.

The interceptors build one `RequestContext` a call, a batch one an item, the queue consumer one a
message; the core reads it and never asks gRPC.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta

from liner_server.core.retry import RetryBudget
from liner_server.errors import PermissionDeniedError

RESERVED = ".liner/"
"""Names below this are the server's own: only admins see them."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who calls, as authenticated."""

    name: str
    roles: frozenset[str]
    owns: tuple[str, ...] = ()
    """Prefixes of object names that are this principal's. With any, it may use no other names."""

    barred: tuple[str, ...] = ()
    """Prefixes of object names that are others' alone."""

    def may(self, role: str) -> bool:
        """Whether this principal may do what `role` allows."""
        return role in self.roles or "admin" in self.roles

    def may_use(self, object_name: str) -> bool:
        """Whether objects of this name, or below this prefix, are this principal's to use."""
        if "admin" in self.roles:
            return True
        if object_name.startswith(RESERVED):
            return False
        # Of prefixes one inside the other the longest decides.
        mine, others = (
            max((len(p) for p in prefixes if object_name.startswith(p)), default=0)
            for prefixes in (self.owns, self.barred)
        )
        return mine > others or not (self.owns or others)

    def check_object(self, object_name: str) -> None:
        """Pass if objects of this name are this principal's to use, whether they exist or not.

        Raises:
            PermissionDeniedError: they are not.

        """
        if not self.may_use(object_name):
            mine = f"; yours begin with {', '.join(self.owns)}" if self.owns else ""
            raise PermissionDeniedError(
                f"objects of this name are not yours to use{mine}",
                reason="OBJECT_NOT_OWNED",
                resource=object_name,
            )


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """The call that work is done for: who, until when, with which model, at what cost."""

    request_id: str
    principal: Principal
    deadline: float
    """In the event loop's time; nothing may take longer."""

    model: str = ""
    """Model chosen by metadata; an option in the request wins over it."""

    retry_budget: RetryBudget = field(default_factory=RetryBudget)
    enrichment_id: str = ""
    """Id of an answer that is worked out for this call; a queued job's own. Empty: one is made."""

    recorded: bool = True
    """Whether the answer is stored and counted; a replay's is not."""

    def remaining(self) -> timedelta:
        """Return the time left, never negative."""
        left = self.deadline - asyncio.get_running_loop().time()
        return timedelta(seconds=max(0.0, left))

    def until(self, limit: timedelta) -> "RequestContext":
        """Return the same context with a deadline at most `limit` from now."""
        end = asyncio.get_running_loop().time() + limit.total_seconds()
        return replace(self, deadline=min(self.deadline, end))


current: ContextVar[RequestContext] = ContextVar("liner_request_context")
"""Set by the interceptor for the handler's task, and by the consumer for a job's."""

track_id: ContextVar[str] = ContextVar("liner_track_id")
"""The caller's own id of the track that this task works on; log lines may show it."""
