"""The nodes behind the gateway: servers of grpcio and of websockets, and the binary's own origin."""
import asyncio
import socketserver
import subprocess
import threading
import time
from concurrent import futures

import grpc
import websockets
from websockets.asyncio.server import serve

from common import LARGE, PATIENCE, wait_for

DEFINITIONS = '''
syntax = "proto3";
package judge;
import "google/protobuf/struct.proto";
service Judge { rpc Unary (Said) returns (Said); rpc Deny (Code) returns (Said); }
message Code { int32 code = 1; }
message Said {
    string text = 1; int64 count = 2; repeated double parts = 3; map<string, Said> more = 4; bool yes = 5;
    google.protobuf.Struct any = 6; repeated Kind kinds = 7;
}
enum Kind { NONE = 0; SOME = 1; }
'''


def unary(request, context):
    """Says back what it is told, with the metadata it got."""
    told = dict(context.invocation_metadata())
    context.send_initial_metadata((('x-initial', told.get('x-echo', 'none')),))
    context.set_trailing_metadata((('x-trailing-bin', told.get('x-echo-bin', b'none')),))
    if request == b'compress':
        context.set_compression(grpc.Compression.Gzip)
        return b'a' * 10_000
    return request


def refuse(request, context):
    """Ends with the status it is asked for, and a message that needs quoting."""
    code = {code.value[0]: code for code in grpc.StatusCode}[int(request)]
    context.abort(code, 'no: 100 % \u00e9 \n end')


def deny(request, context):
    """Ends with the code that a message of one small number holds."""
    context.abort({code.value[0]: code for code in grpc.StatusCode}[request[1]], 'denied: 100 % \u00e9')


def count_up(request, context):
    for at in range(int(request)):
        yield b'%d' % at


def add_up(requests, context):
    return b'%d' % sum(len(request) for request in requests)


def ping_pong(requests, context):
    for request in requests:
        yield request.upper()


def linger(request, context):
    """Until whoever asked has left; tells of it."""
    gone = context.is_active
    deadline = time.monotonic() + PATIENCE
    while gone() and time.monotonic() < deadline:
        time.sleep(0.02)
    LEFT.append(request)
    return b''


LEFT = []


def grpc_server(authority):
    """The server, its port in clear, and its port over TLS as secure.test."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=[('grpc.max_receive_message_length', 8 << 20)])
    handlers = {
        'Unary': grpc.unary_unary_rpc_method_handler(unary),
        'Deny': grpc.unary_unary_rpc_method_handler(deny),
        'Refuse': grpc.unary_unary_rpc_method_handler(refuse),
        'Linger': grpc.unary_unary_rpc_method_handler(linger),
        'CountUp': grpc.unary_stream_rpc_method_handler(count_up),
        'AddUp': grpc.stream_unary_rpc_method_handler(add_up),
        'PingPong': grpc.stream_stream_rpc_method_handler(ping_pong),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('judge.Judge', handlers),))
    certificate, key = authority.issue('secure.test', is_rsa=False)
    secure = grpc.ssl_server_credentials([(key.encode(), certificate.encode())])
    ports = server.add_insecure_port('127.0.0.1:0'), server.add_secure_port('127.0.0.1:0', secure)
    server.start()
    return server, *ports


class Breaking(socketserver.StreamRequestHandler):
    """Says a message of gRPC, part of another where the path wants that, and breaks off."""

    def handle(self):
        path = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        said = b'\0\0\0\0\x03abc' + (b'\0\0\0\0\x03a' if b'Within' in path else b'')
        head = b'HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n'
        self.wfile.write(head + b'%x\r\n%s\r\n' % (len(said), said))


def start_breaking_node():
    """Its port."""
    server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Breaking)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


async def pieces():
    for at in range(100):
        yield 'piece %d,' % at


async def echo(websocket):
    try:
        async for message in websocket:
            if message == 'close':
                await websocket.close(4001, 'as asked')
                return
            if message == 'ping':
                await (await websocket.ping(b'back there?'))
                message = 'pong'
            if message == 'pieces':
                await websocket.send(piece async for piece in pieces())
                continue
            if message == 'fail':
                await websocket.close(1011, 'as asked')
                return
            await websocket.send(message)
    except websockets.ConnectionClosed:
        pass


def start_websockets():
    """A server in a thread with a loop of its own; its port."""
    loop, port = asyncio.new_event_loop(), futures.Future()

    async def run():
        async with serve(echo, '127.0.0.1', 0, max_size=4 * LARGE) as server:
            port.set_result(server.sockets[0].getsockname()[1])
            await asyncio.Future()

    threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True).start()
    return port.result(PATIENCE)


def started_origin(binary, folder):
    """The binary's own origin, on a port of the system's choice."""
    log = folder / 'origin.log'
    origin = subprocess.Popen([binary, 'origin', '--listen', '127.0.0.1:0'], stdout=log.open('w'), stderr=subprocess.STDOUT)
    wait_for(lambda: '127.0.0.1:' in log.read_text(), lambda: origin.poll() is None)
    said = log.read_text()
    begin = said.index('127.0.0.1:')
    return origin, said[begin:].split()[0].rstrip(',;.')
