"""Plays a node against a push server: node.py URL ORG NAME KEY_FILE

Fetches its configuration with a signed request, connects DEALER (CURVE) and SUB, heartbeats, votes and "runs":
`ok …` succeeds, `capture …` succeeds with output, `fail …` fails, `slow …` runs until aborted, anything else is refused.
Prints each message it gets, as `heartbeat SEQUENCE` or `TYPE [JOB [COMMAND]]`. Ends with its input.
"""
import json
import os
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid

import zmq

import pushjobs


def configuration(url, org, name, key, ccpk):
    path = "/organizations/%s/pushy/config/%s" % (org, name)
    query = "?" + urllib.parse.urlencode({"ccpk": ccpk, "version": "2.0"}, quote_via=urllib.parse.quote)
    headers = pushjobs.signed_headers("GET", path, b"", name, key)
    with urllib.request.urlopen(urllib.request.Request(url + path + query, headers=headers), timeout=10) as answer:
        assert answer.headers["Content-Type"].split(";")[0] == "application/json"
        config = json.load(answer)
    assert (config["type"], config["node"], config["organization"]) == ("config", name, org), config
    assert config["encoded_session_key"]["method"] == "hmac_sha256"
    return config


class Node:
    def __init__(self, url, org, name, key):
        self.org, self.name = org, name
        self.sequence, self.job, self.state = 0, None, "idle"
        self.incarnation = str(uuid.uuid4())
        context = zmq.Context()
        self.dealer, self.sub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        public, secret = zmq.curve_keypair()
        config = configuration(url, org, name, key, public.decode())
        self.session = pushjobs.rsa("decrypt", pushjobs.base64.b64decode(config["encoded_session_key"]["key"]), key)
        assert len(self.session) == 32
        self.server_incarnation = config["incarnation_id"]
        self.public_key = os.path.join(tempfile.mkdtemp(), "server.pem")
        with open(self.public_key, "w") as file:
            file.write(config["public_key"])
        heartbeat = config["push_jobs"]["heartbeat"]
        self.interval = heartbeat["interval"]
        self.dealer.linger = 0
        self.dealer.curve_publickey, self.dealer.curve_secretkey = public, secret
        self.dealer.curve_serverkey = config["curve_public_key"].encode()
        self.dealer.connect(heartbeat["command_addr"])
        self.sub.connect(heartbeat["out_addr"])
        self.sub.subscribe(b"")

    def say(self, type, **more):
        self.sequence += 1
        message = {
            "node": self.name,
            "client": self.name,
            "protocol_version": "2.0",
            "org": self.org,
            "type": type,
            "sequence": self.sequence,
            "timestamp": pushjobs.http_date(),
            "incarnation_id": self.incarnation,
        }
        message.update(more)
        self.dealer.send_multipart(pushjobs.hmac_frames(message, self.session))

    def heard(self, message):
        type, job = message["type"], message.get("job_id")
        print(" ".join(filter(None, [type, job, message.get("command")])), flush=True)
        if type == "commit":
            verb = message["command"].split(" ")[0]
            if self.job is None and verb in ("ok", "capture", "fail", "slow"):
                self.job, self.state, self.verb, self.commit = job, "committed", verb, message
                self.say("ack_commit", job_id=job)
            else:
                self.say("nack_commit", job_id=job)
        elif type == "run":
            if job != self.job or self.state != "committed":
                return self.say("nack_run", job_id=job)
            self.state = "running"
            self.say("ack_run", job_id=job)
            if self.verb == "slow":
                return
            self.job, self.state = None, "idle"
            if self.verb == "capture":
                assert self.commit["capture"] is True, self.commit
                self.say("succeeded", job_id=job, stdout="out of %s\n" % self.name, stderr="")
            else:
                self.say("succeeded" if self.verb == "ok" else "failed", job_id=job)
        elif type == "abort":
            job, self.job, self.state = self.job, None, "idle"
            self.say("aborted", job_id=job)

    def live(self):
        poller, due = zmq.Poller(), 0
        poller.register(self.dealer, zmq.POLLIN)
        poller.register(self.sub, zmq.POLLIN)
        while True:
            if time.monotonic() >= due:
                self.say("heartbeat", job_state=self.state, job_id=self.job)
                due = time.monotonic() + self.interval
            ready = dict(poller.poll(50))
            if self.sub in ready:
                beat = pushjobs.open_rsa(self.sub.recv_multipart(), self.public_key)
                assert beat["type"] == "heartbeat" and beat["incarnation_id"] == self.server_incarnation, beat
                print("heartbeat", beat["sequence"], flush=True)
            if self.dealer in ready:
                self.heard(pushjobs.open_hmac(self.dealer.recv_multipart(), self.session))


if __name__ == "__main__":
    node = Node(*sys.argv[1:])
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    try:
        node.live()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
