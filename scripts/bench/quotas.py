#!/usr/bin/env python3
"""Do limits hold? Two gateways, one Redis, 64 clients, an upstream with a ledger of its own.

    quotas.py --bin BINARY [--secs 12] [--clients 64] [--memory] [--crash] [--streams 1000]

For each meter (requests, tokens, GPU-seconds) every user has a limit that the clients run into. The upstream writes down
what it did for whom: no sum may be over a limit, and the gateway's books must say the same to the token. With --crash a
gateway is killed (SIGKILL) in the middle of so many streams instead; what it held must be free again after the lease.
Exit status 1 if a promise is broken. --memory takes one gateway and no Redis.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import sandbox  # noqa: E402

USERS = ["ada", "bob", "cid", "dan", "eve", "fay", "gus", "hal"]
LEASE = 5
TOKEN_SECONDS = 0.004  # what the upstream says that one token took
METERS = {  # name: members of the quota, the limit, what of the ledger it bounds
    "requests": ("requests_per_day: 60", 60, "requests"),
    "tokens": ("tokens_per_day: 3000", 3000, "tokens"),
    "gpu_seconds": ("gpu_seconds_per_day: 12", 12_000, "gpu_ms"),
}
TEMPLATE = """version: 1
listeners: [{{name: public, address: "127.0.0.1:@PORT@"}}]
admin: {{address: "127.0.0.1:@ADMIN_PORT@"}}
secrets: {{signing_key: {{file: "@DIR@/signing.pem"}}, token_key: {{file: "@DIR@/token.key"}}, key_pepper: {{file: "@DIR@/pepper.key"}}}}
store: {{url: "sqlite:@DIR@/portcullis.db"}}
upstreams: {{mock: {{url: "http://127.0.0.1:{upstream}"}}}}
auth: {{users: [{users}], api_keys: @API_KEYS@}}
quotas: {{default: {{requests_per_minute: 1000000, burst: 100000, {quota}}}}}
counters: {{{counters}}}
audit: {{file: "@DIR@/audit@PORT@.jsonl"}}
telemetry: {{log: {{level: warn}}}}
"""


class Upstream:
    """Speaks Ollama's chat: streams as many tokens as the prompt names, within num_predict, and reports them truly."""

    def __init__(self, token_delay):
        self.ledger, self.open, self.delay = defaultdict(Counter), 0, token_delay

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=2048)
        return self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                if not head.startswith(b"POST /api/chat"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                await self.answer(json.loads(body), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, request, writer):
        words = request["messages"][0]["content"].split()
        user, wanted = words[0], int(words[1])
        book = self.ledger[user]
        book["requests"] += 1
        book["prompt"] += len(words)
        book["tokens"] += len(words)
        tokens = min(wanted, request["options"]["num_predict"])
        self.open += 1
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(tokens):
                self.line(writer, {"message": {"role": "assistant", "content": f"t{number} "}, "done": False})
                await writer.drain()
                book["tokens"] += 1
                book["gpu_ms"] += TOKEN_SECONDS * 1000
                if self.delay:
                    await asyncio.sleep(self.delay)
            took = int(tokens * TOKEN_SECONDS * 1e9)
            self.line(writer, {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
                               "prompt_eval_count": len(words), "prompt_eval_duration": 0,
                               "eval_count": tokens, "eval_duration": took, "total_duration": took})
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            self.open -= 1

    @staticmethod
    def line(writer, value):
        data = json.dumps({"model": "phi", "created_at": "2026-01-01T00:00:00Z", **value}).encode() + b"\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))


class Redis:
    def __init__(self, folder):
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if not binary:
            raise SystemExit("no redis-server: apt-get install redis-server")
        self.port = sandbox.free_ports(1)[0]
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        self.process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)


def gateways(binary, folder, upstream, quota, redis, count):
    """Gateways that share accounts and counters, started; each with its configuration."""
    folder.mkdir()
    counters = f'backend: redis, urls: ["redis://127.0.0.1:{redis.port}"], lease: {LEASE}s, gateways: {count}' if redis else ""
    users = ", ".join(f'{{name: {user}, role: user, password_hash: "@PASSWORD_HASH@"}}' for user in USERS)
    template = folder / "template.in"
    template.write_text(TEMPLATE.format(upstream=upstream, users=users, quota=quota, counters=counters))
    first = sandbox.Sandbox(binary, template, folder, {}, {user.upper(): user for user in USERS})
    boxes = [first]
    text = first.config.read_text()
    for number in range(1, count):
        port, admin = sandbox.free_ports(2)
        config = folder / f"gateway{number}.yaml"
        config.touch(mode=0o600)
        config.write_text(text.replace(str(first.port), str(port)).replace(str(first.admin_port), str(admin)))
        twin = object.__new__(sandbox.Sandbox)
        twin.__dict__.update(first.__dict__, port=port, admin_port=admin, config=config)
        boxes.append(twin)
    return boxes, [box.start() for box in boxes]


async def chat(url, key, prompt, chunk=None):
    """Status, and what was read."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"model": "phi", "stream": True, "messages": [{"role": "user", "content": prompt}]}).encode()
    writer.write(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                 b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (key.encode(), len(body), body))
    try:
        text = await reader.read(1) if chunk else await reader.read()
        if chunk:
            await chunk.wait()
    except ConnectionError:
        return 0, b""
    finally:
        writer.close()
    return int(text[9:12] or 0) if len(text) > 12 else 0, text


async def client(boxes, number, end, seen):
    dice = random.Random(number)
    user = USERS[number % len(USERS)]
    refused = 0
    while time.monotonic() < end and refused < 30:
        box = dice.choice(boxes)
        status, text = await chat(box.url, box.keys[user.upper()], f"{user} {dice.randint(1, 120)} words of a prompt")
        seen[status] += 1
        refused = refused + 1 if status == 429 else 0
        if status == 429:
            await asyncio.sleep(0.02)


def used(box, user):
    request = urllib.request.Request(box.url + "/auth/me", headers={"Authorization": f"Bearer {box.keys[user.upper()]}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return next(q for q in json.load(response)["quotas"] if q["level"] == "user")


async def meter(name, args, folder):
    quota, limit, what = METERS[name]
    upstream = Upstream(0.001)
    port = await upstream.start()
    redis = None if args.memory else Redis(folder)
    boxes, processes = gateways(args.bin, folder / name, port, quota, redis, 1 if args.memory else 2)
    try:
        seen, end = Counter(), time.monotonic() + args.secs
        await asyncio.gather(*(client(boxes, number, end, seen) for number in range(args.clients)))
        await asyncio.sleep(1)
        return judge(name, limit, what, upstream.ledger, boxes, seen)
    finally:
        end_all(processes, redis)


def judge(name, limit, what, ledger, boxes, seen):
    broken = []
    for user in USERS:
        book = ledger[user]
        done = round(book[what])
        if done > limit:
            broken.append(f"{user}: {done} of {limit} {what}")
        if name == "requests":
            continue  # asking for the books is a request, too
        day = used(boxes[0], user)["used"]["day"]
        if (day["prompt_tokens"], day["tokens"]) != (book["prompt"], book["tokens"]):
            broken.append(f"{user}: the gateway counted {day['tokens']} tokens, the upstream {book['tokens']}")
        if abs(day["gpu_seconds"] * 1000 - book["gpu_ms"]) > book["requests"]:  # each is rounded up to a millisecond
            broken.append(f"{user}: the gateway counted {day['gpu_seconds']} GPU-seconds, the upstream {book['gpu_ms'] / 1000}")
    filled = sum(ledger[user][what] for user in USERS) / (limit * len(USERS))
    if filled < 0.3:
        broken.append(f"only {filled:.0%} of the limits was used: nothing was tried")
    print(f"{name}: {sum(seen.values())} requests {dict(seen)}, {filled:.1%} of all limits used, {len(broken)} broken")
    return broken


async def crash(args, folder):
    """Kills one of two gateways in the middle of its streams."""
    upstream = Upstream(0.2)
    port, redis = await upstream.start(), Redis(folder)
    boxes, processes = gateways(args.bin, folder / "crash", port, "concurrent: 100000, tokens_per_day: 100000000", redis, 2)
    held = lambda: sum(used(boxes[1], user)["in_flight"] - 1 for user in USERS)  # noqa: E731
    try:
        gone = asyncio.Event()
        streams = [asyncio.create_task(chat(boxes[0].url, boxes[0].keys[USERS[n % 8].upper()], f"{USERS[n % 8]} 4000 words", gone))
                   for n in range(args.streams)]
        while upstream.open < args.streams:
            await asyncio.sleep(0.1)
        await asyncio.sleep(LEASE + 1)  # leases are renewed
        before = held()
        processes[0].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        while held() and time.monotonic() - killed < 3 * LEASE:
            await asyncio.sleep(0.1)
        took, left = time.monotonic() - killed, held()
        gone.set()
        await asyncio.gather(*streams)
        reserved = sum(used(boxes[1], user)["used"]["day"]["reserved"]["tokens"] for user in USERS)
        print(f"crash: {before} of {args.streams} streams held before, {left} after {took:.1f} s, {reserved} tokens reserved")
        ok = before == args.streams and not left and not reserved and took < LEASE + 2
        return [] if ok else ["the reservations of a gateway that died"]
    finally:
        end_all(processes, redis)


def end_all(processes, redis):
    for process in processes:
        sandbox.stop(process)
    if redis:
        sandbox.stop(redis.process)


async def run(args):
    with tempfile.TemporaryDirectory(prefix="portcullis-quotas-") as folder:
        if args.crash:
            return await crash(args, Path(folder))
        broken = []
        for name in METERS:
            broken += await meter(name, args, Path(folder))
        return broken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path)
    parser.add_argument("--secs", type=float, default=12)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--crash", action="store_true")
    broken = asyncio.run(run(parser.parse_args()))
    print("\n".join(broken) or "every limit held")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
