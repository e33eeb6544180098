"""What the local object store asks of its disk, and how the disk's failures are called."""

import errno
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from liner_server.errors import (
    DataLossError,
    FailedPreconditionError,
    LinerError,
    ResourceExhaustedError,
    UnavailableError,
)


def size_of(part: Path) -> int:
    """Return the size of a part file."""
    try:
        return part.stat().st_size
    except FileNotFoundError:
        # The upload is known a moment before its first byte has a file.
        return 0


def lock(file: BinaryIO) -> None:
    """Hold a folder for this process, for as long as the file is open.

    Raises:
        FailedPreconditionError: another process holds it.

    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FailedPreconditionError(
            "another process uses this object store's folder", reason="STORE_IN_USE"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_error(error: OSError) -> LinerError:
    """Return what a failure of the disk means to the caller."""
    text = f"the object store's disk: {error.strerror or error}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return ResourceExhaustedError(text, reason="DISK_FULL")
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return FailedPreconditionError(text, reason="DISK_READ_ONLY")
        case errno.ENOENT:
            return DataLossError(text, reason="FILE_LOST")
        case _:
            return UnavailableError(text, reason="DISK")
