from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings

SECRET = "0123456789" * 4


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with the two settings that have no default, and no .env in the way."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://till:hunter2@db.example:5433/prices")
    monkeypatch.setenv("SECRET_KEY", SECRET)
    return monkeypatch


def test_the_environment_and_a_file_are_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_VERSION=v2\nPORT=9000\n")
    environment.setenv("PORT", "9001")
    settings = load_settings()
    assert (settings.api_version, settings.port) == ("v2", 9001)
    assert settings.secret_key.get_secret_value() == SECRET


def test_defaults_give_way_to_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOST", "192.0.2.1")
    settings = load_settings(host="127.0.0.1", admin_host="127.0.0.1")
    assert (settings.host, settings.admin_host) == ("192.0.2.1", "127.0.0.1")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_what_people_paste_as_a_database_url_works(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("DATABASE_URL", f"{scheme}://till:p%40ss@db.example/prices?ssl=require")
    url = load_settings().sqlalchemy_url
    assert url.drivername == "postgresql+asyncpg"
    assert (url.password, url.host, url.database, url.query["ssl"]) == ("p@ss", "db.example", "prices", "require")


def test_sslmode_is_what_asyncpg_calls_ssl(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "postgresql://till:x@db.example/prices?sslmode=require")
    assert dict(load_settings().sqlalchemy_url.query) == {"ssl": "require"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", None, "is not set"),
        ("DATABASE_URL", "mysql://root:hunter2@db/prices", "names mysql; Pricebook runs on PostgreSQL"),
        ("DATABASE_URL", "db.example hunter2", "is not a URL"),
        ("DATABASE_URL", "postgresql://till:p@ss:hunter2@db.example/prices", "is not a URL"),
        ("DATABASE_URL", "postgresql://till:hunter2@db/prices?connect_timeout=3", "parameter connect_timeout"),
        ("DATABASE_URL", "postgresql://till:hunter2@db..example/prices", "db..example, which is no host name"),
        ("ADMIN_PORT", "8000", "same as PORT"),
        ("DATABASE_URL", "postgresql://till:hunter2@db.example", "names no database"),
        ("DATABASE_READ_URL", "mysql://root:hunter2@db/prices", "names mysql; Pricebook runs on PostgreSQL"),
        ("DATABASE_READ_URL", "postgresql://till:hunter2@a,b/prices", "names several hosts"),
        (
            "DATABASE_READ_URL",
            "postgresql://till:hunter2@a/prices?target_session_attrs=prefer-standby",
            "name one replica",
        ),
        ("DATABASE_READ_LAG_SECONDS", "0", "greater than 0"),
        ("SECRET_KEY", None, "is not set"),
        ("SECRET_KEY", "hunter2", "at least 32"),
        ("API_VERSION", "/v1", "should match"),
        ("PORT", "70000", "65535"),
        ("DATABASE_POOL_SIZE", "many", "valid integer"),
        ("DEFAULT_CURRENCY", "XAU", "ISO 4217"),
        ("DEFAULT_TIME_ZONE", "Berlin", "IANA"),
        ("SERVING_ROLE", 'x"; DROP TABLE items', "should match"),
    ],
)
def test_a_wrong_setting_is_named_and_explained(
    environment: pytest.MonkeyPatch, name: str, value: str | None, words: str
) -> None:
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    message = str(refusal.value)
    assert message.startswith(f"{name}: ")
    assert words in message
    assert "\n" not in message, "one fault, one line"
    assert "hunter2" not in message


def test_a_replica_is_optional(environment: pytest.MonkeyPatch) -> None:
    assert load_settings().sqlalchemy_read_url is None
    environment.setenv("DATABASE_READ_URL", "postgres://till:hunter2@db-ro.example/prices?sslmode=require")
    url = load_settings().sqlalchemy_read_url
    assert url is not None
    assert (url.drivername, url.host, dict(url.query)) == ("postgresql+asyncpg", "db-ro.example", {"ssl": "require"})
    assert "hunter2" not in repr(load_settings())


def test_secrets_are_not_shown(environment: pytest.MonkeyPatch) -> None:
    shown = repr(load_settings()) + str(load_settings())
    assert "hunter2" not in shown
    assert SECRET not in shown
