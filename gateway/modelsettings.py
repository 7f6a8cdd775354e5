"""What is set for one model: versions, rules, limits, times; a part of `gateway/settings.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from gateway.declaration import (
    MILLION,
    Address,
    Duration,
    HeaderName,
    HostName,
    Method,
    Name,
    Path,
    Pointer,
    Scalar,
    Secret,
    Section,
    Share,
    Size,
    UnitSource,
    Url,
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
    card: str | None = Field(
        None, description="card.yaml alone, of a version with an upstream whose model is not held."
    )
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
        if self.artifact is not None and self.card is not None:
            raise ValueError("the `artifact` has its card; `card` is for a version without one")
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
    method: tuple[Method, ...] = Field((), description="HTTP methods, any of them.")
    path: str | None = Field(None, description="Path; a trailing * matches any rest.")
    caller: tuple[Name, ...] = Field((), description="Names of callers, any of them.")
    context: dict[Name, str] = Field(
        {}, description="Keys of x-headworks-groups that are `routable`, and their values."
    )
    body: dict[Pointer, Scalar] = Field(
        {}, description="JSON pointers into a JSON body of at most limits.hold, and their values."
    )

    @field_validator("caller", "method", mode="before")
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class RuleLimits(Section):
    request: Size | None = Field(None, description="As the model's; absent: the model's.")
    hold: Size | None = Field(None, description="As the model's; absent: the model's.")
    keep: Size | None = Field(None, description="As the model's; absent: the model's.")


class RuleTimeouts(Section):
    request: Duration | None = Field(None, description="As the model's; absent: the model's.")
    first_byte: Duration | None = Field(None, description="As the model's; absent: the model's.")
    idle: Duration | None = Field(None, description="As the model's; absent: the model's.")
    stream: Duration | None = Field(None, description="As the model's; absent: the model's.")


class Sticky(Section):
    max_age: Duration = Field(3600.0, gt=0, description="How long a session keeps its version.")
    by: Literal["cookie", "header"] = Field(
        "cookie", description="Cookie headworks-<model>, or header x-headworks-session, both ways."
    )


class ShadowRule(Section):
    share: Share = Field(MILLION, description="Of how many exchanges it gets a copy.")
    when: Condition = Field(Condition(), description="Condition; absent: always.")


def _share_alone(value: Any) -> Any:
    """`v3: 5%` is short for `v3: {share: 5%}`."""
    return {"share": value} if isinstance(value, str) else value


ShareOrShadow = Annotated[
    ShadowRule, BeforeValidator(_share_alone, json_schema_input_type=Share | ShadowRule)
]


class RuleSettings(Section):
    name: Name = Field(description="Name that records carry.")
    when: Condition = Field(Condition(), description="Condition; absent: always.")
    split: dict[Name, Share | None] = Field(
        description="Versions and shares; the first is stable and takes what is left."
    )
    shadow: dict[Name, ShareOrShadow] = Field(
        {}, description="Versions that get a copy: of which share, or of which share when."
    )
    holdout: Share = Field(0, description="Buckets at the end that stay on the stable version.")
    sticky: Sticky | None = Field(
        None, description="Sessions keep their version by a signed pin; absent: by hash alone."
    )
    limits: RuleLimits = Field(RuleLimits(), description="In place of the model's.")
    timeouts: RuleTimeouts = Field(RuleTimeouts(), description="In place of the model's.")
    salt: str | None = Field(None, max_length=64, description="Bucketing salt; <model>/<rule>.")
    freeze_on: tuple[str, ...] = Field(
        (), max_length=50,
        description="While such alerts are open (first words of their causes) no share grows.",
    )  # fmt: skip
    rollback_on: tuple[str, ...] = Field(
        (), max_length=50,
        description="Such alerts of a version give its share to the stable one; then as freeze_on.",
    )  # fmt: skip
    priority: Literal["critical", "default", "batch"] = Field(
        "default", description="Who is shed last and first, when there is too much."
    )

    @model_validator(mode="after")
    def leaves_the_holdout(self) -> RuleSettings:
        _, *others = self.split.values()
        if (taken := sum(share or 0 for share in others)) + self.holdout > MILLION:
            words = f"{taken / 10_000:g}% of other versions leave no holdout"
            raise ValueError(f"{words} of {self.holdout / 10_000:g}%")
        return self

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
    items: int = Field(1000, ge=1, le=100_000, description="Copies of one version that wait.")
    bytes: Size = Field(64 * 1024**2, description="Their bodies, by size.")
    concurrency: int = Field(32, ge=1, le=1000, description="Its copies under way, at most.")
    timeout: Duration = Field(
        10.0, description="How long one copy may take; never over twice timeouts.request."
    )
    noise: Share = Field(
        0, description="Copied exchanges that the version that answered is asked again."
    )
    idempotent: bool = Field(
        False, description="raw, and openai with tools: such requests may be made twice."
    )


class CompareSettings(Section):
    kind: Literal["auto", "decision", "number", "ranking", "text", "json"] = Field(
        "auto", description="auto: decisions or numbers by the cards, text of openai, else json."
    )
    atol: float = Field(1e-6, ge=0, description="Numbers: absolute tolerance.")
    rtol: float = Field(0.01, ge=0, description="Numbers: tolerance relative to the larger one.")
    near_tie: float | None = Field(
        None, ge=0, description="decision: a flip of scores this near their thresholds agrees."
    )
    top: int = Field(10, ge=1, le=1000, description="ranking: how many ranks have to be alike.")
    overlap: Share = Field(800_000, description="ranking: share of the top that both must have.")
    text: Share = Field(900_000, description="text: share of words that both must have.")
    at: Pointer = Field("", description="number, ranking, text: JSON pointer into a row's answer.")
    ignore: tuple[Pointer, ...] = Field(
        (), max_length=64, description="json: pointers of what is not compared; * is any part."
    )
    unordered: tuple[Pointer, ...] = Field(
        (), max_length=64, description="json: pointers of lists whose order means nothing."
    )


class RemoteSettings(Section):
    share: Share = Field(description="Share of the exchanges that are explained.")
    rows_a_second: int = Field(
        2000, ge=1, le=1_000_000, description="Rows that the upstream is asked to score, at most."
    )
    timeout: Duration = Field(2.0, description="For all calls of one explanation.")


class ExplainSettings(Section):
    method: Literal["auto", "off"] = Field("auto", description="auto: exact where possible.")
    background: str | None = Field(
        None, description="Parquet file of rows explanations compare with."
    )
    reasons: int = Field(4, ge=0, le=4, description="Reasons given for an adverse outcome.")
    inline: bool = Field(
        False, description="Reasons in answers of in-process versions: x-headworks-reasons."
    )
    rows_at_most: int = Field(256, ge=1, le=65536, description="Rows of one exchange explained.")
    remote: RemoteSettings | None = Field(
        None, description="Versions with a card and no artifact: by calls; absent: not at all."
    )


class WindowSpan(Section):
    count: int = Field(500, ge=50, le=1_000_000, description="Decisions in a window.")
    at_most: Duration = Field(600.0, description="Longest span of a window.")


class SequentialSettings(Section):
    """Detectors that are fed decision by decision."""

    shift: float = Field(
        0.25, ge=0.1, le=2.0, description="Shift, in standard deviations, that they are made for."
    )
    run: int = Field(
        50_000, ge=0, le=10_000_000,
        description="Decisions between alarms by chance, of all detectors of a series; 0: off.",
    )  # fmt: skip
    confirm: int = Field(
        500, ge=10, le=100_000,
        description="Decisions within which a second alarm on the same side makes a drift.",
    )  # fmt: skip


class DriftSettings(Section):
    """When a difference from the reference is told."""

    alpha: float = Field(
        0.01, gt=0, le=0.2,
        description="Chance that a window without drift shows anything significant at all.",
    )  # fmt: skip
    correction: Literal["bonferroni", "benjamini_hochberg"] = Field(
        "bonferroni", description="For the comparisons of a window: any false one, or their share."
    )
    test: Literal["kolmogorov_smirnov", "cramer_von_mises"] = Field(
        "kolmogorov_smirnov", description="For numbers; categories go by chi-squared or Fisher."
    )
    distance: float = Field(
        0.1, ge=0, le=1,
        description="Least Kolmogorov-Smirnov distance or total variation; 0.25 sigma is 0.1.",
    )  # fmt: skip
    outcome: float = Field(0.05, ge=0, le=1, description="Least change of the adverse share.")
    area: float = Field(
        0.05, ge=0, le=0.5, description="Least area beyond a half that tells rows apart."
    )
    ranking: float = Field(
        0.05, ge=0, le=1,
        description="Least share of pairs of features whose mean attributions change places.",
    )  # fmt: skip
    running: int = Field(2, ge=1, le=10, description="Windows in a row that make a drift.")
    sequential: SequentialSettings = Field(
        SequentialSettings(), description="Detectors fed decision by decision."
    )


Detector = Literal[
    "alibi.KSDrift", "alibi.CVMDrift", "alibi.ChiSquareDrift", "alibi.FETDrift",
    "alibi.TabularDrift", "alibi.ClassifierDrift", "alibi.CVMDriftOnline", "alibi.FETDriftOnline",
    "alibi.MMDDrift", "alibi.LSDDDrift",
]  # fmt: skip


class MonitorSettings(Section):
    reference: str | None = Field(None, description="Parquet file of rows drift compares with.")
    window: WindowSpan = Field(WindowSpan(), description="When a window closes.")
    drift: DriftSettings = Field(DriftSettings(), description="When a difference is told.")
    baseline: Literal["none", "rolling", "day", "week"] = Field(
        "rolling", description="Second reference: the last windows, or that hour of day or week."
    )
    detector: Detector | None = Field(
        None, description="One of alibi-detect's beside ours; `headworks detectors install alibi`."
    )
    detector_arguments: dict[str, int | float | bool | str | tuple[int, ...]] = Field(
        {}, description="What it is made with beside its reference, by alibi-detect's names."
    )
    groups: tuple[Name, ...] = Field((), description="Keys of x-headworks-groups that are watched.")
    slices: tuple[Name, ...] = Field(
        (), max_length=4,
        description="Further keys of x-headworks-groups whose values' drift is judged apart.",
    )  # fmt: skip


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


class ContextSettings(Section):
    routable: tuple[Name, ...] = Field(
        (), description="Keys of x-headworks-groups that rules may match on; no monitored group."
    )


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
    compare: CompareSettings = Field(
        CompareSettings(), description="When a shadow's answer agrees with the one given."
    )
    explain: ExplainSettings = Field(ExplainSettings(), description="Explanations.")
    monitor: MonitorSettings = Field(MonitorSettings(), description="Drift and groups.")
    retention: Duration = Field(180 * 86400.0, description="How long records are kept.")
    expose: tuple[Literal["id", "version", "arm", "revision", "receipt"], ...] = Field(
        ("id",), description="Which x-headworks- headers an answer carries."
    )
    context: ContextSettings = Field(ContextSettings(), description="Governance context.")
    headers: HeaderSettings = Field(HeaderSettings(), description="Which headers are kept.")
