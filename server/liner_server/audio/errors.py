"""Why a file could not be listened to.

    AudioError
    |- EmptyAudioError          no bytes, or bytes that decode to no samples
    |- UnsupportedAudioError    not audio, or audio in a format Liner does not read
    |- BrokenAudioError         the format is known but nothing of it can be decoded
    |- TooLongError             more seconds than the limit
    |- TooLargeError            more bytes than the limit
    |- OutOfLimitsError         channels or sample rate outside the limits
    |- ListeningTimeoutError    the caller's deadline or the CPU allowance ran out
    |- ListeningCrashedError    the listening process died; only this file is affected
    `- ListeningBusyError       too many files wait already, or the pool is closed

Each has a stable `reason`, which is also the reason callers see, and builds its own text, so
the wording is the same whether it was raised here or came back from a listening process.
"""

from datetime import timedelta


class AudioError(Exception):
    """Base of everything listening raises on purpose."""

    reason = "AUDIO_BROKEN"
    """Stable upper-case name for machines."""

    retryable = False
    """Whether listening to the same bytes again may go better."""


class EmptyAudioError(AudioError):
    """There is nothing to hear."""

    reason = "AUDIO_EMPTY"


class UnsupportedAudioError(AudioError):
    """The bytes are not audio that Liner reads."""

    reason = "AUDIO_UNSUPPORTED"


class BrokenAudioError(AudioError):
    """The bytes claim to be a known format, but no sample of them can be decoded."""

    reason = "AUDIO_BROKEN"


class TooLongError(AudioError):
    """The audio lasts longer than the limit."""

    reason = "AUDIO_TOO_LONG"


class TooLargeError(AudioError):
    """The file has more bytes than the limit."""

    reason = "AUDIO_TOO_LARGE"


class OutOfLimitsError(AudioError):
    """The channels or the sample rate are outside what Liner reads."""

    reason = "AUDIO_LIMITS"


class ListeningTimeoutError(AudioError):
    """The file was not heard to its end in the time there was."""

    reason = "LISTENING_TIMEOUT"
    retryable = True


class ListeningCrashedError(AudioError):
    """The process that listened died. Which file it was listening to is the caller's."""

    reason = "LISTENING_CRASHED"
    retryable = True


class ListeningBusyError(AudioError):
    """No place in the queue for another file."""

    reason = "LISTENING_BUSY"
    retryable = True


_BY_REASON: dict[str, type[AudioError]] = {
    kind.reason: kind
    for kind in (
        EmptyAudioError,
        UnsupportedAudioError,
        BrokenAudioError,
        TooLongError,
        TooLargeError,
        OutOfLimitsError,
        ListeningTimeoutError,
        ListeningCrashedError,
        ListeningBusyError,
    )
}


def from_reason(reason: str, text: str) -> AudioError:
    """Return the error a listening process reported; an unknown reason counts as a crash."""
    return _BY_REASON.get(reason, ListeningCrashedError)(text)


def spell(duration: timedelta) -> str:
    """Return a duration as error texts word it, in whole seconds where it has whole seconds."""
    return f"{duration.total_seconds():g} s"
