"""What people write as the address of a database, and what the driver makes of it."""

import re
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url

from app.database_address import display_url, normalised


def for_the_driver(text: str) -> dict[str, Any]:
    """The driver's arguments. The settings keep the address as text in between."""
    url = make_url(normalised(text).render_as_string(hide_password=False))
    assert normalised(url.render_as_string(hide_password=False)) == url, "what is in form stays as it is"
    dialect: Any = PGDialect_asyncpg
    arguments: dict[str, Any] = dialect().create_connect_args(url)[1]
    return arguments


@pytest.mark.parametrize(
    ("address", "hosts", "ports"),
    [
        ("postgresql://u:p@h1:5433,h2:5434/db?target_session_attrs=read-write", ["h1", "h2"], [5433, 5434]),
        ("postgresql://u:p@h1,h2:5433,h3/db?target_session_attrs=primary", ["h1", "h2", "h3"], [5432, 5433, 5432]),
        ("postgres://u:p@h1,h2/db", ["h1", "h2"], [5432, 5432]),
        (
            "postgresql://u:p@[::1]:5433,[fd00::2],192.0.2.3:5434/db",
            ["::1", "fd00::2", "192.0.2.3"],
            [5433, 5432, 5434],
        ),
        ("postgresql://u:p@/db?host=h1:5433&host=h2:5434", ["h1", "h2"], [5433, 5434]),
        ("postgresql://u:p@/db?host=h1,h2&port=5433,5434", ["h1", "h2"], [5433, 5434]),
        ("postgresql://u:p@/db?host=h1,h2&port=5433", ["h1", "h2"], [5433, 5433]),
        ("postgresql://u:p@/db?host=/run/one,/run/two", ["/run/one", "/run/two"], [5432, 5432]),
    ],
)
def test_several_hosts_in_every_form(address: str, hosts: list[str], ports: list[int]) -> None:
    arguments = for_the_driver(address)
    assert (arguments["host"], arguments["port"]) == (hosts, ports)
    assert arguments["target_session_attrs"] == "read-write", "one of them can write"
    assert (arguments["user"], arguments["password"], arguments["database"]) == ("u", "p", "db")


def test_a_password_may_hold_anything_beside_several_hosts() -> None:
    arguments = for_the_driver("postgresql://till%2C:p%40ss%2Fw%3Ao%2Crd,@h1,h2/db?sslmode=require")
    assert (arguments["user"], arguments["password"]) == ("till,", "p@ss/w:o,rd,")
    assert (arguments["host"], arguments["ssl"]) == (["h1", "h2"], "require")


def test_one_host_stays_as_it_is() -> None:
    arguments = for_the_driver("postgresql://u:p%2C@h1:5433/db")
    assert (arguments["host"], arguments["port"]) == ("h1", 5433)
    assert "target_session_attrs" not in arguments
    assert for_the_driver("postgresql://u@h1/db?target_session_attrs=primary")["target_session_attrs"] == "read-write"
    assert for_the_driver("postgresql://u@/db?host=/run/one&port=5")["host"] == "/run/one"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://u:hunter2@h1,h2/db?target_session_attrs=any", "target_session_attrs=any; Pricebook reads and"),
        ("postgresql://u:hunter2@h1/db?target_session_attrs=standby", "target_session_attrs=standby"),
        ("postgresql://u:hunter2@h1:x,h2/db", "a port that is no number"),
        ("postgresql://u:hunter2@h1:0,h2/db", "a port that is no number"),
        ("postgresql://u:hunter2@h1,h2:65536/db", "a port that is no number"),
        ("postgresql://u:hunter2@h1,,h2/db", "a comma without a host"),
        ("postgresql://u:hunter2@::1,h2/db", "a host that cannot be read"),
        ("postgresql://u:hunter2@h1,h..2/db", "h..2, which is no host name"),
        ("postgresql://u:hunter2@h1,h2/db?host=h3", "names hosts twice"),
        ("postgresql://u:hunter2@h1,h2/db?port=5", "names hosts twice"),
        ("postgresql://u:hunter2@h0/db?host=h1,h2", "names hosts twice"),
        ("postgresql://u:hunter2@h0:5/db?host=h1:5&host=h2:5", "names hosts twice"),
        ("postgresql://u:hunter2@/db?host=h1:5&host=h2:5&port=5", "take the parameter port out"),
        ("postgresql://u:hunter2@/db?host=h1,h2,h3&port=5,6", "names 3 hosts and 2 ports"),
        ("postgresql://u:hunter2@h1,h2", "names no database"),
        ("mysql://u:hunter2@h1,h2/db", "names mysql"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as refusal:
        normalised(address)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:hunter2@h1:5433,[::1]/db", "postgresql://u:***@h1:5433,[::1]:5432/db"),
        ("postgres://u:hunter2@h1,h2/db?sslmode=require", "postgresql://u:***@h1:5432,h2:5432/db?ssl=require"),
        ("postgresql://servers@h1,h2/servers", "postgresql://servers@h1:5432,h2:5432/servers"),
        ("postgresql:///db?host=h1,h2", "postgresql://h1:5432,h2:5432/db"),
        ("postgresql://u:hunter2@h1/db", "postgresql://u:***@h1/db"),
    ],
)
def test_people_are_shown_an_address_that_they_can_write(address: str, shown: str) -> None:
    assert display_url(normalised(address)) == shown
