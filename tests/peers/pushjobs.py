"""What node.py and server.py share: signatures, frames and time, written from the specification of Push Jobs.

RSA is the program openssl's; everything else is Python's own.
"""
import base64
import hashlib
import hmac
import json
import subprocess
import time
import urllib.parse


def rsa(action, data, key, public=False):
    """sign, verifyrecover, encrypt or decrypt with PKCS#1 v1.5 padding, without a digest."""
    # pkeyutl signs nothing longer than a hash; rsautl, which does, says on stderr that it is old.
    program = "rsautl" if action == "sign" else "pkeyutl"
    command = ["openssl", program, "-" + action, "-inkey", key] + (["-pubin"] if public else [])
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout


def b64(data):
    return base64.b64encode(data).decode()


def sha1(data):
    return b64(hashlib.sha1(data).digest())


def canonical(method, path, body, timestamp, user):
    """The text that protocol 1.1 of Chef's signed headers signs."""
    return (
        "Method:%s\nHashed Path:%s\nX-Ops-Content-Hash:%s\nX-Ops-Timestamp:%s\nX-Ops-UserId:%s"
        % (method, sha1(path.encode()), sha1(body), timestamp, sha1(user.encode()))
    ).encode()


def signed_headers(method, path, body, user, key):
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    signature = b64(rsa("sign", canonical(method, path, body, timestamp, user), key))
    headers = {
        "Accept": "application/json",
        "X-Ops-Sign": "algorithm=sha1;version=1.1;",
        "X-Ops-UserId": user,
        "X-Ops-Timestamp": timestamp,
        "X-Ops-Content-Hash": sha1(body),
    }
    for i in range(0, len(signature), 60):
        headers["X-Ops-Authorization-%d" % (i // 60 + 1)] = signature[i : i + 60]
    return headers


def verify_headers(headers, method, path, public_key):
    """Whether the public key's owner signed this request; raises when not."""
    assert headers["X-Ops-Sign"] == "algorithm=sha1;version=1.1;", headers["X-Ops-Sign"]
    lines, number = "", 1
    while "X-Ops-Authorization-%d" % number in headers:
        lines += headers["X-Ops-Authorization-%d" % number]
        number += 1
    path = urllib.parse.urlsplit(path).path
    text = canonical(method, path, b"", headers["X-Ops-Timestamp"], headers["X-Ops-UserId"])
    assert rsa("verifyrecover", base64.b64decode(lines), public_key, public=True) == text, "wrong signature"


def http_date():
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def hmac_frames(message, key):
    body = json.dumps(message, separators=(",", ":")).encode()
    signature = b64(hmac.new(key, body, hashlib.sha256).digest())
    return [("Version:2.0;SigningMethod:hmac_sha256;Signature:" + signature).encode(), body]


def open_hmac(frames, key):
    assert len(frames) == 2, frames
    header, body = frames
    expected = hmac_frames_header(body, key)
    assert header == expected, "header is %r, not %r" % (header, expected)
    message = json.loads(body)
    # Letter for letter what a strict reader of 2.2 takes.
    time.strptime(message["timestamp"], "%a, %d %b %Y %H:%M:%S GMT")
    return message


def hmac_frames_header(body, key):
    signature = b64(hmac.new(key, body, hashlib.sha256).digest())
    return ("Version:2.0;SigningMethod:hmac_sha256;Signature:" + signature).encode()


def rsa_frames(message, key):
    body = json.dumps(message, separators=(",", ":")).encode()
    signature = b64(rsa("sign", sha1(body).encode(), key))
    return [("Version:2.0;SigningMethod:rsa2048_sha1;Signature:" + signature).encode(), body]


def open_rsa(frames, public_key):
    header, body = frames
    start = b"Version:2.0;SigningMethod:rsa2048_sha1;Signature:"
    assert header.startswith(start), header
    block = rsa("verifyrecover", base64.b64decode(header[len(start) :]), public_key, public=True)
    assert block == sha1(body).encode(), block
    return json.loads(body)
