"""Which post-quantum providers work here, and how much faster one is than the other, measured in milliseconds."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.errors import ProviderUnavailableError
from antquic_server.pqc.liboqs_library import load_liboqs
from antquic_server.pqc.provider import PqcProvider
from antquic_server.pqc.select import load_provider

__all__ = ["PqcFacts", "probe_pqc"]

_VERIFICATIONS = 24
_SEED = bytes(range(32))
_MESSAGE = b"antquic-server doctor"

_AVX2_EXTENSION = 4
"""``OQS_CPU_EXT_AVX2`` in <oqs/common.h>, since 0.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PqcFacts:
    """
    What there is.

    ``version`` of liboqs is empty where it is missing; ``missing`` then says why. ``speedup`` is how many times as fast
    as ``cryptography`` it verifies an ML-DSA-65 signature, by CPU time. ``sees_avx2`` is what liboqs itself found when
    it looked at the CPU, None where it does not say.
    """

    version: str = ""
    missing: str = ""
    speedup: float = 0.0
    sees_avx2: bool | None = None


def probe_pqc() -> PqcFacts:
    """Load liboqs and ``cryptography`` and measure both; takes about ten milliseconds."""
    try:
        library = load_liboqs()
        liboqs = load_provider("liboqs")
    except ProviderUnavailableError as error:
        return PqcFacts(missing=str(error))
    baseline_s = _verify_s(load_provider("cryptography"))
    return PqcFacts(version=_version(library), speedup=baseline_s / _verify_s(liboqs), sees_avx2=_sees_avx2(library))


def _verify_s(provider: PqcProvider) -> float:
    """
    CPU seconds of one verification: the fastest of many, which is what the code takes undisturbed.

    Verifying and not signing, because signing draws lots: ML-DSA repeats itself until the signature is fit.
    """
    context = provider.new_context()
    key = provider.signing_key(_SEED)
    try:
        public_key, signature = key.public_key, context.sign(key, _MESSAGE)
        return min(_timed(context.verify, public_key, signature) for _ in range(_VERIFICATIONS))
    finally:
        context.close()


def _timed(verify: Callable[[bytes, bytes, bytes], bool], public_key: bytes, signature: bytes) -> float:
    before_s = time.thread_time()
    verify(public_key, _MESSAGE, signature)
    return max(time.thread_time() - before_s, 1e-9)


def _version(library: ctypes.CDLL) -> str:
    text = ctypes.CFUNCTYPE(ctypes.c_char_p)(("OQS_version", library))()
    return text.decode("ascii", "replace") if isinstance(text, bytes) else "?"


def _sees_avx2(library: ctypes.CDLL) -> bool | None:
    try:
        has_extension = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(("OQS_CPU_has_extension", library))
    except AttributeError:
        return None
    return bool(has_extension(_AVX2_EXTENSION))
