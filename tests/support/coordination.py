"""Coordination messages made and read by hand, as a peer that is not ours would."""

import json
import time
from typing import Any

from antquic_server.protocol.coordination import PREFIX

ALICE = bytes(range(32))
BOB = bytes(range(100, 132))
SOME_ADDRESS = "198.18.0.5:4433"
"""What a peer believes its address to be."""


def in_ms(seconds: float = 10.0) -> int:
    """Unix time in milliseconds, that many seconds from now."""
    return int((time.time() + seconds) * 1000)


def request_fields(
    initiator: bytes,
    target: bytes,
    *,
    request_id: int = 1,
    expires_at_unix_ms: int | None = None,
    addresses: tuple[str, ...] = (SOME_ADDRESS,),
) -> dict[str, Any]:
    """Return the JSON object of a request."""
    return {
        "request_id": request_id,
        "expires_at_unix_ms": in_ms() if expires_at_unix_ms is None else expires_at_unix_ms,
        "message": {
            "CoordinationRequest": {
                "initiator": list(initiator),
                "target": list(target),
                "round": 1,
                "initiator_addrs": list(addresses),
            }
        },
    }


def on_the_wire(fields: object) -> bytes:
    """Return the message for a JSON object."""
    return PREFIX + json.dumps(fields).encode()


def request(initiator: bytes, target: bytes, **options: Any) -> bytes:
    """Return a whole request; options of ``request_fields``."""
    return on_the_wire(request_fields(initiator, target, **options))


def accepted(data: bytes) -> tuple[int, list[str], list[str]]:
    """Read an acceptance without our own codec: request id, the initiator's and the target's addresses."""
    assert data.startswith(b"AQCC\x01")
    fields = json.loads(data[5:])
    ((variant, body),) = fields["message"].items()
    assert variant == "CoordinationAccepted", body
    return fields["request_id"], body["initiator_addrs"], body["target_addrs"]


def rejected(data: bytes) -> tuple[int, str]:
    """Read a rejection without our own codec: request id and reason."""
    assert data.startswith(b"AQCC\x01")
    fields = json.loads(data[5:])
    ((variant, body),) = fields["message"].items()
    assert variant == "CoordinationRejected", body
    return fields["request_id"], body["reason"]
