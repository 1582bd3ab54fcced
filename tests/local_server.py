"""A web server on this machine that misbehaves as a test asks, and counts what it sends."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 4000  # 1 MB


class Server(ThreadingHTTPServer):
    """Serves `bodies[path]`, else `body` under any path but /missing; `answers` is spent one by one, then all is well.

    An answer is a status, the address of a redirect, or what goes wrong with the body: it ends after so many `bytes`,
    comes with pauses of `slow` seconds, or with a `stall` of seconds at its end.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.bodies, self.answers, self.requests, self.sent = BODY, {}, [], [], 0
        self.ranges, self.headers, self.etag, self.length = True, {}, '"one"', True

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    def url(self, path="file.bin"):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        if self.path.startswith("/missing"):
            return self.reply(404)
        answer = server.answers.pop(0) if server.answers else None
        if isinstance(answer, int):
            return self.reply(answer)
        if isinstance(answer, str):
            return self.reply(302, {"Location": answer})
        first = self.first_byte()
        if first is not None and first >= len(self.body):
            return self.reply(416, {"Content-Range": f"bytes */{len(self.body)}"})
        self.send_body(first, answer)

    @property
    def body(self):
        return self.server.bodies.get(self.path, self.server.body)

    def first_byte(self):
        asked = self.headers.get("Range")
        if not asked or not self.server.ranges or self.headers.get("If-Range", self.server.etag) != self.server.etag:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def send_body(self, first, trouble):
        server, body = self.server, self.body
        self.send_response(200 if first is None else 206)
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if server.length:
            self.send_header("Content-Length", str(len(body) - (first or 0)))
        if server.etag:
            self.send_header("ETag", server.etag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        rest = body[first or 0 :]
        if trouble:
            rest = rest[: trouble.get("bytes", len(rest))]
        for start in range(0, len(rest), 65536):
            self.wfile.write(rest[start : start + 65536])
            server.sent += len(rest[start : start + 65536])
            time.sleep(trouble.get("slow", 0) if trouble else 0)
        if trouble and "stall" in trouble:
            self.wfile.flush()
            time.sleep(trouble["stall"])
        self.close_connection = True

    def reply(self, status, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def start():
    served = Server()
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return served


def stop(served):
    served.shutdown()
    served.server_close()
