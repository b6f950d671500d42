"""What can be reached through the tunnel: a script that runs inside the server's namespace.

It listens on every address of the namespace, so it survives the tun device's coming and going:

====== ==== =====================================================================================
port        what it does
====== ==== =====================================================================================
80     TCP  HTTP/1.1: GET /bytes/N sends N bytes of PATTERN, POST replies with the number of bytes
443    TCP  the same over TLS, with the certificate and key in the files named by the arguments; POST to /dns-query is
            DNS over HTTPS, of the same zone as port 53
7      TCP  echo, half-close included
9      TCP  discard; at end of input sends the count of bytes in ASCII and closes
19     TCP  chargen: PATTERN until the peer goes
20     TCP  reset: reads one byte, then resets the connection
21     TCP  mss: sends in ASCII the longest segment that the peer's SYN allowed, without options, and closes
22     TCP  keep: reads a length (8 bytes, network order) and so many bytes, which it keeps, and sends their count in
          ASCII and a newline; asked by ``?``, it sends their CRC-32 as 8 hexadecimal digits and a newline, and closes
7      UDP  echo
53     both DNS for ``lab``: web, big (truncated over UDP), anything else is NXDOMAIN
====== ==== =====================================================================================

Arguments: the files of a certificate and its key; then, if it matters, the congestion control of all TCP.
It writes ``ready`` when it listens.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import ssl
import struct
import sys
import threading
import zlib
from typing import ClassVar

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

#: Fixed and position-dependent, so that a lost, doubled or moved piece shows. The number of words is a prime: what went
#: wrong by a power of two, as buffers do, shows as well.
PATTERN = b"".join(struct.pack(">I", n) for n in range(65_521))
SERVER_IPV4, SERVER_IPV6 = "10.8.0.1", "fd08::1"
#: 3 KiB of TXT records: far too much for UDP.
BIG_TXT = [f'"{n:03d}-{"x" * 240}"' for n in range(12)]


def send_pattern(sock: socket.socket, size: int) -> None:
    """PATTERN over and over, ``size`` bytes in all."""
    view = memoryview(PATTERN)
    while size > 0:
        piece = view[: min(size, len(view))]
        sock.sendall(piece)
        size -= len(piece)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /bytes/N, POST, and DNS over HTTPS; everything else is 404."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        prefix, _, number = self.path.rpartition("/")
        if prefix != "/bytes" or not number.isdigit():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", number)
        self.end_headers()
        self.wfile.flush()
        send_pattern(self.connection, int(number))

    def do_POST(self) -> None:
        if self.path == "/dns-query":
            reply = dns_answer(self.rfile.read(int(self.headers["Content-Length"])), udp=False)
            self.send_response(200)
            self.send_header("Content-Type", "application/dns-message")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)
            return
        left = size = int(self.headers["Content-Length"])
        while left > 0:
            piece = self.rfile.read1(min(left, 1 << 18))
            if not piece:
                return
            left -= len(piece)
        body = str(size).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the access log is nobody's business here."""


class Stream(socketserver.BaseRequestHandler):
    """A TCP service; a peer that goes away is not an error."""

    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.serve(self.request)

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError


class Echo(Stream):
    def serve(self, sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            sock.sendall(data)


class Discard(Stream):
    def serve(self, sock: socket.socket) -> None:
        total = 0
        buffer = bytearray(1 << 18)
        while count := sock.recv_into(buffer):
            total += count
        sock.sendall(str(total).encode())


class Keep(Stream):
    """Counts first, so that whoever measures can stop the clock, and looks at the bytes when asked to."""

    #: Bytes of one piece of memory, and those that nobody uses: memory that was used before costs no page faults.
    SLAB: ClassVar[int] = 1 << 20
    unused: ClassVar[list[bytearray]] = []

    def serve(self, sock: socket.socket) -> None:
        left = size = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
        slabs: list[bytearray] = []
        view, filled = memoryview(b""), 0
        while left > 0:
            if filled == len(view):
                slabs.append(self.unused.pop() if self.unused else bytearray(self.SLAB))
                view, filled = memoryview(slabs[-1]), 0
            count = sock.recv_into(view[filled:], min(left, self.SLAB - filled))
            if count == 0:
                break
            filled += count
            left -= count
        sock.sendall(b"%d\n" % (size - left))
        # What came behind the last byte is no question, and gets no answer.
        if sock.recv(2) == b"?":
            crc, rest = 0, size - left
            for slab in slabs:
                crc = zlib.crc32(memoryview(slab)[:rest], crc)
                rest -= min(rest, len(slab))
            sock.sendall(b"%08x\n" % crc)
        self.unused.extend(slabs)


class Chargen(Stream):
    def serve(self, sock: socket.socket) -> None:
        while True:
            sock.sendall(PATTERN)


class Reset(Stream):
    def serve(self, sock: socket.socket) -> None:
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


class Mss(Stream):
    def serve(self, sock: socket.socket) -> None:
        # The kernel's figure leaves room for timestamps where both ends use them (TCPI_OPT_TIMESTAMPS).
        options = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5]
        mss = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) + (12 if options & 1 else 0)
        sock.sendall(str(mss).encode())


class UDPEcho(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


def dns_answer(wire: bytes, *, udp: bool) -> bytes:
    """One answer of the zone ``lab``."""
    query = dns.message.from_wire(wire)
    answer = dns.message.make_response(query, recursion_available=True)
    answer.flags |= dns.flags.AA
    question = query.question[0]
    name, kind = question.name.to_text().lower(), question.rdtype
    records = {
        ("web.lab.", dns.rdatatype.A): [SERVER_IPV4],
        ("web.lab.", dns.rdatatype.AAAA): [SERVER_IPV6],
        ("big.lab.", dns.rdatatype.A): [f"10.9.{n // 250}.{n % 250 + 1}" for n in range(400)],
        ("big.lab.", dns.rdatatype.TXT): BIG_TXT,
    }.get((name, kind))
    if records is not None:
        answer.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", dns.rdatatype.to_text(kind), records))
    elif name not in {"web.lab.", "big.lab."}:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    if not udp:
        return answer.to_wire(max_size=65535)
    if len(answer.to_wire(max_size=65535)) > 1232:
        answer.answer.clear()
        answer.flags |= dns.flags.TC
    return answer.to_wire()


class DNSOverUDP(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(dns_answer(data, udp=True), self.client_address)


class DNSOverTCP(Stream):
    def serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as reader:
            while len(head := reader.read(2)) == 2:
                reply = dns_answer(reader.read(struct.unpack(">H", head)[0]), udp=False)
                sock.sendall(struct.pack(">H", len(reply)) + reply)


class DualStack:
    """Listen on :: for both families."""

    address_family: ClassVar[int] = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # type: ignore[attr-defined]
        super().server_bind()  # type: ignore[misc]


class TCPServer(DualStack, socketserver.ThreadingTCPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that resets is an everyday thing."""


class UDPServer(DualStack, socketserver.UDPServer):
    pass


class HTTPServer(DualStack, http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name, which takes seconds where there is no DNS.
        self.server_name, self.server_port = "lab", 80
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """As above."""


def main() -> None:
    https = HTTPServer(("::", 443), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    https.socket = context.wrap_socket(https.socket, server_side=True, do_handshake_on_connect=False)
    servers: list[socketserver.TCPServer] = [HTTPServer(("::", 80), Handler), https]
    handlers = {7: Echo, 9: Discard, 19: Chargen, 20: Reset, 21: Mss, 22: Keep, 53: DNSOverTCP}
    for port, handler in handlers.items():
        servers.append(TCPServer(("::", port), handler))
    for port, datagram_handler in ((7, UDPEcho), (53, DNSOverUDP)):
        servers.append(UDPServer(("::", port), datagram_handler))
    for server in servers:
        if sys.argv[3:] and server.socket.type == socket.SOCK_STREAM:
            # What is accepted inherits it.
            server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, sys.argv[3].encode())
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
