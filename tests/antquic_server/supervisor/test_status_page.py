"""The status page as a document: whole, closed to everything else, and legible in its colours."""

import base64
import hashlib
import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import pytest

from antquic_server.supervisor import status_page
from antquic_server.supervisor.status_page import load_page

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = Path(status_page.__file__).parent / "page"
STYLE = (SOURCES / "style.css").read_text()

TEXT_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3."""
GRAPHICS_CONTRAST = 3.0
"""Success criterion 1.4.11."""

TEXT_PAIRS = [
    *((text, ground) for text in ("text", "muted", "accent") for ground in ("ground", "surface", "sunken")),
    *((text, f"{level}-tint") for text in ("text", "muted") for level in ("ok", "warn", "bad", "info")),
    *((level, f"{level}-tint") for level in ("ok", "warn", "bad", "info")),
    *(("surface", level) for level in ("ok", "warn", "bad", "info", "muted", "text")),
    ("accent", "bad-tint"),
    ("on-accent", "accent"),
]
GRAPHICS_PAIRS = [
    *((line, ground) for line in ("chart-1", "chart-2", "chart-bad") for ground in ("surface", "sunken")),
    ("control", "surface"),
    ("control", "ground"),
    ("accent", "ground"),
    ("accent", "surface"),
]


def palette(dark: bool) -> dict[str, str]:
    """The colours of a scheme; dark ones replace light ones."""
    light_rules, _, dark_rules = STYLE.partition("@media (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light_rules))
    if dark:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark_rules))
    return found


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2, definitions)."""
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_contrast_is_measured_as_the_standard_says() -> None:
    """Black on white is 21, a colour on itself 1, and the grey that everybody knows just fails."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#123456", "#123456") == 1.0
    assert 4.4 < contrast("#777777", "#ffffff") < TEXT_CONTRAST


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_colour_can_be_told_from_its_ground(dark: bool) -> None:
    """Words by 4.5 to 1, lines and edges by 3 to 1, in both schemes."""
    colours = palette(dark)
    faint = {
        f"{front} on {ground}": round(contrast(colours[front], colours[ground]), 2)
        for pairs, least in ((TEXT_PAIRS, TEXT_CONTRAST), (GRAPHICS_PAIRS, GRAPHICS_CONTRAST))
        for front, ground in pairs
        if contrast(colours[front], colours[ground]) < least
    }
    assert faint == {}


def test_every_colour_has_a_dark_counterpart() -> None:
    """None is used that is not defined, and none is forgotten in the dark."""
    light, dark = palette(False), palette(True)
    used = set(re.findall(r"var\(--([\w-]+)\)", STYLE))

    assert used <= light.keys() | {"shadow"}
    assert {name for name in light if light[name] == dark[name]} == set()


class Outline(HTMLParser):
    """Collects what a document refers to, and what it contains as text of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note references, handlers and ids."""
        self._inside = tag
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset", "background"):
                self.references.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(f"{tag} {name}")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        """Note scripts and styles."""
        if self._inside in self.inline:
            self.inline[self._inside].append(data)
            self._inside = ""


def outline() -> Outline:
    """The page, taken apart."""
    parser = Outline()
    parser.feed(load_page().body.decode())
    return parser


def test_page_needs_nothing_from_elsewhere() -> None:
    """It refers to its own parts and the endpoint's answers, and no source is left to be fetched."""
    found = outline()
    others = [each for each in found.references if not each.startswith("#")]

    assert sorted(others) == ["/healthz", "/history", "/metrics", "/status", "/status", "data:,"]
    assert {each.removeprefix("#") for each in found.references if each.startswith("#")} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert found.handlers == []
    addresses = set(re.findall(r"https?://[^'\"\s)]+", load_page().body.decode()))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of SVG is no address"


def test_policy_allows_exactly_what_the_page_contains() -> None:
    """Every script and style by its hash, and no other; no policy word that opens more."""
    page, found = load_page(), outline()
    directives = dict(directive.split(" ", 1) for directive in page.policy.split("; "))
    for kind, texts in found.inline.items():
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert directives[f"{kind}-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert len(found.inline["script"]) == len(list(SOURCES.glob("*.js")))
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert not re.search(r"unsafe|\*|https?:", page.policy)


def test_scripts_have_no_way_to_turn_text_into_elements() -> None:
    """What a peer calls itself is text, and stays it."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|DOMParser|parseHTML"
    )
    for path in sorted(SOURCES.glob("*.js")):
        assert re.findall(forbidden, path.read_text()) == [], path.name


def test_every_source_is_in_the_page_and_in_the_package() -> None:
    """A file that the index does not name would be dead; one that the wheel lacks would break the node's start."""
    index = (SOURCES / "index.html").read_text()
    names = {path.name for path in SOURCES.iterdir()} - {"index.html"}
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["antquic_server"]

    assert set(re.findall(r'(?:src|href)="([\w-]+\.(?:js|css))"', index)) == names
    for path in SOURCES.iterdir():
        inside = path.relative_to(REPOSITORY / "antquic_server").as_posix()
        assert any(fnmatch(inside, pattern) for pattern in patterns), inside
