"""The packet filter: same decision as our own code, sound for the kernel, and accepted by it."""

import ctypes
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.routing import owner_slot
from antquic_server.protocol.steering import Instruction, run_program, steering_program
from support.strategies import worker_counts

SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h; Python does not name it


@given(datagram=st.binary(max_size=16) | st.binary(min_size=1200, max_size=1200), worker_count=worker_counts())
def test_filter_and_routing_agree(datagram: bytes, worker_count: int) -> None:
    """Otherwise a worker would forward what the kernel has just given it."""
    assert run_program(steering_program(worker_count), datagram) == owner_slot(datagram, worker_count)


@pytest.mark.parametrize(
    ("datagram", "slot"),
    [
        (b"\x40\x09\x00\x00\x05" + bytes(6), 5 % 4),
        (b"\xc0\x00\x00\x00\x01\x08\x00\x00\x00\x07" + bytes(4), 7 % 4),
        (b"", 0),
        (b"\x40\xff\xff\xff", 0),
        (b"\xc0\xff\xff\xff\xff\xff\xff\xff\xff", 0),
    ],
    ids=["short header", "long header", "empty", "short header cut", "long header cut"],
)
def test_filter_looks_at_the_steering_byte(datagram: bytes, slot: int) -> None:
    """Byte 4 of a short header, byte 9 of a long one, slot 0 when there is none."""
    assert run_program(steering_program(4), datagram) == slot


def test_program_has_the_fixed_instructions() -> None:
    """Snapshot; the operation codes are those of linux/bpf_common.h."""
    assert steering_program(5) == [
        (0x30, 0, 0, 0),
        (0x45, 0, 3, 0x80),
        (0x30, 0, 0, 9),
        (0x94, 0, 0, 5),
        (0x16, 0, 0, 0),
        (0x30, 0, 0, 4),
        (0x94, 0, 0, 5),
        (0x16, 0, 0, 0),
    ]


@pytest.mark.parametrize("worker_count", [0, 65])
def test_program_for_an_impossible_number_of_workers_is_not_written(worker_count: int) -> None:
    """Modulo 0 would be refused by the kernel with less to say."""
    with pytest.raises(ValueError, match="expected 1 to 64"):
        steering_program(worker_count)


@pytest.mark.parametrize(
    ("program", "complaint"),
    [([(0xFF, 0, 0, 0)], "0xff is not one"), ([(0x30, 0, 0, 0)], "does not return"), ([], "does not return")],
)
def test_interpreter_refuses_what_the_kernel_would(program: list[Instruction], complaint: str) -> None:
    """A broken program cannot pass a test by accident."""
    with pytest.raises(ValueError, match=complaint):
        run_program(program, b"\x00")


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are the Linux kernel's")
@pytest.mark.parametrize("worker_count", [1, 3, 4])
def test_kernel_steers_as_computed(worker_count: int) -> None:
    """Sockets that share a port get exactly the datagrams the program gives them."""
    program = steering_program(worker_count)
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    storage = ctypes.create_string_buffer(packed)
    sockets: list[socket.socket] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        try:
            port = 0
            for _ in range(worker_count):
                member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sockets.append(member)
                member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                member.bind(("127.0.0.1", port))
                member.settimeout(5)
                port = member.getsockname()[1]
            sockets[0].setsockopt(
                socket.SOL_SOCKET,
                SO_ATTACH_REUSEPORT_CBPF,
                struct.pack("@HP", len(program), ctypes.addressof(storage)),
            )
            for value in range(0, 256, 5):
                short = bytes((0x40, 9, 0, 0, value, 0))
                long = bytes((0xC0, 0, 0, 0, 1, 8, 0, 0, 0, value))
                for datagram in (short, long):
                    client.sendto(datagram, ("127.0.0.1", port))
                    assert sockets[run_program(program, datagram)].recv(64) == datagram
        finally:
            for member in sockets:
                member.close()
