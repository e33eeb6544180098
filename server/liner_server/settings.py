"""All settings, read from the environment once; the only place that does.

A wrong value stops the start with a message that names the variable and what it may be.
"""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """The environment holds a value that cannot be used; the text says which and why."""


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Settings(BaseSettings):
    """What an operator may set; every value has a default that works on one machine."""

    model_config = SettingsConfigDict(
        env_prefix="LINER_", populate_by_name=True, extra="ignore", frozen=True
    )

    grpc_address: str = "127.0.0.1:50051"
    """Where the gRPC server listens. Anything but loopback needs LINER_TOKENS_FILE."""

    http_address: str = "127.0.0.1:9090"
    """Where /metrics and /healthz are served. Anything but loopback needs LINER_TOKENS_FILE."""

    port: Annotated[int | None, Field(validation_alias=AliasChoices("PORT"), ge=1, le=65535)] = None
    """Cloud Run's port: listens on all addresses there, in place of LINER_GRPC_ADDRESS."""

    data_dir: Path = Path(".liner")
    """Folder of every embedded file."""

    tokens_file: Path | None = None
    """File of bearer tokens, one a line: sha256 of the token, name, roles. `liner-server token`
    writes such a line."""

    reflection: bool = True
    """Whether grpcurl may ask for the contract. With tokens it needs the role operator."""

    channelz: bool = True
    """Whether grpc's own connection statistics may be read. With tokens: role operator."""

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    log_format: LogFormat = LogFormat.AUTO
    """json, console, or auto: console on a terminal, json elsewhere."""

    default_deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Deadline of a unary call that states none."""

    drain_seconds: Annotated[float, Field(ge=0, le=60)] = 8.0
    """Time that running work gets after SIGTERM. Cloud Run kills after 10 s."""

    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Unary enrichments and validations at once; one more is RESOURCE_EXHAUSTED."""

    batch_max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Items open at once in one batch stream."""

    batch_item_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest time an item of a batch may take when the batch states none."""

    batch_resume_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """How long a broken batch stream may be resumed."""

    listening_processes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that listen to audio; 0: one a CPU."""

    max_audio_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    """Longest audio listened to, in decoded seconds."""

    max_object_bytes: Annotated[int, Field(ge=1)] = 4 << 30
    """Largest object that may be stored."""

    answer_cache_entries: Annotated[int, Field(ge=0, le=1_000_000)] = 4096
    """Answers kept in memory, so that the same question is not worked out twice."""

    enable_experimental_model: Annotated[
        bool, Field(validation_alias=AliasChoices("ENABLE_EXPERIMENTAL_MODEL"))
    ] = False
    """Feature flag: a share of tracks goes to the experimental model."""

    use_openai_fallback: Annotated[
        bool, Field(validation_alias=AliasChoices("USE_OPENAI_FALLBACK"))
    ] = True
    """Feature flag: openai answers where the primary model cannot."""

    enable_batch_processing: Annotated[
        bool, Field(validation_alias=AliasChoices("ENABLE_BATCH_PROCESSING"))
    ] = True
    """Feature flag: BatchProcess is open."""

    @field_validator("grpc_address", "http_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (colon and host and port.isdigit() and int(port) <= 65535):
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:0")
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # Listening processes have a working directory of their own.
        return value.absolute()

    @model_validator(mode="after")
    def _fails_closed(self) -> Self:
        if self.tokens_file is not None:
            return self
        for name, address in (
            ("PORT" if self.port else "LINER_GRPC_ADDRESS", self.grpc_bind),
            ("LINER_HTTP_ADDRESS", self.http_address),
        ):
            if not is_loopback(address):
                raise ValueError(
                    f"{name} would open {address} to others without authentication; set "
                    "LINER_TOKENS_FILE (`liner-server token NAME --role enrich` makes an entry) "
                    "or listen on 127.0.0.1"
                )
        return self

    @property
    def grpc_bind(self) -> str:
        """Address the gRPC server binds, Cloud Run's PORT taken into account."""
        return f"0.0.0.0:{self.port}" if self.port else self.grpc_address


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can be reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(**overrides: object) -> Settings:
    """Return the settings of this process's environment.

    Raises:
        SettingsError: a value cannot be used; the text names the variable and what it may be.

    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            lines.append(message)
            continue
        name = str(fault["loc"][0])
        variable = name if name.isupper() else f"LINER_{name.upper()}"
        lines.append(f"{variable}: {message}; it is {str(fault['input'])[:80]!r}")
    return lines
