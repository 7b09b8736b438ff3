"""Options of ``bench relay``, and what follows from them."""

import pytest

from antquic_server.bench.relay_plan import OPTIONS, QUICK, Cell, Plan
from antquic_server.errors import UsageError


def test_defaults_cover_what_is_asked_of_the_benchmark() -> None:
    """One session and many, single datagrams and trains, 200, 1200 and 1452 bytes; trains whole and cut."""
    cells = Plan.parse(OPTIONS).cells(cutting=True)

    assert {(cell.payload_bytes, cell.sessions) for cell in cells} == {
        (size, count) for size in (200, 1200, 1452) for count in (1, 50)
    }
    assert {cell.form for cell in cells} == {"single", "single, cut", "train of 16", "train of 16, cut"}


def test_trains_are_not_cut_where_that_cannot_be_had() -> None:
    """On loopback."""
    assert not any(cell.cut for cell in Plan.parse(OPTIONS).cells(cutting=False))


def test_quick_options_are_options() -> None:
    """They replace some of the defaults and make sense together."""
    assert set(QUICK) <= set(OPTIONS)
    assert len(Plan.parse({**OPTIONS, **QUICK}).cells(cutting=False)) == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", "0"),
        ("ms", "fast"),
        ("sizes", "200,"),
        ("sizes", "1457"),
        ("trains", "0"),
        ("trains", "65"),
        ("sessions", "101"),
        ("modes", "channel,pigeon"),
    ],
)
def test_senseless_options_are_refused(key: str, value: str) -> None:
    """The message names the option."""
    with pytest.raises(UsageError, match=f"bench: {key} = '{value}'"):
        Plan.parse({**OPTIONS, key: value})


def test_a_train_has_to_fit_one_packet_of_the_kernels() -> None:
    """Long trains need small datagrams."""
    assert Plan.parse({**OPTIONS, "sizes": "200", "trains": "64"}).trains == (64,)
    with pytest.raises(UsageError, match="at most 44"):
        Plan.parse({**OPTIONS, "sizes": "1452", "trains": "64"})


def test_form_says_how_datagrams_travel() -> None:
    """For the rows of a table."""
    cell = Cell(train=1, cut=False, payload_bytes=1, sessions=1)

    assert cell.form == "single"
    assert Cell(train=12, cut=True, payload_bytes=1, sessions=1).form == "train of 12, cut"
