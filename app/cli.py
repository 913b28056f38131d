"""The command `pricebook`."""

import asyncio
import gc
import secrets
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from app.failure import Failure

# Every command pays for what is imported here, and each new pod for the migration that has nothing to do: what one
# command alone needs is imported there.
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@cli.callback()
def _pricebook() -> None:
    """A price service: what an item costs, with tax, at any instant. Settings come from the environment and .env."""


@cli.command()
def serve() -> None:
    """Serve the API and the admin port."""
    from app.absent import absent

    # What is imported stays: to look through it for garbage takes time, and finds none. The server collects again.
    gc.disable()
    # structlog would take the one for tracebacks in colour, which our log has not, FastAPI the other to see whether a
    # model is of pydantic's first version. Both together take a tenth of a second and eight megabytes.
    with absent("rich", "pydantic.v1"):
        from app import server
        from app.settings import load_settings

        server.serve(load_settings())


@cli.command()
def dev() -> None:
    """Run PostgreSQL, its schema and the service for local work, reachable from this machine only.

    DATABASE_URL replaces the embedded PostgreSQL, whose data stays in .data.
    """
    from app import development

    # Ends like Ctrl-C does, so that the embedded PostgreSQL stops too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    development.run()


@cli.command()
def migrate() -> None:
    """Bring the database's schema to this version. Safe to run from several places at once."""
    from app import migrations
    from app.observability import logs
    from app.settings import load_settings

    settings = load_settings(secret_key=secrets.token_urlsafe(48))
    logs.configure(settings)
    revision = asyncio.run(migrations.migrate(settings))
    typer.echo(f"The schema is at {revision}.")


@cli.command()
def check() -> None:
    """Say whether the settings and the database are fit to serve."""
    from app.checks import run_checks
    from app.settings import load_settings

    async def show() -> bool:
        passed = True
        async for finding in run_checks(load_settings()):
            typer.echo(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.line}")
            passed = finding.passed
        return passed

    if not asyncio.run(show()):
        raise typer.Exit(1)


@cli.command()
def demo(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="Sample list, such as deploy/demo/pricelist.csv"),
    ],
    url: Annotated[str, typer.Option(envvar="PRICEBOOK_URL", help="Address of the service")] = "http://127.0.0.1:8000",
) -> None:
    """Load a sample price list into a running service and show what an item costs at three instants."""
    from app import demo as demonstration

    try:
        asyncio.run(demonstration.run(file, url))
    except demonstration.DemoError as error:
        _fail(str(error))


@cli.command()
def quote(
    file: Annotated[str, typer.Argument(help="A request of POST /v1/quotes as JSON; - is standard input")],
    verify: Annotated[
        bool, typer.Option("--verify", help="The file is a stored answer: is it right? Exit code 3 if it is not")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Add the arithmetic of each line")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer as it is")] = False,
    url: Annotated[str, typer.Option(envvar="PRICEBOOK_URL", help="Address of the service")] = "http://127.0.0.1:8000",
) -> None:
    """Let a running service add up a document, and show lines, taxes and totals; or check a stored answer."""
    from app import quote_report

    if verify and explain:
        _fail("--explain is for new quotes: leave it out with --verify.")
    try:
        if not verify:
            quote_report.show(file, url, explain=explain, as_json=as_json)
        elif not quote_report.verify(file, url, as_json=as_json):
            raise typer.Exit(3)
    except quote_report.QuoteError as error:
        _fail(str(error))


@cli.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="A price list, CSV or NDJSON; - is standard input")],
    book: Annotated[str | None, typer.Option(help="Book that it is for")] = None,
    effective_at: Annotated[str | None, typer.Option(help="When its prices begin, unless a row says otherwise")] = None,
    on_error: Annotated[
        Literal["abort", "skip"] | None, typer.Option(help="Rows with errors stop all or stay out")
    ] = None,
    missing: Annotated[
        Literal["ignore", "end"] | None, typer.Option(help="Items that it does not name stay, or stop being for sale")
    ] = None,
    create: Annotated[bool | None, typer.Option(help="Whether unknown items are created, or are errors")] = None,
    max_change_percent: Annotated[str | None, typer.Option(help="A greater change is an error; 50 by default")] = None,
    decimal: Annotated[Literal[".", ","] | None, typer.Option(help="Sign before the decimals in CSV")] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD:COLUMN", help="Where a field comes from, such as amount:Price; repeat it"),
    ] = None,
    encoding: Annotated[
        Literal["utf-8", "windows-1252", "iso-8859-1", "utf-16"] | None, typer.Option(help="utf-8 by default")
    ] = None,
    form: Annotated[Literal["csv", "ndjson"] | None, typer.Option("--format", help="Default: by the suffix")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Ask, and write it")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    errors: Annotated[Path | None, typer.Option(help="Write rows with errors here, to correct them")] = None,
    top: Annotated[int, typer.Option(min=0, max=1000, help="Most changes and errors to show")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the import as the service answers it")] = False,
    url: Annotated[str, typer.Option(envvar="PRICEBOOK_URL", help="Address of the service")] = "http://127.0.0.1:8000",
) -> None:
    """Send a price list to a running service and show what it changes, the greatest changes first; --apply writes it.

    Exit codes: 0 done, 1 it could not be done, 3 rows have errors or prices moved meanwhile, 4 you said no.
    """
    from app import client, import_command, import_upload

    order = import_upload.Order(
        file=file,
        url=url,
        book=book,
        effective_at=effective_at,
        on_error=on_error,
        missing=missing,
        create=create,
        max_change_percent=max_change_percent,
        decimal=decimal,
        mapping=mapping or [],
        encoding=encoding,
        format=form,
        apply=apply,
        yes=yes,
        errors_file=errors,
        top=top,
        as_json=as_json,
    )
    try:
        code = import_command.run(order)
    except (import_upload.FailedImport, client.ServiceError) as error:
        _fail(str(error))
    raise typer.Exit(code)


@cli.command()
def export(
    form: Annotated[
        str, typer.Option("--format", help="csv, ndjson, or snapshot: items with all their documents")
    ] = "csv",
    book: Annotated[str, typer.Option(help="Key of the book")] = "default",
    at: Annotated[str | None, typer.Option(help="Only rows that answer at this instant or day")] = None,
    known_seq: Annotated[int | None, typer.Option(help="As known after this change; default: after the last")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File, which appears once it is whole; default: standard output")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print seq, rows, bytes and sha256 of the file")] = False,
    url: Annotated[str, typer.Option(envvar="PRICEBOOK_URL", help="Address of the service")] = "http://127.0.0.1:8000",
) -> None:
    """Fetch a whole price list from a running service. PRICEBOOK_KEY is sent along if it is set."""
    from app import client, export_command

    if as_json and output is None:
        _fail("--json tells about a file: name it with --output.")
    parameters = {"format": form, "book": book, "at": at, "known_seq": known_seq}
    try:
        export_command.export(url, parameters, output, as_json=as_json)
    except (client.ServiceError, export_command.ExportError) as error:
        _fail(str(error))


@cli.command()
def follow(
    target: Annotated[Path, typer.Argument(help="SQLite file of the copy, or a directory for it")],
    book: Annotated[str, typer.Option(help="Key of the book whose prices to keep")] = "default",
    once: Annotated[bool, typer.Option("--once", help="Catch up with the service, and end")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the copy with a fresh export, and end: exit code 3 if it differs")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what happens as lines of JSON")] = False,
    url: Annotated[str, typer.Option(envvar="PRICEBOOK_URL", help="Address of the service")] = "http://127.0.0.1:8000",
) -> None:
    """Keep a copy of all items and one book's prices, from a snapshot on by the feed, until Ctrl-C or SIGTERM.

    With --once and --verify, catch up first and compare then. PRICEBOOK_KEY is sent along if it is set.
    """
    from app import client, copy_file, follow_command

    if not (once or verify):
        # This is how following ends. Whatever it is at, the file keeps what is complete.
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: sys.exit(0))
    report = follow_command.Report(as_json=as_json)
    try:
        if once or not verify:
            follow_command.follow(url, target, book, once=once, report=report)
        if verify and not follow_command.verify(url, target, book, report=report):
            raise typer.Exit(3)
    except (client.ServiceError, copy_file.CopyError, follow_command.FollowError) as error:
        _fail(str(error))


keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys; PRICEBOOK_KEY must have the scope admin.")
cli.add_typer(keys, name="keys")

Url = Annotated[str, typer.Option("--url", envvar="PRICEBOOK_URL", help="Address of the service")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as it is")]


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the ledger records as the actor, such as till-12")],
    scope: Annotated[list[str], typer.Option("--scope", help="What it allows, such as prices:read; repeat it")],
    expires_at: Annotated[datetime | None, typer.Option(help="Until when it is accepted; default: for ever")] = None,
    as_json: AsJson = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Make a key and print it, this once. Words go to standard error, so KEY=$(pricebook keys create ...) takes it."""
    from app import client, keys_command

    try:
        keys_command.create(url, name, scope, expires_at, as_json=as_json)
    except client.ServiceError as error:
        _fail(str(error))


@keys.command("list")
def list_keys(
    every: Annotated[bool, typer.Option("--all", help="Revoked ones too")] = False,
    as_json: AsJson = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """List the keys. Secrets are not among what is known of them."""
    from app import client, keys_command

    try:
        keys_command.show(url, every=every, as_json=as_json)
    except client.ServiceError as error:
        _fail(str(error))


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, from the list")],
    as_json: AsJson = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Revoke a key: within two seconds no replica accepts it."""
    from app import client, keys_command

    try:
        keys_command.revoke(url, key_id, as_json=as_json)
    except client.ServiceError as error:
        _fail(str(error))


@keys.command()
def whoami(as_json: AsJson = False, url: Url = "http://127.0.0.1:8000") -> None:
    """Say whom the service takes PRICEBOOK_KEY for, and what that key allows."""
    from app import client, keys_command

    try:
        keys_command.whoami(url, as_json=as_json)
    except client.ServiceError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(1)


def main() -> None:
    """Run a command; what the user can mend is said in one message, without a stack trace."""
    # Without a handler, a process that is the first of its container would not hear it. The servers have their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        cli()
    except Failure as error:
        _fail(f"{error.heading}{error}")
