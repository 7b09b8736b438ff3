"""
The transport parameters with which two peers agree on the extension frames.

Both codec functions work on the body of the ``quic_transport_parameters`` TLS extension, a list of (id,
length, value) with id and length as varints (RFC 9000, section 18). The standard parameters in that list
belong to the QUIC stack and are passed over here. Values of ours (``TransportParameterId``)::

    nat_traversal       varint, 1 to 100: how many attempts may run at once; or empty, from a pure client
    rfc_nat_traversal   empty: the extension frames have the layouts of ``frames``
    address_discovery   varint: 0 sends OBSERVED_ADDRESS, 1 receives it, 2 does both
    pqc_algorithms      one byte of flags
    ack_receive_v2      empty
    relay_channels      empty: knows relay channels (``relay_control``); ours, ant-quic passes it over
"""

from dataclasses import dataclass

from aioquic.buffer import UINT_VAR_MAX_SIZE, Buffer, BufferReadError

from antquic_server.errors import TransportParameterDecodeError
from antquic_server.protocol.codepoints import TransportParameterId

__all__ = [
    "MAX_NAT_TRAVERSAL_LIMIT",
    "ExtensionParameters",
    "nat_traversal_negotiated",
    "pull_extension_parameters_untrusted",
    "push_extension_parameters",
    "receives_observed_address",
    "sends_observed_address",
]

MAX_NAT_TRAVERSAL_LIMIT = 100
"""The most attempts a peer may ask a server to run at once, as in ant-quic."""

_SENDS = (0, 2)
_RECEIVES = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionParameters:
    """
    What one side declared; ``None`` and ``False`` mean that the parameter was absent.

    ``nat_traversal`` is the limit of concurrent attempts. The empty form, which a side uses that only ever
    acts as a client, sets ``nat_traversal_client_form`` and leaves ``nat_traversal`` at ``None``.
    """

    nat_traversal: int | None = None
    rfc_nat_traversal: bool = False
    address_discovery: int | None = None
    pqc_algorithms: int | None = None
    ack_receive_v2: bool = False
    nat_traversal_client_form: bool = False
    relay_channels: bool = False


def pull_extension_parameters_untrusted(data: bytes, *, from_server: bool = False) -> ExtensionParameters:
    """
    Read the extension parameters out of a whole transport parameter list.

    Unknown and standard ids are passed over, but no id at all may come twice (RFC 9000, section 7.4).
    ``from_server`` lifts the ceiling of ``nat_traversal``, which exists to protect servers.
    Raises ``TransportParameterDecodeError``, to be answered with TRANSPORT_PARAMETER_ERROR.
    """
    values = _pull_known_values_untrusted(data)
    nat_traversal = values.get(TransportParameterId.NAT_TRAVERSAL)
    client_form = nat_traversal == b""
    limit = None
    if nat_traversal:
        limit = _single_varint_untrusted(nat_traversal, "nat_traversal")
        if limit == 0 or (limit > MAX_NAT_TRAVERSAL_LIMIT and not from_server):
            raise TransportParameterDecodeError(f"nat_traversal is {limit}, expected 1 to 100")
    address_discovery = None
    role = values.get(TransportParameterId.ADDRESS_DISCOVERY)
    if role is not None:
        address_discovery = _single_varint_untrusted(role, "address_discovery")
        if address_discovery not in _SENDS and address_discovery not in _RECEIVES:
            raise TransportParameterDecodeError(f"address_discovery is {address_discovery}, expected 0 to 2")
    pqc_algorithms = values.get(TransportParameterId.PQC_ALGORITHMS)
    if pqc_algorithms is not None and len(pqc_algorithms) != 1:
        raise TransportParameterDecodeError(f"pqc_algorithms has {len(pqc_algorithms)} bytes, expected 1")
    return ExtensionParameters(
        nat_traversal=limit,
        rfc_nat_traversal=_flag_untrusted(values, TransportParameterId.RFC_NAT_TRAVERSAL),
        address_discovery=address_discovery,
        pqc_algorithms=None if pqc_algorithms is None else pqc_algorithms[0],
        ack_receive_v2=_flag_untrusted(values, TransportParameterId.ACK_RECEIVE_V2),
        nat_traversal_client_form=client_form,
        relay_channels=_flag_untrusted(values, TransportParameterId.RELAY_CHANNELS),
    )


def push_extension_parameters(params: ExtensionParameters) -> bytes:
    """
    Write the parameters, ready to be appended to the list the QUIC stack wrote.

    Always in the order of the module docstring. Raises ``ValueError`` for values the other side must refuse.
    """
    _require_sendable(params)
    parts: list[bytes] = []
    if params.nat_traversal is not None:
        value = _varint(params.nat_traversal)
        parts.append(_parameter(TransportParameterId.NAT_TRAVERSAL, value))
    elif params.nat_traversal_client_form:
        parts.append(_parameter(TransportParameterId.NAT_TRAVERSAL, b""))
    if params.rfc_nat_traversal:
        parts.append(_parameter(TransportParameterId.RFC_NAT_TRAVERSAL, b""))
    if params.address_discovery is not None:
        value = _varint(params.address_discovery)
        parts.append(_parameter(TransportParameterId.ADDRESS_DISCOVERY, value))
    if params.pqc_algorithms is not None:
        parts.append(_parameter(TransportParameterId.PQC_ALGORITHMS, bytes((params.pqc_algorithms,))))
    if params.ack_receive_v2:
        parts.append(_parameter(TransportParameterId.ACK_RECEIVE_V2, b""))
    if params.relay_channels:
        parts.append(_parameter(TransportParameterId.RELAY_CHANNELS, b""))
    return b"".join(parts)


def sends_observed_address(local: ExtensionParameters, remote: ExtensionParameters) -> bool:
    """Tell whether the local side may send OBSERVED_ADDRESS (draft-ietf-quic-address-discovery)."""
    return local.address_discovery in _SENDS and remote.address_discovery in _RECEIVES


def receives_observed_address(local: ExtensionParameters, remote: ExtensionParameters) -> bool:
    """Tell whether the remote side may send OBSERVED_ADDRESS; if not, one is a PROTOCOL_VIOLATION."""
    return sends_observed_address(remote, local)


def nat_traversal_negotiated(local: ExtensionParameters, remote: ExtensionParameters) -> bool:
    """
    Tell whether ADD_ADDRESS, PUNCH_ME_NOW and REMOVE_ADDRESS may be used.

    Both sides must have the parameter, and at least one of them with a limit: of two pure clients neither
    could coordinate the other.
    """
    if local.nat_traversal is None and remote.nat_traversal is None:
        return False
    return _has_nat_traversal(local) and _has_nat_traversal(remote)


_KNOWN_IDS = frozenset(
    (
        TransportParameterId.NAT_TRAVERSAL,
        TransportParameterId.RFC_NAT_TRAVERSAL,
        TransportParameterId.ADDRESS_DISCOVERY,
        TransportParameterId.PQC_ALGORITHMS,
        TransportParameterId.ACK_RECEIVE_V2,
        TransportParameterId.RELAY_CHANNELS,
    )
)


def _pull_known_values_untrusted(data: bytes) -> dict[int, bytes]:
    """Walk the whole list, so that its framing is known to be sound, keeping the values that matter here."""
    buf = Buffer(data=data)
    seen: set[int] = set()
    values: dict[int, bytes] = {}
    try:
        while not buf.eof():
            parameter_id = buf.pull_uint_var()
            value = buf.pull_bytes(buf.pull_uint_var())
            if parameter_id in seen:
                raise TransportParameterDecodeError(f"transport parameter {parameter_id:#x} comes twice")
            seen.add(parameter_id)
            if parameter_id in _KNOWN_IDS:
                values[parameter_id] = value
    except BufferReadError:
        raise TransportParameterDecodeError("transport parameters are cut short") from None
    return values


def _single_varint_untrusted(value: bytes, name: str) -> int:
    buf = Buffer(data=value)
    try:
        number = buf.pull_uint_var()
    except BufferReadError:
        raise TransportParameterDecodeError(f"{name} is cut short") from None
    if not buf.eof():
        raise TransportParameterDecodeError(f"{name} has bytes after its number")
    return number


def _flag_untrusted(values: dict[int, bytes], parameter_id: TransportParameterId) -> bool:
    value = values.get(parameter_id)
    if value:
        raise TransportParameterDecodeError(f"{parameter_id.name.lower()} has a value, expected none")
    return value is not None


def _require_sendable(params: ExtensionParameters) -> None:
    if params.nat_traversal is not None:
        if params.nat_traversal_client_form:
            raise ValueError("nat_traversal has either a limit or the client form")
        if not 1 <= params.nat_traversal <= MAX_NAT_TRAVERSAL_LIMIT:
            raise ValueError(f"nat_traversal is {params.nat_traversal}, expected 1 to 100")
    if params.address_discovery is not None and not 0 <= params.address_discovery <= 2:
        raise ValueError(f"address_discovery is {params.address_discovery}, expected 0 to 2")


def _has_nat_traversal(params: ExtensionParameters) -> bool:
    return params.nat_traversal is not None or params.nat_traversal_client_form


def _varint(number: int) -> bytes:
    buf = Buffer(capacity=UINT_VAR_MAX_SIZE)
    buf.push_uint_var(number)
    return buf.data


def _parameter(parameter_id: TransportParameterId, value: bytes) -> bytes:
    buf = Buffer(capacity=2 * UINT_VAR_MAX_SIZE + len(value))
    buf.push_uint_var(parameter_id)
    buf.push_uint_var(len(value))
    buf.push_bytes(value)
    return buf.data
