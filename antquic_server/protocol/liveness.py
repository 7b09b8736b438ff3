"""
Liveness probes of ant-quic peers: a message on a unidirectional stream, answered by another.

Layout, from the wire notes, section 4.5::

    probe    "ANQProR1" (8)  tag (16)
    answer   "ANQAckC1" (8)  tag (16)  kind 0 (1)  value 0 (1)
"""

PROBE_MAGIC = b"ANQProR1"
ANSWER_MAGIC = b"ANQAckC1"
TAG_BYTES = 16
PROBE_BYTES = len(PROBE_MAGIC) + TAG_BYTES


def answer_probe_untrusted(message: bytes) -> bytes | None:
    """Return the answer to a probe, or None if the message is not one."""
    if len(message) != PROBE_BYTES or not message.startswith(PROBE_MAGIC):
        return None
    return ANSWER_MAGIC + message[len(PROBE_MAGIC) :] + b"\x00\x00"


def answered_tag_untrusted(message: bytes) -> bytes | None:
    """Return the tag of the probe that a message answers, or None if it is no answer; its value does not matter."""
    if len(message) < PROBE_BYTES or not message.startswith(ANSWER_MAGIC):
        return None
    return message[len(ANSWER_MAGIC) : PROBE_BYTES]
