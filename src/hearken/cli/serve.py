"""``hearken serve``: the labelling pages and the owner's dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hearken.cli.console import JsonOption, ProjectOption, emit
from hearken.errors import UserError


def _no_password(database: str | None) -> str | None:
    from hearken.feedback.database import has_password

    if database is not None and has_password(database):
        raise UserError(
            "--database: a password on the command line can be read by everybody on this machine",
            "Leave it out of the URL; PostgreSQL's ~/.pgpass, the file that PGPASSFILE names, or PGPASSWORD holds it",
        )
    return database


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken serve -C my-project")(serve)


def serve(
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A path or a postgresql:// URL.", show_default="the project's", callback=_no_password
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    public_url: Annotated[str, typer.Option(metavar="URL", help="How people reach it, behind a proxy.")] = "",
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="A proxy that is believed about where requests come from (X-Forwarded-For): an address or a range, "
            "as 10.0.0.0/8. Repeat for several.",
            show_default="none",
        ),
    ] = None,
    webhooks_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="What webhooks may call though it is no public address: an address or a range. Repeat for several.",
            show_default="none",
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the link in a browser.")] = True,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Labelling pages for people, the owner's dashboard, and the HTTP API.

    Listens on this machine only, and prints a link that lets its owner in once. For other machines, open the link,
    choose a password under your name, and start again with --host and a certificate or the address of a proxy. Stop
    with Ctrl-C.
    """
    from hearken.server.run import Address, Invitation, Network
    from hearken.server.run import serve as run

    if (certificate is None) != (key is None):
        raise UserError("a certificate and its key belong together", "Name both --certificate and --key")
    files = (certificate, key) if certificate and key else None
    for path in files or ():
        if not path.is_file():
            raise UserError(f"{path} is not a file", "Name files in PEM form")

    if public_url and not trusted_proxy:
        typer.echo(
            "No --trusted-proxy is named: everybody behind your proxy counts as one address, in attempts to log in and "
            "in connections.", err=True,
        )  # fmt: skip

    def ready(address: Address) -> None:
        said: dict[str, Any] = {"address": address.url}
        if address.link:
            said["link"] = address.link
        if as_json:
            emit(said, as_json=True)
            sys.stdout.flush()
            return
        typer.echo(f"Serving at {address.url}")
        if address.link:
            typer.echo(f"\n    {address.link}\n\nThis link lets you in once, within a quarter of an hour.")
        typer.echo("Stop with Ctrl-C.")

    run(
        None if database is not None and not (project / "hearken.yaml").is_file() else project,
        database=database,
        network=Network(host, port, public_url, files, trusted_proxy or (), webhooks_to or ()),
        invitation=Invitation(open_browser=open_ and sys.stdout.isatty() and not as_json),
        on_ready=ready,
    )  # fmt: skip
