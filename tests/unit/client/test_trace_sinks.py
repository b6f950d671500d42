"""Trace sinks: what they write of a whole session, and that none of them can harm it."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from minivpn_trio import open_client, open_tun_dialer
from minivpn_trio.errors import DropReason
from minivpn_trio.events import Ready, Reconnecting, SessionState
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.testing import LinkConditions, ServerSettings, open_vpn_server
from minivpn_trio.testing.services import echo
from minivpn_trio.trace_sinks import (
    ArchivalTracer,
    FencedTracer,
    JSONLinesTracer,
    LoggingTracer,
    TeeTracer,
    tls_tags,
)
from minivpn_trio.tracing import BurstTraced, EventTraced, PacketTraced, StateTraced, TraceRecord

scapy_wire.preload()

#: The form that OONI archives (ooni/spec ts-040-openvpn; ooni/minivpn pkg/tracex/trace.go).
OPERATIONS = {"state", "packet_in", "packet_out", "packet_dropped"}
STAGES = {"UNDEF", "INITIAL", "PRE_START", "START", "SENT_KEY", "GOT_KEY", "ACTIVE", "GENERATED_KEYS", "ERROR"}
EVENT_KEYS = {"operation", "stage", "t", "tags", "packet", "transaction_id"}
PACKET_KEYS = {"operation", "opcode", "id", "acks", "payload_size", "send_attempts"}


def check_archival(event: dict[str, object]) -> None:
    assert set(event) == EVENT_KEYS
    assert event["operation"] in OPERATIONS
    assert event["stage"] in STAGES
    assert isinstance(event["t"], float)
    assert event["t"] >= 0
    assert isinstance(event["tags"], list)
    assert set(event["tags"]) <= {"client_hello", "server_hello"}
    packet = event["packet"]
    assert (packet is None) is (event["operation"] == "state")
    if packet is None:
        return
    assert isinstance(packet, dict)
    assert set(packet) == PACKET_KEYS
    assert packet["operation"] == ("write" if event["operation"] == "packet_out" else "read")
    assert packet["opcode"].startswith("P_")
    assert isinstance(packet["id"], int)
    assert isinstance(packet["payload_size"], int)
    assert packet["acks"] is None or (packet["acks"] and all(isinstance(ack, int) for ack in packet["acks"]))
    assert packet["send_attempts"] is None or packet["send_attempts"] >= 1


async def session(tracer: object, conditions: LinkConditions | None = None, seed: int = 1, **settings: object) -> None:
    async with open_vpn_server(ServerSettings(**settings), listen=False) as server, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        await nursery.start(server.host.serve_tcp, echo, 7)
        config = replace(server.client_config(), connect_retry_max=3)
        async with open_tun_dialer(config, server.memory_dialer(conditions, seed=seed), tracer=tracer) as dialer:  # type: ignore[arg-type]
            stream = await dialer.open_tcp_stream(server.address, 7)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_the_archival_form_of_a_session() -> None:
    tracer = ArchivalTracer(transaction_id=7)
    await session(tracer)
    events = tracer.events
    for event in events:
        check_archival(event)
        assert event["transaction_id"] == 7
    assert json.loads(json.dumps(events)) == events
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    assert events[0]["t"] < 0.5, "counted from the dial"

    states = [event["stage"] for event in events if event["operation"] == "state"]
    assert states == ["INITIAL", "PRE_START", "START", "SENT_KEY", "GOT_KEY", "ACTIVE", "GENERATED_KEYS"]
    packets = [event for event in events if event["packet"] is not None]
    assert packets[0]["packet"] == {
        "operation": "write", "opcode": "P_CONTROL_HARD_RESET_CLIENT_V2", "id": 0, "acks": None,
        "payload_size": 0, "send_attempts": 1,
    }  # fmt: skip
    assert packets[0]["stage"] == "PRE_START"
    answer = next(event for event in packets if event["operation"] == "packet_in")["packet"]
    assert (answer["opcode"], answer["acks"], answer["send_attempts"]) == ("P_CONTROL_HARD_RESET_SERVER_V2", [0], None)
    hello = next(event for event in packets if event["tags"] == ["client_hello"])
    assert hello["operation"] == "packet_out"
    assert hello["packet"]["opcode"] == "P_CONTROL_V1"
    assert hello["packet"]["acks"] == [0], "the acknowledgement of the server's reset rides on it"
    assert hello["packet"]["payload_size"] > 100
    assert next(event for event in packets if event["tags"] == ["server_hello"])["operation"] == "packet_in"
    assert sum(bool(event["tags"]) for event in packets) == 2
    assert not any("DATA" in event["packet"]["opcode"] for event in packets), "data packets are not part of it"


async def test_drops_and_repetitions_show_in_the_archival_form(autojump_clock: MockClock) -> None:
    tracer = ArchivalTracer()
    for seed in range(4):
        await session(tracer, LinkConditions(loss=0.2, duplication=0.3, delay=0.05), seed)
    for event in tracer.events:
        check_archival(event)
    operations = {event["operation"] for event in tracer.events}
    assert operations == OPERATIONS
    attempts = {event["packet"]["send_attempts"] for event in tracer.events if event["packet"]}
    assert {None, 1, 2} <= attempts


async def test_the_archive_is_bounded() -> None:
    tracer = ArchivalTracer(limit=5)
    await session(tracer)
    assert len(tracer.events) == 5


async def test_json_lines(autojump_clock: MockClock) -> None:
    out = io.StringIO()
    await session(JSONLinesTracer(out), LinkConditions(delay=0.01, duplication=0.2), reneg_sec=0.0)
    assert out.getvalue().endswith("\n")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[0]["t"] == 0
    assert {line["operation"].split("_")[0] for line in lines} == {"state", "event", "packet", "burst"}
    times = [line["t"] for line in lines]
    assert times == sorted(times)
    assert [line["event"] for line in lines if line["operation"] == "event"][-2:] == ["Ready", "Closed"]
    dropped = [line for line in lines if line["operation"] in {"packet_dropped", "burst_dropped"}]
    assert {line["drop_reason"] for line in dropped} & {"duplicate", "replay"}
    # what was said stays secret
    assert "hello\\u0000" not in out.getvalue()
    assert not any("payload" in line for line in lines)


async def test_json_lines_hold_no_password() -> None:
    out = io.StringIO()
    async with open_vpn_server(ServerSettings(users={"jo": "open sesame"}), listen=False) as server:
        config = server.client_config("jo", "open sesame")
        async with open_client(config, server.memory_dialer(), tracer=JSONLinesTracer(out)):
            pass
    assert "sesame" not in out.getvalue()
    assert "Ready" in out.getvalue()


async def test_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "minivpn_trio.trace"):
        await session(LoggingTracer())
    lines = [record.message for record in caplog.records if record.name == "minivpn_trio.trace"]
    assert any("operation=state" in line and "stage=PRE_START" in line for line in lines)
    assert any("opcode=P_CONTROL_HARD_RESET_CLIENT_V2" in line for line in lines)
    caplog.clear()
    with caplog.at_level(logging.INFO, "minivpn_trio.trace"):
        await session(LoggingTracer())
    assert not [record for record in caplog.records if record.name == "minivpn_trio.trace"]


class Raises:
    """A tracer with a defect that shows at its ``number``-th record."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    def trace(self, record: TraceRecord) -> None:
        self.calls += 1
        if self.calls >= self.number:
            raise RuntimeError("a defect of the tracer")


@pytest.mark.parametrize("number", [1, 2, 5, 10, 20, 30])
async def test_a_raising_tracer_does_not_kill_the_tunnel(number: int, caplog: pytest.LogCaptureFixture) -> None:
    tracer = Raises(number)
    await session(tracer)
    assert tracer.calls == number
    (record,) = [record for record in caplog.records if record.name == "minivpn_trio"]
    assert record.exc_info is not None


async def test_a_disk_that_is_full_does_not_kill_the_tunnel(caplog: pytest.LogCaptureFixture) -> None:
    with open("/dev/full", "w", buffering=1) as full:  # noqa: ASYNC230  it never blocks
        await session(JSONLinesTracer(full))
        with pytest.raises(OSError, match="No space"):
            full.close()
    assert "No space" in caplog.text


async def test_a_tee_feeds_all() -> None:
    one, two = ArchivalTracer(), ArchivalTracer()
    await session(TeeTracer([one, two]))
    assert one.events == two.events != []


def test_a_fence_is_no_hindrance() -> None:
    archive = ArchivalTracer()
    FencedTracer(archive).trace(StateTraced(time=1.0, stage=SessionState.INITIAL))
    assert len(archive.events) == 1


@pytest.mark.parametrize(
    ("payload", "tags"),
    [
        (bytes.fromhex("160301010001"), ["client_hello"]),
        (bytes.fromhex("160303007a02"), ["server_hello"]),
        (bytes.fromhex("160303007a0b"), []),
        (bytes.fromhex("170303007a01"), []),
        (bytes.fromhex("1603010100"), []),
        (b"", []),
    ],
)
def test_tags(payload: bytes, tags: list[str]) -> None:
    assert tls_tags(payload) == tags


times = st.floats(0, 1e9)
records = st.one_of(
    st.builds(StateTraced, time=times, stage=st.sampled_from(SessionState)),
    st.builds(
        PacketTraced, time=times, stage=st.sampled_from(SessionState),
        direction=st.sampled_from(["in", "out", "dropped"]), opcode=st.none() | st.sampled_from(Opcode),
        key_id=st.none() | st.integers(0, 7), packet_id=st.none() | st.integers(0, 2**32 - 1),
        acks=st.lists(st.integers(0, 2**32 - 1), max_size=8).map(tuple), size=st.integers(0, 65535),
        attempt=st.none() | st.integers(1, 100), drop_reason=st.none() | st.sampled_from(DropReason),
        payload=st.binary(max_size=64),
    ),
    st.builds(
        BurstTraced, time=times, stage=st.sampled_from(SessionState),
        direction=st.sampled_from(["in", "out", "dropped"]), packets=st.integers(1, 64), size=st.integers(0, 10**6),
    ),
    st.builds(
        EventTraced, time=times, stage=st.sampled_from(SessionState),
        event=st.builds(Ready, time=times, ipv4=st.none() | st.text(), ipv6=st.none())
        | st.builds(Reconnecting, time=times, reason=st.text(), delay=times, attempt=st.integers(1, 99)),
    ),
)  # fmt: skip


@given(st.lists(records, max_size=20))
def test_every_record_can_be_written(found: list[TraceRecord]) -> None:
    out = io.StringIO()
    archive = ArchivalTracer()
    tee = TeeTracer([JSONLinesTracer(out), archive])
    for record in found:
        tee.trace(record)
    assert len([json.loads(line) for line in out.getvalue().split("\n") if line]) == len(found)
    for event in archive.events:
        event["t"] = abs(event["t"])  # type: ignore[arg-type]
        check_archival({**event, "t": float(event["t"])})  # type: ignore[arg-type]
