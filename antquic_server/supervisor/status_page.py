"""
The status page, one document without anything from elsewhere.

Its sources are the files of ``page/``, written as an ordinary page that names its style sheet and scripts. They are put
into the document when the node starts; the Content-Security-Policy then names each by its hash, so that a browser runs
these and nothing else, whatever a peer has managed to call itself.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

__all__ = ["StatusPage", "load_page"]

_STYLE: Final = re.compile(r'<link rel="stylesheet" href="([\w.-]+)">')
_SCRIPT: Final = re.compile(r'<script src="([\w.-]+)"></script>')


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusPage:
    """The document and the Content-Security-Policy it needs."""

    body: bytes
    policy: str


@cache
def load_page() -> StatusPage:
    """Put the page together; FileNotFoundError where the installation lacks one of its files."""
    directory = files("antquic_server.supervisor") / "page"
    hashes: dict[str, list[str]] = {"style": [], "script": []}

    def inline(kind: str, name: str) -> str:
        text = f"\n{(directory / name).read_text(encoding='utf-8')}"
        assert f"</{kind}" not in text, f"{name} would end its own element"
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
        return f"<{kind}>{text}</{kind}>"

    text = (directory / "index.html").read_text(encoding="utf-8")
    text = _STYLE.sub(lambda match: inline("style", match[1]), text)
    text = _SCRIPT.sub(lambda match: inline("script", match[1]), text)
    directives = (
        "default-src 'none'",
        f"script-src {' '.join(hashes['script'])}",
        f"style-src {' '.join(hashes['style'])}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Chromium then refuses every way to turn text into elements, not only those we avoid.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return StatusPage(body=text.encode(), policy="; ".join(directives))
