"""How the outcome is shown."""

import json

from antquic_server.tuning.actions import Report
from antquic_server.tuning.plan import Outcome, Verdict
from antquic_server.tuning.report import render_json, render_text, render_topics
from support.tuned_system import catalogue, settings_of

RMEM = Outcome(
    key="net.core.rmem_max",
    topic="buffers",
    now="212992",
    wanted="26214400",
    asked="at least 26214400",
    verdict=Verdict.TO_DO,
)
MEM = Outcome(
    key="net.ipv4.udp_mem", topic="buffers", now="1\t2\t3", wanted="1 2 3", asked="at least 1 1 1", verdict=Verdict.FINE
)
TABLE = Outcome(
    key="net.netfilter.nf_conntrack_max",
    topic="conntrack",
    wanted="9",
    asked="at least 9",
    verdict=Verdict.MISSING,
    note="no firewall",
)


def test_check_shows_every_setting_and_what_to_do() -> None:
    """One table, notes below it, and a last line that sums up and says how to go on."""
    assert render_text(Report(action="check", outcomes=(RMEM, MEM, TABLE))).splitlines() == [
        "topic      setting                         now     expected           verdict",
        "buffers    net.core.rmem_max               212992  at least 26214400  to do",
        "           net.ipv4.udp_mem                1 2 3   at least 1 1 1     fine",
        "conntrack  net.netfilter.nf_conntrack_max  -       at least 9         not there",
        "",
        "net.netfilter.nf_conntrack_max: no firewall",
        "",
        "1 to do, 1 fine, 1 not there: antquic-server tune apply (as root)",
    ]


def test_nothing_to_do_is_said_in_words() -> None:
    """By each action in its own."""
    for action, words in (
        ("check", "nothing to do: every setting is as wanted (1 not there)"),
        ("apply", "nothing to change: every setting is as wanted (1 not there)"),
    ):
        assert render_text(Report(action=action, outcomes=(MEM, TABLE))).splitlines()[-1] == words
    assert render_text(Report(action="revert", outcomes=())) == "nothing to revert: nothing is recorded"


def test_apply_shows_what_it_set_and_wrote() -> None:
    """The value set instead of the rule, and the files."""
    changed = Outcome(key="k", topic="t", now="1", wanted="2", asked="at least 2", verdict=Verdict.CHANGED)
    text = render_text(Report(action="apply", outcomes=(changed,), files=("/f written",)))

    assert text.splitlines() == [
        "topic  setting  found  expected or set  verdict",
        "t      k        1      2                changed",
        "",
        "/f written",
        "",
        "1 changed",
    ]


def test_a_dry_run_says_would() -> None:
    """So that nobody takes it for done."""
    assert "would set" in render_text(Report(action="apply", outcomes=(RMEM,), dry_run=True))
    assert "would restore" in render_text(Report(action="revert", outcomes=(RMEM,), dry_run=True))


def test_programs_get_the_same_facts() -> None:
    """As text, with single blanks, and one word for the whole."""
    content = json.loads(render_json(Report(action="check", outcomes=(RMEM, MEM))))

    assert content == {
        "action": "check",
        "dry_run": False,
        "good": False,
        "changed": False,
        "settings": [
            {
                "key": "net.core.rmem_max",
                "topic": "buffers",
                "now": "212992",
                "wanted": "26214400",
                "expected": "at least 26214400",
                "verdict": "to do",
                "note": "",
            },
            {
                "key": "net.ipv4.udp_mem",
                "topic": "buffers",
                "now": "1 2 3",
                "wanted": "1 2 3",
                "expected": "at least 1 1 1",
                "verdict": "fine",
                "note": "",
            },
        ],
        "files": [],
    }


def test_the_list_tells_everything_about_each_setting() -> None:
    """Stock value, reason and way back of all, and how to get what is not applied by default."""
    listed = render_topics(catalogue())
    text = " ".join(listed.split())

    assert max(map(len, listed.splitlines())) <= 100
    for setting in settings_of(catalogue()).values():
        for fact in (f"{setting.key} = {setting.value}", setting.stock, setting.why, setting.undo, setting.kernels):
            assert fact in text
    assert "(only with --topic busy-polling)" in text
