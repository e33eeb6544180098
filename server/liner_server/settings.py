"""All settings, read from the environment once; the only place that does.

A wrong value stops the start with a message that names the variable and what it may be.
"""

import ipaddress
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as NotJSONError

from liner_server import failpoints

_PUBSUB_NAME = "^[A-Za-z][A-Za-z0-9_.~+%-]{2,200}$"


class SettingsError(Exception):
    """The environment holds a value that cannot be used; the text says which and why."""


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class ResultsBackend(StrEnum):
    """Where results are stored."""

    SQLITE = "sqlite"
    OBJECTS = "objects"


class QueueBackend(StrEnum):
    """Where queued jobs are kept."""

    SQLITE = "sqlite"
    PUBSUB = "pubsub"


class ObjectsBackend(StrEnum):
    """Where objects are stored."""

    LOCAL = "local"
    GCS = "gcs"


class AnalyticsBackend(StrEnum):
    """Where rows of answers and reviews are kept."""

    SQLITE = "sqlite"
    BIGQUERY = "bigquery"
    OFF = "off"


class BigQueryWrites(StrEnum):
    """How rows travel to BigQuery."""

    INSERT_ALL = "insertall"
    STORAGE = "storage"


class TrackIds(StrEnum):
    """What rows show for a track."""

    HASH = "hash"
    PLAIN = "plain"


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
    writes such a line. Followed while the server runs; a wrong file changes nothing then."""

    reflection: bool = True
    """Whether grpcurl may ask for the contract. With tokens it needs the role operator."""

    channelz: bool = True
    """Whether grpc's own connection statistics may be read. With tokens: role operator."""

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    log_format: LogFormat = LogFormat.AUTO
    """json, console, or auto: console on a terminal, json elsewhere."""

    log_track_ids: bool = False
    """Whether log lines of a call name the caller's own id of the track."""

    otlp_endpoint: Annotated[
        str | None,
        Field(
            validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT"),
            pattern="^https?://[^\\s/@]+$",
        ),
    ] = None
    """OpenTelemetry collector that takes spans by OTLP over gRPC. Unset: nothing is traced."""

    traces_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Part of the calls that is traced where the caller did not decide."""

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

    queue: QueueBackend = QueueBackend.SQLITE
    """sqlite: one file in LINER_DATA_DIR. pubsub: Google Pub/Sub, see PUBSUB_TOPIC."""

    google_cloud_project: Annotated[
        str | None, Field(validation_alias=AliasChoices("GOOGLE_CLOUD_PROJECT"))
    ] = None
    """Project of everything in Google Cloud."""

    pubsub_topic: Annotated[
        str, Field(validation_alias=AliasChoices("PUBSUB_TOPIC"), pattern=_PUBSUB_NAME)
    ] = "ai-processing"
    """How the queue's topics begin; -high, -medium, -low, -dead-letter, -results follow."""

    pubsub_subscription: Annotated[
        str, Field(validation_alias=AliasChoices("PUBSUB_SUBSCRIPTION"), pattern=_PUBSUB_NAME)
    ] = "ai-processor"
    """How the queue's subscriptions begin; the same words follow."""

    pubsub_emulator_host: Annotated[
        str | None, Field(validation_alias=AliasChoices("PUBSUB_EMULATOR_HOST"))
    ] = None
    """HOST:PORT of a Pub/Sub emulator, in place of Google's service."""

    pubsub_ordered: bool = False
    """Jobs for one track come in the order of their publication. Fixed when `setup-cloud` makes
    the subscriptions."""

    pubsub_push_audience: str | None = None
    """Audience of the tokens of push subscriptions. Set: jobs are taken from POST /pubsub/push on
    LINER_HTTP_ADDRESS and none are pulled."""

    pubsub_push_account: str | None = None
    """Service account whose tokens LINER_PUBSUB_PUSH_AUDIENCE's subscriptions carry."""

    pubsub_push_certs_url: str = "https://www.googleapis.com/oauth2/v1/certs"
    """Where the certificates of those tokens are."""

    workers: Annotated[int, Field(ge=0, le=1000)] = 16
    """Most queued jobs worked on at once, if the models keep up with so many; 0: `serve` takes
    none, and `worker` cannot start."""

    workers_least: Annotated[int, Field(ge=1, le=1000)] = 1
    """Queued jobs worked on at once however slow the models are, up to LINER_WORKERS."""

    queue_max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Attempts at a queued job before it is a dead letter."""

    queue_job_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest time that one attempt at a queued job may take."""

    failpoints: str | None = None
    """Places at which this process shall die, for fault tests: see `failpoints`."""

    listening_processes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that listen to audio; 0: one a CPU."""

    max_audio_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    """Longest audio listened to, in decoded seconds."""

    max_object_bytes: Annotated[int, Field(ge=1)] = 4 << 30
    """Largest object that may be stored."""

    objects: ObjectsBackend = ObjectsBackend.LOCAL
    """local: files in LINER_DATA_DIR. gcs: Google Cloud Storage, see GCS_BUCKET."""

    gcs_bucket: Annotated[str | None, Field(validation_alias=AliasChoices("GCS_BUCKET"))] = None
    """Bucket of LINER_OBJECTS=gcs."""

    gcs_kms_key: str | None = None
    """Cloud KMS key that new objects are encrypted with: projects/P/locations/L/keyRings/R/
    cryptoKeys/K. Unset: the bucket's own."""

    gcs_user_project: str | None = None
    """Project billed for calls to a bucket where the requester pays."""

    gcs_signing_account: str | None = None
    """Service account that signs URLs through IAM, where the credentials hold no key (Cloud Run).
    Unset: the account that the credentials are of."""

    storage_emulator_host: Annotated[
        str | None, Field(validation_alias=AliasChoices("STORAGE_EMULATOR_HOST"))
    ] = None
    """URL of a Cloud Storage emulator, such as http://127.0.0.1:4443, in place of Google's."""

    public_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[a-z0-9.-]+(:[0-9]{1,5})?$|^https?://\[[0-9a-f:]+\](:[0-9]{1,5})?$"
        ),
    ] = None
    """Where others reach the side port, without a path; signed URLs of local objects begin so. A
    proxy in between must pass the Host header on. Unset: http:// and LINER_HTTP_ADDRESS."""

    signing_keys_file: Path | None = None
    """Keys of those URLs; `liner-server rotate-signing-key` adds one. Unset: signing.keys in
    LINER_DATA_DIR, made at the first use."""

    retention_temp_hours: Annotated[float, Field(gt=0, le=87_600)] = 24.0
    """How long objects under temp/ are kept."""

    retention_free_days: Annotated[float, Field(gt=0, le=36_500)] = 30.0
    """How long objects of the tier free are kept."""

    retention_pro_days: Annotated[float, Field(gt=0, le=36_500)] = 180.0
    """How long objects of the tier pro are kept."""

    retention_enterprise_days: Annotated[float, Field(ge=0, le=36_500)] = 0.0
    """How long objects of the tier enterprise are kept that state no retention-days themselves;
    0: for ever."""

    retention_prefixes: dict[str, Literal["free", "pro", "enterprise"]] = {}
    """Tier of objects without one in their metadata, by the beginning of the name, as JSON:
    {"in/free/": "free"}. Only such tiers can be lifecycle rules of a bucket."""

    cleanup_max_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Part of all objects with a tier and a limit that one clean-up may delete."""

    token: SecretStr | None = None
    """Bearer token that `liner-server cleanup` shows to the server that has the data folder."""

    answer_cache_entries: Annotated[int, Field(ge=0, le=1_000_000)] = 4096
    """Answers kept in memory, so that the same question is not worked out twice; 0: none is
    given again, not from before a restart either."""

    answer_cache_days: Annotated[float, Field(ge=0, le=3650)] = 30.0
    """How long a known answer may be given again after a restart; 0: only until then."""

    results: ResultsBackend = ResultsBackend.SQLITE
    """sqlite: one file in LINER_DATA_DIR. objects: an object store, one object a result."""

    store_results: bool = True
    """Whether answers of EnrichMetadata and BatchProcess are stored, to be listed and reviewed.
    Those of queued jobs always are."""

    results_days: Annotated[float, Field(ge=0, le=36_500)] = 90.0
    """How long results are kept; 0: for ever."""

    qwen2_endpoint: Annotated[
        str | None, Field(validation_alias=AliasChoices("QWEN2_ENDPOINT"))
    ] = None
    """OpenAI-compatible base URL of the primary model, such as http://qwen2-service:8080 (without
    a path, /v1 is meant). Unset: there is none, and what is measured is the answer."""

    qwen2_api_key: SecretStr | None = None
    """Bearer token of QWEN2_ENDPOINT, where it wants one."""

    qwen2_model: str = "Qwen/Qwen2-Audio-7B-Instruct"
    """Model name asked for at QWEN2_ENDPOINT."""

    openai_api_key: Annotated[
        SecretStr | None, Field(validation_alias=AliasChoices("OPENAI_API_KEY"))
    ] = None
    """Key of the fallback model. Unset: there is no fallback."""

    openai_endpoint: str = "https://api.openai.com/v1"
    """Base URL of the fallback model."""

    openai_model: str = "gpt-4.1-mini"
    """Fallback model for tracks without audio, and for all when there is no audio model."""

    openai_audio_model: str | None = None
    """Fallback model for tracks with audio, such as gpt-audio-1.5. Unset: it reads and never
    hears."""

    experimental_endpoint: str | None = None
    """Base URL of the experimental model; asked for a share of the tracks when
    ENABLE_EXPERIMENTAL_MODEL is on."""

    experimental_api_key: SecretStr | None = None
    """Bearer token of the experimental model, where it wants one."""

    experimental_model: str | None = None
    """Model name asked for at LINER_EXPERIMENTAL_ENDPOINT."""

    experiment_name: Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,64}$")] = "model"
    """Names the experiment in answers; another name draws other tracks."""

    experiment_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of all tracks that the experimental model gets."""

    experiment_shadow: bool = False
    """Ask the experimental model besides the usual ones and never use its answer."""

    experiments_file: Path | None = None
    """JSON file of several experiments (docs/experiments.md), in place of the settings
    LINER_EXPERIMENT_*."""

    experiment_check_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """How often guardrails are looked at, and other servers' changes of shares taken over."""

    experiment_guard: bool = True
    """Whether this process looks at guardrails. One of those that share their analytics is enough;
    the others follow what it stops."""

    analytics: AnalyticsBackend = AnalyticsBackend.SQLITE
    """sqlite: one file in LINER_DATA_DIR. bigquery: see BIGQUERY_DATASET. off: no rows are kept,
    and experiments have no reports and no guardrails."""

    bigquery_dataset: Annotated[
        str,
        Field(validation_alias=AliasChoices("BIGQUERY_DATASET"), pattern="^[A-Za-z0-9_]{1,1024}$"),
    ] = "ai_metrics"
    """Dataset of the tables in BigQuery; `liner-server setup-cloud` makes it."""

    bigquery_location: Annotated[str, Field(pattern="^[A-Za-z0-9-]{2,40}$")] = "US"
    """Where `setup-cloud` puts a new dataset."""

    bigquery_emulator_host: Annotated[
        str | None, Field(validation_alias=AliasChoices("BIGQUERY_EMULATOR_HOST"))
    ] = None
    """HOST:PORT of a BigQuery emulator, in place of Google's service."""

    bigquery_writes: BigQueryWrites = BigQueryWrites.INSERT_ALL
    """insertall: streamed by REST. storage: by the Storage Write API, which costs less and needs
    the extra liner[bqstorage]."""

    bigquery_write_emulator_host: str | None = None
    """HOST:PORT of an emulator of the Storage Write API, beside BIGQUERY_EMULATOR_HOST."""

    analytics_days: Annotated[float, Field(ge=0, le=36_500)] = 400.0
    """How long rows are kept; 0: for ever. In BigQuery `setup-cloud` sets it."""

    analytics_track_ids: TrackIds = TrackIds.HASH
    """hash: rows show a keyless hash in place of a track's id. plain: the id itself."""

    analytics_spill_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Rows that wait on the disk while their backend is down; what comes when they are more is
    dropped and counted."""

    model_audio_windows: Annotated[int, Field(ge=0, le=8)] = 2
    """Excerpts of 30 s sent to a model that hears; 0: none."""

    model_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 20.0
    """Longest time one call to a model may take, however far the deadline is."""

    model_max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Calls open at once to one model."""

    model_requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Calls a minute to one model; 0: no limit."""

    model_tokens_per_minute: Annotated[int, Field(ge=0)] = 0
    """Tokens a minute to one model; 0: no limit."""

    model_pack: Annotated[int, Field(ge=1, le=32)] = 8
    """Most tracks of a batch without audio in one prompt."""

    model_prices: dict[str, tuple[float, float]] = {}
    """US dollars a million tokens by the model's name, prompt and completion, as JSON:
    {"gpt-4.1-mini": [0.4, 1.6]}. A model that is not named costs nothing."""

    daily_budget_usd: Annotated[float, Field(ge=0)] = 0.0
    """What all models together may cost a day (UTC); 0: no limit."""

    flags_file: Path | None = None
    """JSON file that switches the three feature flags while the server runs."""

    calibration_file: Path | None = None
    """Table of `liner-server calibrate`, which turns models' scores into probabilities."""

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

    @field_validator("qwen2_endpoint", "openai_endpoint", "experimental_endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        host = r"(\[[0-9a-fA-F:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?"
        if not re.fullmatch(rf"https?://{host}(/[^\s?#@]*)?", value):
            raise ValueError("must be an http or https URL without user, query or fragment")
        value = value.rstrip("/")
        return value if value.count("/") > 2 else f"{value}/v1"

    @field_validator(
        "token", "qwen2_api_key", "openai_api_key", "experimental_api_key", mode="before"
    )
    @classmethod
    def _fits_a_header(cls, value: str | SecretStr | None) -> str | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        # Files and secret managers like to end in a line break.
        text = text.strip() if text is not None else None
        if text and not re.fullmatch(r"[\x21-\x7e]+", text):
            raise ValueError("holds a blank, a line break or a letter that no key has")
        return text

    @field_validator("failpoints")
    @classmethod
    def _are_places(cls, value: str | None) -> str | None:
        failpoints.parsed(value or "")
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # Listening processes have a working directory of their own.
        return value.absolute()

    @model_validator(mode="after")
    def _pubsub_is_whole(self) -> Self:
        if self.queue is QueueBackend.PUBSUB and not self.google_cloud_project:
            raise ValueError("LINER_QUEUE=pubsub needs GOOGLE_CLOUD_PROJECT")
        if (self.pubsub_push_audience is None) != (self.pubsub_push_account is None):
            raise ValueError(
                "LINER_PUBSUB_PUSH_AUDIENCE and LINER_PUBSUB_PUSH_ACCOUNT go together: a token is "
                "checked for both"
            )
        return self

    @model_validator(mode="after")
    def _bucket_is_named(self) -> Self:
        if self.objects is ObjectsBackend.GCS and not self.gcs_bucket:
            raise ValueError("LINER_OBJECTS=gcs needs GCS_BUCKET")
        return self

    @model_validator(mode="after")
    def _bigquery_is_whole(self) -> Self:
        if self.analytics is AnalyticsBackend.BIGQUERY and not self.google_cloud_project:
            raise ValueError("LINER_ANALYTICS=bigquery needs GOOGLE_CLOUD_PROJECT")
        emulators = self.bigquery_emulator_host, self.bigquery_write_emulator_host
        if self.bigquery_writes is BigQueryWrites.STORAGE and bool(emulators[0]) != bool(
            emulators[1]
        ):
            raise ValueError(
                "LINER_BIGQUERY_WRITES=storage with an emulator needs both BIGQUERY_EMULATOR_HOST "
                "and LINER_BIGQUERY_WRITE_EMULATOR_HOST"
            )
        return self

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


def silence_grpc() -> None:
    """Let gRPC's core write no lines of its own, unless GRPC_VERBOSITY asks for them.

    It writes what peers send, line breaks included: anybody who reaches the port could forge log
    lines. Works only before grpc is imported.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


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
    except NotJSONError as error:
        # It names the field in quotes, and none of its value.
        [name] = re.findall(r'field "(\w+)"', str(error)) or ["a setting"]
        raise SettingsError(f"LINER_{name.upper()}: is not JSON") from None


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            lines.append(message)
            continue
        name = str(fault["loc"][0])
        variable = name if name.isupper() else f"LINER_{name.upper()}"
        if variable.endswith(("KEY", "TOKEN")):
            lines.append(f"{variable}: {message}")
            continue
        # A password in an address is no less a secret for being in the wrong place.
        value = re.sub(r"//[^@\s]*@", "//***@", str(fault["input"]))
        lines.append(f"{variable}: {message}; it is {value[:80]!r}")
    return lines
