"""Addresses of databases: what people write, in the one form that SQLAlchemy and asyncpg take.

Several hosts may be named, as libpq has it (``postgresql://user:password@h1:5432,h2:5432/name``) or as SQLAlchemy does
(``?host=h1:5432&host=h2:5432``). They are servers of one cluster, of which one is the primary.
"""

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_EXPECTED = "postgresql://user:password@host:5432/name"
_PORT = 5432
_SERVERS = re.compile(
    r"(?P<before>[\w+]+://(?:[^/?#]*@)?)(?P<servers>[^/?#@]*,[^/?#@]*)(?P<after>(?:[/?#].*)?)", re.DOTALL
)
_SERVER = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?")
_PRIMARY = {"read-write", "primary"}


def normalised(text: str) -> URL:
    """The address for SQLAlchemy and asyncpg. Of several hosts, connections go to the one that takes writes.

    :raises ValueError: a message that goes on after the name of the setting, and shows no password.
    """
    servers = _SERVERS.fullmatch(text)
    try:
        url = make_url(servers["before"] + servers["after"] if servers else text)
    except (ArgumentError, ValueError):  # A port that is no number is a ValueError, with part of the URL in it.
        raise ValueError(
            f"is not a URL; expected {_EXPECTED}, with @ : / in the password written as %40 %3A %2F"
        ) from None
    if url.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError(f"names {url.drivername}; Pricebook runs on PostgreSQL: postgresql://...")
    if not url.database:
        raise ValueError(f"names no database; expected {_EXPECTED}")
    if "sslmode" in url.query:
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
    known = {"host", "port", "ssl", "service", "servicefile", "target_session_attrs"}
    if unknown := set(url.query) - known:
        raise ValueError(f"has the parameter {min(unknown)}, which is not supported; take it out of the URL")
    return _to_the_primary(_with_hosts(url, servers["servers"] if servers else None))


def display_url(url: URL) -> str:
    """A database address for people and logs, without its password; several hosts as libpq has them."""
    url = url.set(drivername="postgresql")
    hosts = str(url.query.get("host", "")).split(",")
    if len(hosts) == 1:
        return url.render_as_string(hide_password=True)
    ports = str(url.query["port"]).split(",")
    servers = ",".join(server_name(host, port) for host, port in zip(hosts, ports, strict=True))
    url = url.difference_update_query(["host", "port", "target_session_attrs"]).set(host="servers")
    # Before the host there can be no slash but the scheme's.
    before, _, after = url.render_as_string(hide_password=True).partition("servers/")
    return f"{before}{servers}/{after}"


def server_name(host: str, port: object) -> str:
    """One server, as it stands in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_hosts(url: URL, servers: str | None) -> URL:
    """The address with several hosts as two lists, the one form that holds for IPv6 and sockets, too."""
    asked = url.query.get("host")
    several = servers is not None or isinstance(asked, tuple) or "," in (asked or "")
    if several and (asked is not None or "port" in url.query) and (servers or url.host or url.port):
        raise ValueError("names hosts twice, before the database and as a parameter; take one out")
    if servers is not None:
        pairs = [_server(server) for server in servers.split(",")]
    elif isinstance(asked, tuple):
        if "port" in url.query:
            raise ValueError("names hosts with ports of their own; take the parameter port out")
        pairs = [_server(server) for server in asked]
    elif asked and "," in asked:
        hosts = asked.split(",")
        ports = str(url.query.get("port", _PORT)).split(",")
        if len(ports) not in (1, len(hosts)):
            raise ValueError(f"names {len(hosts)} hosts and {len(ports)} ports; name one port, or one for each host")
        pairs = [(host, _port(port)) for host, port in zip(hosts, ports * (len(hosts) // len(ports)), strict=True)]
    else:
        _check_host(url.host or "")
        return url
    for host, _ in pairs:
        if not host:
            raise ValueError(
                f"has a comma without a host; expected {_EXPECTED.replace('host:5432', 'h1:5432,h2:5432')}"
            )
        _check_host(host)
    return url.update_query_dict(
        {
            "host": ",".join(host for host, _ in pairs),
            "port": ",".join(str(port) for _, port in pairs),
            "target_session_attrs": url.query.get("target_session_attrs", "read-write"),
        }
    )


def _server(text: str) -> tuple[str, int]:
    if text.startswith("/"):
        return text, _PORT
    server = _SERVER.fullmatch(text)
    if server is None:
        raise ValueError("names a host that cannot be read; expected host:5432, or [address]:5432 for IPv6")
    return server["v6"] or server["host"], _port(server["port"] or str(_PORT))


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65_536:
        raise ValueError("names a port that is no number from 1 to 65535")
    return int(text)


def _check_host(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"names the host {host}, which is no host name") from None


def _to_the_primary(url: URL) -> URL:
    wanted = url.query.get("target_session_attrs")
    if wanted is None:
        return url.set(drivername="postgresql+asyncpg")
    if wanted not in _PRIMARY:
        raise ValueError(
            f"asks for target_session_attrs={wanted}; Pricebook reads and writes on the primary: read-write"
        )
    # A primary that takes no writes by default was fenced off, and another one is in its place.
    return url.set(drivername="postgresql+asyncpg").update_query_dict({"target_session_attrs": "read-write"})
