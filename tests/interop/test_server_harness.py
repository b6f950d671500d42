"""The laboratory itself, held against the C client: what fails here is not our client's fault."""

from __future__ import annotations

import os
import signal
import zlib

import pytest

from tests.interop.lab.lab import TUN_IPV4, TUN_IPV6, Lab
from tests.interop.lab.namespaces import LabError

HTTP = """
import sys, urllib.request
body = urllib.request.urlopen(f"http://{sys.argv[1]}/bytes/{sys.argv[2]}", timeout=20).read()
print(len(body))
"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"transport": "tcp"},
        {"outer": "6"},
        {"transport": "tcp", "outer": "6"},
        {"cipher": "CHACHA20-POLY1305"},
        {"cipher": "AES-128-CBC", "auth": "SHA1"},
        {"wrap": "tls-auth", "auth": "SHA512"},
        {"wrap": "tls-auth", "key_direction": None},
        {"wrap": "tls-crypt"},
        {"topology": "net30"},
        {"compression": "comp-lzo-no"},
        {"compression": "stub"},
        {"compression": "stub-v2"},
        {"user_pass": True},
        {"user_pass": True, "client_cert": False},
        {"tls_version": "1.2"},
    ],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()) or "default",
)
def test_c_client_fetches_a_page(lab: Lab, start_server, options) -> None:
    server = start_server(**options)
    with server.c_client().running():
        assert lab.python_in_c_namespace(HTTP, TUN_IPV4, "100000").strip() == "100000"
        assert lab.python_in_c_namespace(HTTP, f"[{TUN_IPV6}]", "100000").strip() == "100000"


def test_services_count_and_echo(lab: Lab, start_server) -> None:
    with start_server().c_client().running():
        code = """
import socket, sys
host = sys.argv[1]
with socket.create_connection((host, 9), 10) as s:
    s.sendall(b"x" * 12345); s.shutdown(socket.SHUT_WR); print(s.recv(100).decode())
with socket.create_connection((host, 22), 10) as s:
    s.sendall((5).to_bytes(8, "big") + b"hello"); print(s.recv(100)); s.sendall(b"?"); print(s.recv(100))
with socket.create_connection((host, 7), 10) as s:
    s.sendall(b"hello"); s.shutdown(socket.SHUT_WR); print(s.recv(100).decode(), s.recv(1))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(10); s.sendto(b"datagram", (host, 7)); print(s.recv(100).decode())
with socket.create_connection((host, 19), 10) as s:
    print(s.recv(8, socket.MSG_WAITALL).hex())
with socket.create_connection((host, 20), 10) as s:
    s.sendall(b"x")
    try: s.recv(1)
    except ConnectionResetError: print("reset")
"""
        assert lab.python_in_c_namespace(code, TUN_IPV4).splitlines() == [
            "12345", r"b'5\n'", repr(b"%08x\n" % zlib.crc32(b"hello")), "hello b''", "datagram", "0000000000000001",
            "reset",
        ]  # fmt: skip


def test_dns_answers_and_truncates(lab: Lab, start_server) -> None:
    with start_server().c_client().running():
        code = """
import dns.flags, dns.message, dns.query, sys
for name, kind in (("web.lab", "A"), ("web.lab", "AAAA"), ("none.lab", "A"), ("big.lab", "TXT")):
    answer = dns.query.udp(dns.message.make_query(name, kind), sys.argv[1], timeout=10)
    print(dns.flags.to_text(answer.flags), answer.rcode().name, [r.to_text() for a in answer.answer for r in a])
answer = dns.query.tcp(dns.message.make_query("big.lab", "TXT"), sys.argv[1], timeout=10)
print(sum(len(a) for a in answer.answer))
"""
        lines = lab.python_in_c_namespace(code, TUN_IPV4).splitlines()
    assert lines[0] == "QR AA RD RA NOERROR ['10.8.0.1']"
    assert lines[1] == "QR AA RD RA NOERROR ['fd08::1']"
    assert lines[2] == "QR AA RD RA NXDOMAIN []"
    assert lines[3] == "QR AA TC RD RA NOERROR []"
    assert lines[4] == "12"


def test_wrong_password_is_refused(lab: Lab, start_server) -> None:
    server = start_server(user_pass=True)
    client = server.c_client()
    server.password_file().write_text("alice\nwrong\n")
    with pytest.raises(LabError, match="AUTH_FAILED"):
        client.start()
    client.stop()


def test_wrong_ca_is_refused(lab: Lab, start_server) -> None:
    client = start_server().c_client(ca=lab.credentials.wrong_ca.pem)
    client.launch()
    try:
        client.wait_for("VERIFY ERROR")
    finally:
        client.stop()


def test_server_renegotiates(lab: Lab, start_server) -> None:
    server = start_server(reneg_sec=3)
    with server.c_client().running():
        server.wait_for("TLS: soft reset", timeout=10)


def test_a_stopped_process_is_gone(start_server) -> None:
    server = start_server()
    pid = server.pid
    server.signal(signal.SIGSTOP)
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.start()
    assert server.pid != pid
