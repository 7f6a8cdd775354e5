"""Reading a configuration file: all that is wrong with it at once, each with its line.

The settings model (`gateway/settings.py`) says what a value may be. Here are the rules that need
more than one value (a split names a version that exists) or a file (an artifact and its card).
They run on the plain tree, so that one mistake never hides another.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway.artifacts import file_digest
from gateway.card import Card
from gateway.settings import Settings
from gateway.yamlfile import NOTHING, Key, Problem, YamlFile, line_of

Found = tuple[Key, object, str]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(slots=True)
class Checked:
    """What a file says. `settings` is None where there are problems."""

    path: Path
    digest: str = ""
    settings: Settings | None = None
    cards: dict[tuple[str, str], Card] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Key, int] = field(default_factory=dict)

    def line_of(self, key: Key) -> int:
        return line_of(self.lines, key)

    def resolve(self, name: str) -> Path:
        return (self.path.parent / name).resolve()


def check(path: Path, overrides: Mapping[str, str] | None = None) -> Checked:
    """Read and check the file at `path`. `overrides`: dotted keys and values laid over it."""
    checked = Checked(path.resolve())
    file = YamlFile(checked.path, path.name, checked.problems)
    checked.digest = hashlib.sha256(file.data).hexdigest()
    checked.lines = file.lines
    if file.tree is None:
        if not checked.problems:
            file.add((), "", "is empty: `models` is missing")
        return checked
    if not isinstance(file.tree, dict):
        file.add((), file.tree, "a mapping of settings is wanted")
        return checked
    _lay_over(file.tree, overrides or {})
    settings = file.validate(Settings, file.tree)
    for key, value, words in _references(file.tree):
        file.add(key, value, words)
    for model, version, key, name in _cards(file.tree):
        card = _card(checked, file, key, name)
        if card is not None:
            checked.cards[model, version] = card
            if card.model != model or card.version != version:
                words = f"its card is of {card.model}/{card.version}"
                file.add(key, name, words)
    for key, value, words in _inline(file.tree, checked.cards):
        file.add(key, value, words)
    state, keys = (checked.resolve(str(file.tree.get(n, f"./{n}"))) for n in ("state", "keys"))
    if keys == state or state in keys.parents:
        file.add(("keys",), file.tree.get("keys", "./keys"), "keys never lie inside `state`")
    for key, name in _data_files(file.tree):
        if not checked.resolve(name).is_file():
            file.add(key, name, "there is no such file")
    checked.problems.sort(
        key=lambda problem: (problem.file != path.name, problem.file, problem.line)
    )
    checked.settings = settings if not checked.problems else None
    return checked


def _lay_over(tree: dict[str, Any], overrides: Mapping[str, str]) -> None:
    for dotted_key, text in overrides.items():
        node = tree
        *parents, last = dotted_key.split(".")
        for part in parents:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[last] = yaml.safe_load(text)


def _models(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    models = tree.get("models")
    for name, model in models.items() if isinstance(models, dict) else ():
        if isinstance(model, dict):
            yield name, model


def _rules(model: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    rules = model.get("rules")
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, dict):
            yield number, rule


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _references(tree: dict[str, Any]) -> Iterator[tuple[Key, object, str]]:
    """What only several values together can get wrong."""
    yield from _principals(tree)
    yield from _collisions(tree)
    called = _dict(tree.get("listen")).get("grpc")
    if called is not None and importlib.util.find_spec("grpc") is None:
        yield ("listen", "grpc"), called, "needs the extra: pip install 'headworks[grpc]'"
    for name, model in _models(tree):
        versions = _dict(model.get("versions"))
        at: Key = ("models", name)
        fallback = model.get("fallback")
        if isinstance(fallback, str) and fallback not in versions:
            known = ", ".join(map(str, versions)) or "none"
            yield (*at, "fallback"), fallback, f"no such version; known: {known}"
        yield from rule_references(at, model)
        yield from _protocol(at, model, versions)
        yield from _groups(at, model)
        yield from _slices(at, model)
        yield from _compared(at, model, versions)


def _compared(at: Key, model: dict[str, Any], versions: dict[str, Any]) -> Iterator[Found]:
    """Decisions are compared by the cards of both."""
    kind = _dict(model.get("compare")).get("kind")
    bare = [
        name
        for name, version in versions.items()
        if not (_dict(version).get("artifact") or _dict(version).get("card"))
    ]
    if kind == "decision" and bare:
        words = f"each version needs an `artifact` or a `card`; {', '.join(map(str, bare))}: none"
        yield (*at, "compare", "kind"), kind, words


def rule_references(at: Key, model: dict[str, Any]) -> Iterator[Found]:
    """What the rules of a model name that is not there, or not theirs."""
    versions = _dict(model.get("versions"))
    seen: set[str] = set()
    for number, rule in _rules(model):
        here: Key = (*at, "rules", number)
        for part in ("split", "shadow"):
            for version in _dict(rule.get(part)):
                if version not in versions:
                    known = ", ".join(map(str, versions)) or "none"
                    yield (*here, part, version), NOTHING, f"no such version; known: {known}"
        if str(rule.get("name")) in seen:
            yield (*here, "name"), rule.get("name"), "another rule of the model has this name"
        seen.add(str(rule.get("name")))
        yield from _conditions((*here, "when"), rule.get("when"), model)
        for version, told in _dict(rule.get("shadow")).items():
            when = _dict(told).get("when")
            yield from _conditions((*here, "shadow", version, "when"), when, model)


def _groups(at: Key, model: dict[str, Any]) -> Iterator[Found]:
    """A watched group is no condition: nobody is routed by what bias is watched over."""
    groups = _dict(model.get("monitor")).get("groups")
    if not isinstance(groups, list):
        return
    if len(set(map(str, groups))) < len(groups):
        yield (*at, "monitor", "groups"), groups, "a group stands twice"
    routable = _dict(model.get("context")).get("routable")
    for key in routable if isinstance(routable, list) else ():
        if key in groups:
            words = "is a monitored group: no rule may match on it"
            yield (*at, "context", "routable"), key, words


def _slices(at: Key, model: dict[str, Any]) -> Iterator[Found]:
    """Slices are compared with their own last windows."""
    monitor = _dict(model.get("monitor"))
    named = monitor.get("slices")
    if not isinstance(named, list) or not named:
        return
    if len(set(map(str, named))) < len(named):
        yield (*at, "monitor", "slices"), named, "a key stands twice"
    if (kind := monitor.get("baseline", "rolling")) != "rolling":
        yield (*at, "monitor", "slices"), named, f"needs monitor.baseline: rolling, not {kind}"


def _conditions(at: Key, when: object, model: dict[str, Any]) -> Iterator[Found]:
    """What no rule may look at: groups that are watched, people, credentials."""
    for header in _dict(_dict(when).get("header")):
        if header in ("x-headworks-groups", "x-headworks-subject", "authorization"):
            yield (*at, "header", header), NOTHING, "rules never match on it"
    routable = _dict(model.get("context")).get("routable")
    known = [str(key) for key in routable] if isinstance(routable, list) else []
    for key in _dict(_dict(when).get("context")):
        if str(key) not in known:
            words = f"is not in context.routable; known: {', '.join(known) or 'none'}"
            yield (*at, "context", key), NOTHING, words


RAW_KEYS = ("predict", "rows", "features", "scores", "score")


def _protocol(at: Key, model: dict[str, Any], versions: dict[Any, Any]) -> Iterator[Found]:
    """What only some protocols take."""
    protocol, mapping = model.get("protocol", "v2"), _dict(model.get("mapping"))
    for version, settings in versions.items():
        served = _dict(settings).get("upstream") or _dict(settings).get("endpoints")
        if protocol != "v2" and not served:
            words = f"a {protocol} model needs an `upstream`: versions in the process speak v2"
            yield (*at, "versions", version), NOTHING, words
        if protocol != "v2" and _dict(settings).get("grpc") is not None:
            yield (*at, "versions", version, "grpc"), NOTHING, "only v2 models speak gRPC"
    for key in RAW_KEYS:
        if key in mapping and protocol != "raw":
            yield (*at, "mapping", key), mapping[key], "is read for raw models only"
    if protocol == "raw":
        if "predict" not in mapping:
            yield (*at, "mapping"), NOTHING, "a raw model needs `predict`, the path it answers at"
        if model.get("path") is None and model.get("host") is None:
            yield (*at, "protocol"), protocol, "a raw model needs a `path` or `host` of its own"
    if "names" in model and protocol != "openai":
        yield (*at, "names"), model["names"], "is read for openai models only"


ALONE = {"raw": "takes every path", "mlflow": "has no model name in its paths"}


def _collisions(tree: dict[str, Any]) -> Iterator[Found]:
    """Models of one `host` and `path` whose requests could not be told apart."""
    first: dict[tuple[Any, Any], list[tuple[str, str]]] = {}
    for name, model in _models(tree):
        protocol = str(model.get("protocol", "v2"))
        others = first.setdefault((model.get("host"), model.get("path")), [])
        for other, spoken in others:
            alone = {protocol, spoken} & ALONE.keys()
            if "raw" in alone or (protocol == spoken and alone):
                words = f"shares host and path with {other}: {min(alone)} {ALONE[min(alone)]}"
            elif {protocol, spoken} == {"v1", "openai"}:
                words = f"shares host and path with {other}: both serve /v1/models"
            else:
                continue
            yield ("models", name, "path"), NOTHING, words + "; give each a `path` of its own"
            break
        others.append((name, protocol))


def _principals(tree: dict[str, Any]) -> Iterator[tuple[Key, object, str]]:
    for section, secret in (("callers", "key_sha256"), ("people", "token_sha256")):
        for what in ("name", secret):
            seen: set[str] = set()
            items = tree.get(section)
            for number, item in enumerate(items if isinstance(items, list) else ()):
                value = _dict(item).get(what)
                if value is not None and str(value) in seen:
                    yield (section, number, what), value, "stands twice"
                seen.add(str(value))
    admin = _dict(tree.get("listen")).get("admin")
    admin = _dict(admin).get("address", admin)
    if (
        isinstance(admin, str)
        and admin.rpartition(":")[0] not in LOOPBACK
        and not tree.get("people")
    ):
        yield ("listen", "admin"), admin, "beyond loopback the admin port needs `people`"


def _cards(tree: dict[str, Any]) -> Iterator[tuple[str, str, Key, str]]:
    for name, model in _models(tree):
        for version, settings in _dict(model.get("versions")).items():
            for what in ("artifact", "card"):
                if isinstance(value := _dict(settings).get(what), str):
                    yield name, str(version), ("models", name, "versions", version, what), value


def _inline(
    tree: dict[str, Any], cards: Mapping[tuple[str, str], Card]
) -> Iterator[tuple[Key, object, str]]:
    """Reasons in answers are codes: each feature that a version reads needs one."""
    for name, model in _models(tree):
        explain = _dict(model.get("explain"))
        if explain.get("inline") is not True:
            continue
        key = ("models", name, "explain", "inline")
        if explain.get("background") is None:
            yield key, True, "needs `background`"
        for (of, version), card in cards.items():
            bare = [feature.name for feature in card.used if feature.reason is None]
            if of == name and bare:
                yield key, True, f"the card of {version} has no `reason` for {bare[0]!r}"


def _data_files(tree: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    for name, model in _models(tree):
        for section, what in (("explain", "background"), ("monitor", "reference")):
            value = _dict(model.get(section)).get(what)
            if isinstance(value, str):
                yield ("models", name, section, what), value
        for version, settings in _dict(model.get("versions")).items():
            yield from _tls_files(("models", name, "versions", str(version)), _dict(settings))
    for port, listener in _dict(tree.get("listen")).items():
        yield from _tls_files(("listen", str(port)), _dict(listener))


def _tls_files(at: Key, section: dict[Any, Any]) -> Iterator[tuple[Key, str]]:
    for what, value in _dict(section.get("tls")).items():
        if what in ("ca", "cert", "key", "client_ca") and isinstance(value, str):
            yield (*at, "tls", what), value


def _card(checked: Checked, file: YamlFile, key: Key, name: str) -> Card | None:
    """From an artifact's folder, whose model must be the card's; or from a file of its own."""
    if key[-1] == "card":
        if not checked.resolve(name).is_file():
            file.add(key, name, "there is no such file")
            return None
        return _read_card(checked, checked.resolve(name), name)[1]
    folder = checked.resolve(name)
    if not folder.is_dir():
        file.add(key, name, "there is no such folder")
        return None
    if not (folder / "card.yaml").is_file():
        file.add(key, name, "the folder has no card.yaml")
        return None
    card_file, card = _read_card(checked, folder / "card.yaml", f"{name}/card.yaml")
    if card is None:
        return None
    if card.artifact is None:
        card_file.add((), "", "`artifact` with the digest of model.onnx is missing")
    elif card.artifact.file != "model.onnx":
        card_file.add(("artifact", "file"), card.artifact.file, "model.onnx is wanted")
    elif not (model := folder / card.artifact.file).is_file():
        file.add(key, name, "the folder has no model.onnx")
    elif (found := file_digest(model)) != card.artifact.sha256:
        words = f"the file's digest is {found}"
        card_file.add(("artifact", "sha256"), card.artifact.sha256, words)
    else:
        return card
    return None


def _read_card(checked: Checked, path: Path, name: str) -> tuple[YamlFile, Card | None]:
    file = YamlFile(path, name, checked.problems)
    card: Card | None = file.validate(Card, file.tree) if file.tree else None
    return file, card
