"""What holds for objects on every backend: what they may be called, and which is meant."""

import re
import unicodedata

from liner_server.errors import ConflictError, InvalidRequestError

MAX_NAME_BYTES = 1024
_DEVICES = re.compile(
    r"^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?$", re.IGNORECASE
)
_ENCODED = re.compile(r"%(25)*(2e|2f|5c|00)", re.IGNORECASE)


def check_name(name: str) -> None:
    """Pass if `name` may name an object.

    Names never become paths (files are stored under a digest), so these rules protect others:
    tools that copy objects to folders, URLs, and people who read two names that look the same.

    Raises:
        InvalidRequestError: it may not; the description says what is wrong.

    """
    fault = _fault(name)
    if fault:
        raise InvalidRequestError.of("object_name", fault, "OBJECT_NAME")


def check_generation(name: str, current: int, expected: int | None) -> None:
    """Pass if the object's generation is the expected one; 0 stands for no such object.

    Raises:
        ConflictError: it is another.

    """
    if expected is not None and expected != current:
        raise ConflictError(
            f"{name} is at generation {current}, not {expected}",
            reason="GENERATION",
            resource=name,
        )


def _fault(name: str) -> str:
    if not name:
        return "is required"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if size > MAX_NAME_BYTES:
        return f"has {size} bytes; at most {MAX_NAME_BYTES}"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in name):
        return "holds a control or invisible character"
    if unicodedata.normalize("NFC", name) != name:
        return "must be in Unicode NFC"
    if "\\" in name:
        return "must not hold a backslash"
    if _ENCODED.search(name):
        return "must not hold an encoded dot, slash, backslash or NUL"
    return next((fault for fault in map(_segment_fault, name.split("/")) if fault), "")


def _segment_fault(segment: str) -> str:
    if not segment:
        return "must not begin or end with a slash, or hold two in a row"
    if segment in (".", ".."):
        return 'must not hold "." or ".." as a segment'
    if segment.endswith((".", " ")):
        return "must not hold a segment that ends in a dot or a space"
    if ":" in segment or _DEVICES.match(segment):
        return "must not hold a colon or the name of a device"
    return ""
