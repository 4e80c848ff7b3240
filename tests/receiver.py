"""The other side of a webhook, for tests of what gmv tells."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Receiver:
    """A webhook's other side: keeps what comes, and answers what it is told to.

    Attributes:
        answers: (status, text, seconds to wait) of the next requests; the last one stays.
        got: path and JSON of each request.
        send_to: where a request is sent on to, by an answer of 3xx.
        byte_seconds: how long each byte of an answer's text takes.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.answers: list[tuple[int, str, float]] = [(200, "ok", 0.0)]
        self.got: list[tuple[str, dict]] = []
        self.send_to = ""
        self.byte_seconds = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, json.loads(sent)))
                status, text, seconds = receiver.answers[0]
                if len(receiver.answers) > 1:
                    receiver.answers.pop(0)
                time.sleep(seconds)
                try:
                    self.send_response(status)
                    if receiver.send_to:
                        self.send_header("Location", receiver.send_to)
                    self.end_headers()
                    for byte in text.encode():
                        self.wfile.write(bytes([byte]))
                        time.sleep(receiver.byte_seconds)
                except OSError:
                    pass  # who sent did not wait

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"Who are you?")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if folder:
            self.server.socket = _encrypted(self.server, folder)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def titles(self) -> list[str]:
        """The titles of the messages that came by apprise's plain JSON."""
        return [message["title"] for _, message in self.got]

    @property
    def port(self) -> int:
        return self.server.server_address[1]


def _encrypted(server: ThreadingHTTPServer, folder: Path) -> ssl.SSLSocket:
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(
        [*made, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context.wrap_socket(server.socket, server_side=True)
