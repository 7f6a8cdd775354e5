"""The configuration model: each setting is declared here, once.

A declaration has a name, a type that carries the unit (`2s`, `1MiB`, `5%`), a default and one
sentence. The reference page (`docs/configuration.md`), the JSON Schema, the environment variables
and the checks are made from these declarations. What needs the file itself (line numbers, files
that settings name) is in `gateway/check.py`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

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
Pointer = Annotated[str, StringConstraints(pattern=r"^(/.*)?$", max_length=256)]
HexDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LedgerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./-]{0,127}[a-z0-9]$")]
UnitSource = Annotated[str, StringConstraints(pattern=r"^(header:[a-z0-9][a-z0-9-]*|exchange)$")]


class Section(BaseModel):
    """Unknown keys are errors; nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListenTls(Section):
    cert: str = Field(
        description="PEM file of the certificate and its chain; read again on change."
    )
    key: str = Field(description="PEM file of its private key.")
    client_ca: str | None = Field(
        None, description="PEM file of authorities: who connects must have a certificate of theirs."
    )


class Listener(Section):
    address: Address = Field(description="Host and port, where TLS is given too.")
    tls: ListenTls | None = Field(None, description="TLS; absent: plain HTTP.")


AddressOrListener = Annotated[
    Annotated[Address, Tag("address")] | Annotated[Listener, Tag("listener")],
    Discriminator(lambda value: "address" if isinstance(value, str) else "listener"),
]


class Listen(Section):
    data: AddressOrListener = Field(
        "127.0.0.1:8080", description="Where applications call their models."
    )
    admin: AddressOrListener = Field("127.0.0.1:9901", description="Console, API and metrics.")
    grpc: Address | None = Field(
        None, description="Where applications call v2 models by gRPC; needs the extra [grpc]."
    )

    def of(self, port: Literal["data", "admin"]) -> Listener:
        """The listener, whichever way it is written."""
        said: str | Listener = getattr(self, port)
        return Listener(address=said) if isinstance(said, str) else said


class Clients(Section):
    head: Duration = Field(10.0, description="For the head of a request, from its first byte.")
    body: Duration = Field(30.0, description="For the body of a request, from its head.")
    write: Duration = Field(30.0, description="For a client to take 64 KiB of its answer.")
    idle: Duration = Field(75.0, description="How long a connection may be without a request.")
    head_bytes: Size = Field(32 * 1024, description="Longest head of a request.")
    headers: int = Field(100, ge=1, le=10_000, description="Most headers of a request.")
    connections: int = Field(
        5000, ge=1, le=1_000_000, description="Open connections of clients; more get 503."
    )


class Overload(Section):
    in_flight: int = Field(
        2048, ge=1, le=1_000_000,
        description="Open exchanges of the gateway: above it critical requests are shed, above 90 %"
        " of it default ones, above 70 % batch ones, above 50 % copies for shadows.",
    )  # fmt: skip
    bodies: Size = Field(512 * 1024**2, description="Request bodies held in memory, all together.")


class Telemetry(Section):
    otlp: Url | None = Field(
        None, description="OTLP/HTTP collector that gets spans; off if absent."
    )


class Drain(Section):
    settle: Duration = Field(
        0.5, description="After SIGTERM, how long readiness says no before connections are closed."
    )
    at_most: Duration = Field(30.0, description="After that, how long open exchanges may last.")


class JournalSettings(Section):
    segment: Size = Field(64 * 1024**2, description="Size of one preallocated journal segment.")
    segment_age: Duration = Field(
        600.0, description="A segment with records is closed after this, so that its key may go."
    )
    on_damage: Literal["set_aside", "refuse"] = Field(
        "set_aside", description="What a start does behind damage: a new segment, or nothing."
    )
    stall: Duration = Field(2.0, description="A commit that lasts longer fails its waiters.")
    queue: Size = Field(64 * 1024**2, description="Records waiting for a commit, in bytes.")
    warn: Share = Field(
        200_000, description="Share of disk.journal.at_most at which status turns yellow."
    )
    refuse: Share = Field(
        900_000, description="Share of disk.journal.at_most at which answers are refused."
    )


class StoreBudget(Section):
    at_most: Size | None = Field(None, description="Bytes on disk; absent: what the disk has.")


class JournalBudget(Section):
    at_most: Size = Field(8 * 1024**3, description="Disk that unsealed segments of all may take.")


class Disk(Section):
    journal: JournalBudget = Field(JournalBudget(), description="Unsealed records.")
    ledger: StoreBudget = Field(StoreBudget(), description="The sealed log.")
    bodies: StoreBudget = Field(StoreBudget(), description="Requests and answers, encrypted.")
    catalog: StoreBudget = Field(StoreBudget(), description="Tables made from the ledger.")
    reserve: Size = Field(
        64 * 1024**2, description="Kept for health, narrowing and erasure on a full disk."
    )


class WitnessSettings(Section):
    vkey: WitnessKey = Field(description="The vkey that `headworks witness` prints.")
    url: Url = Field(description="Where it answers, without /add-checkpoint.")


class LedgerSettings(Section):
    name: LedgerName | None = Field(
        None, description="What the ledger is called, fixed at its first start; made up if absent."
    )
    checkpoint: Duration = Field(
        1.0, gt=0, description="Between two checkpoints of a log with news."
    )
    heartbeat: Duration = Field(60.0, gt=0, description="Between two heartbeats of the root log.")
    witnesses: tuple[WitnessSettings, ...] = Field(
        (), max_length=16, description="Who cosigns checkpoints."
    )
    quorum: int | None = Field(
        None, ge=0, description="How many of them evidence needs; absent: all."
    )

    @property
    def needed(self) -> int:
        """Cosignatures that a checkpoint needs to count as witnessed."""
        return len(self.witnesses) if self.quorum is None else self.quorum

    @model_validator(mode="after")
    def quorum_can_be_met(self) -> LedgerSettings:
        if self.needed > len(self.witnesses):
            raise ValueError(f"a quorum of {self.quorum} among {len(self.witnesses)} witnesses")
        if len({each.vkey.split("+", 2)[2] for each in self.witnesses}) < len(self.witnesses):
            raise ValueError("one witness's key stands twice")
        if len({each.vkey.partition("+")[0] for each in self.witnesses}) < len(self.witnesses):
            raise ValueError("two witnesses have one name")
        return self


class CallerSettings(Section):
    name: Name = Field(description="Name that records carry.")
    key_sha256: HexDigest = Field(description="SHA-256 of the bearer token, in hex.")
    may: tuple[Literal["context", "feedback", "force"], ...] = Field(
        (), description="What it may do beyond calling: send governance context, labels, force."
    )


class PersonSettings(Section):
    name: Name = Field(description="Name that reviews and approvals carry.")
    token_sha256: HexDigest = Field(description="SHA-256 of the bearer token, in hex.")
    roles: tuple[Literal["sre", "reviewer", "auditor", "privacy"], ...] = Field(
        description="What the person may do on the admin port."
    )


class Limits(Section):
    request: Size = Field(64 * 1024**2, description="Largest request body; longer gets 413.")
    hold: Size = Field(
        1024**2, description="Longest answer held whole until its record is durable."
    )
    keep: Size = Field(1024**2, description="Bytes of each body kept; the rest leaves its digest.")
    in_flight: int = Field(256, ge=1, le=100_000, description="Open exchanges per version.")
    pending: int = Field(64, ge=0, le=100_000, description="Exchanges waiting for a connection.")
    connections: int = Field(128, ge=1, le=10_000, description="Connections per endpoint.")


class Timeouts(Section):
    connect: Duration = Field(1.0, description="To open a connection to an upstream.")
    request: Duration = Field(10.0, description="For the whole exchange, one absolute deadline.")
    first_byte: Duration = Field(10.0, description="From request sent to the first answer byte.")
    idle: Duration = Field(30.0, description="Between two pieces of a streamed answer.")
    stream: Duration = Field(600.0, description="For a streamed answer as a whole.")


class Retries(Section):
    attempts: int = Field(1, ge=1, le=5, description="Further attempts of one exchange, at most.")
    on: tuple[Literal["connect", "reused", "503"], ...] = Field(
        ("connect", "reused", "503"), min_length=1,
        description="connect: no connection; reused: an idle one closed without a byte; 503.",
    )  # fmt: skip
    budget: Share = Field(200_000, description="Retries under way, as a share of open exchanges.")
    at_least: int = Field(3, ge=0, le=1000, description="Retries that the budget always allows.")


class Health(Section):
    path: Annotated[str, StringConstraints(pattern=r"^/[^\s?#]*$")] = Field(
        "/v2/health/ready", description="What each endpoint is asked; 200 is healthy."
    )
    interval: Duration = Field(5.0, description="Between two checks, give or take a tenth.")
    timeout: Duration = Field(1.0, description="For one check.")
    down: int = Field(3, ge=1, le=100, description="Failures in a row that take it out.")
    up: int = Field(2, ge=1, le=100, description="Successes in a row that bring it back.")


class Ejection(Section):
    failures: int = Field(
        5,
        ge=1,
        le=1000,
        description="Failures in a row (5xx, or no answer) that eject an endpoint.",
    )
    base: Duration = Field(10.0, description="First ejection; the next one lasts as much longer.")
    at_most: Duration = Field(300.0, description="Longest ejection.")
    share: Share = Field(500_000, description="Endpoints of a version ejected at once, at most.")


class UpstreamTls(Section):
    ca: str | None = Field(None, description="PEM file of authorities; absent: the system's.")
    cert: str | None = Field(None, description="PEM file of a client certificate.")
    key: str | None = Field(None, description="PEM file of its private key.")

    @model_validator(mode="after")
    def goes_together(self) -> UpstreamTls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("`cert` and `key` are given together")
        return self


class UpstreamAuth(Section):
    header: HeaderName = Field("authorization", description="Header that carries the credential.")
    source: Secret = Field(
        alias="from",
        description="env:NAME or file:PATH of its value, as `Bearer ...`; never the value itself.",
    )


class VersionSettings(Section):
    artifact: str | None = Field(None, description="Folder with model.onnx and card.yaml.")
    upstream: Url | None = Field(None, description="Server that answers; absent: in the worker.")
    endpoints: tuple[Url, ...] = Field(
        (), max_length=256, description="Servers that answer, in place of `upstream`."
    )
    tls: UpstreamTls | None = Field(None, description="TLS to the servers, beside verification.")
    auth: UpstreamAuth | None = Field(None, description="Credential that the servers want.")
    grpc: Address | None = Field(None, description="Where that server answers gRPC, if it does.")

    @model_validator(mode="after")
    def is_somewhere(self) -> VersionSettings:
        if self.upstream is not None and self.endpoints:
            raise ValueError("a version has an `upstream` or `endpoints`, not both")
        if self.artifact is None and not self.urls:
            raise ValueError("a version needs an `artifact`, an `upstream` or both")
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError("one of `endpoints` stands twice")
        if not self.urls and (self.tls or self.auth):
            raise ValueError("`tls` and `auth` are for a version with an `upstream`")
        if self.grpc is not None and not self.urls:
            raise ValueError("`grpc` is the gRPC address of an `upstream`")
        if self.grpc is not None and self.tls is not None:
            raise ValueError("`grpc` is called without TLS: not beside `tls`")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is served; none: in the worker."""
        return self.endpoints or ((self.upstream,) if self.upstream is not None else ())


class Condition(Section):
    """All that is given must hold."""

    header: dict[HeaderName, str] = Field({}, description="Headers and their exact values.")
    path: str | None = Field(None, description="Path; a trailing * matches any rest.")
    caller: tuple[Name, ...] = Field((), description="Names of callers, any of them.")

    @field_validator("caller", mode="before")
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class RuleSettings(Section):
    name: Name = Field(description="Name that records carry.")
    when: Condition = Field(Condition(), description="Condition; absent: always.")
    split: dict[Name, Share | None] = Field(
        description="Versions and shares; the first is stable and takes what is left."
    )
    shadow: dict[Name, Share] = Field({}, description="Versions that get a copy, and of how much.")
    salt: str | None = Field(None, max_length=64, description="Bucketing salt; <model>/<rule>.")
    priority: Literal["critical", "default", "batch"] = Field(
        "default", description="Who is shed last and first, when there is too much."
    )

    @field_validator("split")
    @classmethod
    def shares_fit(cls, split: dict[str, int | None]) -> dict[str, int | None]:
        if not split:
            raise ValueError("a split names at least one version")
        first, *others = split.values()
        if any(share is None for share in others):
            raise ValueError("only the first version of a split may go without a share")
        rest = sum(share or 0 for share in others)
        if rest > MILLION or (first is not None and first + rest != MILLION):
            total = rest + (first or 0)
            raise ValueError(
                f"shares sum to {total / 10_000:g}%; 100% is wanted, or no share for the first"
            )
        return split


class ShadowSettings(Section):
    body: Size = Field(1024**2, description="Bodies over this are not copied, and counted.")
    items: int = Field(1000, ge=1, le=100_000, description="Copies waiting, by number.")
    bytes: Size = Field(64 * 1024**2, description="Copies waiting, by size.")
    concurrency: int = Field(32, ge=1, le=1000, description="Copies under way at once.")
    timeout: Duration = Field(10.0, description="How long one copy may take.")
    idempotent: bool = Field(
        False, description="raw, and openai with tools: such requests may be made twice."
    )


class ExplainSettings(Section):
    method: Literal["auto", "off"] = Field("auto", description="auto: exact where possible.")
    background: str | None = Field(
        None, description="Parquet file of rows explanations compare with."
    )
    reasons: int = Field(4, ge=0, le=4, description="Reasons given for an adverse outcome.")
    rows_at_most: int = Field(256, ge=1, le=65536, description="Rows of one exchange explained.")


class WindowSpan(Section):
    count: int = Field(500, ge=50, le=1_000_000, description="Decisions in a window.")
    at_most: Duration = Field(600.0, description="Longest span of a window.")


class MonitorSettings(Section):
    reference: str | None = Field(None, description="Parquet file of rows drift compares with.")
    window: WindowSpan = Field(WindowSpan(), description="When a window closes.")
    groups: tuple[Name, ...] = Field((), description="Keys of x-headworks-groups that are watched.")


class MappingSettings(Section):
    """Where features and scores lie, as far as card and protocol leave it open."""

    layout: Literal["columns", "matrix"] = Field(
        "columns", description="v2: each tensor is what the card says, or one is all features."
    )
    input: str | None = Field(None, description="v2: the matrix, if there are several tensors.")
    datatype: Literal["FP16", "FP32", "FP64", "INT32", "INT64"] | None = Field(
        None, description="v2: type of a body that is nothing but a tensor."
    )
    order: tuple[Name, ...] = Field((), description="Features from a matrix's first column on.")
    output: str | None = Field(None, description="Output, or key, of the score; else the card's.")
    column: int | None = Field(None, ge=0, description="The score's column; else the card's.")
    predict: Path | None = Field(None, description="raw: the path whose POSTs are inferences.")
    rows: Pointer | None = Field(
        None, description="raw: JSON pointer to the list of rows; absent: the body is one row."
    )
    features: dict[Name, Pointer] = Field(
        {}, description="raw: JSON pointers into a row; a feature without one is a key."
    )
    scores: Pointer | None = Field(
        None, description="raw: JSON pointer to the list of answers, or to the only one."
    )
    score: Pointer | None = Field(None, description="raw: JSON pointer into one answer.")


class HeaderSettings(Section):
    drop: tuple[HeaderName, ...] = Field((), description="Further headers that are never kept.")


class ModelSettings(Section):
    protocol: Literal["v2", "v1", "openai", "mlflow", "raw"] = Field(
        "v2", description="Wire format of the model's endpoints."
    )
    path: Path | None = Field(
        None, description="Prefix of the model's paths, not passed on; absent: at the root."
    )
    host: HostName | None = Field(None, description="Host header that the model answers to.")
    names: tuple[str, ...] = Field(
        (), description="openai: what a body calls the model, where several share a path."
    )
    mapping: MappingSettings = Field(
        MappingSettings(), description="Where features and scores lie in bodies."
    )
    unit: tuple[UnitSource, ...] = Field(
        ("exchange",), min_length=1, description="Who is bucketed: first present, not empty."
    )
    durability: Literal["durable", "bounded", "strict_intent"] = Field(
        "durable", description="What the journal promises before an answer leaves."
    )
    limits: Limits = Field(Limits(), description="Sizes and numbers.")
    timeouts: Timeouts = Field(Timeouts(), description="Times.")
    retries: Retries | None = Field(None, description="Further attempts; absent: none.")
    health: Health | None = Field(None, description="Active checks; absent: by the answers only.")
    ejection: Ejection = Field(Ejection(), description="Endpoints that fail are left out.")
    on_disconnect: Literal["drain", "cancel"] = Field(
        "drain", description="A client left: the version is heard to its end, or cancelled."
    )
    fallback: Name | None = Field(
        None, description="Version that answers where another one failed; absent: none does."
    )
    versions: dict[Name, VersionSettings] = Field(min_length=1, description="The versions.")
    rules: tuple[RuleSettings, ...] = Field(min_length=1, description="First match wins.")
    shadow: ShadowSettings = Field(ShadowSettings(), description="Bounds of shadow traffic.")
    explain: ExplainSettings = Field(ExplainSettings(), description="Explanations.")
    monitor: MonitorSettings = Field(MonitorSettings(), description="Drift and groups.")
    retention: Duration = Field(180 * 86400.0, description="How long records are kept.")
    expose: tuple[Literal["id", "version", "arm", "revision", "receipt"], ...] = Field(
        ("id",), description="Which x-headworks- headers an answer carries."
    )
    headers: HeaderSettings = Field(HeaderSettings(), description="Which headers are kept.")


class Settings(Section):
    """Everything in headworks.yaml."""

    listen: Listen = Field(Listen(), description="Addresses of the two ports.")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=128)] = Field(
        1, description="Worker processes; auto: one a core."
    )
    state: str = Field("./state", description="Folder of journal, ledger, catalog, artifacts.")
    keys: str = Field("./keys", description="Folder of keys; never inside state.")
    telemetry: Telemetry = Field(Telemetry(), description="Where spans go.")
    clients: Clients = Field(Clients(), description="What a client of the data port may take.")
    overload: Overload = Field(Overload(), description="When there is too much, who is refused.")
    drain: Drain = Field(Drain(), description="How a stop proceeds.")
    journal: JournalSettings = Field(JournalSettings(), description="The durable log.")
    ledger: LedgerSettings = Field(LedgerSettings(), description="The sealed log, for ever.")
    disk: Disk = Field(Disk(), description="What the stores may take; see docs/architecture.md.")
    callers: tuple[CallerSettings, ...] = Field(
        (), description="Who may call; absent: anybody, as anonymous, without context."
    )
    people: tuple[PersonSettings, ...] = Field((), description="Who may use the admin port.")
    models: dict[Name, ModelSettings] = Field(min_length=1, description="The models.")


RESTART_KEYS = ("listen", "workers", "state", "keys", "clients", "overload",
                "drain", "journal", "ledger", "disk")  # fmt: skip
"""Top-level keys that a reload cannot apply; all others are hot."""
