"""One leg of a channel: when it binds, what it believes, when it is lost."""

import pytest

from antquic_server.errors import RelayDecodeError
from antquic_server.peer.channel import (
    BIND_INTERVAL_S,
    BIND_REPEAT_S,
    QUIET_S,
    SILENCE_S,
    SUSPECT_S,
    UNANSWERED_S,
    Channel,
)
from antquic_server.protocol.relay_channel import (
    NO_NONCE,
    bind_counter_untrusted,
    bind_nonce_untrusted,
    encode_bound,
    encode_challenge,
    encode_unknown,
    verify_leg_untrusted,
)

ID, KEY, TOKEN = b"channel", b"K" * 32, b"T" * 16
NONCE, OTHER_NONCE = b"N" * 8, b"O" * 8
UNIX_S = 1_700_000_000.25


def channel() -> Channel:
    """A channel that was opened at second 0."""
    return Channel(
        channel_id=ID,
        key=KEY,
        token=TOKEN,
        peer_id=b"P" * 32,
        node=b"N" * 32,
        via=("198.18.0.1", 10_000, 0, 0),
        opened_by_us=True,
        now_s=0.0,
        unix_s=UNIX_S,
    )


def bound(leg: Channel, now_s: float = 0.0) -> Channel:
    """Bind a leg, and have the node answer."""
    bind = leg.take_bind(now_s)
    assert bind is not None
    assert leg.bound_untrusted(encode_bound(ID, bind_counter_untrusted(bind), KEY, NONCE), now_s)
    return leg


def test_binds_are_repeated_until_one_is_answered() -> None:
    """Each with a greater counter, which begins at the wall clock, so that a restart does not fall back."""
    leg = channel()
    counters = []
    for step in range(4):
        bind = leg.take_bind(step * BIND_REPEAT_S)
        assert bind is not None
        assert verify_leg_untrusted(bind, KEY)
        counters.append(bind_counter_untrusted(bind))
        assert leg.take_bind(step * BIND_REPEAT_S) is None
    first = int(UNIX_S * 1e6) + 1

    assert counters == [first, first + 1, first + 2, first + 3]
    assert leg.bound_untrusted(encode_bound(ID, counters[1], KEY, NONCE), 1.0)
    assert leg.is_bound
    assert leg.take_bind(1.0 + BIND_INTERVAL_S - 0.01) is None
    assert leg.take_bind(1.0 + BIND_INTERVAL_S) is not None


def test_only_the_nodes_answer_to_a_bind_that_waits_counts() -> None:
    """Not another key's, not of a counter that was never sent, not twice."""
    leg = channel()
    bind = leg.take_bind(0.0)
    assert bind is not None
    counter = bind_counter_untrusted(bind)

    assert not leg.bound_untrusted(encode_bound(ID, counter, b"X" * 32, NONCE), 0.0)
    assert not leg.bound_untrusted(encode_bound(ID, counter + 1, KEY, NONCE), 0.0)
    assert not leg.bound_untrusted(encode_bound(ID, counter - 1, KEY, NONCE), 0.0)
    assert leg.bound_untrusted(encode_bound(ID, counter, KEY, NONCE), 0.0)
    assert not leg.bound_untrusted(encode_bound(ID, counter, KEY, NONCE), 0.0)
    with pytest.raises(RelayDecodeError):
        leg.bound_untrusted(b"short", 0.0)


def test_a_challenge_is_met_at_once() -> None:
    """By one bind, however many challenges with this nonce are under way, and by all that follow, until another one."""
    leg = channel()
    first, second = leg.take_bind(0.0), leg.take_bind(BIND_REPEAT_S)
    assert first is not None
    assert second is not None
    assert bind_nonce_untrusted(first) == bind_nonce_untrusted(second) == NO_NONCE
    assert leg.challenged_untrusted(encode_challenge(ID, bind_counter_untrusted(first), KEY, NONCE), 0.3)
    assert leg.next_deadline_s == 0.3
    answer = leg.take_bind(0.3)
    assert answer is not None
    assert (bind_nonce_untrusted(answer), bind_counter_untrusted(answer)) == (NONCE, bind_counter_untrusted(second) + 1)
    assert leg.challenged_untrusted(encode_challenge(ID, bind_counter_untrusted(second), KEY, NONCE), 0.4)
    assert not leg.is_bound
    # Nothing comes for it, so it is repeated like any other.
    assert leg.take_bind(0.4) is None
    repeated = leg.take_bind(0.3 + BIND_REPEAT_S)
    assert repeated is not None
    assert bind_nonce_untrusted(repeated) == NONCE
    assert leg.bound_untrusted(encode_bound(ID, bind_counter_untrusted(repeated), KEY, OTHER_NONCE), 0.6)
    # The next bind has the nonce that came last, and costs no round trip of its own.
    regular = leg.take_bind(0.6 + BIND_INTERVAL_S)
    assert regular is not None
    assert bind_nonce_untrusted(regular) == OTHER_NONCE


def test_a_challenge_is_believed_like_a_bound() -> None:
    """With our key, and to a bind that waits; it is none of the other kinds."""
    leg = channel()
    bind = leg.take_bind(0.0)
    assert bind is not None
    counter = bind_counter_untrusted(bind)
    for wrong in (
        encode_challenge(ID, counter, b"X" * 32, NONCE),
        encode_challenge(ID, counter + 1, KEY, NONCE),
        encode_challenge(ID, counter - 1, KEY, NONCE),
    ):
        assert not leg.challenged_untrusted(wrong, 0.0)
    with pytest.raises(RelayDecodeError):
        leg.challenged_untrusted(b"short", 0.0)
    repeated = leg.take_bind(BIND_REPEAT_S)
    assert repeated is not None
    assert bind_nonce_untrusted(repeated) == NO_NONCE


def test_challenges_alone_keep_no_channel() -> None:
    """A node that never takes a bind is as good as silent."""
    leg = channel()
    for step in range(int(UNANSWERED_S / BIND_REPEAT_S)):
        bind = leg.take_bind(step * BIND_REPEAT_S)
        assert bind is not None
        nonce = step.to_bytes(8, "big")
        assert leg.challenged_untrusted(
            encode_challenge(ID, bind_counter_untrusted(bind), KEY, nonce), step * BIND_REPEAT_S
        )
    assert leg.is_lost(UNANSWERED_S)


def test_a_node_that_never_answers_loses_the_channel() -> None:
    """A regular bind later on is no different."""
    leg = channel()
    assert not leg.is_lost(UNANSWERED_S - 0.1)
    assert leg.is_lost(UNANSWERED_S)
    leg = bound(channel())
    assert not leg.is_lost(1e6)
    leg.take_bind(BIND_INTERVAL_S)
    assert not leg.is_lost(BIND_INTERVAL_S + UNANSWERED_S - 0.1)
    assert leg.is_lost(BIND_INTERVAL_S + UNANSWERED_S)


def test_a_suspicion_shortens_the_wait() -> None:
    """The connection to the node is gone: the channel may be as well."""
    leg = bound(channel())
    leg.suspect(1.0)

    assert leg.next_deadline_s == 1.0
    assert leg.take_bind(1.0) is not None
    assert not leg.is_lost(1.0 + SUSPECT_S - 0.1)
    assert leg.is_lost(1.0 + SUSPECT_S)


def test_sending_without_hearing_anything_binds_anew() -> None:
    """Our NAT may have forgotten us; hearing something in time is enough."""
    leg = bound(channel())
    assert leg.wrap([b"a", b"bc"], 1.0) == [b"\x10channela", b"\x10channelbc"]
    assert leg.bytes_sent == 3
    assert leg.next_deadline_s == 1.0 + SILENCE_S
    assert leg.take_bind(1.0 + SILENCE_S - 0.1) is None
    assert leg.take_bind(1.0 + SILENCE_S) is not None
    assert not leg.is_bound

    leg = bound(channel())
    leg.wrap([b"a"], 1.0)
    leg.received(b"answer", 1.1)
    assert leg.bytes_received == 6
    # The other side has fallen silent: that is asked about once, and sooner.
    assert leg.take_bind(1.1 + QUIET_S - 0.01) is None
    assert leg.take_bind(1.1 + QUIET_S) is not None


def test_a_flow_that_goes_on_binds_no_more_often() -> None:
    """Ten seconds of traffic in both directions, and one bind."""
    leg = bound(channel())
    binds = 0
    for step in range(1, 1000):
        now_s = step * 0.01
        leg.wrap([b"x"], now_s)
        leg.received(b"y", now_s)
        while leg.next_deadline_s <= now_s and leg.take_bind(now_s) is not None:
            binds += 1
        leg.take_bind(now_s)

    assert binds == 0


def test_the_end_is_believed_with_the_token_only() -> None:
    """Anybody can send the rest."""
    leg = channel()

    assert leg.is_gone_untrusted(encode_unknown(ID, TOKEN))
    assert not leg.is_gone_untrusted(encode_unknown(ID, b"X" * 16))
    with pytest.raises(RelayDecodeError):
        leg.is_gone_untrusted(b"short")
