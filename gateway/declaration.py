"""What declarations of settings are made of: values with their unit, names, addresses; sections.

A value that is wrong says what is wanted, with an example; the JSON Schema says the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    WithJsonSchema,
)

CONTROLLER = "controller"
"""Who made a move of a rollout that no person made; nobody may be called so."""
MILLION = 1_000_000

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^(\d+)(B|KiB|MiB|GiB)$")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SECRET = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")
_SHARE = re.compile(r"^(\d+(?:\.\d+)?)(%|ppm)$")


def _duration(value: object) -> float:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration with its unit is wanted, as 50ms, 2s, 10m, 1h or 180d")
    return float(match[1]) * _SECONDS[match[2]]


def _size(value: object) -> int:
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size with its unit is wanted, as 512B, 64KiB, 1MiB or 2GiB")
    return int(match[1]) * _BYTES[match[2]]


def share_ppm(value: object) -> int:
    """`5%` or `50000ppm` as parts per million; finer than a ppm is refused."""
    match = _SHARE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a share with its unit is wanted, as 5% or 50000ppm")
    ppm = float(match[1]) * (MILLION / 100 if match[2] == "%" else 1)
    if ppm > MILLION or abs(ppm - round(ppm)) > 1e-6:
        raise ValueError("a share lies between 0% and 100%, in whole ppm")
    return round(ppm)


def duration_text(seconds: float) -> str:
    """As a file says it, exactly."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.15g}{unit}"
    return f"{round(seconds * 1000, 9):.15g}ms"


def size_text(count: int) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"


def share_text(ppm: int) -> str:
    return f"{ppm / 10_000:g}%"


def _witness_key(value: str) -> str:
    """`name+ID+base64`, the ID checked: a mistyped key would silently never be cosigned by."""
    name, _, rest = value.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 33 or key[0] != 4:
        raise ValueError("a witness's vkey is wanted, <name>+<ID>+<base64 of 0x04 and the key>")
    if hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] != key_id:
        raise ValueError("the vkey's ID is not its key's: it was not copied as it was")
    return value


def _secret(value: object) -> str:
    """Where a secret lies. The value is never in the words: it may be the secret."""
    if not isinstance(value, str) or not _SECRET.match(value):
        raise ValueError("env:NAME or file:PATH is wanted; a literal secret is refused")
    return value


def _text(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Duration = Annotated[float, BeforeValidator(_duration), _text(_DURATION.pattern, "2s")]
Size = Annotated[int, BeforeValidator(_size), _text(_SIZE.pattern, "1MiB")]
Share = Annotated[int, BeforeValidator(share_ppm), _text(_SHARE.pattern, "5%")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Address = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
Secret = Annotated[str, BeforeValidator(_secret), _text(_SECRET.pattern, "env:MODEL_TOKEN")]
WitnessKey = Annotated[
    str, StringConstraints(pattern=r"^[^\s+]{1,200}\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*$"),
    AfterValidator(_witness_key),
]  # fmt: skip
Path = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~%:-]+)+$", max_length=256)]
HostName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,252}$")]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")]
Scalar = StrictBool | StrictInt | Annotated[StrictFloat, AllowInfNan(False)] | StrictStr
Pointer = Annotated[str, StringConstraints(pattern=r"^(/.*)?$", max_length=256)]
HexDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LedgerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./-]{0,127}[a-z0-9]$")]
UnitSource = Annotated[str, StringConstraints(pattern=r"^(header:[a-z0-9][a-z0-9-]*|exchange)$")]


class Section(BaseModel):
    """Unknown keys are errors; nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
