"""What ``hearken serve`` and its clients take on their command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.mark.parametrize(
    "url", ["postgresql://ann:hush@127.0.0.1/d", "postgresql://ann@127.0.0.1/d?password=hush"], ids=["user", "query"]
)
def test_a_database_password_on_the_command_line_is_refused(hearken: Run, url: str) -> None:
    done = hearken("serve", "--database", url)
    assert done.exit_code == 2 and "can be read by everybody" in done.stderr and ".pgpass" in done.stderr
    assert "hush" not in done.stderr and "Traceback" not in done.stderr


def test_a_token_on_the_command_line_is_refused(hearken: Run) -> None:
    done = hearken("label", "--server", "http://127.0.0.1:1", "--token", "hush")
    assert done.exit_code == 2 and "HEARKEN_TOKEN" in done.stderr and "hush" not in done.stderr


def test_a_proxy_that_is_no_address_is_refused(hearken: Run, tmp_path: object) -> None:
    done = hearken("serve", "--database", f"{tmp_path}/feedback.db", "--trusted-proxy", "nginx")
    assert done.exit_code == 2 and "--trusted-proxy: 'nginx' is no address" in done.stderr
