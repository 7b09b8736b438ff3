"""The loader: where values come from and which one wins. Mistakes are tabled in test_cli."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from antquic_server.config.load import ConfigurationSyntaxError, FlagValue, load_settings
from antquic_server.config.model import Settings, rules_of, section_types
from antquic_server.errors import ConfigurationError


def _write(directory: Path, text: str) -> Path:
    path = directory / "node.toml"
    path.write_text(text)
    return path


def test_nothing_given_gives_the_defaults() -> None:
    """A node needs no configuration."""
    assert load_settings(None) == Settings()


def test_file_changes_only_what_it_names(tmp_path: Path) -> None:
    """Keys that the file leaves out keep their defaults."""
    settings = load_settings(_write(tmp_path, '[endpoint]\nworkers = 3\n[log.modules]\nnet.udp = "debug"\n'))

    assert settings.endpoint.workers == 3
    assert settings.endpoint.listen == Settings().endpoint.listen
    assert settings.log.modules == {"net.udp": "debug"}
    assert settings.pqc == Settings().pqc


def test_later_source_wins(tmp_path: Path) -> None:
    """A flag wins over the file, --set over the flag, the last --set over the first."""
    path = _write(tmp_path, "[endpoint]\nworkers = 1\nmax_connections = 1\nstandby_workers = 1\n")
    settings = load_settings(
        path,
        flags=[
            FlagValue(source="--workers", key="endpoint.workers", value=2),
            FlagValue(source="--x", key="endpoint.max_connections", value=2),
        ],
        overrides=["endpoint.max_connections=3", "endpoint.max_connections=4"],
    )

    assert settings.endpoint.standby_workers == 1
    assert settings.endpoint.workers == 2
    assert settings.endpoint.max_connections == 4


def test_environment_names_the_file_only_without_a_path(tmp_path: Path) -> None:
    """ANTQUIC_CONFIG steps back behind a path given by hand, and an empty one means none."""
    path = _write(tmp_path, "[endpoint]\nworkers = 3\n")

    assert load_settings(None, environment={"ANTQUIC_CONFIG": str(path)}).endpoint.workers == 3
    assert load_settings(path, environment={"ANTQUIC_CONFIG": "/absent"}).endpoint.workers == 3
    assert load_settings(None, environment={"ANTQUIC_CONFIG": ""}) == Settings()


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """A file saved by an editor that puts a mark in front is read as any other."""
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xef\xbb\xbf[endpoint]\r\nworkers = 3\r\n")

    assert load_settings(path).endpoint.workers == 3


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("log.level='debug'", "debug"),
        (' log.level = "debug" ', "debug"),
        ("log.level='''debug'''", "debug"),
        ("log.level='debug' # for now", "debug"),
    ],
)
def test_override_takes_any_toml_spelling(override: str, value: str) -> None:
    """Blanks, quotes of every kind and comments are TOML's business."""
    assert load_settings(None, overrides=[override]).log.level == value


def test_remote_admin_is_allowed_when_wished_for_twice() -> None:
    """admin.allow_remote lifts the restriction to loopback, whichever of the two is given first."""
    settings = load_settings(None, overrides=["admin.listen='0.0.0.0:1'", "admin.allow_remote=true"])

    assert settings.admin.listen == "0.0.0.0:1"


def test_contradiction_blames_what_was_given_last() -> None:
    """Of two settings that contradict each other, the later is named, with the other's value."""
    with pytest.raises(ConfigurationError) as later_min:
        load_settings(None, overrides=["mtu.max=1300", "mtu.min=1400"])
    with pytest.raises(ConfigurationError) as later_max:
        load_settings(None, overrides=["mtu.min=1400", "mtu.max=1300"])

    assert str(later_min.value) == "--set: mtu.min = 1400: expected at most mtu.max, which is 1300"
    assert str(later_max.value) == "--set: mtu.max = 1300: expected at least mtu.min, which is 1400"


def test_keep_alive_may_be_off() -> None:
    """Zero, for no pings, goes with any idle timeout."""
    settings = load_settings(None, overrides=["endpoint.keep_alive_s=0", "endpoint.idle_timeout_s=0.2"])

    assert settings.endpoint.idle_timeout_s == 0.2


def test_errors_carry_their_facts(tmp_path: Path) -> None:
    """A program can tell source, key and value without reading the text."""
    path = _write(tmp_path, "[endpoint]\nworkers = 65\n")

    with pytest.raises(ConfigurationError) as raised:
        load_settings(path)

    assert raised.value.source == str(path)
    assert raised.value.key == "endpoint.workers"
    assert raised.value.value == 65
    assert raised.value.expected == "an integer from 0 to 64"


def test_position_of_a_byte_that_is_not_utf_8_counts_characters(tmp_path: Path) -> None:
    """Line and column are what an editor shows, not byte offsets."""
    path = tmp_path / "node.toml"
    path.write_bytes("# é\n# éé".encode() + b"\xfe")

    with pytest.raises(ConfigurationSyntaxError) as raised:
        load_settings(path)

    assert raised.value.key == "line 2, column 5"


def test_device_is_not_read_for_ever() -> None:
    """A mistaken path that never ends is refused after the size limit."""
    with pytest.raises(ConfigurationError, match="a file of at most"):
        load_settings(Path("/dev/zero"))


NAMES = st.sampled_from([*section_types(), *(key for name in section_types() for key in rules_of(name))])


@given(data=st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_loads_or_is_a_configuration_error(tmp_path: Path, data: bytes) -> None:
    """Whatever the bytes, only ConfigurationError comes out."""
    path = tmp_path / "node.toml"
    path.write_bytes(data)
    with suppress(ConfigurationError):
        load_settings(path)


@given(text=st.text(max_size=60) | st.builds("{}.{}={}".format, NAMES, NAMES, st.text(max_size=20)))
@hypothesis_settings(deadline=None)
def test_any_override_is_taken_or_is_a_configuration_error(text: str) -> None:
    """Whatever stands behind --set, only ConfigurationError comes out."""
    with suppress(ConfigurationError):
        load_settings(None, overrides=[text])


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["endpoint.listen=['127.0.0.1:9', '[::1]:50000']", "relay.port_range=[49152, 50000]"],
            "--set: relay.port_range = (49152, 50000): expected a range without 50000, the port of endpoint.listen",
        ),
        (
            ["relay.port_range=[2000, 3000]", "endpoint.listen=['127.0.0.1:2000']"],
            (
                "--set: endpoint.listen = ('127.0.0.1:2000',): expected a port outside relay.port_range, "
                "which is 2000 to 3000"
            ),
        ),
        (
            ["relay.port_range=[10001, 20000]"],
            "--set: relay.port_range = (10001, 20000): expected a range without 10001, the port of admin.listen",
        ),
        (
            ["relay.max_sessions_per_peer=9", "relay.max_sessions=8"],
            "--set: relay.max_sessions = 8: expected at least relay.max_sessions_per_peer, which is 9",
        ),
        (
            ["relay.bandwidth_per_peer_bytes_per_s=104857601"],
            (
                "--set: relay.bandwidth_per_peer_bytes_per_s = 104857601: "
                "expected at most relay.bandwidth_bytes_per_s, which is 104857600"
            ),
        ),
    ],
)
def test_relay_settings_fit_together(overrides: list[str], line: str) -> None:
    """The node's own ports are no session's, and a part is not more than the whole."""
    with pytest.raises(ConfigurationError) as raised:
        load_settings(None, overrides=overrides)

    assert str(raised.value) == line


def test_ports_in_the_default_range_are_the_operators_to_take() -> None:
    """A default is never at fault; sessions get other ports then."""
    assert load_settings(None, overrides=["endpoint.listen=['127.0.0.1:50000']"]).relay == Settings().relay
    settings = load_settings(None, overrides=["relay.port_range=[50000, 50009]", "endpoint.listen=['127.0.0.1:0']"])
    assert settings.relay.port_range == (50000, 50009)
