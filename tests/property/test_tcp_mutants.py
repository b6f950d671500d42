"""TCP's tests can fail: each of these defects, planted one at a time, is found.

A defect is a replacement in the source of one method. Those of ``MACHINE`` must be found by the state machine of
test_tcp_machine.py, those of ``SCENARIOS`` by the dialogues of tests/unit/netstack and some of tests/simulation; many
are errors that real stacks had (netstack issues of gVisor, smoltcp, lwIP and PyTCP).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_tcp_machine import TcpMachine

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "netstack"))

import test_congestion
import test_numbering
import test_tcp_ack_losses
import test_tcp_attacks
import test_tcp_closed_window
import test_tcp_listeners
import test_tcp_memory
import test_tcp_overtaken
import test_tcp_path_mtu
import test_tcp_paths
import test_tcp_recovery
import test_tcp_scenarios
import test_tcp_without_sack

from minivpn_trio.netstack.numbering import Numbering
from minivpn_trio.netstack.pmtu import LargeSends, PathMtus
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.acknowledgement import AckSchedule
from minivpn_trio.netstack.tcp.congestion import Cubic
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.listener import TcpListener
from minivpn_trio.netstack.tcp.prr import ProportionalRateReduction
from minivpn_trio.netstack.tcp.rack import Rack
from minivpn_trio.netstack.tcp.receiver import Receiver
from minivpn_trio.netstack.tcp.rto import RetransmissionTimeout
from minivpn_trio.netstack.tcp.scoreboard import Scoreboard
from minivpn_trio.netstack.tcp.sender import Sender
from minivpn_trio.netstack.tcp.timewait import TimeWaitTable
from minivpn_trio.netstack.tcp.undo import Undo
from minivpn_trio.netstack.wire import SegmentBuilder

Defect = tuple[Callable[..., object], str, str]

MACHINE: dict[str, Defect] = {
    "no persist timer": (Sender.take_segments, "            self.deadline = now + self.rto.value\n", ""),
    "the end before what comes before it": (Receiver._check_fin, "if self.fin == self.nxt and", "if self.fin and"),
    "an overlap appended whole": (Receiver.insert, "payload = payload[position - start :]", "pass"),
    "an overlap in front appended whole": (Receiver.insert, "payload = payload[self.nxt - start :]", "pass"),
    "what was never sent can be acknowledged": (TcpConnection._valid_ack, "ack > sender.nxt or ", ""),
    "the window's right edge moves left": (
        Receiver.take_window,
        "            target = self.edge\n",
        "            target = self.nxt\n",
    ),
    "a lost window update is never made up for": (
        Sender.handle_timeout,
        "            return True\n",
        "            return False\n",
    ),
    "early data twice in memory": (
        Receiver._keep,
        "        self.early += new\n",
        "        self.early += end - start\n",
    ),
    "early pieces forgotten": (Receiver._absorb, "            self._append(piece)\n", ""),
    "early data beyond the window": (Receiver.insert, "if end > limit:", "if False:"),
    "the pipe counts the retransmitted once": (
        Scoreboard._mark,
        "size * ((not segment.lost) + segment.resent)",
        "size * (not segment.lost)",
    ),
    "a part acknowledged, the whole off the pipe": (
        Scoreboard.acknowledge,
        "pipe -= cut *",
        "pipe -= (segment.end - segment.start) *",
    ),
    "retransmissions of what was SACKed stay in the pipe": (
        Scoreboard.lose_all,
        "        self.pipe = 0\n",
        "        pass\n",
    ),
    "resegmented pieces forget that they are lost": (
        Scoreboard.lose_all,
        "self._waiting.append(segment)",
        "pass",
    ),
    "no timer after an acknowledgement of a part": (
        Sender._arm,
        "        if self.una == self.nxt:",
        "        if True:",
    ),
    "the timer goes on with nothing in flight": (
        Sender.handle_timeout,
        "        if not in_flight:\n",
        "        if False:\n",
    ),
    "SYN in the window resets": (
        TcpConnection._handle_data,
        "            self._acks.challenge(now)\n            return\n        if not flags & ACK",
        "            self._end(None)\n            return\n        if not flags & ACK",
    ),
    "the clock of a segment outside of the window is believed": (
        TcpConnection._handle_data,
        "        if not self._acceptable(seq, end",
        "        if self._timestamps and timestamps is not None and seq <= self._acks.last:\n"
        "            self._ts_recent, self._ts_recent_at = timestamps[0], now\n"
        "        if not self._acceptable(seq, end",
    ),
    "the window of a segment outside of ours is believed": (
        TcpConnection._handle_outside,
        "        if flags & SYN or end > self.receiver.edge + 1 or seq == end:\n",
        "        self.sender._update_window(self.sender.una, window << self._snd_scale, seq, now)\n"
        "        if flags & SYN or end > self.receiver.edge + 1 or seq == end:\n",
    ),
    "any RST resets": (TcpConnection._handle_reset, "if seq != self.receiver.nxt:", "if False:"),
    "the fast path does not look at the window": (TcpConnection.handle_packets, " and nxt + size <= limit", ""),
    "the fast path forgets holes": (
        TcpConnection.handle_packets,
        "if seq == wire_nxt and not holes and",
        "if seq == wire_nxt and",
    ),
    "FIN sent before the data": (Sender._take_new, "if self.fin and not self.buffered and", "if self.fin and"),
    "FIN not sent again": (Sender._take_new, "self.board.extend([segment], 1)", "self.nxt += 0"),
    "FIN-WAIT-1 takes the peer's FIN for an acknowledgement": (
        TcpConnection._handle_fin,
        "            self.state = TcpState.CLOSING\n            if self.sender.done:\n",
        "            if True:\n",
    ),
    "a chunk is cut off by one": (
        Sender._cut,
        "offset = min(missing, len(chunk))",
        "offset = min(missing - 1, len(chunk)) or 1",
    ),
    "sequence numbers do not wrap": (
        SegmentBuilder.build_train,
        "seq = position & MASK",
        "seq = min(position, MASK)",
    ),
    "a probe's size is what is left of it": (
        TcpConnection._learn_path,
        "self._grow(size, now)",
        "self.set_path_mss(self.path_mss + probe.end - probe.start - sender.mss)",
    ),
}

SCENARIOS: dict[str, Defect] = {
    "a window that opens is not told": (
        TcpConnection.read,
        "if not receiver.finished and receiver.update_due and",
        "if False and",
    ),
    "an acknowledgement of everything takes a timeout back": (
        Undo.advanced,
        "sack and late > 0 and not everything",
        "sack and late > 0",
    ),
    "what arrives before anything was sent again is no sign": (
        Undo.advanced,
        "spurious = late > 0 and (sack or everything)",
        "return False",
    ),
    "without SACK a part tells of the rest": (Undo.advanced, "late > 0 and (sack or everything)", "late > 0"),
    "a lost probe that arrives was the original": (
        Scoreboard.acknowledge,
        "                elif segment.transmissions == 1:\n                    late += 1\n",
        "                else:\n                    late += 1\n",
    ),
    "acknowledgements byte by byte allow a burst": (
        ProportionalRateReduction.acknowledged,
        "(min(mss, delivered) if good else 0)",
        "(mss if good else 0)",
    ),
    "what one acknowledgement of a burst allowed is forgotten": (
        ProportionalRateReduction.acknowledged,
        "unused = max(self.budget, 0)",
        "unused = 0",
    ),
    "what was SACKed before counts as in flight": (
        Sender._begin_recovery,
        "self._prr.begin(outstanding)",
        "self._prr.begin(in_flight)",
    ),
    "slow start forgets to look at the round trip": (
        Cubic.handle_undo,
        "self._epoch, self._hystart,\n",
        "self._epoch, _,\n",
    ),
    "Nagle holds back the end": (Sender._take_new, "in_flight and not self.fin:", "in_flight:"),
    "Nagle waits for nothing": (
        Sender._take_new,
        "if not self.nodelay and in_flight and not self.fin:",
        "if not self.nodelay and not self.fin:",
    ),
    "windows open however tight it is": (Receiver._rightmost, "if self._memory.level == FREE:", "if True:"),
    "what was granted is taken however full it is": (
        TcpConnection._take_payload,
        "if self._memory.level == FULL and",
        "if False and",
    ),
    "writers are not told of memory": (TcpConnection.relieve, "self._changed = True", "pass"),
    "a block marks what it only touches": (
        Scoreboard._whole,
        "            end = segments[last].start\n",
        "            end = segments[last].end\n",
    ),
    "a block marks what begins before it": (
        Scoreboard._whole,
        "        start = segments[at].start\n",
        "        at = max(at - (segments[at].start > start), self._head)\n        start = segments[at].start\n",
    ),
    "ranges of pieces are kept": (Scoreboard.sack, "start, end = self._whole(start, end)", "pass"),
    "a FIN into a closed window": (Sender._take_new, " and self.window > self.nxt - self.una", ""),
    "a FIN alone needs room": (TcpConnection._acceptable, "if seq == end - bool(flags & FIN):", "if seq == end:"),
    "an answer with a closed window is no answer": (
        Sender._update_window,
        "self._timer is Timer.PERSIST or not (window and self.window)",
        "self._timer is Timer.PERSIST",
    ),
    "an opened window waits for the timer": (Sender.handle_ack, "if opened and self.una < self.nxt:", "if False:"),
    "an orphan lives for ever": (
        TcpConnection.handle_timeout,
        "if self._closed_by_owner and not sender.window and",
        "if False and",
    ),
    "windows from ahead are believed": (
        TcpConnection._handle_outside,
        "0 <= receiver.nxt - seq <= max(",
        "abs(receiver.nxt - seq) <= max(",
    ),
    "anything heard is the peer": (
        TcpConnection._handle_outside,
        "        receiver = self.receiver\n",
        "        receiver = self.receiver\n        self._hear(seq, timestamps, now)\n",
    ),
    "a repeated SYN counts as a try": (
        TcpConnection._repeat_syn_ack,
        "self._network.emit(self._model)",
        "self._try_handshake(now)",
    ),
    "a repeated SYN is answered each time": (
        TcpConnection._repeat_syn_ack,
        "if now - self._handshake_repeated_at >= _REPEAT_INTERVAL:",
        "if True:",
    ),
    "the last acknowledgement of a burst counts, not the newest": (
        TcpConnection.handle_packets,
        "if advance > best or (advance == best and (best_window >= 0 or window != window_field)):",
        "if True:",
    ),
    "old windows are believed": (
        Sender._update_window,
        "if ack > una or (ack == una and (self.wl1 < seq or (self.wl1 == seq and self.wl2 <= ack))):",
        "if True:",
    ),
    "windows of what was sent again are not heard": (
        Sender._update_window,
        "if ack > una or (ack == una and (",
        "if ((",
    ),
    "windows of what acknowledges less are believed": (
        Sender._update_window,
        "(ack == una and (self.wl1 < seq or",
        "(ack <= una and (self.wl1 < seq or",
    ),
    "no backoff": (RetransmissionTimeout.expire, "self.backoff += 1", "pass"),
    "backoff for ever": (RetransmissionTimeout.progress, "self.backoff = 0", "pass"),
    "retransmissions give samples": (Sender.handle_ack, "if not ambiguous:", "if sample is not None:"),
    "no tail loss probe": (Sender._arm, "if probe < delay:", "if False:"),
    "the probe's repair is free": (
        Sender._judge_probe,
        "                self.congestion.handle_loss(in_flight, now)\n",
        "",
    ),
    "a pacer that is due for ever": (TcpConnection.flush, "            sender.pacer.due = inf\n", "            pass\n"),
    "every probe is a loss": (Sender._judge_probe, "not self._tail_resent or duplicate or", "False and"),
    "lost retransmissions wait for the timer": (Scoreboard.detect_losses, "while resent:", "while False:"),
    "no reordering window": (Rack.tolerance, "return min(self._multiplier * min_rtt / 4, srtt)", "return 0.0"),
    "reordering is never seen": (Scoreboard.fills, "                return True\n", "                return False\n"),
    "a reordering window with three SACKed": (Rack.tolerance, "if not self.reordering and", "if False and"),
    "recovery in one burst": (
        ProportionalRateReduction.acknowledged,
        "self._delivered * min(threshold, self._flight) // self._flight",
        "self._delivered * 4",
    ),
    "recovery stalls": (
        ProportionalRateReduction.acknowledged,
        "self.budget = max(budget, 0 if self._out else mss)",
        "self.budget = 0",
    ),
    "no Eifel": (Undo.advanced, "return spurious", "return False"),
    "every timeout was for nothing": (
        Undo.advanced,
        "        if spurious:\n            self.active = False\n        return spurious",
        "        return True",
    ),
    "no undo by DSACK": (
        Undo.duplicate,
        "        if self._duplicates_due:\n            return False\n",
        "        return False\n",
    ),
    "what waits behind a hole is never told": (
        AckSchedule.behind_hole,
        "self.deadline = min(self.deadline, now + _COMPRESSION)",
        "pass",
    ),
    "duplicates are not reported": (Receiver._note_duplicate, "duplicates.append((start, end))", "pass"),
    "only one duplicate of a burst is reported": (
        Receiver.take_sack_blocks,
        "[[duplicate] for duplicate in duplicates] + ",
        "",
    ),
    "no limited transmit": (Sender.take_segments, "budget += self._duplicates * self.mss", "pass"),
    "what no acknowledgement can tell is noted for ever": (
        TcpConnection._send_ack,
        "            receiver.drop_report()\n",
        "",
    ),
    "a hole that is filled leaves its news": (
        Receiver.insert,
        "            self._news.clear()\n",
        "            pass\n",
    ),
    "data carries what without SACK only duplicates tell": (
        TcpConnection._send_segments,
        "if not (receiver.has_report if self.sender.sack else self._acks.early):",
        "if True:",
    ),
    "crumbs cost their bytes": (
        TcpConnection._account,
        "receiver.held + sender.buffered_cost",
        "receiver.queued + receiver.early + sender.buffered_cost",
    ),
    "crumbs without a limit of their own": (
        Receiver._keep,
        "count * _PIECE_COST > self.early + _MAX_OVERHEAD or ",
        "",
    ),
    "small segments cost their bytes": (
        TcpConnection._account,
        "held += sender.flight_cost",
        "held += sender.nxt - sender.una",
    ),
    "control by rate without SACK": (
        TcpConnection.set_congestion,
        "if self.connected and not self.sender.sack and",
        "if False and",
    ),
    "what was overtaken says nothing": (
        TcpConnection._handle_data,
        "self._take_overtaken(seq, wire_ack, flags, blocks, timestamps, now)",
        "False",
    ),
    "the window of what was overtaken is believed": (TcpConnection._take_overtaken, "sender.wl1 - 1", "seq"),
    "whatever is old is taken for overtaken": (
        TcpConnection._take_overtaken,
        " or age > sender.rto.value * _OVERTAKEN",
        "",
    ),
    "old acknowledgements are answered without limit": (
        TcpConnection._handle_data,
        "                    self._acks.challenge(now)\n                return\n            # PAWS",
        "                    self._acks.due = True\n                return\n            # PAWS",
    ),
    "progress leaves the reason why there was none": (
        TcpConnection._take_ack,
        "            self._soft_error = None\n",
        "",
    ),
    "SYNs of nobody keep everybody out": (
        TcpListener.has_room,
        "now - next(iter(self.half_open.values())) >= _PATIENCE",
        "False",
    ),
    "many at once reset each other": (
        TcpListener.has_room,
        "now - next(iter(self.half_open.values())) >= _PATIENCE",
        "True",
    ),
    "sequence numbers without a clock": (Numbering.initial_sequence, "int(now * 250_000) + ", ""),
    "sequence numbers by a clock alone": (Numbering.initial_sequence, ' + self._hash(b"isn", key)', ""),
    "a clock of milliseconds": (Numbering.initial_sequence, "now * 250_000", "now * 1000"),
    "all timestamps by one clock": (Numbering.timestamp_offset, 'self._hash(b"ts", key) & MASK', "0"),
    "timestamps tell sequence numbers": (Numbering.timestamp_offset, 'b"ts"', 'b"isn"'),
    "ports from one counter": (
        Numbering.port,
        'bucket = self._hash(b"bucket", destination) % _BUCKETS',
        "bucket = offset = 0",
    ),
    "one counter behind every hash": (
        Numbering.port,
        'bucket = self._hash(b"bucket", destination) % _BUCKETS',
        "bucket = 0",
    ),
    "PAWS believes everything": (
        TcpConnection._handle_data,
        "and later_timestamp(self._ts_recent, timestamps[0])\n",
        "and False\n",
    ),
    "challenges without limit": (
        AckSchedule.challenge,
        "if now - self._challenged_at >= self._challenge_interval:",
        "if True:",
    ),
    "RST answers RST": (TimeWaitTable.handle_segment, "segment.flags & RST or ", ""),
    "delayed for ever": (AckSchedule.decide, "self.deadline = now + self._delay", "pass"),
    "an ACK for each segment only": (
        AckSchedule.decide,
        "self._unacked >= 2 * min(mss, self._whole) or self._quick",
        "False",
    ),
    "whole segments are as long as the link takes": (AckSchedule.decide, "2 * min(mss, self._whole)", "2 * mss"),
    "whole segments are short": (AckSchedule.received, "self._whole = segment", "pass"),
    "a burst after a loss is told once": (
        AckSchedule.arriving,
        "self._stop_before, self._stop = self._stop, position",
        "pass",
    ),
    "a loss is never forgotten": (AckSchedule.lossy, "position + _CAREFUL", "1 << 62"),
    "an odd segment counts for ever": (AckSchedule.carried, "self._odd = False", "pass"),
    "what data said is said again": (TcpConnection._send_segments, "self._acks.carried()", "pass"),
    "earlier acknowledgements instead of the last one": (
        TcpConnection._send_ack,
        " and self._network.has_room(credit=False)",
        "",
    ),
    "a duplicate is no sign of loss": (
        TcpConnection._handle_outside,
        "            self._acks.lossy(self.receiver.nxt)\n",
        "",
    ),
    "an earlier acknowledgement takes some window back": (
        TcpConnection._send_ack,
        "receiver.edge - stop",
        "receiver.edge - receiver.nxt",
    ),
    "earlier acknowledgements that do not tell of a hole": (
        TcpConnection._send_ack,
        "not receiver.has_holes and ",
        "",
    ),
    "unread data closed in silence": (TcpConnection.close, "elif unread:", "elif False:"),
    "the newest block is not the first": (
        Receiver._take_sack_blocks,
        "for point in reversed(self._news):",
        "for point in self._news:",
    ),
    "soft errors kill": (TcpConnection.handle_icmp_error, "if self.state in HANDSHAKE:", "if True:"),
    "segments without a least size": (
        TcpConnection.set_path_mss,
        "max(mss, min(_LEAST_MSS, self._network.link_mss(self)))",
        "mss",
    ),
    "a size that somebody else found is for life": (
        TcpConnection._establish,
        "self._path_probe_at = max(known_until if known_until < inf else 0.0, now)",
        "pass",
    ),
    "a guess is a fact": (
        TcpConnection._learn_path,
        "self._network.learn_mss(self, self.path_mss, sure=False)",
        "self._network.learn_mss(self, self.path_mss, sure=True)",
    ),
    "what a guess was before is a fact": (
        TcpConnection._suspect_black_hole,
        "if not self._path_untested and not self._path_doubt:",
        "if not self._path_untested:",
    ),
    "what others doubt is no fact": (
        TcpConnection._suspect_black_hole,
        "and not self._path_doubt:",
        "and not self._network.path_doubt(self):",
    ),
    "one lost probe proves it": (
        TcpConnection._refuse_probe,
        "self._path_doubt = self._path_doubt - 1 if left is None else left",
        "self._path_doubt = 0",
    ),
    "each connection needs its own proof": (PathMtus.refuse, "doubt - 1)", "doubt)"),
    "datagrams go by guesses": (Stack.mtu_to, "guesses=False", "guesses=True"),
    "a larger segment goes alone": (Sender._may_probe, "behind = self.mss if", "behind = 0 if"),
    "what was overtaken is a duplicate": (Sender._take_blocks, "end <= ack or", "end <= una or"),
    "a guess is not tried at once": (
        TcpConnection._learn_path,
        "            self._probe_path(now)\n        elif not size",
        "        elif not size",
    ),
    "the SYN tells what others found": (
        TcpConnection._send_syn,
        "segment.mss = self._network.link_mss(self)",
        "segment.mss = self.path_mss",
    ),
    "a closed window is a black hole": (TcpConnection._suspect_black_hole, "if not sender.window:", "if False:"),
    "a router's word is for one connection": (
        Stack._learn_mtu,
        "if connection.remote[0] == remote and",
        "if connection is teller and",
    ),
    "routers make packets larger": (PathMtus.learn, "if mtu <= self.to(remote, mtu, now, guesses=False):", "if True:"),
    "any port hears of any host": (LargeSends.explain, "self._sizes.get(remote, 0)", "1500"),
    "what fits is sent again": (Scoreboard.lose_larger, "whole > size and", "True and"),
    "a lost probe without SACK is congestion": (
        Sender._detect_losses,
        "                self._retransmit_now = True\n                found = False\n",
        "                self._retransmit_now = True\n",
    ),
    "retries without end": (Sender.expired, "return self.retries >= most and", "return False and"),
    "no keepalive limit": (
        TcpConnection._handle_keepalive,
        "            self._end(self._soft_error or os_error(errno.ETIMEDOUT))\n            return\n",
        "            pass\n",
    ),
    "the user's patience is not asked": (
        Sender.expired,
        "return now - self.stalled_since >= self.user_timeout",
        "return False",
    ),
}

def plant(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    method, old, new = defect
    source = "if True:\n" + inspect.getsource(method)
    assert source.count(old) == 1, "the defect no longer fits the code"
    module = sys.modules[method.__module__]
    owner, _, attribute = method.__qualname__.rpartition(".")
    namespace: dict[str, object] = {}
    exec("from __future__ import annotations\n" + source.replace(old, new), vars(module), namespace)
    monkeypatch.setattr(getattr(module, owner), attribute, namespace[attribute])


def test_every_defect_fits_the_code() -> None:
    """In the ordinary run, so that whoever changes the code hears of it."""
    for name, (method, old, _) in (MACHINE | SCENARIOS).items():
        assert inspect.getsource(method).count(old) == 1, name
    assert not MACHINE.keys() & SCENARIOS.keys()


def plant_nothing(defects: dict[str, Defect], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method that has a defect is made anew from its source, as it is."""
    for method, old, _ in defects.values():
        plant((method, old, old), monkeypatch)


#: The same examples each time, so that what the control says holds for the defects.
SEARCH = settings(
    max_examples=800,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.mutants
def test_without_a_defect_the_machine_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with nothing but the planting, all examples pass. Otherwise a failure that is always there would
    count for every defect."""
    plant_nothing(MACHINE, monkeypatch)
    run_state_machine_as_test(TcpMachine, settings=SEARCH)


@pytest.mark.mutants
@pytest.mark.parametrize("name", MACHINE)
def test_the_machine_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(MACHINE[name], monkeypatch)
    with pytest.raises((AssertionError, LookupError, TypeError, ValueError, OSError, ExceptionGroup)):
        run_state_machine_as_test(TcpMachine, settings=SEARCH)


MODULES = (
    test_congestion,
    test_numbering,
    test_tcp_ack_losses,
    test_tcp_listeners,
    test_tcp_overtaken,
    test_tcp_without_sack,
    test_tcp_attacks,
    test_tcp_closed_window,
    test_tcp_recovery,
    test_tcp_scenarios,
    test_tcp_memory,
    test_tcp_path_mtu,
    test_tcp_paths,
)


def scenarios(*modules: ModuleType) -> Iterator[Callable[[], None]]:
    """The dialogues that take no argument."""
    for module in modules:
        for name, function in vars(module).items():
            if name.startswith("test_") and not inspect.signature(function).parameters:
                yield function


@pytest.mark.mutants
def test_without_a_defect_every_scenario_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, as for the machine."""
    plant_nothing(SCENARIOS, monkeypatch)
    played = 0
    for scenario in scenarios(*MODULES):
        scenario()
        played += 1
    assert played > 100


@pytest.mark.mutants
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(SCENARIOS[name], monkeypatch)
    found = None
    for scenario in scenarios(*MODULES):
        try:
            scenario()
        except (AssertionError, LookupError, TypeError, ValueError, OSError, pytest.fail.Exception) as exc:
            found = exc
            break
    assert found is not None, "nobody noticed"
