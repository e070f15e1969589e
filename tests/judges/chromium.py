"""What a browser does with the gateway over HTTP/2: Chromium, told by its own protocol for tools."""
import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import shutil
import subprocess
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from websockets.asyncio.client import connect

from common import PATIENCE, START_SECONDS, wait_for

FLAGS = [
    # Whoever runs tests in a container is root, and the sandbox is not for root.
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-extensions',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-port=0',
]


def print_of(certificate):
    """What Chromium knows a certificate by that nobody vouches for."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).digest()).decode()


class Page:
    """A page of a browser, and what can be asked of it."""

    def __init__(self, websocket):
        self.websocket, self.numbers = websocket, itertools.count(1)

    async def tell(self, method, **parameters):
        number = next(self.numbers)
        await self.websocket.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while True:
            said = json.loads(await asyncio.wait_for(self.websocket.recv(), PATIENCE))
            if said.get('id') == number:
                assert 'error' not in said, (method, parameters, said['error'])
                return said['result']

    async def run(self, script, **values):
        """The outcome of a function's body, which may wait."""
        given = ''.join(f'const {name} = {json.dumps(value)};' for name, value in values.items())
        told = await self.tell(
            'Runtime.evaluate', expression=f'(async () => {{ {given} {script} }})()', awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in told, (script, told['exceptionDetails'])
        return told['result'].get('value')

    async def go(self, url):
        assert 'errorText' not in (told := await self.tell('Page.navigate', url=url)), told
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while await self.run('return location.href + document.readyState') != url + 'complete':
            assert asyncio.get_running_loop().time() < deadline, f'{url} is not loaded'
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def opened(folder, certificate):
    """A browser that takes the certificate, and looks for a.test here; a page of it."""
    profile = folder / 'chromium'
    more = [f'--user-data-dir={profile}', f'--ignore-certificate-errors-spki-list={print_of(certificate)}']
    more.append('--host-resolver-rules=MAP *.test 127.0.0.1')
    log = folder / 'chromium.log'
    with log.open('w') as said:
        browser = subprocess.Popen(['chromium', *FLAGS, *more, 'about:blank'], stdout=said, stderr=said)
    try:
        at = profile / 'DevToolsActivePort'
        wait_for(lambda: at.exists() and at.read_text().count('\n'), lambda: browser.poll() is None)
        port = at.read_text().split()[0]

        def pages():
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/json', timeout=PATIENCE) as answer:
                return [page for page in json.load(answer) if page['type'] == 'page']

        wait_for(pages, lambda: browser.poll() is None)
        async with connect(pages()[0]['webSocketDebuggerUrl'], max_size=None) as websocket:
            yield Page(websocket)
    finally:
        browser.terminate()
        browser.wait(START_SECONDS)
        shutil.rmtree(profile, ignore_errors=True)


# ---- what is asked -----------------------------------------------------------------------------------------------------


async def is_loaded_over_http2(page, metric):
    protocol = await page.run("return performance.getEntriesByType('navigation')[0].nextHopProtocol")
    assert protocol == 'h2', protocol


async def fetches_many_at_once(page, metric):
    connections = metric('ringway_connections_accepted_total')
    said = await page.run('''
        const asked = Array.from({length: 300}, (_, at) => fetch(`/page/item/${at}`).then(answer => answer.text()));
        const answers = await Promise.all(asked);
        const entries = performance.getEntriesByType('resource');
        return [answers, entries.length, [...new Set(entries.map(entry => entry.nextHopProtocol))]];
    ''')
    assert said[0] == [f'/page/item/{at}' for at in range(300)] and said[1] >= 250 and said[2] == ['h2'], said[1:]
    assert metric('ringway_connections_accepted_total') == connections, 'all on the connection that is there'


async def posts_bodies(page, metric):
    for size in (0, 1, 16_384, 1 << 20):
        said = await page.run('''
            const body = new Uint8Array(size).map((_, at) => at * 7);
            const answer = await fetch('/page/echo', {method: 'POST', body});
            const got = new Uint8Array(await answer.arrayBuffer());
            return answer.status === 200 && got.length === size && got.every((byte, at) => byte === body[at]);
        ''', size=size)
        assert said is True, size


async def streams_bodies_up(page, metric):
    """A request without a length, which browsers send over HTTP/2 only."""
    said = await page.run('''
        let left = 5;
        const body = new ReadableStream({pull(to) {
            left ? to.enqueue(new TextEncoder().encode(`piece ${left--},`)) : to.close();
        }});
        const answer = await fetch('/page/echo', {method: 'POST', body, duplex: 'half'});
        return await answer.text();
    ''')
    assert said == 'piece 5,piece 4,piece 3,piece 2,piece 1,', said


async def speaks_by_websocket(page, metric):
    connections, streams = metric('ringway_connections_accepted_total'), metric('ringway_http2_streams_total')
    said = await page.run('''
        const socket = new WebSocket(`wss://${location.host}/ws`);
        socket.binaryType = 'arraybuffer';
        const next = () => new Promise((done, fail) => {
            socket.onmessage = event => done(event.data);
            socket.onclose = event => fail(new Error(`closed: ${event.code}`));
        });
        await new Promise((done, fail) => { socket.onopen = done; socket.onerror = () => fail(new Error('refused')); });
        let told = next();
        socket.send('hello');
        if (await told !== 'hello') throw new Error('no echo');
        told = next();
        socket.send(new Uint8Array(1 << 20).fill(7));
        const large = new Uint8Array(await told);
        if (large.length !== 1 << 20 || !large.every(byte => byte === 7)) throw new Error('a large message is another');
        const closed = new Promise(done => { socket.onclose = event => done([event.code, event.reason, event.wasClean]); });
        socket.send('close');
        return await closed;
    ''')
    assert said == [4001, 'as asked', True], said
    is_shared = metric('ringway_connections_accepted_total') == connections
    print('  a WebSocket over', 'a stream of HTTP/2 (RFC 8441)' if is_shared else 'a connection of its own', flush=True)
    # Offered, it is taken.
    assert is_shared and metric('ringway_http2_streams_total') > streams


async def hears_events_one_by_one(page, metric):
    """The next event is sent only when the page has told of the one before."""
    said = await page.run('''
        const source = new EventSource('/page/events');
        const heard = [];
        return await new Promise((done, fail) => {
            source.onmessage = async event => {
                heard.push(event.data);
                if (event.data === '9') { source.close(); return done(heard); }
                await fetch('/page/next', {method: 'POST'});
            };
            setTimeout(() => fail(new Error(`heard ${heard}`)), 10000);
        });
    ''')
    assert said == [str(at) for at in range(10)], said


async def gives_up_and_the_node_knows(page, metric):
    said = await page.run('''
        const giving = new AbortController();
        const answer = await fetch('/page/endless', {signal: giving.signal});
        const reader = answer.body.getReader();
        await reader.read();
        const begun = performance.now();
        giving.abort();
        const left = await (await fetch('/page/left')).text();
        return [left, performance.now() - begun];
    ''')
    assert said[0] == 'left' and said[1] < 1000, said


async def calls_by_grpc_web(page, metric):
    said = await page.run('''
        const frame = [0, 0, 0, 0, 5, ...new TextEncoder().encode('hello')];
        const headers = {'content-type': 'application/grpc-web+proto', 'x-grpc-web': '1'};
        const answer = await fetch('/web/judge.Judge/Unary', {method: 'POST', headers, body: new Uint8Array(frame)});
        return [answer.status, new TextDecoder().decode(await answer.arrayBuffer())];
    ''')
    assert said[0] == 200 and said[1].startswith('\0\0\0\0\5hello\ufffd') and 'grpc-status:0' in said[1], said


STEPS = [
    is_loaded_over_http2,
    fetches_many_at_once,
    posts_bodies,
    streams_bodies_up,
    speaks_by_websocket,
    hears_events_one_by_one,
    gives_up_and_the_node_knows,
    calls_by_grpc_web,
]


async def chromium(secure, metric, folder, certificate):
    async with opened(folder, certificate) as page:
        await page.go(f'https://a.test:{secure.rsplit(":", 1)[1]}/page/')
        await page.run('performance.setResourceTimingBufferSize(1000)')
        for step in STEPS:
            await step(page, metric)
            print(f'  {step.__name__}', flush=True)
