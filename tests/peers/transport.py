"""libzmq as the other end of our ZMTP connections, below the Push Jobs protocol.

transport.py node SERVER_KEY_HEX SECRET_HEX COMMAND_PORT HEARTBEAT_PORT COUNT
    DEALER and SUB: sends COUNT messages of growing size, checks each echo, then waits for a publication.
    Prints "ok COUNT" and what was published.
transport.py refused SERVER_KEY_HEX SECRET_HEX COMMAND_PORT
    Connects with a key that is not known; reports what libzmq's monitor saw within 1.5 s.
transport.py server COUNT
    ROUTER and PUB: prints its key and ports, echoes COUNT messages, publishing after each.
"""
import sys

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message


def size(i):
    return [0, 1, 100, 222, 223, 255, 256, 3000, 60000][i % 9]


def dealer(context, server, secret, port):
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = z85.encode(bytes.fromhex(server))
    pair = z85.encode(bytes.fromhex(secret))
    socket.curve_secretkey, socket.curve_publickey = pair, zmq.curve_public(pair)
    socket.linger = 0
    socket.rcvtimeo = 10000
    return socket, "tcp://127.0.0.1:%s" % port


def node(server, secret, command_port, heartbeat_port, count):
    context = zmq.Context()
    sub = context.socket(zmq.SUB)
    sub.rcvtimeo = 10000
    sub.connect("tcp://127.0.0.1:%s" % heartbeat_port)
    sub.subscribe(b"")
    socket, address = dealer(context, server, secret, command_port)
    # libzmq's own PING, once in a while, must be answered.
    socket.heartbeat_ivl = 20
    socket.heartbeat_timeout = 2000
    socket.connect(address)
    for i in range(int(count)):
        message = [b"header %d" % i, bytes([i % 256]) * size(i)]
        socket.send_multipart(message)
        assert socket.recv_multipart() == message, "echo %d differs" % i
    print("ok", count, b"|".join(sub.recv_multipart()).decode(), flush=True)
    context.destroy(linger=0)


def refused(server, secret, port):
    context = zmq.Context()
    socket, address = dealer(context, server, secret, port)
    monitor = socket.get_monitor_socket()
    monitor.rcvtimeo = 1500
    socket.connect(address)
    seen = []
    try:
        while True:
            seen.append(recv_monitor_message(monitor)["event"])
    except zmq.Again:
        pass
    names = {v: k for k, v in vars(zmq).items() if k.startswith("EVENT_") and isinstance(v, int)}
    print(" ".join(names[e] for e in seen if e not in (zmq.EVENT_CONNECT_DELAYED,)), flush=True)
    context.destroy(linger=0)


def server(count):
    context = zmq.Context()
    router, pub = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
    public, router.curve_secretkey = zmq.curve_keypair()
    router.curve_server = True
    router.heartbeat_ivl = 20
    router.heartbeat_timeout = 2000
    router.rcvtimeo = 10000
    ports = [s.bind_to_random_port("tcp://127.0.0.1") for s in (router, pub)]
    print(z85.decode(public).hex(), *ports, flush=True)
    for _ in range(int(count)):
        router.send_multipart(router.recv_multipart())
        pub.send_multipart([b"head", b"beat"])
    # The peer says when it has seen enough.
    sys.stdin.read()
    context.destroy(linger=0)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
