"""The benchmarks by name: list them, run them, print what they found."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from antquic_server.bench import datagram, handshake, mtu, profiled, relay, relay_plan
from antquic_server.bench.report import Report, machine
from antquic_server.errors import UsageError

__all__ = ["BENCHMARKS", "Benchmark", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark: ``options`` maps each option it knows to its default, as text; ``quick`` to less of it."""

    summary: str
    options: Mapping[str, str]
    quick: Mapping[str, str]
    run: Callable[[Mapping[str, str]], Report]


BENCHMARKS: dict[str, Benchmark] = {
    "datagram": Benchmark(
        summary="echo of DATAGRAM frames: a node against stock aioquic, over real sockets",
        options=datagram.OPTIONS,
        quick={"rounds": "1", "seconds": "1"},
        run=datagram.run,
    ),
    "handshake": Benchmark(
        summary="bytes and server CPU time: classical, hybrid and pure post-quantum, each provider",
        options=handshake.OPTIONS,
        quick={"rounds": "10", "live_s": "1"},
        run=handshake.run,
    ),
    "mtu": Benchmark(
        summary="streams with a node and peer to peer: datagrams of 1200 bytes against path MTU discovery",
        options=mtu.OPTIONS,
        quick={"rounds": "1", "seconds": "1"},
        run=mtu.run,
    ),
    "profiled": Benchmark(
        summary="echoes of a worker while it is profiled: py-spy, memray, and left alone",
        options=profiled.OPTIONS,
        quick=profiled.QUICK,
        run=profiled.run,
    ),
    "relay": Benchmark(
        summary="channel and stream relay per CPU second: against coturn, a C forwarder and stock aioquic",
        options=relay_plan.OPTIONS,
        quick=relay_plan.QUICK,
        run=relay.run,
    ),
}


def run(names: Sequence[str], json_output: bool, options: Mapping[str, str], *, quick: bool = False) -> int:
    """
    Run the named benchmarks one after another, or list all; returns the exit code.

    ``quick`` measures so little that it only shows whether a benchmark works; ``options`` win over that.

    Raises:
        UsageError: A name or an option is unknown, or an option's value is not a number.
    """
    if not names:
        _list()
        return 0
    for name in names:
        if name not in BENCHMARKS:
            raise UsageError(f"bench: no benchmark {name!r}; there are {', '.join(sorted(BENCHMARKS))}")
    known = {key for name in names for key in BENCHMARKS[name].options}
    for key in options:
        if key not in known:
            raise UsageError(f"bench: no option {key!r}; {', '.join(names)} know {', '.join(sorted(known))}")
    reports = {}
    for name in names:
        benchmark = BENCHMARKS[name]
        defaults = {**benchmark.options, **(benchmark.quick if quick else {})}
        chosen = {key: options.get(key, default) for key, default in defaults.items()}
        reports[name] = benchmark.run(chosen)
        if not json_output:
            print(reports[name].as_text(), flush=True)
    if json_output:
        print(json.dumps({"machine": machine(), **{name: report.as_plain() for name, report in reports.items()}}))
    return 0


def _list() -> None:
    for name, benchmark in sorted(BENCHMARKS.items()):
        shown = " ".join(f"{key}={value}" for key, value in benchmark.options.items())
        sys.stdout.write(f"{name:<12} {benchmark.summary}\n{'':<12} options: {shown}\n")
