"""How many files and connections this process may have open, shared out."""

import resource
from dataclasses import dataclass

_WANTED = 65_536


@dataclass(frozen=True, kw_only=True)
class Descriptors:
    """What each door may take; the rest is for files, models and the listening processes."""

    grpc: int
    """Connections to the gRPC port."""

    http: int
    """Connections to the side port."""


def take_descriptors() -> Descriptors:
    """Ask the system for as many as it gives, and return the doors' shares.

    Shells and services often begin with 1,024: fewer than one peer can hold, who would then keep
    the databases from opening their files, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft == resource.RLIM_INFINITY:
        soft = _WANTED
    return Descriptors(grpc=min(soft // 2, 16_384), http=min(soft // 4, 1_000))
