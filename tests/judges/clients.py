"""Clients of HTTP/2 and of WebSockets: httpx, websockets, curl, h2load."""
import asyncio
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


async def websockets_all(plain):
    async with connect(f'ws://{plain}/ws', max_size=4 * LARGE) as websocket:
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
        await websocket.send('close')
        try:
            await websocket.recv()
            raise AssertionError('it was to close')
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, 'as asked'), closed
    async with connect(f'ws://{plain}/ws') as websocket:
        await websocket.close(1001, 'going')
    many = [connect(f'ws://{plain}/ws') for _ in range(50)]
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


def h2load(plain, secure):
    for url in (f'http://{plain}/', f'https://{secure}/'):
        words = ['h2load', '-n', '5000', '-c', '10', '-m', '20', '--connect-to', secure if 'https' in url else plain]
        said = said_by(*words, url.replace(secure, f'a.test:{secure.rsplit(":", 1)[1]}'))
        done = next(line for line in said.splitlines() if line.startswith('requests:'))
        assert '5000 succeeded, 0 failed, 0 errored, 0 timeout' in done, said
