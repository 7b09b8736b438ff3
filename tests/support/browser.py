"""A real, headless Chromium for tests of the status page, and what it complains about."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from support.require import require

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

__all__ = ["CHROMIUM", "Visit", "chromium", "visit"]

CHROMIUM = Path(os.environ.get("ANTQUIC_CHROMIUM", "/usr/bin/chromium"))

# Nothing of it may leave the machine: no updates, no sync, no background requests.
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 20_000


@dataclass(slots=True)
class Visit:
    """One page in the browser; ``complaints`` are its console errors, exceptions and failed requests."""

    page: "Page"
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


@contextmanager
def chromium(profile: Path, *arguments: str) -> Iterator["BrowserContext"]:
    """Run Chromium on a fresh profile in an empty directory; skips the test where there is none."""
    require(CHROMIUM.exists(), f"no Chromium at {CHROMIUM}: install Debian's chromium, or set ANTQUIC_CHROMIUM")
    require(importlib.util.find_spec("playwright"), "the package playwright is missing")
    sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=str(CHROMIUM),
            args=[*ARGUMENTS, *arguments],
            viewport={"width": 1280, "height": 900},
        )
        try:
            yield context
        finally:
            context.close()


def visit(context: "BrowserContext", url: str) -> Visit:
    """Open a page of its own and note everything that goes wrong in it from the beginning."""
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    seen = Visit(page)
    page.on("console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("requestfailed", lambda request: seen.complaints.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda request: seen.requested.append(request.url))
    page.on(
        "response",
        lambda response: seen.complaints.append(f"{response.url}: {response.status}") if not response.ok else None,
    )
    page.goto(url)
    return seen
