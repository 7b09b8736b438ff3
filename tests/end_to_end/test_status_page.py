"""The status page in a real Chromium: what it shows of real nodes, and what a hostile or broken one cannot do to it."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from antquic_server.config.model import Settings
from support.admin_stand_in import AdminStandIn, admin_stand_in, worker_row
from support.browser import Visit, chromium, visit
from support.busy import BUSY_ARGUMENTS, BUSY_SETTINGS, busy
from support.node import REPOSITORY, StartNode
from support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

PATIENCE_S = 30.0
STRANGE_NAME = "rebound.example"
PICTURES = REPOSITORY / "docs" / "images"
PICTURE_POINTS = 112
"""What the documentation's picture shows: charts of two minutes, nearly full."""
ALL_PARTS = "#workers, #refusals, #talkers"
HOSTILE = "\"'><img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
MIN_TEXT_CONTRAST = 4.5
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["BrowserContext"]:
    """One Chromium for the module; every test opens a page of its own."""
    rules = f"--host-resolver-rules=MAP {STRANGE_NAME} 127.0.0.1"
    with chromium(tmp_path_factory.mktemp("profile"), rules) as context:
        yield context


@pytest.fixture
def stand_in() -> Iterator[AdminStandIn]:
    """The real endpoint over a made-up node."""
    with admin_stand_in() as node:
        yield node


def open_page(browser: "BrowserContext", url: str, **settings: Any) -> Visit:
    """Open the page at a width, a colour scheme, a taste in motion; wait until the node is shown."""
    width = settings.pop("width", 1280)
    seen = visit(browser, "about:blank")
    seen.page.set_viewport_size({"width": width, "height": 900})
    seen.page.emulate_media(**{"color_scheme": "light", "reduced_motion": "no-preference"} | settings)
    seen.page.goto(url)
    expect(seen.page, lambda: seen.page.inner_text("#health-text") != "Connecting", "an answer")
    return seen


def expect(page: "Page", condition: Any, what: str) -> None:
    """Wait for something, while the page goes on."""

    def look() -> bool:
        # Events of the page are only delivered while its driver is being asked.
        page.wait_for_timeout(50)
        return bool(condition())

    wait_until(look, timeout_s=PATIENCE_S, what=what)


def close(seen: Visit, *, url: str) -> None:
    """Close the page; nothing may have gone wrong, and nothing been asked elsewhere."""
    requested = [each for each in seen.requested if not each.startswith((url, "about:", "data:"))]
    seen.page.close()
    assert seen.complaints == []
    assert requested == []


def now_of(page: "Page", chart: str, row: int = 1) -> str:
    """The figure "now" of a chart's series."""
    return page.inner_text(f"#chart-{chart} .legend tbody tr:nth-child({row}) td:nth-child(2)")


def line_of(page: "Page", chart: str, index: int = 0) -> str:
    """The path of a chart's line."""
    return page.locator(f"#chart-{chart} path.line").nth(index).get_attribute("d") or ""


def heights(path: str) -> list[float]:
    """The second coordinates of a path; 100 is zero."""
    return [float(each.split(" ")[1]) for each in re.findall(r"[ML]([\d. ]+)", path)]


def row_of(page: "Page", slot: int) -> dict[str, str]:
    """A worker's row by column title."""
    titles = page.locator("#worker-table thead th").all_inner_texts()
    cells = page.locator(f"#worker-table tbody tr[data-key='{slot}'] > *").all_inner_texts()
    return {title: " ".join(cell.split()) for title, cell in zip(titles, cells, strict=True)}


def test_charts_move_and_show_what_a_busy_node_does(browser: "BrowserContext", start_node: StartNode) -> None:
    """Every chart has its figures, and the lines of a second ago are not those of now."""
    node = start_node(workers=2, echo=True, settings=BUSY_SETTINGS, arguments=BUSY_ARGUMENTS)
    with busy(node):
        seen = open_page(browser, node.admin + "/")
        page = seen.page
        for chart, row in (("throughput", 1), ("throughput", 2), ("handshakes", 1), ("relayed", 1), ("drops", 1)):
            expect(page, lambda c=chart, r=row: not now_of(page, c, r).startswith("0"), f"{chart} {row}")
        expect(page, lambda: int(now_of(page, "connections")) >= 20, "connections")
        before = {chart: line_of(page, chart) for chart in ("throughput", "connections", "handshakes", "lag")}
        for chart, line in before.items():
            expect(page, lambda c=chart, was=line: line_of(page, c) != was, f"{chart} to move")
            assert min(heights(line_of(page, chart))) < 90, chart
        told = page.get_attribute("#chart-throughput svg[role=img]", "aria-label") or ""
        assert re.search(r"Throughput in the last \w+( \w+)?: received [\d.,]+ \w+/s now, .* sent ", told)
        expect(page, lambda: "unknown_target" in page.inner_text("#refusals-body"), "refusals by reason")
        expect(page, lambda: page.inner_text("#relay-body").count("Passing") == 2, "self-tests of the relay")
        facts = page.inner_text("#node")
        assert node.peer_id in facts
        assert node.address in facts
        close(seen, url=node.admin)


def test_charts_are_full_when_the_page_is_opened(browser: "BrowserContext", start_node: StartNode) -> None:
    """The node remembers: who comes late sees what has been."""
    node = start_node(workers=1)
    wait_until(lambda: len(node.get("/history")[1]) > 600, timeout_s=PATIENCE_S, what="some seconds of history")
    seen = open_page(browser, node.admin + "/")
    expect(seen.page, lambda: len(heights(line_of(seen.page, "connections"))) >= 4, "points")
    asked = [each for each in seen.requested if "/history" in each]
    assert asked[0].endswith("after=0")
    close(seen, url=node.admin)


def test_killed_worker_shows(browser: "BrowserContext", start_node: StartNode) -> None:
    """Lost, replaced, counted; where nobody is there to replace it, not served, in words, in the title and spoken."""
    node = start_node(workers=2)
    seen = open_page(browser, node.admin + "/")
    page = seen.page
    expect(page, lambda: page.inner_text("#health-text") == "Healthy", "health")
    assert page.title().startswith(f"Healthy {DASH} ")
    victim = node.worker_pids[0]
    os.kill(victim, signal.SIGKILL)
    expect(page, lambda: row_of(page, 0)["Restarts"] == "1", "restart")
    assert f"Worker 0 lost (process {victim}, crashed)" in page.inner_text("#events")
    expect(page, lambda: row_of(page, 0)["State"].startswith("✓ Ready replaced"), "replaced worker")
    assert int(row_of(page, 0)["Process"]) != victim
    assert row_of(page, 1)["Restarts"] == "0"

    shown: list[str] = []

    def kill_again() -> bool:
        """Each death makes the slot wait longer, until the page cannot but see it."""
        (row,) = [each for each in node.status()["workers"] if each["slot"] == 0]
        if row["state"] == "ready":
            os.kill(row["pid"], signal.SIGKILL)
        # All at one moment: the slot is served again soon.
        shown[:] = page.evaluate(
            """() => [byId('health-text').textContent, document.title, byId('announce').textContent,
            byId('worker-table').querySelector("tr[data-key='0'] td").innerText.replaceAll('\\n', ' ')]"""
        )
        return shown[0] == "Slot 0 not served"

    expect(page, kill_again, "slot that is not served")
    assert shown[1].startswith(f"Slot 0 not served {DASH} ")
    assert shown[2] == "Node: Slot 0 not served"
    assert re.match(r"(✕ No worker waiting for a process|! Starting)", shown[3])
    expect(page, lambda: page.inner_text("#health-text") == "Healthy", "health again")
    assert "Slot 0 not served" in page.inner_text("#events")
    assert page.inner_text("#announce") == "Node: Healthy"
    close(seen, url=node.admin)


def test_node_that_goes_away_and_comes_back(browser: "BrowserContext", start_node: StartNode) -> None:
    """The page says so and keeps what it knows, asks again, and finds the new process by itself."""
    node = start_node(workers=1)
    admin = node.admin.removeprefix("http://")
    seen = open_page(browser, node.admin + "/")
    page = seen.page
    expect(page, lambda: page.inner_text("#health-text") == "Healthy", "health")
    assert page.is_hidden("#offline")
    assert seen.complaints == []
    assert node.stop() == 0
    expect(page, lambda: page.is_visible("#offline"), "notice")
    assert "Disconnected from the node." in page.inner_text("#offline")
    assert re.search(r"Its last answer came at \d\d:\d\d:\d\d", page.inner_text("#offline"))
    assert page.inner_text("#health-text") == "Disconnected"
    assert page.title().startswith(f"Disconnected {DASH} ")
    assert page.inner_text("#peer-id") == node.peer_id
    assert all("ERR_CONNECTION" in each or "ERR_EMPTY" in each for each in seen.complaints), seen.complaints

    again = start_node(workers=1, arguments=["--admin", admin])
    expect(page, lambda: page.inner_text("#peer-id") == again.peer_id, "the other node")
    assert page.is_hidden("#offline")
    expect(page, lambda: page.inner_text("#health-text") == "Healthy", "health")
    expect(page, lambda: len(heights(line_of(page, "connections"))) >= 2, "charts that begin anew")
    assert "The node was restarted" in page.inner_text("#events")
    page.close()


def test_restarted_node_may_have_the_same_process_number(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """As in containers: the charts begin anew, with everything that the new node remembers."""
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    assert len(heights(line_of(page, "connections"))) == 39
    stand_in.points = stand_in.points[:3]
    stand_in.document_to_tell["node"]["uptime_s"] = 0.1
    expect(page, lambda: len(heights(line_of(page, "connections"))) == 3, "charts that begin anew")
    stand_in.document_to_tell["node"]["uptime_s"] = 4000.0
    assert "The node was restarted" in page.inner_text("#events")
    close(seen, url=stand_in.url)


def test_mistake_of_the_page_is_not_the_nodes(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """What the page cannot show is said to be the page's fault, and is an error in the console."""
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    stand_in.document_to_tell["workers"] = [None]
    expect(page, lambda: page.is_visible("#offline"), "notice")
    assert "This page cannot show what the node says." in page.inner_text("#offline")
    assert "TypeError" in page.inner_text("#offline")
    assert page.inner_text("#health-text") == "Page broken"
    assert seen.complaints != []
    stand_in.document_to_tell["workers"] = [worker_row(0)]
    expect(page, lambda: page.inner_text("#health-text") == "Healthy", "recovery")
    assert page.is_hidden("#offline")
    page.close()


def test_tab_that_is_not_looked_at_asks_nothing(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """And asks at once when it is looked at again."""
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true}); }"
    page.evaluate(hide, True)
    page.wait_for_timeout(1200)
    asked = len(seen.requested)
    page.wait_for_timeout(1500)  # one and a half polls: that nothing happens is what is tested
    assert len(seen.requested) == asked
    page.evaluate(hide, False)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page, lambda: len(seen.requested) > asked, "questions again")
    close(seen, url=stand_in.url)


def test_dead_frozen_and_late_workers_are_told_apart_in_words(
    browser: "BrowserContext", stand_in: AdminStandIn
) -> None:
    """Each by a word, a mark and a colour; the row says for how long."""
    stand_in.document_to_tell |= {
        "workers": [
            worker_row(0),
            worker_row(1, heartbeat_age_s=12.3),
            worker_row(2, heartbeat_age_s=1.0),
            {"slot": 3, "generation": 2, "restarts": 4, "state": "vacant", "pid": None, "counters": {}},
            worker_row(4, state="assigned"),
            worker_row(5, state="draining"),
            worker_row(6, state="something_new", cpu_percent=99.9),
        ]
    }
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    states = [row_of(page, slot)["State"] for slot in range(7)]
    assert states == [
        "✓ Ready",
        "✕ Frozen silent for 12.3 s",
        "! Late silent for 1 s",
        "✕ No worker waiting for a process",
        "! Starting",
        "→ Draining",
        "! something new",
    ]
    assert row_of(page, 3) == {
        "Slot": "Worker 3",
        "State": "✕ No worker waiting for a process",
        "Process": DASH,
        "Connections": DASH,
        "CPU": DASH,
        "Memory": DASH,
        "Loop lag": DASH,
        "Heartbeat": DASH,
        "Restarts": "4",
    }
    levels = page.eval_on_selector_all("#worker-table tbody tr", "rows => rows.map(row => row.dataset.level)")
    assert levels == ["ok", "bad", "warn", "bad", "warn", "info", "warn"]
    colours = page.eval_on_selector_all(
        "#worker-table tbody .badge", "all => all.map(each => getComputedStyle(each).backgroundColor)"
    )
    assert len(set(colours)) == 4
    assert page.inner_text("#workers-aside") == "1 of 7 ready"
    close(seen, url=stand_in.url)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ({"healthy": True, "draining": False}, "Healthy"),
        ({"healthy": False, "draining": True}, "Draining"),
        ({"healthy": False, "draining": False}, "Not healthy"),
    ],
)
def test_health_is_in_the_title(
    browser: "BrowserContext", stand_in: AdminStandIn, node: dict[str, bool], text: str
) -> None:
    """A row of tabs shows which node is ill."""
    stand_in.document_to_tell["node"] |= node
    seen = open_page(browser, stand_in.url + "/")
    assert seen.page.inner_text("#health-text") == text
    assert seen.page.title() == f"{text} {DASH} abababab {DASH} antquic-server"
    close(seen, url=stand_in.url)


def test_punches_relay_refusals_and_talkers(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """Every part of the status has its place, with the figures that are in it."""
    stand_in.document_to_tell["totals"] |= {"relay_canaries|stream|failed": 2}
    stand_in.document_to_tell["punches"]["unknown"] = 1
    stand_in.document_to_tell["talkers"].append(stand_in.document_to_tell["talkers"][0] | {"peer_id": None})
    stand_in.document_to_tell["relay"]["canary"]["stream"] = {"failed": 2, "latency_s": None}
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page

    summary = "30 of 40 hole punches succeeded (75 %). The outcome of 1 more is not known."
    assert page.inner_text("#punches-summary") == summary
    assert page.locator("#punches-head th").all_inner_texts()[1:] == ["endpoint independent", "dependent (symmetric)"]
    rows = [each.replace("\n", " ").split("\t") for each in page.locator("#punches-body tr").all_inner_texts()]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["endpoint independent", "93 % 28 of 30", "50 % 2 of 4"],
        ["dependent (symmetric)", f"{DASH} none yet", "0 % 0 of 6"],
    ]
    assert page.inner_text("#paths").split("\n")[:2] == [
        "Given direct addresses 80 (80 %)",
        "given the relay 20 (20 %)",
    ]
    relay = page.locator("#relay-body tr").all_inner_texts()
    assert "Passing" in relay[0]
    assert "0.40 ms" in relay[0]
    assert "Failed" in relay[1]
    limits = page.inner_text("#relay-limits")
    assert "Sessions: 9" in limits
    assert "of 10 MB" in limits
    assert page.eval_on_selector_all("#relay-limits .bar", "all => all.map(each => each.dataset.level)")[0] == "warn"
    assert page.locator("#refusals-body tr th").all_inner_texts() == ["Datagram dropped", "Relay session refused"]
    assert "channel · open_rate" in page.inner_text("#refusals-body")
    talker, nameless = page.locator("#talkers-body tr").all_inner_texts()
    assert "cdcdcdcdcdcdcdcd" in talker
    assert "[2001:db8::7]:4433" in talker
    assert "3 MB" in talker
    assert "no peer id" in nameless
    close(seen, url=stand_in.url)


def test_parts_that_a_node_does_not_have_are_left_out(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """An older node, or one that says nothing at all of itself, is shown as far as it goes."""
    stand_in.document_to_tell = {"node": {"healthy": True}, "workers": []}
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page

    assert page.inner_text("#health-text") == "Healthy"
    assert page.inner_text("#punches-summary") == "This node does not report hole punches."
    assert page.is_hidden("#talkers")
    assert page.is_hidden("#talkers-link")
    assert page.inner_text("#refusals-none") == "Nothing has been refused or dropped."
    close(seen, url=stand_in.url)


def test_names_of_peers_are_text_and_nothing_else(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """Whatever a node passes on from peers, in every place where the page shows a word of it."""
    document = stand_in.document_to_tell
    document["node"] |= {"peer_id": HOSTILE, "version": HOSTILE, "listen": [HOSTILE], "pqc_provider": HOSTILE}
    document["workers"][0]["state"] = HOSTILE
    document["spares"][0]["state"] = HOSTILE
    document["totals"] |= {f"drops|{HOSTILE}": 5, f"relay_refusals|{HOSTILE}|x": 1, f"worker_restarts|{HOSTILE}": 1}
    document["talkers"][0] |= {"peer_id": HOSTILE, "host": HOSTILE}
    document["punches"]["by_nat_pair"][0] |= {"initiator": HOSTILE, "target": "__proto__"}
    document["configuration"] = {HOSTILE: {HOSTILE: HOSTILE}}
    document["configuration_changes"] = {f"{HOSTILE}.{HOSTILE}": HOSTILE}
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page

    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == len(list((REPOSITORY / "antquic_server/supervisor/page").glob("*.js")))
    assert page.inner_text("#peer-id") == HOSTILE
    for part in ("#facts", "#worker-table", "#spares", "#refusals-body", "#talkers-body", "#punches-body", "#settings"):
        assert "<img src=x" in page.inner_text(part), part
    close(seen, url=stand_in.url)


def test_even_a_mistake_of_ours_could_not_run_foreign_scripts(
    browser: "BrowserContext", stand_in: AdminStandIn
) -> None:
    """The browser itself refuses markup from text, scripts without the right hash, and addresses of elsewhere."""
    page = open_page(browser, stand_in.url + "/").page
    refused = page.evaluate(
        """() => { try { document.body.innerHTML = '<b>x</b>'; return ''; } catch (error) { return error.name; } }"""
    )
    assert refused == "TypeError"
    page.evaluate(
        """() => { const script = document.createElement('script'); script.id = 'injected';
        script.append(document.createTextNode('window.hacked = 1')); try { document.body.append(script); } catch {} }"""
    )
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("fetch('http://198.51.100.1/').catch((error) => error.name)") == "TypeError"
    page.close()


def test_pages_of_elsewhere_learn_nothing(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """A name that was bent to this machine is not answered, and no foreign page may read, frame or embed."""
    port = stand_in.url.rpartition(":")[2]
    page = browser.new_page()
    answer = page.goto(f"http://{STRANGE_NAME}:{port}/status")
    assert answer is not None
    assert answer.status == 421
    assert "admin.names" in page.inner_text("body")

    page.goto("about:blank")
    for options in ("{}", "{mode: 'no-cors'}"):
        read = f"fetch('{stand_in.url}/status', {options}).then((answer) => answer.status).catch((error) => error.name)"
        assert page.evaluate(read) == "TypeError", options
    page.close()

    framing = browser.new_page()
    framing.set_content(f"<iframe id=f src='{stand_in.url}/'></iframe>")
    framing.wait_for_timeout(500)
    (frame,) = framing.frames[1:]
    assert "antquic" not in frame.content()
    framing.close()


def test_name_that_the_operator_vouches_for(browser: "BrowserContext", start_node: StartNode) -> None:
    """``admin.names``: a node may be called by its host name."""
    node = start_node(workers=1, settings=[f'admin.names=["{STRANGE_NAME}"]'])
    url = node.admin.replace("127.0.0.1", STRANGE_NAME)
    seen = open_page(browser, url + "/")
    expect(seen.page, lambda: seen.page.inner_text("#health-text") == "Healthy", "health")
    assert "changed; default []" in seen.page.inner_text("#settings")
    # Browsers do not trust such an address with the clipboard: then the peer id is at least selected.
    seen.page.click("#copy")
    expect(seen.page, lambda: seen.page.inner_text("#copy") == "Selected", "word of the button")
    assert seen.page.evaluate("getSelection().toString()") == node.peer_id
    close(seen, url=url)


ACCESSIBILITY = Path(__file__).with_name("status_page_checks.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_sound_for_screen_readers_and_weak_eyes(
    browser: "BrowserContext", stand_in: AdminStandIn, scheme: str
) -> None:
    """Language, landmarks, headings, names of controls, tables, charts, one live region; the contrast of every word."""
    stand_in.document_to_tell["workers"] = [
        worker_row(0),
        worker_row(1, heartbeat_age_s=12.3),
        worker_row(2, heartbeat_age_s=1.0),
        worker_row(3, state="draining"),
    ]
    stand_in.document_to_tell["configuration_changes"] = {"relay.max_sessions": 1}
    seen = open_page(browser, stand_in.url + "/", color_scheme=scheme)
    page = seen.page
    expect(
        page, lambda: "received" in (page.get_attribute("#chart-throughput svg[role=img]", "aria-label") or ""), "words"
    )
    page.evaluate("watch.note('bad', 'something'); byId('offline').hidden = false;")

    found = page.evaluate(ACCESSIBILITY)
    assert found["problems"] == []
    assert found["language"] == "en"
    assert found["landmarks"] == {"header": 1, "nav": 1, "main": 1, "footer": 1, "search": 1}
    assert found["live"] == ["announce"]
    assert found["charts"] == 6
    assert found["words"] > 150
    assert found["contrast"] >= MIN_TEXT_CONTRAST, found["faintest"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (scheme == "light")
    close(seen, url=stand_in.url)


def test_everything_can_be_reached_by_keyboard(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """By Tab, in the order of the page, each stop seen; the skip link skips, the controls do what they say."""
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    page.evaluate("document.activeElement.blur()")
    stops: list[dict[str, Any]] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => { const at = document.activeElement; const box = at.getBoundingClientRect();
            const style = getComputedStyle(at);
            return { name: at.id || at.getAttribute('href') || at.getAttribute('aria-label') || at.tagName,
              outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
              seen: box.width > 0 && box.height > 0, top: box.top + scrollY, sticky: !!at.closest('.top') }; }"""
        )
        if stop["name"] == "BODY" or (stops and stop["name"] == stops[0]["name"]):
            break
        stops.append(stop)
    names = [stop["name"] for stop in stops]
    assert names == [
        "#main", "pause", "#node", "#charts", "#workers", "#punches", "#relay", "#refusals", "#talkers",
        "#configuration", "copy", "search", "only-changed", "/status", "/history", "/metrics", "/healthz",
    ]  # fmt: skip
    assert all(stop["outline"] and stop["seen"] for stop in stops), stops
    below = [stop["top"] for stop in stops if not stop["sticky"] and stop["name"] != "#main"]
    assert below == sorted(below)

    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    close(seen, url=stand_in.url)


def test_pause_stops_the_page_and_copy_copies(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """What moves can be stopped (WCAG 2.2.2), by keyboard as well."""
    browser.grant_permissions(["clipboard-read", "clipboard-write"], origin=stand_in.url)
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    page.focus("#copy")
    page.keyboard.press("Enter")
    expect(page, lambda: page.inner_text("#copy") == "Copied", "word of the button")
    assert page.evaluate("navigator.clipboard.readText()") == "ab" * 32
    page.focus("#pause")
    page.keyboard.press("Space")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    assert "Paused at" in page.inner_text("#updated")
    page.wait_for_timeout(300)
    asked = len(seen.requested)
    page.wait_for_timeout(1500)  # one and a half polls: that nothing happens is what is tested
    assert len(seen.requested) == asked
    page.keyboard.press("Space")
    expect(page, lambda: len(seen.requested) > asked, "questions again")
    close(seen, url=stand_in.url)


def test_settings_can_be_searched_and_differences_stand_out(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """By key and by value; what differs from the defaults says what the default is."""
    stand_in.document_to_tell["configuration"]["relay"]["max_sessions"] = 7
    stand_in.document_to_tell["configuration_changes"] = {"relay.max_sessions": 1000}
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    rows = page.locator("#settings tr:visible")
    everything = sum(len(section) for section in stand_in.document_to_tell["configuration"].values())
    assert rows.count() == everything

    page.fill("#search", "max_sessions")
    assert rows.locator("th").all_inner_texts() == ["max_sessions", "max_sessions_per_peer", "max_sessions_per_prefix"]
    assert page.inner_text("#filter-count") == f"3 of {everything} settings, 1 differ from the defaults"
    expect(page, lambda: page.inner_text("#announce") == f"3 of {everything} settings shown", "spoken count")
    page.check("#only-changed")
    assert rows.all_inner_texts() == ["max_sessions\t7\nchanged; default 1000"]
    page.uncheck("#only-changed")
    page.fill("#search", Settings().endpoint.listen[0])
    assert rows.locator("th").all_inner_texts() == ["listen"]
    page.fill("#search", "no such thing")
    assert rows.count() == 0
    close(seen, url=stand_in.url)


@pytest.mark.parametrize("width", [360, 640, 800, 1920])
def test_page_fits_its_width(browser: "BrowserContext", stand_in: AdminStandIn, width: int) -> None:
    """On a telephone, at 200 % zoom of a 1280 pixel window, on a wall: never a sideways scroll of the whole page."""
    stand_in.document_to_tell["workers"] = [worker_row(slot) for slot in range(64)]
    seen = open_page(browser, stand_in.url + "/", width=width)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((each) => !each.closest('.scroll, svg, .unseen, .skip')
        && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.tagName + '#' + each.id)"""
    )
    assert wide == []
    if width == 360:
        # What scrolls by itself can be scrolled by keyboard.
        page.focus(".scroll[aria-label='Table of workers']")
        page.keyboard.press("ArrowRight")
        expect(page, lambda: page.evaluate("document.activeElement.scrollLeft") > 0, "scrolled table")
    close(seen, url=stand_in.url)


def test_nothing_is_animated_for_those_who_ask(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """``prefers-reduced-motion``: no transitions, no smooth scrolling."""
    moving = """() => [...document.querySelectorAll('*')].filter((each) => { const style = getComputedStyle(each);
      return parseFloat(style.transitionDuration) > 0 || style.animationName !== 'none'
        || style.scrollBehavior === 'smooth'; }).length"""
    seen = open_page(browser, stand_in.url + "/", reduced_motion="reduce")
    assert seen.page.evaluate(moving) == 0
    seen.page.emulate_media(reduced_motion="no-preference")
    assert seen.page.evaluate(moving) > 0
    close(seen, url=stand_in.url)


def test_charts_tell_what_is_under_the_pointer(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """The figures of that second; at the right edge, those of now."""
    seen = open_page(browser, stand_in.url + "/")
    page = seen.page
    box = page.locator("#chart-connections svg[role=img]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 20)
    assert page.inner_text("#chart-connections .tip") == "now\nOpen  39"
    page.mouse.move(box["x"] + box["width"] * (1 - 10 / 60), box["y"] + 20)
    assert page.inner_text("#chart-connections .tip") == "10 s ago\nOpen  29"
    page.mouse.move(5, 5)
    assert page.is_hidden("#chart-connections .tip")
    close(seen, url=stand_in.url)


def test_gap_in_the_history_is_a_gap(browser: "BrowserContext", stand_in: AdminStandIn) -> None:
    """Seconds of which nothing is known are not joined by a line."""
    stand_in.points = [point for point in stand_in.points if not 10 < point[0] < 20]
    seen = open_page(browser, stand_in.url + "/")
    expect(seen.page, lambda: line_of(seen.page, "connections") != "", "line")
    assert line_of(seen.page, "connections").count("M") == 2
    close(seen, url=stand_in.url)


def test_pictures_of_the_documentation(browser: "BrowserContext", start_node: StartNode, tmp_path: Path) -> None:
    """A node at work, light and dark; with ANTQUIC_SCREENSHOTS=1 they become those of docs/status-page.md."""
    wanted = os.environ.get("ANTQUIC_SCREENSHOTS") == "1"
    directory = PICTURES if wanted else tmp_path
    node = start_node(workers=2, echo=True, settings=BUSY_SETTINGS, arguments=BUSY_ARGUMENTS, traced=not wanted)
    with busy(node):
        seen = open_page(browser, node.admin + "/")
        page = seen.page
        expect(page, lambda: not now_of(page, "relayed").startswith("0"), "relayed traffic")
        if wanted:
            while len(heights(line_of(page, "throughput"))) < PICTURE_POINTS:
                page.wait_for_timeout(1000)
                if len(heights(line_of(page, "throughput"))) == PICTURE_POINTS // 2:
                    os.kill(node.worker_pids[1], signal.SIGKILL)
        # Each picture ends a little below the last part it shows; of the configuration none is needed.
        for name, dark, parts in (("light", False, ALL_PARTS), ("dark", True, ALL_PARTS), ("top", False, "#workers")):
            page.emulate_media(color_scheme="dark" if dark else "light")
            page.wait_for_timeout(500)
            bottom = page.evaluate(
                """(parts) => Math.max(...[...document.querySelectorAll(parts)]
                .map((part) => part.getBoundingClientRect().bottom + scrollY))""",
                parts,
            )
            path = directory / f"status-page-{name}.png"
            page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": bottom + 16})
            assert path.stat().st_size > 50_000
        close(seen, url=node.admin)
