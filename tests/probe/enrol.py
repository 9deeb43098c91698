#!/usr/bin/env python3
"""Sets up a second factor as a user would: logs in, enables, confirms. Prints the secret.

    GATEWAY_URL=... GATEWAY_PASSWORD=... enrol.py USER
"""

import base64
import hmac
import json
import os
import struct
import sys
import time
import urllib.request


def call(path, body, token=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(os.environ["GATEWAY_URL"] + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def code(secret, at):
    """RFC 6238 with SHA-1, 6 digits and steps of 30 s."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.new(key, struct.pack(">Q", int(at) // 30), "sha1").digest()
    offset = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[offset:offset + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def main():
    login = {"username": sys.argv[1], "password": os.environ["GATEWAY_PASSWORD"]}
    token = call("/auth/login", login)["access_token"]
    secret = call("/auth/mfa/enable", {}, token)["secret"]
    # The code of the step before this one: it is used up, the present one is not.
    call("/auth/mfa/confirm", {"code": code(secret, time.time() - 30)}, token)
    print(secret)


if __name__ == "__main__":
    main()
