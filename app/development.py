"""`pricebook dev`: PostgreSQL, its schema and the service on this machine, for local work."""

import asyncio
import ipaddress
import secrets
import socket
from pathlib import Path

import typer
from pydantic import SecretStr

from app import migrations, server
from app.embedded import embedded_postgres
from app.observability import logs
from app.settings import Settings, SettingsError, load_settings

_DATA = Path(".data")
_EMBEDDED = SecretStr("postgresql+asyncpg://embedded/pricebook")
"""Stands for the embedded server's URL in the settings until that server runs."""


def run() -> None:
    """Serve until a signal ends it."""
    defaults: dict[str, object] = {
        "host": "127.0.0.1",
        "admin_host": "127.0.0.1",
        "log_format": "console",
        "secret_key": _development_secret(),
        "auth_required": False,
        "migration_wait_seconds": 10,
        "drain_seconds": 0,
    }
    settings = load_settings(**defaults, database_url=_EMBEDDED)
    if not settings.auth_required and not _is_loopback(settings.host):
        raise SettingsError(
            f"HOST: {settings.host} can be reached from elsewhere, and without keys anybody there could write. "
            "Set AUTH_REQUIRED=true and an ADMIN_KEY, or leave HOST out."
        )
    logs.configure(settings)
    with server.claim_ports(settings) as listener:
        if settings.database_url == _EMBEDDED:
            with embedded_postgres(_DATA / "postgres") as url:
                _develop(load_settings(**defaults, database_url=url), listener)
        else:
            _develop(settings, listener)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _development_secret() -> str:
    file = _DATA / "secret_key"
    if not file.exists():
        _DATA.mkdir(exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(48))
    return file.read_text()


def _develop(settings: Settings, listener: socket.socket) -> None:
    asyncio.run(migrations.migrate(settings))
    api = f"http://{settings.host}:{settings.port}"
    admin = f"http://{settings.admin_host}:{settings.admin_port}"
    if settings.auth_required:
        access = "Every request needs a key (AUTH_REQUIRED), which the commands below leave out."
    else:
        access = "No keys are asked for: anyone on this machine can read and write."
    typer.echo(
        f"""
Pricebook            {api}
Documentation        {api}/docs
Metrics and probes   {admin}/metrics  {admin}/readyz
{access} Ctrl-C stops everything.

Try it in another terminal:

curl -X POST {api}/items/ -H 'content-type: application/json' -d '{{"name":"Foo","price":35.4,"tax":3.2}}'
curl {api}/items/
"""
    )
    server.serve_with_uvicorn(settings.model_copy(update={"server": "uvicorn"}), listener)
    typer.echo("Stopped.")
