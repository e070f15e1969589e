"""A node of HTTP/1.1 that serves a page and what its scripts ask for."""
import select
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from common import PATIENCE

PAGE = b'<!doctype html><title>a page</title><link rel=icon href=data:,><p>of the judges</p>'


class Visit(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    # A page has told of an event; who asked for what does not end has left.
    told, left = threading.Semaphore(0), threading.Semaphore(0)

    def answer(self, body, kind='text/plain'):
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self, kind):
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Connection', 'close')
        self.end_headers()
        self.close_connection = True

    def do_GET(self):
        asked = self.path.removeprefix('/page')
        if asked == '/':
            self.answer(PAGE, 'text/html')
        elif asked == '/events':
            self.begin('text/event-stream')
            for at in range(10):
                self.wfile.write(b'data: %d\n\n' % at)
                if at < 9 and not self.told.acquire(timeout=PATIENCE):
                    return
        elif asked == '/endless':
            self.begin('application/octet-stream')
            self.wfile.write(b'x' * 1000)
            if select.select([self.connection], [], [], PATIENCE)[0] and not self.connection.recv(1):
                self.left.release()
        elif asked == '/left':
            self.answer(b'left' if self.left.acquire(timeout=PATIENCE) else b'still there')
        else:
            self.answer(self.path.encode())

    def do_POST(self):
        if self.path == '/page/next':
            self.told.release()
        self.answer(self.body())

    def body(self):
        if self.headers['Transfer-Encoding'] != 'chunked':
            return self.rfile.read(int(self.headers['Content-Length'] or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(pieces)

    def log_message(self, *_):
        pass


class Node(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 512


def start_page_node():
    """Serves in threads; its port."""
    node = Node(('127.0.0.1', 0), Visit)
    threading.Thread(target=node.serve_forever, daemon=True).start()
    return node.server_port
