"""How long, and how many actions, until the first comparison is stored: `hearken quickstart --human`, played.

The clock starts with the command, which is what follows the end of ``pip install``, and stops when the comparison is in
the feedback database. What a person does is counted: typing the command (the browser opens by itself; here a Chromium
that Playwright drives), clicking, pressing a key. The comparison is one of the practice items, which are there while
the language model still trains. Fails beyond three actions or two minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import arguments, run, table

from hearken.errors import UserError
from hearken.feedback.store import FeedbackStore

COMMAND = [sys.executable, "-c", "from hearken.cli.main import main; main()", "quickstart"]
MOST_ACTIONS, MOST_SECONDS = 3, 120.0
LINK = re.compile(r"http://\S+/enter\S*#\S+")


def link_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """The link that the command prints."""
    while not (found := LINK.search(log.read_text("utf-8"))):
        if process.poll() is not None:
            raise UserError("the command ended without a link", log.read_text("utf-8")[-400:] or "It said nothing")
        time.sleep(0.02)
    return found[0]


def stored(path: Path) -> int:
    """Judgments in the database."""
    with FeedbackStore(path) as store:
        return store.last_seq()


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Play the person, measure, print."""
    from playwright.sync_api import sync_playwright

    chromium = settings.chromium or os.environ.get("HEARKEN_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise UserError("no Chromium found", "Install it, or name it with --chromium")
    shutil.rmtree(settings.work, ignore_errors=True)
    settings.work.mkdir(parents=True)
    folder = settings.work / "tales"
    actions = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        began = time.monotonic()
        actions.append("hearken quickstart --human")
        log = settings.work / "command.log"
        with log.open("wb") as said:
            process = subprocess.Popen([*COMMAND, str(folder), "--human"], stderr=said)
        try:
            link = link_of(process, log)
            page_seconds = time.monotonic() - began
            page = browser.new_page()
            page.set_default_timeout(1000 * 2 * MOST_SECONDS)
            page.goto(link)
            page.get_by_role("button", name="I agree").click()
            actions.append("click: I agree, let us begin")
            page.locator(".step").first.wait_for()
            page.wait_for_timeout(1000)  # they read; the page takes nothing in the first moment
            page.keyboard.press("1")
            actions.append("key: 1")
            while not stored(folder / "feedback.db") and process.poll() is None:
                page.wait_for_timeout(50)
            seconds = time.monotonic() - began
        finally:
            process.terminate()
            process.wait(60)
            browser.close()
    table(
        "From the command to the first stored comparison",
        ["actions", "seconds to the link", "seconds to the comparison"],
        [[str(len(actions)), f"{page_seconds:.1f}", f"{seconds:.1f}"]],
    )
    if len(actions) > MOST_ACTIONS or seconds > MOST_SECONDS:
        raise UserError(f"{len(actions)} actions, {seconds:.0f} s", f"The goal: {MOST_ACTIONS} and {MOST_SECONDS:.0f}")
    return {"actions": actions, "link_seconds": page_seconds, "seconds": seconds}


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--chromium", default="", help="path of the browser")
    run(main, parser)
