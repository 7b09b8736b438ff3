"""The settings files, and what is said about one that is malformed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from antquic_server.config.model import Settings
from antquic_server.tuning.catalogue import CatalogueError, Setting, load_topic, load_topics
from antquic_server.tuning.places import tuning_directory
from antquic_server.tuning.plan import FOLLOWED, follow
from support.require import require
from support.tuned_system import STOCK, catalogue, settings_of

HEAD = "# topic: one\n# title: One\n# apply: by default\n# about: About\n#   it.\n"
FIELDS = "".join(
    f"# {name}: {text}\n"
    for name, text in [
        ("rule", "at least"),
        ("unit", "bytes"),
        ("stock", "1"),
        ("why", "Because."),
        ("effect", "none"),
        ("undo", "write 1"),
        ("kernels", "all"),
    ]
)


def write(directory: Path, text: str, name: str = "one.conf") -> Path:
    """Write a settings file; returns its path."""
    path = directory / name
    path.write_text(text)
    return path


def test_the_topics_are_those_the_guide_has() -> None:
    """Those by default first; busy polling and memory only when named."""
    topics = catalogue()

    by_default = [topic.name for topic in topics if topic.by_default]
    assert by_default == ["backlog", "buffers", "conntrack", "files", "ports"]
    assert [topic.name for topic in topics if not topic.by_default] == ["busy-polling", "memory"]


def test_the_buffers_are_those_of_the_guide() -> None:
    """26214400 bytes for the four that bound socket buffers."""
    settings = settings_of(catalogue())

    for name in ("rmem_max", "wmem_max", "rmem_default", "wmem_default"):
        assert settings[f"net.core.{name}"].value == "26214400"


@pytest.mark.parametrize("setting", settings_of(catalogue()).values(), ids=lambda setting: setting.key)
def test_every_setting_says_how_it_is_undone_and_what_it_does(setting: Setting) -> None:
    """With a command or the record, a figure with its command, or plainly that there is none."""
    assert f"sysctl -w {setting.key}=" in setting.undo or "antquic-server tune apply" in setting.undo
    assert re.search(
        r"antquic-server tune measure|tests/tuning/test_effects|not measured here|^none, until|^see ", setting.effect
    )
    assert re.search(r"^(all|from)\b", setting.kernels)
    assert "namespaced" in setting.kernels
    assert len(setting.why.split()) > 5
    assert setting.key in STOCK, "tests/support/tuned_system.py has a stock value for each"


def test_the_default_ports_are_those_of_the_configuration() -> None:
    """The file alone, without the command, reserves what a node with default settings uses."""
    topics = catalogue()

    assert follow(topics, Settings()) == topics
    assert {name for setting in settings_of(topics).values() for name in setting.follows} == set(FOLLOWED)


@pytest.mark.parametrize("path", sorted((tuning_directory() / "linux").glob("*.conf")), ids=lambda path: path.name)
def test_sysctl_takes_the_file_as_it_is(path: Path) -> None:
    """procps reads it without a complaint, as systemd does at the next start, and finds the same settings."""
    program = shutil.which("sysctl", path="/usr/sbin:/sbin:/usr/bin:/bin")
    require(program, "sysctl is missing (package procps)")
    assert program is not None

    run = subprocess.run([program, "--dry-run", "--load", path], capture_output=True, text=True, check=True)

    expected = [f"{setting.key} = {setting.value}" for setting in load_topic(path).settings]
    assert run.stderr == ""
    assert run.stdout.splitlines() == expected


def test_fields_go_on_in_indented_lines(tmp_path: Path) -> None:
    """As one text; optional fields may be missing."""
    second = f"{FIELDS}# missing: no module\n# follows: x, y\na.c = 2\n"
    topic = load_topic(write(tmp_path, f"{HEAD}\n{FIELDS}a.b = 1\n\n\n{second}"))

    assert topic.about == "About it."
    assert [(one.key, one.value, one.missing, one.follows) for one in topic.settings] == [
        ("a.b", "1", "", ()),
        ("a.c", "2", "no module", ("x", "y")),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n", "one.conf: expected a head and settings, found nothing"),
        (HEAD, "one.conf:1: expected a head without a setting, then settings"),
        (HEAD.replace("topic: one", "topic: two"), "one.conf:1: topic: expected one"),
        (HEAD.replace("by default", "always"), "one.conf:1: apply: expected one of by default, when named"),
        (HEAD.replace("# title: One\n", ""), "one.conf:1: expected the field title"),
        (f"{HEAD}\n{FIELDS}", "one.conf:7: expected a setting after its comments"),
        (f"{HEAD}\n{FIELDS}a.b=1\n", "one.conf:7: expected comments, then one line like"),
        (f"{HEAD}\n{FIELDS}a.b = 1\na.c = 2\n", "one.conf:7: expected comments, then one line"),
        (f"{HEAD}\n{FIELDS}a.b = 1\n# late: comment\n", "one.conf:7: expected comments, then one line"),
        (f"{HEAD}\n# unit: bytes\n{FIELDS}a.b = 1\n", "one.conf:9: expected one each of the fields"),
        (f"{HEAD}\n{FIELDS}# colour: red\na.b = 1\n", "one.conf:14: expected one each of the fields"),
        (f"{HEAD}\n{FIELDS.replace('# unit: bytes', '# bytes')}a.b = 1\n", "one.conf:8: expected one each"),
        (f"{HEAD}\n{FIELDS.replace('at least', 'more')}a.b = 1\n", "one.conf:7: a.b: rule 'more': expected one of"),
        (f"{HEAD}\n{FIELDS}a.b = many\n", "one.conf:7: a.b: 'many': expected whole numbers"),
        (
            f"{HEAD}\n{FIELDS.replace('at least', 'range 1 2')}a.b = 3\n",
            "a.b: '3': expected a value from 1 to 2",
        ),
        (f"{HEAD}\n{FIELDS}a.b = 1 # \u00e9\n", "cannot be read"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    """With file, line and what was expected there."""
    with pytest.raises(CatalogueError, match=complaint):
        load_topic(write(tmp_path, text))


def test_a_key_stands_in_one_file_only(tmp_path: Path) -> None:
    """Two values for one key would be two sources of truth."""
    write(tmp_path, f"{HEAD}\n{FIELDS}a.b = 1\n")
    write(tmp_path, f"{HEAD.replace('one', 'two')}\n{FIELDS}a.b = 2\n", "two.conf")

    with pytest.raises(CatalogueError, match=r"a\.b: expected in one file only"):
        load_topics(tmp_path)


def test_a_directory_without_files_is_refused(tmp_path: Path) -> None:
    """A broken installation is not a system that is fine."""
    with pytest.raises(CatalogueError, match="expected settings files"):
        load_topics(tmp_path)
