"""An object store that fails: a server before a sound one, which refuses, breaks and damages requests."""

import http.client
import os
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np

KINDS = ("503", "reset", "cut", "flip")


class UnreliableStore:
    """A server whose requests fail by chance, while the block runs.

    Args:
        behind: URL of the sound store.
        share: of the requests that fail.
        first: number of requests of which some fail; all later ones succeed.
        kinds: of failures. `503` refuses, `reset` breaks the connection, `cut` sends half of a response (a file's or a
            list's), `flip` changes a byte of a file's content.

    Attributes:
        failures: number of failures by kind.
    """

    def __init__(
        self, behind: str, random: np.random.Generator, share: float = 0.5, first: int = 200,
        kinds: tuple[str, ...] = KINDS,
    ) -> None:  # fmt: skip
        self.behind, self.share, self.first, self.kinds = urlsplit(behind).netloc, share, first, kinds
        self.failures, self._requests, self._random, self._lock = Counter[str](), 0, random, threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "UnreliableStore":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _failure(self) -> str | None:
        with self._lock:
            self._requests += 1
            if self._requests > self.first or self._random.random() >= self.share:
                return None
            return self.kinds[int(self._random.integers(len(self.kinds)))]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                failure = store._failure()
                if failure in ("503", "reset"):
                    self._refuse(failure)
                    return
                connection = http.client.HTTPConnection(store.behind, timeout=30)
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                response = connection.getresponse()
                content = response.read()
                connection.close()
                headers = {name: value for name, value in response.getheaders()
                           if name.lower() not in ("transfer-encoding", "connection", "content-length")}  # fmt: skip
                length = response.getheader("content-length") if self.command == "HEAD" else str(len(content))
                self._send(response.status, headers | {"content-length": length or "0"}, content, failure)

            def _refuse(self, failure: str) -> None:
                store.failures[failure] += 1
                if failure == "503":
                    self._send(503, {"content-length": "0"}, b"", None)
                else:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()

            def _send(self, status: int, headers: dict[str, str], content: bytes, failure: str | None) -> None:
                if failure == "flip" and self.command == "GET" and content and "list-type" not in self.path:
                    middle = len(content) // 2
                    content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
                    store.failures["flip"] += 1
                cut = failure == "cut" and self.command == "GET" and len(content) > 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    store.failures["cut"] += 1
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 (the server's names)

        return Handler


def point_at(url: str) -> None:
    """Make this process use the store at a URL; a fault for `tests.faults.commands`."""
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "someone",
                   "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}  # fmt: skip
