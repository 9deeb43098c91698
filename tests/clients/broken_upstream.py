"""An upstream that streams two pieces and then drops the connection: what a crash of the model server looks like.

    broken_upstream.py PORT        on 127.0.0.1; speaks OpenAI's and Ollama's chat streams
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply("application/json", b'{"models":[],"data":[],"object":"list"}')

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        native = self.path.startswith("/api/")
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson" if native else "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for text in ("Hello", " there"):
            piece = ollama_line(text) if native else openai_event(text)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.close_connection = True  # and no last chunk

    def reply(self, content_type, body):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Nothing on stderr."""


def ollama_line(text):
    line = {"model": "breaks", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text}, "done": False}
    return json.dumps(line).encode() + b"\n"


def openai_event(text):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "breaks", "choices": [choice]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
