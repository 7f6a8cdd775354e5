"""TLS of the data port and to upstreams: who is let in, what is verified, files that change."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from certificates import certify
from origins import echo, origin
from world import MODELS, Client, World, applicants, config, request, running, soon, until

from gateway import asgi
from gateway.check import check
from gateway.trouble import Trouble


def trusting(authority: Path, own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if own is not None:
        context.load_cert_chain(own)
    return context


async def ask(world: World, context: ssl.SSLContext) -> int:
    """The status of one inference over a connection of its own."""
    connected = await asyncio.open_connection(
        "127.0.0.1", world.port, ssl=context, server_hostname="localhost"
    )
    client = Client(*connected)
    try:
        await client.say(request(applicants()))
        return (await client.answer()).status
    finally:
        client.leave()


def test_the_port_speaks_tls_and_follows_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a change is not taken; a whole one is shown to new connections, open ones go on."""
    monkeypatch.setattr(asgi, "LOOK_S", 0.1)
    old, new = certify(tmp_path / "old.pem"), certify(tmp_path / "new.pem")
    shown, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file in (shown, key):
        file.write_bytes(old.read_bytes())
    tls: dict[str, str | None] = {"cert": str(shown), "key": str(key), "client_ca": None}
    with running(tmp_path, tls=tls) as world:
        (world.state / "run").mkdir()
        trouble = Trouble(world.state, "worker-0")

        def refused() -> float:
            return world.count("headworks_certificates_refused")

        async def story() -> None:
            assert await soon(ask(world, trusting(old))) == 200
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(world, trusting(new))
            plain = await world.connect()
            await plain.say(request(applicants()))
            assert await plain.rest() == b""  # not a word in the clear
            connected = await asyncio.open_connection(
                "127.0.0.1", world.port, ssl=trusting(old), server_hostname="localhost"
            )
            kept = Client(*connected)
            await kept.say(request(applicants()))
            assert (await kept.answer()).status == 200
            half = new.read_bytes().split(b"-----BEGIN CERTIFICATE")
            key.write_bytes(half[0])  # the key is another one's now
            await asyncio.sleep(0.3)
            assert await soon(ask(world, trusting(old))) == 200
            assert "is not taken" in (trouble.read() or "")  # status is red, readiness is not asked
            assert refused() == 1  # told once, however often we look
            shown.write_bytes(new.read_bytes())

            async def follows() -> bool:
                try:
                    return await ask(world, trusting(new)) == 200
                except ssl.SSLError:
                    return False

            async with asyncio.timeout(5):
                while not await follows():
                    await asyncio.sleep(0.02)
            assert (trouble.read(), refused()) == (None, 1)
            await kept.say(request(applicants()))
            assert (await kept.answer()).status == 200
            kept.leave()
            await until(world.idle)

        world.run(story(), 20)
    assert world.exit_code == 0


def test_clients_may_have_to_show_a_certificate(tmp_path: Path) -> None:
    """With client_ca: who has none, or another authority's, is not served."""
    own, mate, other = (certify(tmp_path / f"{name}.pem") for name in ("own", "mate", "other"))
    tls: dict[str, str | None] = {"cert": str(own), "key": str(own), "client_ca": str(mate)}
    with running(tmp_path, tls=tls) as world:

        async def story() -> None:
            assert await soon(ask(world, trusting(own, mate))) == 200
            for wrong in (None, other):
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await soon(ask(world, trusting(own, wrong)))

        world.run(story())


def test_an_upstream_is_verified_and_sees_our_certificate(tmp_path: Path) -> None:
    """Its authority is the declared one: without it no request, with a new file it goes; one that
    cannot be read changes nothing and is told once."""
    own, mate, other = (certify(tmp_path / f"{name}.pem") for name in ("own", "mate", "other"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(own)
    served.load_verify_locations(mate)
    served.verify_mode = ssl.CERT_REQUIRED
    authority = tmp_path / "ca.pem"
    authority.write_bytes(other.read_bytes())
    with running(tmp_path) as world:

        async def story() -> None:
            async with origin(echo, served) as seen:
                url = f"https://localhost:{seen.port}"
                tls = f"{{ca: '{authority}', cert: '{mate}', key: '{mate}'}}"
                await world.serve(
                    config(
                        f"versions: {{v1: {{upstream: '{url}', tls: {tls}}}}}\n"
                        "rules: [{name: all, split: {v1: 100%}}]\n",
                        callers="",
                    )
                )
                reply = await soon(world.ask(b"hi"))
                assert (reply.status, reply.error) == (502, "upstream_connect_failed")
                assert seen.requests == []
                authority.write_bytes(own.read_bytes())

                async def follows() -> bool:
                    return (await world.ask(b"hi")).body == b"hi"

                async with asyncio.timeout(5):
                    while not await follows():
                        await asyncio.sleep(0.02)
                authority.write_text("no certificate")

                def told() -> float:
                    named = {"model": "mortgage", "version": "v1", "event": "tls_refused"}
                    return world.count("headworks_endpoint_events", **named)

                await until(lambda: told() == 1)
                await asyncio.sleep(0.1)
                assert (await soon(world.ask(b"hi"))).body == b"hi"
                world.worker._tell_numbers()
                assert told() == 1
                await until(world.idle)

        world.run(story())


def test_check_refuses_literal_secrets_and_missing_files(tmp_path: Path) -> None:
    """A secret in the file is a problem that is not shown; so is a file that is not there."""
    path = tmp_path / "headworks.yaml"
    text = config(
        "versions:\n"
        "  v1: {upstream: 'https://a', auth: {from: 'Bearer s3cret-value'}}\n"
        "  v2: {upstream: 'https://a', endpoints: ['https://b']}\n"
        f"  v3: {{artifact: {MODELS}/v1, tls: {{ca: x}}}}\n"
        "  v4: {upstream: 'https://a', tls: {ca: absent.pem}}\n"
        "  v5: {upstream: 'https://a', tls: {cert: absent.pem}}\n"
        "rules: [{name: all, split: {v1: 100%}}]\nfallback: v9\n"
    )
    path.write_text("listen: {data: {address: '127.0.0.1:1', tls: {cert: no, key: no}}}\n" + text)
    problems = [str(problem) for problem in check(path).problems]
    assert not any("s3cret" in problem for problem in problems)
    for words in ("auth.from: env:NAME or file:PATH", "not both", "are for a version with",
                  "versions.v4.tls.ca", "given together", "fallback = 'v9'",
                  "listen.data.tls.cert"):  # fmt: skip
        assert any(words in problem for problem in problems), (words, problems)
