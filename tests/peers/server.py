"""Plays a push server against one node: server.py ORG NODE NODE_PUBLIC_KEY_FILE WORK_DIR

Serves the configuration over HTTP to whoever signs as the node, lets in the CURVE key that came with it (ZAP), publishes
heartbeats. Prints its URL first, then `config`, and each message of the node as `TYPE STATE JOB OUTPUT` (`-` for what
is absent; heartbeats only when they say something new). Does what its input says:
`commit JOB COMMAND`, `run JOB`, `abort`, `ack`, `bad JOB` (a run with a wrong signature).
"""
import http.server
import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

import zmq
from zmq.utils import z85

import pushjobs

INTERVAL = 0.5


class Server:
    def __init__(self, org, node, public_key, dir):
        self.org, self.node, self.client_key = org, node, public_key
        self.key, self.public = os.path.join(dir, "server.key"), os.path.join(dir, "server.pem")
        subprocess.run(["openssl", "genrsa", "-out", self.key, "2048"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(
            ["openssl", "rsa", "-in", self.key, "-pubout", "-out", self.public], check=True, stderr=subprocess.DEVNULL
        )
        self.incarnation, self.session = str(uuid.uuid4()), os.urandom(32)
        self.allowed, self.identity, self.sequence, self.beats = set(), None, 0, 0
        context = zmq.Context()
        self.zap = context.socket(zmq.REP)
        self.zap.bind("inproc://zeromq.zap.01")
        self.router, self.pub = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
        self.curve, self.router.curve_secretkey = zmq.curve_keypair()
        self.router.curve_server = True
        self.router.linger = self.pub.linger = 0
        self.ports = [s.bind_to_random_port("tcp://127.0.0.1") for s in (self.router, self.pub)]
        self.last_beat = None
        self.orders = queue.Queue()

    def config(self, ccpk):
        self.allowed.add(z85.decode(ccpk.encode()))
        return {
            "type": "config",
            "host": "127.0.0.1",
            "push_jobs": {
                "heartbeat": {
                    "out_addr": "tcp://127.0.0.1:%d" % self.ports[1],
                    "command_addr": "tcp://127.0.0.1:%d" % self.ports[0],
                    "interval": INTERVAL,
                    "offline_threshold": 3,
                    "online_threshold": 2,
                }
            },
            "node": self.node,
            "organization": self.org,
            "public_key": open(self.public).read() + "\n",
            "curve_public_key": self.curve.decode(),
            "encoded_session_key": {
                "method": "hmac_sha256",
                "key": pushjobs.b64(pushjobs.rsa("encrypt", self.session, self.client_key, public=True)),
            },
            "lifetime": 3600,
            "max_message_skew": 300,
            "max_body_size": 65536,
            "incarnation_id": self.incarnation,
        }

    def serve_http(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                assert url.path == "/organizations/%s/pushy/config/%s" % (outer.org, outer.node), self.path
                pushjobs.verify_headers(self.headers, "GET", self.path, outer.client_key)
                query = urllib.parse.parse_qs(url.query, strict_parsing=True)
                assert query["version"] == ["2.0"], query
                body = json.dumps(outer.config(query["ccpk"][0])).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                print("config", flush=True)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print("http://127.0.0.1:%d/organizations/%s" % (server.server_port, self.org), flush=True)

    def stamp(self, **message):
        self.sequence += 1
        return dict({"sequence": self.sequence, "timestamp": pushjobs.http_date()}, **message)

    def send(self, key=None, **message):
        frames = pushjobs.hmac_frames(self.stamp(**message), key or self.session)
        self.router.send_multipart([self.identity] + frames)

    def obey(self, line):
        verb, *rest = line.split(" ", 2)
        if verb == "commit":
            self.send(type="commit", job_id=rest[0], server="127.0.0.1", command=rest[1], capture=True)
        elif verb == "run":
            self.send(type="run", job_id=rest[0])
        elif verb == "bad":
            self.send(key=bytes(32), type="run", job_id=rest[0])
        else:
            self.send(type=verb)

    def heard(self, frames):
        self.identity, frames = frames[0], frames[1:]
        message = pushjobs.open_hmac(frames, self.session)
        assert list(message)[:8] == [
            "node", "client", "protocol_version", "org", "type", "sequence", "timestamp", "incarnation_id",
        ], message
        assert (message["node"], message["org"], message["protocol_version"]) == (self.node, self.org, "2.0"), message
        job = message["job_id"] or "-"
        output = message.get("stdout", "-").strip()
        line = "%s %s %s %s" % (message["type"], message.get("job_state", "-"), job, output)
        if message["type"] == "heartbeat":
            if line == self.last_beat:
                return
            self.last_beat = line
        print(line, flush=True)

    def live(self):
        poller, due = zmq.Poller(), 0
        for socket in (self.zap, self.router):
            poller.register(socket, zmq.POLLIN)
        while True:
            if time.monotonic() >= due:
                beat = {"sequence": self.beats, "timestamp": pushjobs.http_date(), "server": "peer"}
                beat.update(type="heartbeat", incarnation_id=self.incarnation)
                self.pub.send_multipart(pushjobs.rsa_frames(beat, self.key))
                self.beats, due = self.beats + 1, time.monotonic() + INTERVAL
            ready = dict(poller.poll(20))
            if self.zap in ready:
                version, request, _, _, _, mechanism, key = self.zap.recv_multipart()
                good = mechanism == b"CURVE" and key in self.allowed
                verdict = [b"200", b""] if good else [b"400", b"No such client"]
                self.zap.send_multipart([version, request] + verdict + [b"", b""])
            if self.router in ready:
                self.heard(self.router.recv_multipart())
            while not self.orders.empty():
                self.obey(self.orders.get())


if __name__ == "__main__":
    server = Server(*sys.argv[1:])
    server.serve_http()

    def read():
        for line in sys.stdin:
            server.orders.put(line.rstrip("\n"))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    try:
        server.live()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
