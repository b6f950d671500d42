"""The reliability machine can fail: each of these defects, planted one at a time, is found by it.

A defect is a replacement in the source of one method. Most are errors that real implementations of
this protocol had.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_reliable_machine import ReliableMachine

from minivpn_trio.reliable.acks import AckQueue
from minivpn_trio.reliable.conversation import Conversation
from minivpn_trio.reliable.receiver import Receiver
from minivpn_trio.reliable.sender import Sender
from minivpn_trio.reliable.transport import ReliableTransport

DEFECTS = {
    "send window of 7": (Sender._admit, ">= SEND_WINDOW", "> SEND_WINDOW"),
    "send window counted in messages, not ids": (
        Sender._admit,
        "self._next_id - oldest >= SEND_WINDOW",
        "len(self._window) >= SEND_WINDOW",
    ),
    "messages before the peer's reset": (Sender._admit, "self._released or self._next_id == 0", "True"),
    "receive window of 13": (Receiver.judge, ">= self._next_id + RECEIVE", "> self._next_id + RECEIVE"),
    "acknowledged before it was stored": (
        Conversation.handle_packet_untrusted,
        "raise ProtocolError(DropReason.OUT_OF_WINDOW",
        "self.acks.add(packet.packet_id, now); raise ProtocolError(DropReason.OUT_OF_WINDOW",
    ),
    "duplicates not acknowledged": (
        Conversation.handle_packet_untrusted,
        "        self.acks.add(",
        "        if verdict is Verdict.NEW: self.acks.add(",
    ),
    "what was delivered is stored again": (Receiver.judge, "packet_id < self._next_id or ", ""),
    "the second of two with one id counts": (Receiver.accept, "is Verdict.NEW", "is not Verdict.OUT_OF_WINDOW"),
    "what nobody took is forgotten": (
        ReliableTransport.deliver,
        "if not offer(segments):",
        "if offer(segments) is None:",
    ),
    "fast resend not counted anew": (Sender.poll, "message.later_acks = 0", "pass"),
    "fast resend after two": (Sender.handle_acks, ">= FAST_RESEND_ACKS", ">= FAST_RESEND_ACKS - 1"),
    "no fast resend": (Sender.handle_acks, ">= FAST_RESEND_ACKS", ">= 99"),
    "repeated acknowledgements count again": (
        Sender.handle_acks,
        "            if message is None or message.attempt == 0:\n                continue\n"
        "            del self._window[packet_id]",
        "            if message is not None and message.attempt: del self._window[packet_id]",
    ),
    "what was not sent can be acknowledged": (
        Sender.handle_acks,
        "message is None or message.attempt == 0",
        "not message",
    ),
    "no backoff": (Sender.poll, "message.timeout * 2", "message.timeout"),
    "backoff without end": (Sender.poll, "min(message.timeout * 2, MAX_TIMEOUT)", "message.timeout * 2"),
    "no burst at the first reply": (Conversation.handle_packet_untrusted, "self.opened and not self._heard", "False"),
    "a burst at every reply": (Conversation.handle_packet_untrusted, "self._heard = True", "pass"),
    "no repetition of acknowledgements": (AckQueue.take, "tuple(self._recent[:limit])", "tuple(fresh)"),
    "the oldest acknowledgements repeated": (AckQueue.take, "(fresh + [old for", "([old for"),
    "eight acknowledgements beside a message": (
        Conversation.poll_transmit,
        "min(ACKS_IN_CONTROL, self._ack_limit)",
        "8",
    ),
    "acknowledgements that found no room are lost": (AckQueue.take, "            if not self._pending:\n    ", ""),
    "a ninth acknowledgement": (AckQueue.add, ">= ACK_QUEUE_SIZE", "> ACK_QUEUE_SIZE"),
    "the reset acknowledged alone at once": (
        Conversation.handle_packet_untrusted,
        "now + self._settings.ack_hold",
        "now",
    ),
    "the reset never acknowledged alone": (
        Conversation.poll_transmit,
        "self.acks.due <= now",
        "self.acks.due < now - 1",
    ),
    "acknowledgements are acknowledged": (
        Conversation.handle_packet_untrusted,
        "            return\n",
        "            self.acks.add(0, now); return\n",
    ),
    "any soft reset accepted": (ReliableTransport._opens_conversation, "packet.key_id == self._expected", "True"),
    "the hard reset opens again": (ReliableTransport._begin, "self._hard_reset_seen = True", "pass"),
    "a second OpenKey sends a second reset": (Conversation.open, "if not self.opened", "if True"),
    "a retired key lives on": (ReliableTransport.submit, "if item.key_id in self._conversations", "if False"),
    "a queue without end": (ReliableTransport.can_submit.fget, "< MAX_QUEUED", "< 100000"),
    "resets without their place": (
        ReliableTransport._handle_packet_untrusted,
        "check_packet_untrusted(packet, self._settings.role)",
        "pass",
    ),
}


Defect = tuple[Callable[..., object] | None, str, str]

#: The same examples each time, so that what the control says holds for the defects.
SEARCH = settings(
    max_examples=400,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def plant(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    method, old, new = defect
    assert method is not None
    source = "if True:\n" + inspect.getsource(method)
    assert source.count(old) == 1, "the defect no longer fits the code"
    module = sys.modules[method.__module__]
    owner, _, attribute = method.__qualname__.rpartition(".")
    namespace: dict[str, object] = {}
    exec(source.replace(old, new), vars(module), namespace)
    monkeypatch.setattr(getattr(module, owner), attribute, namespace[attribute])


@pytest.mark.mutants
def test_without_a_defect_the_machine_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with nothing but the planting, all examples pass. Otherwise a failure that is always there would
    count for every defect."""
    for method, old, _ in DEFECTS.values():
        plant((method, old, old), monkeypatch)
    run_state_machine_as_test(ReliableMachine, settings=SEARCH)


@pytest.mark.parametrize("name", DEFECTS)
def test_the_machine_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(DEFECTS[name], monkeypatch)
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception, ExceptionGroup)):
        run_state_machine_as_test(ReliableMachine, settings=SEARCH)
