"""The versions of the feedback database, and how an older one becomes the newest.

Opening a database looks at one number and is done; Alembic is loaded only where there is something to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from hearken.errors import UserError

FOLDER = Path(__file__).parent
NEWEST = "0004"
"""The version this code works with: the last one in ``versions``."""


def version(connection: Connection) -> str | None:
    """The version of the database, or None where it is empty.

    Raises:
        UserError: the database holds tables of something else.
    """
    tables = set(inspect(connection).get_table_names())
    if "hearken_version" in tables:
        found = connection.execute(text("SELECT version_num FROM hearken_version")).scalar()
        return None if found is None else str(found)
    if tables:
        names = ", ".join(sorted(tables)[:3])
        raise UserError(
            f"the database holds other tables ({names}) and is not a feedback database",
            "Give another file or an empty database",
        )
    return None


def is_newer(found: str) -> bool:
    """Whether ``found`` is a version that this code does not know."""
    return int(found) > int(NEWEST)


def upgrade(connection: Connection) -> None:
    """Bring the database to ``NEWEST`` within the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    command.upgrade(config, "head")


def context_options() -> dict[str, Any]:
    """How Alembic is configured here."""
    return {"version_table": "hearken_version", "transaction_per_migration": False, "render_as_batch": True}
