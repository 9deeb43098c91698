#!/usr/bin/env python3
"""Runs a command beside a throw-away gateway: own folder, own secrets, free loopback ports, stopped at the end.

    sandbox.py --bin target/debug/portcullis --template tests/probe/gateway.yaml.in \\
        --set UPSTREAM=http://127.0.0.1:11434 --key API_KEY=alice --key READ_KEY=alice:models:read -- COMMAND ARG...

The template is a configuration with words to fill in: @DIR@, @PORT@, @ADMIN_PORT@, @PASSWORD_HASH@ (one password for all
users), @API_KEYS@ and every --set NAME=VALUE. The command finds in its environment: GATEWAY_URL, ADMIN_URL, GATEWAY_USER
(alice), GATEWAY_PASSWORD, AUDIT_FILE, SANDBOX_DIR, and each key under the name given with --key NAME=USER[:SCOPE,SCOPE].
"""

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 30
STOP_SECONDS = 10


class Sandbox:
    """A configured gateway in a folder of its own; `command` starts it."""

    def __init__(self, binary, template, folder, values=(), keys=()):
        self.binary, self.folder = str(binary), Path(folder)
        self.port, self.admin_port = free_ports(2)
        self.password = secrets.token_urlsafe(18)
        self.template, self.values = Path(template).read_text(), dict(values)
        self.config = self.folder / "gateway.yaml"
        self.call("init", "--no-mfa", "--dir", str(self.folder), stdin=self.password)
        self.hash = self.call("user", "hash", stdin=self.password).strip()
        self.write_config([])  # the users must be there before keys can be theirs
        created = {name: self.create_key(name, owner) for name, owner in dict(keys).items()}
        self.keys = {name: key["api_key"] for name, key in created.items()}
        self.write_config([key["entry"] for key in created.values()])
        self.call("check", "-c", str(self.config))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self):
        return [self.binary, "serve", "-c", str(self.config)]

    @property
    def environment(self):
        return {
            "GATEWAY_URL": self.url,
            "ADMIN_URL": f"http://127.0.0.1:{self.admin_port}",
            "GATEWAY_USER": "alice",
            "GATEWAY_PASSWORD": self.password,
            "AUDIT_FILE": str(self.folder / "audit.jsonl"),
            "SANDBOX_DIR": str(self.folder),
            **self.keys,
        }

    def create_key(self, name, owner):
        user, _, scopes = owner.partition(":")
        arguments = ["--config", str(self.config), "--user", user, "--name", name.lower().replace("_", "-"), "--json"]
        return json.loads(self.call("key", "generate", *arguments, *(["--scopes", scopes] if scopes else [])))

    def write_config(self, entries):
        words = {
            "DIR": self.folder, "PORT": self.port, "ADMIN_PORT": self.admin_port, "PASSWORD_HASH": self.hash,
            "API_KEYS": json.dumps(entries), **self.values,  # JSON is YAML
        }
        text = re.sub(r"@([A-Z_]+)@", lambda word: str(words[word[1]]), self.template)
        self.config.touch(mode=0o600)
        self.config.write_text(text)

    def call(self, *arguments, stdin=""):
        done = subprocess.run([self.binary, *arguments], input=stdin, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise SystemExit(f"portcullis {' '.join(arguments[:2])} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        """Starts the gateway and waits until it answers; its output goes to gateway.log in the folder."""
        log = self.folder / "gateway.log"
        with log.open("w") as out:
            process = subprocess.Popen(self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        end = time.monotonic() + START_SECONDS
        while not answers(self.url + "/livez"):
            if process.poll() is not None or time.monotonic() > end:
                stop(process)
                raise SystemExit("the gateway did not start:\n" + log.read_text()[-2000:])
            time.sleep(0.05)
        return process


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def stop(process):
    """SIGTERM, and SIGKILL for one that does not end."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pair(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("NAME=VALUE is wanted")
    return name, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path)
    parser.add_argument("--template", required=True, type=Path)
    parser.add_argument("--set", action="append", default=[], type=pair, metavar="NAME=VALUE")
    parser.add_argument("--key", action="append", default=[], type=pair, metavar="NAME=USER[:SCOPES]")
    parser.add_argument("--log", type=Path, help="keep the gateway's output here")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="portcullis-") as folder:
        sandbox = Sandbox(args.bin.resolve(), args.template, folder, args.set, args.key)
        gateway = sandbox.start()
        try:
            return subprocess.run(args.command, env={**os.environ, **sandbox.environment}).returncode
        finally:
            stop(gateway)
            if args.log:
                shutil.copy(Path(folder) / "gateway.log", args.log)


if __name__ == "__main__":
    sys.exit(main())
