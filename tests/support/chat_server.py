"""A stand-in for an OpenAI-compatible chat server, over real HTTP."""

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class ChatServer(ThreadingHTTPServer):
    """Says `said` in OpenAI's words, or answers with `status`, after `delay` seconds."""

    daemon_threads = True

    def __init__(self, said):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status, self.delay, self.asked, self.body = 200, 0.0, [], None
        self.said = said


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, asked))
        time.sleep(self.server.delay)
        choice = {"index": 0, "message": {"role": "assistant", "content": self.server.said}, "finish_reason": "stop"}
        body = self.server.body or json.dumps({"choices": [choice]}).encode()
        try:
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # of a client that waits no longer
            pass

    def log_message(self, *_):
        """Keep quiet."""


@contextmanager
def chat_server(said):
    """A `ChatServer` that runs."""
    server = ChatServer(said)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
