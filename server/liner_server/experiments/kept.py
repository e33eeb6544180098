"""The file in which a server keeps the changes of its experiments' shares."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from google.protobuf import json_format
from liner.v1 import analytics_pb2

from liner_server.errors import FailedPreconditionError


def read(path: Path) -> list[analytics_pb2.TrafficRow]:
    """Return the changes kept in a file; none without one.

    Raises:
        FailedPreconditionError: it cannot be read. A stopped variant might start again: an
            operator must look.

    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return [json_format.ParseDict(row, analytics_pb2.TrafficRow()) for row in data["changes"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, json_format.ParseError) as error:
        raise FailedPreconditionError(
            f"{path} holds the shares of experiments and cannot be read ({error}); mend it, or "
            "delete it to go by the settings",
            reason="EXPERIMENTS_UNREADABLE",
        ) from error


def write(path: Path, changes: Sequence[analytics_pb2.TrafficRow]) -> None:
    """Put changes in the place of a file's, wholly or not at all.

    Raises:
        OSError: it cannot be written; what it held is still there.

    """
    said = [json_format.MessageToDict(row, preserving_proto_field_name=True) for row in changes]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump({"changes": said}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
