"""All settings, read once from the environment and ``.env``.

Nothing else in the service reads the environment, except for OpenTelemetry's own variables (``OTEL_*``).
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from app import database_address, instants, money
from app.failure import Failure


class SettingsError(Failure):
    """Settings are missing or wrong. The message names each variable and never shows a secret."""

    heading = "The settings are not right:\n"


class Settings(BaseSettings):
    """The service's settings. Every field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        description="PostgreSQL 18 or later: postgresql://user:password@host:5432/name; several hosts with commas"
    )
    database_read_url: SecretStr | None = Field(
        None,
        description="The same for a replica of it, or one address of several; most reads go there while it keeps up",
    )
    secret_key: SecretStr = Field(
        min_length=32,
        description="At least 32 random characters; signs cursors and keys. Make one with: openssl rand -base64 48",
    )
    secret_key_previous: SecretStr | None = Field(
        None, min_length=32, description="The SECRET_KEY before, while keys and cursors made with it are still accepted"
    )
    auth_required: bool = Field(True, description="Whether requests need a key; false: everybody may do everything")
    admin_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="A key with the scope admin, to make the first keys with; at least 32 characters without blanks",
    )
    api_version: str = Field("v1", pattern=r"^v[1-9][0-9]*$", description="Prefix of the API's paths")

    host: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - a container has to.
    port: Annotated[int, Field(ge=1, le=65535)] = Field(8000, description="Port of the API")
    admin_host: str = Field("0.0.0.0", description="Address of the admin port")  # noqa: S104 - as above.
    admin_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        8001, description="Port of /livez, /readyz, /metrics and /version"
    )
    server: Literal["gunicorn", "uvicorn"] = Field("gunicorn", description="Server that runs the application")
    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = Field(
        200, description="Requests in flight beyond which more are refused with a 503 and `Retry-After`"
    )
    max_feed_waiters: Annotated[int, Field(ge=1, le=100_000)] = Field(
        2000,
        description="Long polls and streams of changes beyond which more are refused with a 503 and `Retry-After`",
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4_000, description="Open connections beyond which more are refused with a 503 and `Retry-After`"
    )
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3_600)] = Field(
        75, description="How long an idle connection is kept; longer than the load balancer in front keeps it"
    )
    body_timeout_seconds: Annotated[float, Field(gt=0, le=25)] = Field(
        20.0,
        description="How long a request's head, and then its body, may take to arrive; for the file of an import, each "
        "part of it",
    )
    client_timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = Field(
        60, description="How long a client may take nothing of its answer, or be out of reach, before it is cut off"
    )
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        5.0, description="How long at most requests are still taken after SIGTERM, each answer closing its connection"
    )
    graceful_timeout_seconds: Annotated[int, Field(ge=1, le=300)] = Field(
        30, description="How long requests in flight may take to finish after the drain"
    )

    database_pool_size: Annotated[int, Field(ge=1, le=200)] = Field(
        10, description="Connections for reads kept open; writes have as many again, and so have reads of a replica"
    )
    database_import_pool_size: Annotated[int, Field(ge=1, le=50)] = Field(
        2, description="Connections for imports, beside the others: so many can be planned or applied at once"
    )
    database_pool_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0, description="How long a request waits for a free connection"
    )
    database_connect_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0, description="How long opening a connection may take"
    )
    database_silence_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        3.0, description="How long the database may answer nothing before it is looked after"
    )
    database_statement_timeout_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = Field(
        10_000, description="How long one SQL statement may run"
    )
    database_lock_timeout_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = Field(
        5_000, description="How long a write waits for the writes before it"
    )
    database_idle_transaction_timeout_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = Field(
        15_000, description="How long an open transaction may be idle before PostgreSQL ends it"
    )

    database_read_lag_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        3.0, description="How far the replica of `DATABASE_READ_URL` may be behind before reads go to the primary"
    )

    migration_lock_timeout_milliseconds: Annotated[int, Field(ge=1, le=600_000)] = Field(
        5_000, description="How long a schema change waits for a table before it gives way and tries again"
    )
    migration_wait_seconds: Annotated[float, Field(ge=0, le=3_600)] = Field(
        120.0, description="How long `pricebook migrate` waits for the database and for other migrations"
    )
    serving_role: str | None = Field(
        None,
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Role that `pricebook migrate` grants what serving needs, and no more",
    )
    default_currency: str = Field("EUR", description="Currency of the book `default`, used at the first migration")
    default_time_zone: str = Field("UTC", description="Time zone of the book `default`, used at the first migration")

    price_max_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        5, description="How long HTTP caches may keep a price; never beyond its next boundary"
    )
    response_cache_bytes: Annotated[int, Field(ge=0, le=2**40)] = Field(
        33_554_432, description="Memory for answers that are kept until a change touches them; 0: none are kept"
    )
    response_cache_lag_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        3.0, description="How old a process's last look at the changes may be while it answers from memory"
    )
    stale_if_error_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        60.0, description="How long what is in memory is still answered while the database is away; 0: not at all"
    )
    min_seq_wait_seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        2.0, description="How long a read with `Pricebook-Min-Seq` waits for that change"
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=1_073_741_824)] = Field(
        1_048_576, description="Largest request body"
    )
    max_import_bytes: Annotated[int, Field(ge=1024, le=1_099_511_627_776)] = Field(
        268_435_456, description="Largest file that an import takes"
    )
    max_import_rows: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        2_000_000, description="Most rows of a file that an import takes"
    )
    import_statement_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        600, description="How long one SQL statement of an import may run"
    )
    import_preview_hours: Annotated[float, Field(gt=0, le=8_760)] = Field(
        24.0, description="How long a preview can be applied"
    )
    import_report_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        30.0, description="How long the rows of an import's report are kept"
    )
    idempotency_hours: Annotated[float, Field(gt=0, le=8_760)] = Field(
        24.0, description="How long a request with an Idempotency-Key is answered as before when it is sent again"
    )
    ledger_watch_seconds: Annotated[float, Field(gt=0, le=3_600)] = Field(
        5.0, description="How often a process looks at the ledger for its metrics"
    )
    feed_poll_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        1.0, description="How often a process looks for changes that no notification told it of"
    )
    feed_retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        0, description="Days that the feed goes back at the least; 0: for ever"
    )
    housekeeping_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        300.0, description="How often a process removes what nobody needs any more"
    )
    log_format: Literal["json", "console"] = Field("json", description="Log lines for machines or for people")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")

    @field_validator("database_url")
    @classmethod
    def _normalise_database_url(cls, value: SecretStr) -> SecretStr:
        # People paste postgres:// and postgresql:// URLs; SQLAlchemy would take either for another driver.
        return SecretStr(database_address.normalised(value.get_secret_value()).render_as_string(hide_password=False))

    @field_validator("database_read_url")
    @classmethod
    def _normalise_database_read_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if "target_session_attrs" in value.get_secret_value().partition("?")[2]:
            raise ValueError(
                "says which server to choose (target_session_attrs); name one replica, or one address of several"
            )
        url = database_address.normalised(value.get_secret_value())
        if "target_session_attrs" in url.query:
            raise ValueError("names several hosts; name one replica, or one address of several")
        return SecretStr(url.render_as_string(hide_password=False))

    @field_validator("admin_key")
    @classmethod
    def _fit_for_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!#-\[\]-~]+", value.get_secret_value()):
            raise ValueError("must have printable ASCII characters only, without blanks, quotes and backslashes")
        return value

    @field_validator("default_currency")
    @classmethod
    def _known_currency(cls, value: str) -> str:
        try:
            money.minor_units(value)
        except KeyError:
            raise ValueError("is not an ISO 4217 currency with minor units, such as EUR") from None
        return value

    @field_validator("default_time_zone")
    @classmethod
    def _known_time_zone(cls, value: str) -> str:
        try:
            instants.zone(value)
        except KeyError:
            raise ValueError("is not an IANA time zone, such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.admin_port:
            raise PydanticCustomError("same-port", "ADMIN_PORT: must not be the same as PORT")
        return self

    @property
    def hidden(self) -> list[str]:
        """What no log line and no span may show."""
        secrets = (self.secret_key, self.secret_key_previous, self.admin_key)
        return [secret.get_secret_value() for secret in secrets if secret]

    @property
    def sqlalchemy_url(self) -> URL:
        """The database URL for SQLAlchemy and asyncpg."""
        return make_url(self.database_url.get_secret_value())

    @property
    def sqlalchemy_read_url(self) -> URL | None:
        """The replica's, if there is one."""
        return make_url(self.database_read_url.get_secret_value()) if self.database_read_url else None


class _WithDefaults(Settings):
    """Settings whose constructor arguments give way to the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, dotenv_settings, init_settings


def load_settings(**defaults: object) -> Settings:
    """Read the settings from the environment and ``.env``; ``defaults`` stand for what neither sets.

    :raises SettingsError: with one line for each variable at fault.
    """
    try:
        return _WithDefaults(**defaults)  # type: ignore[arg-type]  # validated like the environment
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_input=False, include_url=False):
        if not fault["loc"]:
            lines.append(f"{fault['msg']}.")
            continue
        name = str(fault["loc"][0])
        message = fault["msg"].removeprefix("Value error, ")
        message = "is not set" if fault["type"] == "missing" else message[0].lower() + message[1:]
        lines.append(f"{name.upper()}: {message}. ({Settings.model_fields[name].description}.)")
    return "\n".join(lines)
