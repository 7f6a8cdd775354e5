"""The configuration model: each setting is declared once, here or, of one model, in
`gateway/modelsettings.py`.

A declaration has a name, a type that carries the unit (`2s`, `1MiB`, `5%`), a default and one
sentence. The reference page (`docs/configuration.md`), the JSON Schema, the environment variables
and the checks are made from these declarations. What needs the file itself (line numbers, files
that settings name) is in `gateway/check.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from gateway.declaration import (
    CONTROLLER,
    Address,
    Duration,
    HexDigest,
    LedgerName,
    Name,
    Secret,
    Section,
    Share,
    Size,
    Url,
    WitnessKey,
)
from gateway.modelsettings import ModelSettings


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
    head: Duration = Field(
        10.0,
        description="For a request's head, from its first byte; the first one's, from connecting.",
    )
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
    bodies: Size = Field(
        512 * 1024**2,
        description="Request bodies held in memory, or kept of those that pass, all together.",
    )


class Telemetry(Section):
    otlp: Url | None = Field(
        None, description="OTLP/HTTP collector that gets spans; off if absent."
    )


class WebhookSettings(Section):
    url: Url = Field(description="Gets a POST for each alert that opens, worsens or is over.")
    secret: Secret = Field(description="env:NAME or file:PATH of the key that signs them.")


class AlertSettings(Section):
    webhook: WebhookSettings | None = Field(None, description="Where alerts go; absent: nowhere.")


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
    queue: Size = Field(
        64 * 1024**2,
        description="Records waiting for a worker's commit, in bytes, kept bodies included; beyond"
        " it answers are 503 `journal_unavailable`, counted by `headworks_journal_refused_total`.",
    )
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

    @field_validator("name")
    @classmethod
    def is_a_person(cls, name: str) -> str:
        if name == CONTROLLER:
            raise ValueError(f"{name!r} is what rollouts' leaves call the gateway itself")
        return name


class Settings(Section):
    """Everything in headworks.yaml."""

    listen: Listen = Field(Listen(), description="Addresses of the two ports.")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=128)] = Field(
        1, description="Worker processes; auto: one a core."
    )
    state: str = Field("./state", description="Folder of journal, ledger, catalog, artifacts.")
    keys: str = Field("./keys", description="Folder of keys; never inside state.")
    telemetry: Telemetry = Field(Telemetry(), description="Where spans go.")
    alerts: AlertSettings = Field(AlertSettings(), description="Who is told of alerts.")
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
