"""The pool over TLS: verification, and where a body ends."""

from __future__ import annotations

import asyncio
import functools
import ssl
from pathlib import Path

import pytest
from certificates import certify
from origins import LOOPS, Line, Origin, Run, ask, echo, origin, run_in

from gateway.dataplane.failures import UpstreamConnectFailed, UpstreamReset
from gateway.dataplane.limits import PoolLimits, Timeouts
from gateway.dataplane.upstream import Endpoint, Pool


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in the loop named."""
    return functools.partial(run_in, request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost with its key, in one file."""
    return certify(tmp_path_factory.mktemp("tls") / "both.pem")


def test_tls_is_spoken_with_verification_of_the_name(run: Run, certificate: Path) -> None:
    """A trusted certificate for the host is taken and reused; another host's or issuer's is not."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def main() -> None:
        async with origin(echo, serving) as seen:
            url = f"https://localhost:{seen.port}"
            good = Pool(Endpoint.of(url), PoolLimits(), Timeouts(), trusting)
            assert [await ask(good), await ask(good)] == [b"/", b"/"]
            assert good.stats.reused == 1
            await good.aclose()
            wrong_name = Endpoint("https", "127.0.0.1", seen.port, "")
            for endpoint, context in ((wrong_name, trusting), (Endpoint.of(url), None)):
                pool = Pool(endpoint, PoolLimits(), Timeouts(), context)
                with pytest.raises(UpstreamConnectFailed) as caught:
                    await ask(pool)
                assert caught.value.phase == "tls"
                await pool.aclose()

    run(main())


def test_under_tls_only_close_notify_ends_a_body(run: Run, certificate: Path) -> None:
    """A body without a length is complete after close_notify; a line that was cut is a reset."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def until_close(seen: Origin, line: Line) -> None:
        request = await line.request()
        await line.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        await asyncio.sleep(0.02)
        if request is not None and b"/cut" in request.head:
            line.writer.transport.abort()
        line.close()
        await asyncio.sleep(0.05)

    async def main() -> None:
        async with origin(until_close, serving) as seen:
            endpoint = Endpoint.of(f"https://localhost:{seen.port}")
            pool = Pool(endpoint, PoolLimits(), Timeouts(), trusting)
            assert await ask(pool) == b"all of it"
            with pytest.raises(UpstreamReset):
                await ask(pool, b"/cut")
            await pool.aclose()

    run(main())
