"""PUSH_UPDATE: what it may change, and how the list of options is edited."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.push import PushAssembler, apply_update, negotiate, parse_push
from minivpn_trio.config.push_update import UPDATABLE
from minivpn_trio.config.pushed import MAX_OPTIONS
from minivpn_trio.errors import ConnectError

CONFIG = TunnelConfig(remotes=(Remote("vpn.example.net"),))
PUSHED = (
    "ifconfig 10.8.0.2 255.255.255.0",
    "route 10.1.0.0 255.255.0.0",
    "route 10.2.0.0 255.255.0.0",
    "dhcp-option DNS 10.8.0.1",
    "ping 10",
    "ping-restart 60",
    "redirect-gateway def1",
    "cipher AES-256-GCM",
    "peer-id 3",
)


def after(*update: str, config: TunnelConfig = CONFIG, pushed: tuple[str, ...] = PUSHED) -> tuple[str, ...]:
    """The options after an update, less those that it left as they were."""
    return tuple(option for option in apply_update(config, pushed, update).options if option not in PUSHED)


def gone(*update: str) -> set[str]:
    """The options that an update removed or replaced."""
    return set(PUSHED) - set(apply_update(CONFIG, PUSHED, update).options)


def test_the_first_of_a_kind_replaces_and_the_others_add() -> None:
    update = ("route 10.3.0.0 255.255.0.0", "tun-mtu 1400", "route 10.4.0.0 255.255.0.0")
    assert after(*update) == update
    assert gone(*update) == {PUSHED[1], PUSHED[2]}


def test_removing() -> None:
    assert gone("-route") == {PUSHED[1], PUSHED[2]}
    assert gone("-dhcp-option", "-ifconfig") == {PUSHED[3], PUSHED[0]}
    assert gone("-tun-mtu") == set()  # there was none
    assert after("-route", "route 10.3.0.0 255.255.0.0") == ("route 10.3.0.0 255.255.0.0",)


def test_kinds_with_several_names() -> None:
    assert gone("keepalive 5 30") == gone("-keepalive") == {"ping 10", "ping-restart 60"}
    assert gone("redirect-private") == {"redirect-gateway def1"}


@pytest.mark.parametrize("name", sorted(UPDATABLE))
def test_whatever_may_change_may_be_removed_and_marked(name: str) -> None:
    for text in (f"-{name}", f"-?{name}"):
        assert name not in {option.split()[0] for option in apply_update(CONFIG, PUSHED, [text]).options}


@pytest.mark.parametrize(
    "option",
    [
        "cipher AES-128-GCM",
        "-cipher",
        "peer-id 4",
        "auth-token x",
        "setenv A b",
        "up /bin/sh",
        "remote 10.7.7.7",
        "x",
        "-",
    ],
)
def test_what_cannot_change_needs_a_new_tunnel_unless_it_is_optional(option: str) -> None:
    with pytest.raises(ConnectError):
        apply_update(CONFIG, PUSHED, [option])
    dash = option.startswith("-")
    updated = apply_update(CONFIG, PUSHED, ["-?" + option[1:] if dash else "?" + option])
    assert updated.options == PUSHED
    assert updated.warnings
    assert not any(value in updated.warnings[0] for value in option.split()[1:])


def test_marks_in_the_wrong_order_are_no_option() -> None:
    assert apply_update(CONFIG, PUSHED, ["?-route"]).options == PUSHED
    with pytest.raises(ConnectError):
        apply_update(CONFIG, PUSHED, ["--route"])


@pytest.mark.parametrize("option", ["ifconfig nonsense", "tun-mtu 1", "route 1.2.3.4 0.255.0.0", 'dns "', "dns x"])
def test_nonsense_replaces_nothing(option: str) -> None:
    updated = apply_update(CONFIG, PUSHED, [option])
    assert updated.options == PUSHED
    assert updated.warnings


def test_pull_filters_see_the_option_without_its_marks() -> None:
    config = replace(CONFIG, pull_filters=(("ignore", "route "), ("reject", "tun-mtu")))
    assert after("route 10.3.0.0 255.255.0.0", "?route 10.4.0.0 255.255.0.0", config=config) == ()
    with pytest.raises(ConnectError, match="pull-filter"):
        apply_update(config, PUSHED, ["-?tun-mtu"])


def test_an_endless_update_is_refused() -> None:
    with pytest.raises(ConnectError):
        apply_update(CONFIG, PUSHED, ["route 10.3.0.0 255.255.0.0"] * (MAX_OPTIONS + 1))


def test_the_messages_of_an_update_are_put_together() -> None:
    assembler = PushAssembler("PUSH_UPDATE")
    assert assembler.add("PUSH_UPDATE,-route,push-continuation 2") is None
    assert assembler.add("PUSH_UPDATE,?tun-mtu 1400,push-continuation 1") == ["-route", "?tun-mtu 1400"]
    with pytest.raises(ConnectError):
        assembler.add("PUSH_REPLY,route 10.0.0.0")


WORDS = st.sampled_from(
    [*UPDATABLE, "cipher", "frobnicate", "-", "?", "10.0.0.0", "255.0.0.0", "1400", '"', "\\", "x y"]
)


@given(st.lists(st.lists(WORDS | st.text(max_size=12), max_size=4).map(" ".join), max_size=12))
def test_any_update_is_applied_or_refused_and_can_be_followed(update: list[str]) -> None:
    try:
        updated = apply_update(CONFIG, PUSHED, update)
    except ConnectError:
        return
    again = apply_update(CONFIG, updated.options, [])
    assert again.options == updated.options
    pushed = parse_push(updated.options)
    assert not pushed.unusable
    assert (pushed.cipher, pushed.peer_id) == ("AES-256-GCM", 3)
    negotiate(CONFIG, pushed, transport="udp", remote_address=None, occ_cipher=None, tls_version="TLSv1.3")
