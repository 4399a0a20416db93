"""What all pages share: the templates, and who may see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

from hearken.feedback.access import Role
from hearken.server.security import ApiError, Who, visitor

HERE = Path(__file__).parent

_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


class Elsewhere(Exception):
    """Not here: the browser is sent to another page.

    Args:
        path: where to.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def page(request: Request, template: str, who: Who | None = None, status: int = 200, **context: Any) -> HTMLResponse:
    """A template as an answer. It knows ``who``, the CSRF token, the project's name and its own path."""
    csrf = who.session.csrf if who is not None and who.session is not None else ""
    project = request.app.state.desk.project if status == 503 else request.app.state.desk.settings.project
    shared = {"who": who, "csrf": csrf, "project": project, "path": request.url.path}
    return HTMLResponse(_environment.get_template(template).render(shared | context), status)


def person(request: Request, *roles: Role) -> Who:
    """Who is looking at a page; strangers are sent to log in.

    Raises:
        ApiError: 403 where it is for other roles.
        Elsewhere: to the login.
    """
    found = visitor(request)
    if found is None or found.account is None:
        raise Elsewhere("/login")
    if roles and found.account.role not in roles:
        raise ApiError(403, "this page is for somebody else", "Ask the owner of this project")
    return found


def send(request: Request, error: Exception) -> RedirectResponse:
    """`Elsewhere` as an answer."""
    assert isinstance(error, Elsewhere)
    return RedirectResponse(error.path, 303)
