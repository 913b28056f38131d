"""`pricebook keys`: make, list and revoke keys of a running service."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer

from app import tables
from app.client import Service

_PATH = "/v1/keys"


def create(url: str, name: str, scopes: Sequence[str], expires_at: datetime | None, *, as_json: bool) -> None:
    """Make a key and print it: the key alone on standard output, so that a variable can take it.

    :raises ServiceError: if the service does not make it.
    """
    expires = expires_at.astimezone().isoformat() if expires_at else None
    document = {"name": name, "scopes": list(scopes), "expires_at": expires}
    with Service(url) as service:
        key = service.ask("POST", _PATH, expects="key", json=document).json()
    if as_json:
        _print(key)
        return
    until = f" until {key['expires_at']}" if key["expires_at"] else ""
    typer.echo(f"Key {key['id']} for {name}{until}: {', '.join(key['scopes'])}.", err=True)
    typer.echo("It is shown this once. Keep it where secrets are kept:", err=True)
    typer.echo(key["key"])


def show(url: str, *, every: bool, as_json: bool) -> None:
    """Print the keys, revoked ones among them if asked for.

    :raises ServiceError: if the service does not list them.
    """
    keys: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    with Service(url) as service:
        while True:
            params = {"revoked": "any" if every else "false", "limit": "1000", **cursor}
            page = service.ask("GET", _PATH, expects="keys", params=params).json()
            keys += page["keys"]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
    if as_json:
        _print(keys)
        return
    headings = ("id", "name", "scopes", "made", "by", "until", "revoked")
    table = tables.table(*headings, texts=headings)
    for key in keys:
        days = [(key[field] or "")[:10] for field in ("created_at", "expires_at", "revoked_at")]
        table.add_row(key["id"], key["name"], " ".join(key["scopes"]), days[0], key["created_by"], *days[1:])
    tables.show(tables.console(), table)


def revoke(url: str, key_id: str, *, as_json: bool) -> None:
    """Revoke a key, named by its id.

    :raises ServiceError: if the service does not revoke it.
    """
    with Service(url) as service:
        key = service.ask("DELETE", f"{_PATH}/{key_id}", expects="revoked_at").json()
    if as_json:
        _print(key)
    else:
        typer.echo(f"Key {key['id']} of {key['name']} is revoked since {key['revoked_at']}.")


def whoami(url: str, *, as_json: bool) -> None:
    """Print whom the service takes the caller for.

    :raises ServiceError: if it does not say.
    """
    with Service(url) as service:
        me = service.ask("GET", "/v1/whoami", expects="auth_required").json()
    if as_json:
        _print(me)
        return
    until = f", until {me['expires_at']}" if me["expires_at"] else ""
    typer.echo(f"{me['name']} ({me['id']}){until}: {', '.join(me['scopes'])}")


def _print(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))
