"""How a connection ended, in words for metrics and logs."""

from aioquic.quic.events import ConnectionTerminated
from aioquic.tls import AlertDescription

from antquic_server.protocol.codepoints import ApplicationErrorCode, TransportErrorCode

CRYPTO_ERROR = 0x100
"""First of the 256 codes that carry a TLS alert (RFC 9000, section 20.1)."""

_OUR_REASONS = {
    "Idle timeout": "idle_timeout",
    "handshake timeout": "handshake_timeout",
    "internal error": "internal_error",
    "No validated network path": "no_viable_path",
}
_ALERTS = {int(alert): alert.name for alert in AlertDescription}
_TRANSPORT = {int(code): code.name.lower() for code in TransportErrorCode}
_APPLICATION = {int(code): code.name.lower() for code in ApplicationErrorCode}


def outcome_label(event: ConnectionTerminated) -> str:
    """Name why a handshake failed or an established connection ended."""
    if event.reason_phrase in _OUR_REASONS:
        return _OUR_REASONS[event.reason_phrase]
    code = event.error_code
    if event.frame_type is None:
        return _APPLICATION.get(code, "application")
    if CRYPTO_ERROR <= code < CRYPTO_ERROR + 256:
        return "alert_" + _ALERTS.get(code - CRYPTO_ERROR, "other")
    return _TRANSPORT.get(code, "other")


def fault_location(error: BaseException) -> str:
    """Return function and line where an exception was raised: what a log line can hold of a traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
