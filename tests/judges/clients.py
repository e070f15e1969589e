"""Clients of HTTP/2 and of WebSockets: httpx, websockets, curl, h2load."""
import asyncio
import re
import ssl

import httpx
import websockets
from websockets.asyncio.client import connect

from common import LARGE, PATIENCE, said_by


async def httpx_both(plain, secure, trusted):
    trust = ssl.create_default_context(cafile=str(trusted))
    trust.check_hostname = False
    for base, more in ((f'http://{plain}', {'http1': False}), (f'https://{secure}', {'verify': trust})):
        async with httpx.AsyncClient(http2=True, base_url=base, timeout=PATIENCE, **more) as client:
            extensions = {'sni_hostname': 'a.test'}
            answers = await asyncio.gather(*(client.get(f'/{at}', extensions=extensions) for at in range(200)))
            assert all(answer.status_code == 200 and answer.http_version == 'HTTP/2' for answer in answers)
            answer = await client.post('/', content=b'x' * LARGE, extensions=extensions)
            assert answer.status_code == 200, answer
            answer = await client.head('/', extensions=extensions)
            assert answer.status_code == 200 and answer.content == b''


async def websockets_all(url, trusted=None):
    more = {}
    if trusted:
        more = {'ssl': ssl.create_default_context(cafile=str(trusted)), 'server_hostname': 'a.test'}
    async with connect(url, max_size=4 * LARGE, **more) as websocket:
        await websocket.send('hello')
        assert await websocket.recv() == 'hello'
        large = bytes(range(256)) * (LARGE // 256)
        await websocket.send(large)
        assert await websocket.recv() == large
        # In pieces, and pieces between which a ping goes.
        async def pieces():
            for at in range(5):
                yield 'piece %d,' % at
                await (await websocket.ping())

        await websocket.send(pieces())
        assert await websocket.recv() == ''.join('piece %d,' % at for at in range(5))
        await (await websocket.ping(b'there?'))
        await websocket.send('ping')
        assert await websocket.recv() == 'pong'
        await websocket.send('pieces')
        assert [piece async for piece in websocket.recv_streaming()] == ['piece %d,' % at for at in range(100)] + ['']
        await websocket.send('close')
        try:
            await websocket.recv()
            raise AssertionError('it was to close')
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, 'as asked'), closed
    async with connect(url, **more) as websocket:
        await websocket.close(1001, 'going')
    # Sizes about which a frame's length is written in another way, and no compression.
    async with connect(url, compression=None, **more) as websocket:
        for size in (0, 125, 126, 65_535, 65_536):
            await websocket.send(b'x' * size)
            assert await websocket.recv() == b'x' * size
        await websocket.send('fail')
        try:
            await websocket.recv()
            raise AssertionError('it was to fail')
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1011, closed
    many = [connect(url, **more) for _ in range(50)]
    sockets = await asyncio.gather(*many)
    await asyncio.gather(*(socket.send('%d' % at) for at, socket in enumerate(sockets)))
    assert await asyncio.gather(*(socket.recv() for socket in sockets)) == ['%d' % at for at in range(50)]
    await asyncio.gather(*(socket.close() for socket in sockets))


def curl(plain, secure, trusted):
    told = '%{http_version} %{http_code}'
    for path in ('/', '/x?y=z'):
        got = said_by('curl', '-s', '-o', '/dev/null', '-w', told, '--http2-prior-knowledge', f'http://{plain}{path}')
        assert got == '2 200', got
    port = secure.rsplit(':', 1)[1]
    over_tls = ['curl', '-s', '-o', '/dev/null', '-w', told, '--cacert', str(trusted)]
    over_tls += ['--resolve', f'a.test:{port}:127.0.0.1', f'https://a.test:{port}/']
    assert said_by(*over_tls) == '2 200'
    assert said_by(*over_tls, '--http1.1') == '1.1 200'


def nghttp(plain, secure, folder):
    """Padded frames, headers in pieces, trailers, small windows, an expectation; many at once."""
    body = folder / 'body'
    body.write_bytes(b'x' * 300_000)
    many = ['--header=x-%d: %s' % (at, 'v' * 300) for at in range(50)]
    ways = [
        [], ['--padding=200', '--data', str(body)], ['--padding=255', '--no-content-length', '--data', str(body), '--trailer=x-sum: 1'],
        ['--continuation'], many, ['--expect-continue', '--data', str(body)], ['--window-bits=10', '--connection-window-bits=16', '--multiply=20'],
        ['--header-table-size=0'], ['--encoder-header-table-size=0'], ['--multiply=100'], ['--no-dep'], ['--no-rfc7540-pri'],
    ]
    for base in (f'http://{plain}', f'https://{secure}'):
        for way in ways:
            said = said_by('nghttp', '--stat', '--null-out', '--no-verify-peer', '--timeout=10', '--header=:authority: a.test', *way, f'{base}/')
            told = [line.split() for line in said.splitlines() if re.match(r' *[0-9]+ +[+*]', line)]
            asked = int(next((word.split('=')[1] for word in way if word.startswith('--multiply')), 1))
            assert len(told) == asked and all(line[4] == '200' for line in told), (way, said)


def h2load(plain, secure):
    for url in (f'http://{plain}/', f'https://{secure}/'):
        words = ['h2load', '-n', '5000', '-c', '10', '-m', '20', '--connect-to', secure if 'https' in url else plain]
        said = said_by(*words, url.replace(secure, f'a.test:{secure.rsplit(":", 1)[1]}'))
        done = next(line for line in said.splitlines() if line.startswith('requests:'))
        assert '5000 succeeded, 0 failed, 0 errored, 0 timeout' in done, said
