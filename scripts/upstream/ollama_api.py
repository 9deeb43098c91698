"""Ollama's HTTP API over a llama.cpp server that has one model loaded (Python 3.11, standard library only).

Answered as Ollama does: /api/chat, generate, embed, embeddings, tags, show, ps, version, GET and HEAD /, and /v1/* (passed
on to llama.cpp after the model name was checked). Tokens, counts and durations are llama.cpp's own. A client that goes
away stops the generation. Not there: pulling, creating, copying and deleting models (501), images, `suffix`, `context`.

With a log file every request is one JSON line: method, path, model, status, cancelled, headers, body. A test of a gateway
reads there what the gateway let through, and what it left in the headers.
"""

import hashlib
import http.client
import json
import socket
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

VERSION = "0.33.0"
MANAGEMENT = {"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"}
OPTIONS = {  # Ollama's name of an option, and llama.cpp's
    "num_predict": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "seed": "seed", "stop": "stop", "repeat_penalty": "repeat_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


def listen(port, llama, gguf, names, context, log):
    """Binds 127.0.0.1:port and gives the server; the caller calls its serve_forever()."""
    server = Server(("127.0.0.1", port), Handler)
    server.llama = urlsplit(llama)
    server.models = Models(gguf, names, context)
    server.log, server.log_lock = log, threading.Lock()
    return server


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class Fault(Exception):
    """An error answer of Ollama."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status, self.text = status, text


class Gone(Exception):
    """The client went away before the end of its answer."""


class Models:
    """The names that all stand for the one model."""

    def __init__(self, gguf, names, context):
        self.context = context
        self.size = gguf.stat().st_size
        with gguf.open("rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.names = {canonical(name): name for name in names}
        self.modified = now()
        self.loaded = {}

    def find(self, name):
        """The full name, or a Fault as Ollama words it. Like the real server it is lenient in how a name is written."""
        if not isinstance(name, str) or not name:
            raise Fault(400, "model is required")
        full = canonical(name)
        if full not in self.names:
            raise Fault(404, f"model '{name}' not found")
        self.loaded[full] = time.time()
        return full

    def entry(self, name):
        return {"name": name, "model": name, "modified_at": self.modified, "size": self.size, "digest": self.digest,
                "details": self.details()}

    def details(self):
        return {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                "parameter_size": "134.52M", "quantization_level": "Q4_1"}

    def show(self, name):
        return {"modelfile": f"FROM {name}\n", "template": "{{ .Prompt }}", "details": self.details(),
                "model_info": {"general.architecture": "llama", "llama.context_length": self.context},
                "capabilities": ["completion", "tools"], "modified_at": self.modified}

    def running(self):
        return [{**self.entry(name), "size_vram": 0, "context_length": self.context,
                 "expires_at": now(at + 300)} for name, at in self.loaded.items()]


def canonical(name):
    name = name.lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name else name + ":latest"


def now(at=None):
    when = datetime.fromtimestamp(time.time() if at is None else at, timezone.utc)
    return when.isoformat().replace("+00:00", "Z")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ollama", ""

    def do_GET(self):
        self.answer({"/": self.root, "/api/version": self.version, "/api/tags": self.tags, "/api/ps": self.ps,
                     "/v1/models": self.v1_models})

    do_HEAD = do_GET

    def do_POST(self):
        self.answer({"/api/chat": self.chat, "/api/generate": self.generate, "/api/embed": self.embed,
                     "/api/embeddings": self.embeddings, "/api/show": self.show, "/v1/chat/completions": self.v1,
                     "/v1/completions": self.v1, "/v1/embeddings": self.v1, "/v1/responses": self.v1})

    def do_DELETE(self):
        self.answer({})

    def answer(self, routes):
        path = urlsplit(self.path).path
        self.request_body, self.body, self.status, self.started, self.cancelled = b"", {}, 0, False, False
        self.ended = threading.Event()
        try:
            self.read_body()
            if path in MANAGEMENT:
                raise Fault(501, "model management is not available here")
            if path not in routes:
                raise Fault(404, "404 page not found")
            routes[path]()
        except Fault as fault:
            self.fail(path, fault)
        except (Gone, ConnectionError, http.client.HTTPException):
            self.cancelled, self.close_connection = True, True
        finally:
            self.ended.set()
        self.write_log()

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.request_body = self.read_chunks()
        else:
            self.request_body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.request_body:
            try:
                self.body = json.loads(self.request_body)
            except ValueError as error:
                raise Fault(400, str(error)) from None
        if not isinstance(self.body, dict):
            raise Fault(400, "the body must be a JSON object")

    def read_chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def fail(self, path, fault):
        if self.started:
            self.chunk({"error": fault.text})
            self.end()
        elif path.startswith("/v1/"):
            kind = "not_found_error" if fault.status == 404 else "invalid_request_error"
            self.json({"error": {"message": fault.text, "type": kind, "param": None, "code": None}}, fault.status)
        else:
            self.json({"error": fault.text}, fault.status)

    # --- answers ---------------------------------------------------------------------------------------------------

    def json(self, value, status=200):
        self.full(status, "application/json; charset=utf-8", compact(value))

    def full(self, status, content_type, body):
        self.head(status, content_type, ("Content-Length", str(len(body))))
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status, content_type, framing):
        self.status = status
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header(*framing)
        self.end_headers()

    def chunk(self, value):
        """One line of NDJSON, or raw bytes, as one HTTP chunk."""
        if not self.started:
            self.started = True
            self.head(200, "application/x-ndjson", ("Transfer-Encoding", "chunked"))
        data = value if isinstance(value, bytes) else compact(value) + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self):
        self.wfile.write(b"0\r\n\r\n")

    # --- facts -----------------------------------------------------------------------------------------------------

    def root(self):
        self.full(200, "text/plain; charset=utf-8", b"Ollama is running")

    def version(self):
        self.json({"version": VERSION})

    def tags(self):
        models = self.server.models
        self.json({"models": [models.entry(name) for name in models.names]})

    def ps(self):
        self.json({"models": self.server.models.running()})

    def show(self):
        models = self.server.models
        self.json(models.show(models.find(self.body.get("model") or self.body.get("name"))))

    def v1_models(self):
        names = self.server.models.names.values()
        self.json({"object": "list", "data": [{"id": name, "object": "model", "created": 1760000000, "owned_by": "library"}
                                              for name in names]})

    # --- generation ------------------------------------------------------------------------------------------------

    def chat(self):
        messages = [to_openai(message) for message in self.body.get("messages") or []]
        self.generation(messages, lambda text, calls: {"message": {"role": "assistant", "content": text,
                                                                   **({"tool_calls": calls} if calls else {})}})

    def generate(self):
        if self.body.get("suffix"):
            raise Fault(400, "this model does not support insert")
        if self.body.get("images"):
            raise Fault(400, "this model does not support images")
        prompt, system = self.body.get("prompt") or "", self.body.get("system")
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": "user", "content": prompt}] if prompt else []
        self.generation(messages, lambda text, _calls: {"response": text})

    def generation(self, messages, piece):
        """Streams or collects one answer; `piece` puts text and tool calls into the shape of the endpoint."""
        name, begun = self.server.models.find(self.body.get("model")), time.monotonic_ns()
        shape = lambda text, calls, done: {"model": self.body["model"], "created_at": now(), **piece(text, calls), "done": done}
        if not messages:  # Ollama loads the model and answers at once
            return self.json({**shape("", [], True), "done_reason": "load"})
        stream, texts, calls = self.body.get("stream", True), [], ToolCalls()
        last = {}
        for event in self.llama_events("/v1/chat/completions", self.llama_request(name, messages)):
            last.update({key: event[key] for key in ("usage", "timings") if event.get(key)})
            for choice in event.get("choices", []):
                delta = choice.get("delta", {})
                calls.add(delta.get("tool_calls") or [])
                last["reason"] = choice.get("finish_reason") or last.get("reason")
                if text := delta.get("content"):
                    texts.append(text)
                    if stream:
                        self.chunk(shape(text, [], False))
        final = {"done_reason": "length" if last.get("reason") == "length" else "stop", **durations(last, begun)}
        if not stream:
            return self.json({**shape("".join(texts), calls.done(), True), **final})
        if calls.done():
            self.chunk(shape("", calls.done(), False))
        self.chunk({**shape("", [], True), **final})
        self.end()

    def llama_request(self, name, messages):
        options = self.body.get("options") or {}
        request = {theirs: options[ours] for ours, theirs in OPTIONS.items() if options.get(ours) is not None}
        request.update(model=name, messages=messages, stream=True, stream_options={"include_usage": True})
        if self.body.get("tools"):
            request["tools"] = self.body["tools"]
        if self.body.get("think"):
            raise Fault(400, f'"{self.body["model"]}" does not support thinking')
        if fmt := self.body.get("format"):
            request["response_format"] = ({"type": "json_object"} if fmt == "json" else
                                          {"type": "json_schema", "json_schema": {"name": "format", "schema": fmt}})
        return request

    # --- embeddings ------------------------------------------------------------------------------------------------

    def embed(self):
        texts = self.body.get("input", [])
        begun = time.monotonic_ns()
        answer = self.vectors([texts] if isinstance(texts, str) else texts)
        self.json({"model": self.body["model"], "embeddings": [item["embedding"] for item in answer["data"]],
                   "total_duration": time.monotonic_ns() - begun, "load_duration": 0,
                   "prompt_eval_count": answer["usage"]["prompt_tokens"]})

    def embeddings(self):
        self.json({"embedding": self.vectors([self.body.get("prompt") or ""])["data"][0]["embedding"]})

    def vectors(self, texts):
        name = self.server.models.find(self.body.get("model"))
        return json.loads(self.llama("/v1/embeddings", {"model": name, "input": texts}).read())

    # --- llama.cpp -------------------------------------------------------------------------------------------------

    def v1(self):
        """Passes an OpenAI request on as it is, and the answer back piece by piece."""
        self.server.models.find(self.body.get("model"))
        response = self.llama(urlsplit(self.path).path, self.body)
        content_type = response.headers.get("Content-Type", "application/json")
        if not self.body.get("stream"):
            return self.full(200, content_type, self.read_all(response))
        self.started = True
        self.head(200, content_type, ("Transfer-Encoding", "chunked"))
        while data := self.next_piece(response):
            self.chunk(data)
        self.end()

    def llama(self, path, request):
        """Sends a request to llama.cpp; an error answer becomes a Fault."""
        target = self.server.llama
        upstream = http.client.HTTPConnection(target.hostname, target.port, timeout=300)
        upstream.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        threading.Thread(target=self.watch_client, args=(upstream.sock, self.ended), daemon=True).start()
        response = upstream.getresponse()
        if response.status == 200:
            return response
        text = response.read().decode("utf-8", "replace")
        try:
            text = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            pass
        raise Fault(response.status, text)

    def watch_client(self, upstream, ended):
        """If the client goes first, closing the connection to llama.cpp stops the generation."""
        while not ended.wait(0.05):
            if self.client_left():
                self.cancelled = True
                return upstream.shutdown(socket.SHUT_RDWR)

    def client_left(self):
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def llama_events(self, path, request):
        response, rest = self.llama(path, request), b""
        while data := self.next_piece(response):
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                payload = event.strip().removeprefix(b"data: ")
                if payload and payload != b"[DONE]":
                    event = json.loads(payload)
                    if "error" in event:
                        raise Fault(500, event["error"].get("message", "error"))
                    yield event

    def read_all(self, response):
        parts = []
        while data := self.next_piece(response):
            parts.append(data)
        return b"".join(parts)

    def next_piece(self, response):
        """What llama.cpp sends next; b"" at its end."""
        data = response.read1(65536)
        if self.cancelled:
            raise Gone
        return data

    # --- log -------------------------------------------------------------------------------------------------------

    def write_log(self):
        if self.server.log is None:
            return
        line = json.dumps({"method": self.command, "path": self.path, "model": self.body.get("model") if isinstance(self.body, dict) else None,
                           "status": self.status, "cancelled": self.cancelled,
                           "headers": {key.lower(): value for key, value in self.headers.items()},
                           "body": self.request_body[:4000].decode("utf-8", "replace")})
        with self.server.log_lock, self.server.log.open("a") as file:
            file.write(line + "\n")

    def log_message(self, *_args):
        """Nothing on stderr: write_log() is the log."""


class ToolCalls:
    """Collects the fragments of streamed tool calls."""

    def __init__(self):
        self.calls = {}

    def add(self, deltas):
        for delta in deltas:
            call = self.calls.setdefault(delta.get("index", 0), {"id": "", "name": "", "arguments": ""})
            function = delta.get("function") or {}
            call["id"] = delta.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""

    def done(self):
        return [{"id": call["id"], "function": {"index": index, "name": call["name"], "arguments": json.loads(call["arguments"] or "{}")}}
                for index, call in sorted(self.calls.items())]


def to_openai(message):
    if message.get("images"):
        raise Fault(400, "this model does not support images")
    out = {"role": message.get("role", "user"), "content": message.get("content") or ""}
    if calls := message.get("tool_calls"):
        out["tool_calls"] = [{"type": "function", "id": call.get("id", f"call_{index}"),
                              "function": {"name": call["function"]["name"], "arguments": json.dumps(call["function"].get("arguments") or {})}}
                             for index, call in enumerate(calls)]
    return out


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def durations(last, begun):
    """The figures of the last line, in nanoseconds."""
    timings, usage = last.get("timings", {}), last.get("usage", {})
    return {"total_duration": time.monotonic_ns() - begun, "load_duration": 0,
            "prompt_eval_count": usage.get("prompt_tokens", 0), "prompt_eval_duration": int(timings.get("prompt_ms", 0) * 1e6),
            "eval_count": usage.get("completion_tokens", 0), "eval_duration": int(timings.get("predicted_ms", 0) * 1e6)}
