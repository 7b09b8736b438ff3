"""What the actions of ``antquic-server peer`` do, once the command line is known to be right."""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from antquic_server.commands.identity import expand_path
from antquic_server.commands.one_line import one_line
from antquic_server.commands.peer import as_peer_id
from antquic_server.commands.progress import ProgressBar
from antquic_server.errors import DecodeError, ExitCode, PeerClosedError, PeerError, PeerUnreachableError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.files import receive_file, send_file
from antquic_server.peer.nat_behaviour import Mapping
from antquic_server.peer.punching import ADVICE, DETAILS, Failure
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import PeerStatistics

__all__ = ["describe_nat", "path_facts", "run", "why"]

_WHY = {
    "direct": "dialled without help; there is nothing better",
    "punched": "introduced by a node, both sides dialled at once; not direct, since no address of the peer was known"
    " before",
}
"""Why a connection has the path it has, and not a better one; of a relayed one it depends."""

SIGNALLED = 128
"""Exit code of a program that a signal has ended, as shells report it: this and the signal's number."""


def run(arguments: argparse.Namespace, settings: PeerSettings) -> int:
    """Run one action to its end, or until a signal ends it; returns the exit code."""
    ended_by: list[int] = []
    reporter = _Reporter(as_json=arguments.json)
    action = {"listen": _listen, "connect": _connect, "send": _send, "receive": _receive}[arguments.action]

    async def main() -> None:
        _end_at_signals(ended_by.append)
        async with Endpoint(settings) as endpoint:
            if settings.relay_listen:
                await endpoint.listen_relayed()
            reporter.ready(endpoint)
            await action(endpoint, arguments, reporter)

    try:
        asyncio.run(main())
    except PeerUnreachableError as error:
        raise reporter.unreachable(error) from None
    except asyncio.CancelledError:
        if not ended_by:
            raise
    return SIGNALLED + ended_by[0] if ended_by else ExitCode.OK


def _end_at_signals(note: Callable[[int], None]) -> None:
    """Have the signals that end a program cancel this task, which tells peers and leaves no half of a file behind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "called in a task"

    def end(number: int) -> None:
        note(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        # What was started with nohup goes on.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end, number)


class _Reporter:
    """Tells what happens, line by line, for people or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json

    def tell(self, event: str, *lines: str, **facts: object) -> None:
        """Print one event; whatever is not printable in the lines for people is escaped: some of it is of strangers."""
        text = "\n".join(map(one_line, lines))
        print(json.dumps({"event": event, **facts}) if self._json else text, flush=True)

    def ready(self, endpoint: Endpoint) -> None:
        """Say who we are and where we can be seen."""
        statistics = endpoint.stats()
        seen = ", ".join(statistics.external_addresses) or "nobody has told us"
        relay = endpoint.relay_address
        self.tell(
            "ready",
            f"peer id  {endpoint.peer_id.hex()}",
            f"seen at  {seen}",
            f"our NAT  {describe_nat(statistics)}",
            *([] if relay is None else [f"relayed  {relay}, an address of the node"]),
            peer_id=endpoint.peer_id.hex(),
            addresses=[str(item) for item in endpoint.addresses],
            external_addresses=list(statistics.external_addresses),
            nat_mapping=statistics.nat_mapping,
            nat_port_step=statistics.nat_port_step,
            relay_address=None if relay is None else str(relay),
        )

    def connected(self, connection: PeerConnection, *, seconds: float | None = None) -> None:
        """Say how a connection came about, and why it is not a better one."""
        host, port = connection.remote_address
        remote = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        took = "" if seconds is None else f" in {seconds:.2f} s"
        self.tell(
            "connected",
            f"connected to {connection.peer_id.hex()} at {remote}: {connection.path}{took} ({why(connection)})",
            peer_id=connection.peer_id.hex(),
            remote=remote,
            seconds=seconds,
            **path_facts(connection),
        )

    def unreachable(self, error: PeerUnreachableError) -> PeerUnreachableError:
        """Return the error with what to do about it; programs are told on standard output as well."""
        advice = ADVICE.get(Failure(error.reason)) if error.reason in set(Failure) else None
        if self._json:
            facts = {"target": error.target, "reason": error.reason, "detail": error.detail, "advice": advice}
            self.tell("unreachable", **facts)
        detail = error.detail if advice is None else f"{error.detail}; {advice}"
        return PeerUnreachableError(error.target, error.reason, detail)


def why(connection: PeerConnection) -> str:
    """Return why a connection has the path it has and not a better one."""
    if connection.path != "relayed":
        return _WHY[connection.path]
    node = "a node" if connection.relayed_by is None else f"the node {connection.relayed_by.hex()}"
    reason = connection.why_not_direct
    if reason is None:
        return f"carried by {node}; not punched, since the other side has asked for a relay, or --relay only was given"
    return f"carried by {node}; not punched: {reason}: {DETAILS[reason]}"


def path_facts(connection: PeerConnection) -> dict[str, object]:
    """Return how a connection goes, for programs."""
    node, reason = connection.relayed_by, connection.why_not_direct
    return {
        "path": connection.path,
        "why": why(connection),
        "relayed_by": None if node is None else node.hex(),
        "why_not_direct": None if reason is None else reason.value,
    }


def describe_nat(statistics: PeerStatistics) -> str:
    """Return what is known of the NAT in front of us."""
    if statistics.nat_mapping == Mapping.ENDPOINT_INDEPENDENT:
        return "none, or one that shows everybody the same address: easy to punch through"
    if statistics.nat_mapping == Mapping.UNKNOWN:
        return "not known; two --via addresses would tell"
    if statistics.nat_port_step is None:
        return "symmetric: shows everybody another port, without an order that could be predicted"
    return f"symmetric: shows everybody another port, {statistics.nat_port_step} apart, which can be predicted"


async def _reach(endpoint: Endpoint, word: str, reporter: _Reporter) -> PeerConnection:
    started_s = time.monotonic()
    peer_id = as_peer_id(word)
    connection = await (endpoint.connect(word) if peer_id is None else endpoint.connect_peer(peer_id))
    reporter.connected(connection, seconds=round(time.monotonic() - started_s, 3))
    return connection


async def _connect(endpoint: Endpoint, arguments: argparse.Namespace, reporter: _Reporter) -> None:
    connection = await _reach(endpoint, arguments.words[0], reporter)
    round_trip_s = await connection.ping()
    reporter.tell(
        "alive",
        f"bytes pass both ways: round trip {round_trip_s * 1000:.1f} ms",
        peer_id=connection.peer_id.hex(),
        round_trip_s=round(round_trip_s, 6),
        path=connection.path,
        path_mtu_bytes=connection.path_mtu_bytes,
    )
    await connection.close()


async def _listen(endpoint: Endpoint, _arguments: argparse.Namespace, reporter: _Reporter) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for connection in endpoint.incoming():
            reporter.connected(connection)
            tasks.create_task(_watch(connection, reporter))
            tasks.create_task(_watch_path(connection, reporter))
            tasks.create_task(_refuse_streams(connection, reporter))


async def _watch(connection: PeerConnection, reporter: _Reporter) -> None:
    peer_id = connection.peer_id.hex()
    async for message in connection.messages():
        text = f"message of {len(message)} bytes from {peer_id}"
        reporter.tell("message", text, peer_id=peer_id, bytes=len(message))
    reason = connection.close_reason or f"code {connection.close_code}"
    reporter.tell("disconnected", f"{peer_id} is gone: {reason}", peer_id=peer_id, reason=reason)


async def _watch_path(connection: PeerConnection, reporter: _Reporter) -> None:
    """Tell when a relayed connection becomes direct, or falls back to a relay."""
    with suppress(PeerClosedError):
        while True:
            others = {"direct", "punched", "relayed"} - {connection.path}
            await connection.wait_for_path(*others)
            peer_id = connection.peer_id.hex()
            text = f"{peer_id} is {connection.path} now ({why(connection)})"
            reporter.tell("path", text, peer_id=peer_id, **path_facts(connection))


async def _refuse_streams(connection: PeerConnection, reporter: _Reporter) -> None:
    """Give every stream up at once: who sends a file to somebody who takes none is not to wait for ever."""
    peer_id = connection.peer_id.hex()
    with suppress(PeerClosedError):
        while True:
            (await connection.accept_stream()).reset()
            reporter.tell("refused", f"refused a stream of {peer_id}: files want `peer receive`", peer_id=peer_id)


async def _send(endpoint: Endpoint, arguments: argparse.Namespace, reporter: _Reporter) -> None:
    path = expand_path(arguments.words[0])
    connection = await _reach(endpoint, arguments.words[1], reporter)
    started_s = time.monotonic()
    with ProgressBar() as bar:
        sent = await send_file(connection, path, bar.update)
    seconds = round(time.monotonic() - started_s, 3)
    reporter.tell(
        "sent",
        f"sent {path} ({sent.size_bytes} bytes) in {seconds:.2f} s, {connection.path}; sha256 {sent.sha256}",
        file=str(path),
        bytes=sent.size_bytes,
        sha256=sent.sha256,
        seconds=seconds,
        path_mtu_bytes=connection.path_mtu_bytes,
        **path_facts(connection),
    )
    await connection.close()


async def _receive(endpoint: Endpoint, arguments: argparse.Namespace, reporter: _Reporter) -> None:
    directory = expand_path(arguments.words[0]) if arguments.words else Path()
    files: asyncio.Queue[None] = asyncio.Queue()

    async def greet() -> None:
        async with asyncio.TaskGroup() as tasks:
            async for connection in endpoint.incoming():
                reporter.connected(connection)
                tasks.create_task(_receive_from(connection, directory, files, reporter))

    async def count() -> None:
        for _ in range(arguments.count):
            await files.get()

    greeter, counter = asyncio.create_task(greet()), asyncio.create_task(count())
    try:
        await asyncio.wait((greeter, counter), return_when=asyncio.FIRST_COMPLETED)
        if not counter.done():
            # Nobody is let in any more, so no file would ever come.
            await greeter
    finally:
        greeter.cancel()
        counter.cancel()
        await asyncio.gather(greeter, counter, return_exceptions=True)


async def _receive_from(
    connection: PeerConnection, directory: Path, files: asyncio.Queue[None], reporter: _Reporter
) -> None:
    """Store what one peer sends; what goes wrong ends that transfer and no other."""
    peer_id = connection.peer_id.hex()
    while True:
        try:
            stream = await connection.accept_stream()
        except PeerClosedError:
            return
        try:
            with ProgressBar() as bar:
                got = await receive_file(stream, directory, bar.update)
        except (PeerError, DecodeError) as error:
            # Whoever sends waits for the confirmation, and would do so for ever.
            stream.reset()
            reporter.tell("failed", f"transfer from {peer_id} failed: {error}", peer_id=peer_id, reason=str(error))
            continue
        reporter.tell(
            "received",
            f"received {got.path} ({got.size_bytes} bytes) from {peer_id}, {connection.path}; sha256 {got.sha256}",
            peer_id=peer_id,
            file=str(got.path),
            bytes=got.size_bytes,
            sha256=got.sha256,
            **path_facts(connection),
        )
        files.put_nowait(None)
