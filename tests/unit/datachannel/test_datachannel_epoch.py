"""The epoch data format: derivation, packets, epochs that come and go, limits.

Known answers are those of OpenVPN's unit tests (tests/unit_tests/openvpn, commit 3de9260): test_crypto.c
(derivation, epoch windows), test_ssl.c (data channel known vectors), test_packet_id.c (epoch packet
ids), and RFC 5869, appendix A.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from minivpn_trio.datachannel import epoch as epoch_module
from minivpn_trio.datachannel.aead import AES_GCM_LIMIT
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.epoch import (
    COUNTER_MASK,
    EPOCH_TRIGGER,
    LAST_EPOCH,
    LAST_SENT_EPOCH,
    EpochKey,
    EpochOpener,
    EpochReplay,
    EpochSealer,
    expand_label,
    hkdf_expand,
    next_secret,
)
from minivpn_trio.datachannel.limits import FAILURE_LIMIT, FAILURE_TRIGGER
from minivpn_trio.errors import DropReason
from minivpn_trio.items import DataChannelKey
from minivpn_trio.packet.ids import KeyID, Role
from tests.unit.datachannel.data_keys import ipv4, make_pair

PACKET = ipv4(b"payload")
HEADER = bytes.fromhex("48000017")


def epochs(wires: list[bytes]) -> list[int]:
    return [int.from_bytes(wire[4:6], "big") for wire in wires]


def counters(wires: list[bytes]) -> list[int]:
    return [int.from_bytes(wire[6:12], "big") for wire in wires]


def make_ends(cipher: str = "AES-128-GCM", *, future: int = 4) -> tuple[EpochSealer, EpochOpener]:
    """One direction. The sealer's peer never says anything."""
    slot = random.Random(3).randbytes(64)
    silent = EpochOpener(cipher, bytes(64))
    return EpochSealer(cipher, slot, HEADER, silent), EpochOpener(cipher, slot, future=future)


def opened(opener: EpochOpener, wires: list[bytes]) -> tuple[list[bytes], Counter[DropReason]]:
    drops: Counter[DropReason] = Counter()
    ids, texts = opener.open_run_untrusted(wires, 4, drops)
    assert len(ids) == len(texts)
    return texts, drops


class TestDerivation:
    @pytest.mark.parametrize(
        ("secret", "info", "answer"),
        [
            (
                "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
                "f0f1f2f3f4f5f6f7f8f9",
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
                bytes(range(0xB0, 0x100)).hex(),
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
                "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
            (
                "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
                "",
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ],
    )
    def test_hkdf_expand(self, secret: str, info: str, answer: str) -> None:
        """RFC 5869, A.1 to A.3."""
        assert hkdf_expand(bytes.fromhex(secret), bytes.fromhex(info), len(answer) // 2).hex() == answer

    def test_expand_label(self) -> None:
        secret = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
        assert expand_label(secret, b"unit test", 16).hex() == "185eaa1c7f228ab8eb29773214d92046"
        longer = "875a8eec18556380b8d933ed323c2df8e8eccf4972e683f06a83ac"
        assert expand_label(secret, b"unit test", 27).hex() == longer

    def test_a_data_key(self) -> None:
        """epoch_test_derive_data_key: epoch 17 of AES-192-GCM."""
        secret = bytes([19, 12]) + bytes(30)
        assert expand_label(secret, b"data_key", 24).hex() == "ed8533db1c28ace418e9006ab29c17417d60ebe6cd90bf0a"
        assert f"{EpochKey('AES-192-GCM', 17, secret).mask:024x}" == "86890aabf032cb59f4cfa34e"

    def test_the_fourth_epoch(self) -> None:
        """The chain behind test_ssl.c's packet, as computed from its inputs."""
        secret = bytes(b"abcdefgh01234567ABCDEFGHjkuchenl"[i] ^ i for i in range(32))
        for _ in range(3):
            secret = next_secret(secret)
        assert secret.hex() == "10f7f2bf8543e6492f6915fa82457fae6144709679d5dfbd219c495f75e717b5"
        wanted = "137f8871a9f6a8b1688128ac5e82f2d87d611e4b3aab98180bb9fcdd9e2a223b"
        assert expand_label(secret, b"data_key", 32).hex() == wanted
        assert expand_label(secret, b"data_iv", 12).hex() == "b2e7dce36da8d32f22b97da8"


class TestPackets:
    #: test_ssl.c, test_data_channel_known_vectors_run with epochs: the send key was moved on three times.
    KEY2 = bytes(b"abcdefgh01234567ABCDEFGHjkuchenl"[i % 32] ^ i for i in range(256))
    TEXT = b"The quick little fox jumps over the bureaucratic hurdles"
    WIRE = bytes.fromhex(
        "0700001700040000000000016eacea349ca836aab4d49ce685399a9bab964526e9cd11ece8cb7d77bdbc5c6ac4f49f36"
        "ea02e9c1f5d97644afa9118ba9f9a892623f1a130ffff5913d39d75b18573b5748589a7d"
    )

    def test_openvpns_packet_is_sealed(self) -> None:
        sealer = EpochSealer("AES-256-GCM", self.KEY2, bytes.fromhex("07000017"), EpochOpener("AES-256-GCM", bytes(64)))
        sealer.advance(4)
        assert sealer.seal_burst(1, [self.TEXT]) == [self.WIRE]

    def test_openvpns_packet_is_opened(self) -> None:
        texts, drops = opened(EpochOpener("AES-256-GCM", self.KEY2), [self.WIRE])
        assert texts == [self.TEXT]
        assert not drops

    def test_openvpn3s_packet(self) -> None:
        """test_crypto.cpp: the same text in epoch 1."""
        sealer = EpochSealer("AES-256-GCM", self.KEY2, bytes.fromhex("07000017"), EpochOpener("AES-256-GCM", bytes(64)))
        (wire,) = sealer.seal_burst(1, [self.TEXT])
        assert wire[:12].hex() == "070000170001000000000001"
        assert wire[-16:].hex() == "a0b54cdd93ff0b01a3265ecf19d56a06"
        assert wire[4:][14:20].hex() == "8e455addd90e"

    @pytest.mark.parametrize(
        ("epoch", "sent", "wanted"),
        [
            (0x23, 0, "0023000000000001"),
            (0xFFFE, 0xFA079AB9D2E8, "fffefa079ab9d2e9"),
            (0xF00F, 0xFFFFFFFFFFFE, "f00fffffffffffff"),
        ],
    )
    def test_packet_ids(self, monkeypatch: pytest.MonkeyPatch, epoch: int, sent: int, wanted: str) -> None:
        """test_packet_id.c, test_packet_id_write_epoch. Epochs are nothing but numbers here: deriving that
        many would take seconds."""
        monkeypatch.setattr(epoch_module, "next_secret", lambda secret: secret)
        sealer, _ = make_ends()
        sealer.advance(epoch)
        (wire,) = sealer.seal_burst(sent + 1, [b"x"])
        assert wire[4:12].hex() == wanted

    def test_all_ciphers_both_ways(self) -> None:
        for cipher in ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305"):
            client, server = make_pair(cipher=cipher, epoch=True)
            burst = [ipv4(bytes(size)) for size in (0, 1, 100, 1400)]
            wires = client.encrypt_burst(burst, 0.0)
            assert [len(wire) - len(packet) for wire, packet in zip(wires, burst, strict=True)] == [28] * 4
            assert server.decrypt_burst(wires, 0.0) == burst
            assert client.decrypt_burst(server.encrypt_burst(burst, 0.0), 0.0) == burst
            assert not client.drops
            assert not server.drops

    def test_too_short_by_a_byte(self) -> None:
        sealer, opener = make_ends()
        (wire,) = sealer.seal_burst(1, [b"x"])
        texts, drops = opened(opener, [wire[:28], wire, wire[:11], b"\x48"])
        assert texts == [b"x"]
        assert drops == {DropReason.TOO_SHORT: 3}

    def test_the_peer_id_is_authenticated(self) -> None:
        sealer, opener = make_ends()
        (wire,) = sealer.seal_burst(1, [b"x"])
        assert opened(opener, [wire[:3] + b"\x00" + wire[4:]]) == ([], {DropReason.BAD_AUTHENTICATION: 1})

    def test_there_is_no_data_v1(self) -> None:
        client, server = make_pair(epoch=True)
        (wire,) = client.encrypt_burst([PACKET], 0.0)
        assert server.decrypt_burst([bytes([6 << 3]) + wire[4:]], 0.0) == []
        assert server.drops == {DropReason.UNEXPECTED_OPCODE: 1}


@pytest.mark.parametrize("bad", [{"cipher": "AES-256-CBC"}, {"peer_id": None}])
def test_epochs_need_an_aead_cipher_and_a_peer_id(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="epochs need"):
        make_pair(epoch=True, **bad)


class TestWindow:
    """crypto_test_epoch_key_*: which epochs a receiver knows."""

    def known(self, opener: EpochOpener, *numbers: int) -> list[bool]:
        found = [opener.find(number) for number in numbers]
        assert all(key is None or key.epoch == number for key, number in zip(found, numbers, strict=True))
        return [key is not None for key in found]

    def test_generation(self) -> None:
        """16 future epochs: 2 to 17; after a move to 8, 9 to 24."""
        opener = make_ends(future=16)[1]
        assert self.known(opener, 1, 2, 17, 18) == [True, True, True, False]
        opener.move_to(8)
        assert self.known(opener, 9, 24, 25) == [True, True, False]

    def test_lookup(self) -> None:
        """13 future epochs."""
        opener = make_ends(future=13)[1]
        assert self.known(opener, 2000, 0xFFFF, 0xEFFF, 0) == [False] * 4
        assert self.known(opener, 1, 2, 13, 14, 15) == [True, True, True, True, False]
        opener.move_to(7)
        assert self.known(opener, *range(9)) == [False, True, *[False] * 5, True, True]
        assert opener.retiring is not None
        assert opener.retiring.epoch == 1
        assert self.known(opener, 20, 21, 22) == [True, False, False]
        opener.move_to(8)
        assert self.known(opener, *range(9)) == [False] * 7 + [True, True]
        assert opener.retiring.epoch == 7
        assert self.known(opener, 20, 21, 22, 23) == [True, True, False, False]

    def test_edge(self) -> None:
        """Jumps of 1, 2, ... 13 epochs go, 14 do not."""
        opener = make_ends(future=13)[1]
        for jump in range(1, 14):
            target = opener.current.epoch + jump
            assert self.known(opener, target) == [True]
            opener.move_to(target)
        assert self.known(opener, opener.current.epoch + 14) == [False]

    def test_overflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """32 future epochs: the last epoch to move to is the one before the last 33."""
        monkeypatch.setattr(epoch_module, "next_secret", lambda secret: secret)
        opener = make_ends(future=32)[1]
        while opener.current.epoch < LAST_EPOCH - 64:
            opener.move_to(opener.current.epoch + 31)
        opener.move_to(LAST_EPOCH - 40)
        assert self.known(opener, LAST_EPOCH - 34, LAST_EPOCH - 33) == [True, True]
        assert self.known(opener, LAST_EPOCH - 32, LAST_EPOCH) == [False, False]
        opener.move_to(LAST_EPOCH - 33)
        assert self.known(opener, LAST_EPOCH - 33, LAST_EPOCH - 32, LAST_EPOCH) == [True, False, False]

    def test_what_we_send_last_is_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(epoch_module, "next_secret", lambda secret: secret)
        sealer, opener = make_ends()
        while opener.current.epoch < LAST_SENT_EPOCH:
            opener.move_to(min(opener.current.epoch + 4, LAST_SENT_EPOCH))
        sealer.advance(LAST_SENT_EPOCH)
        assert opened(opener, sealer.seal_burst(1, [b"last"])) == ([b"last"], {})


class TestMoves:
    def test_a_packet_of_the_future_makes_the_receiver_move(self) -> None:
        sealer, opener = make_ends()
        late = sealer.seal_burst(1, [b"a", b"b"])
        sealer.advance(5)
        assert opened(opener, sealer.seal_burst(3, [b"c"])) == ([b"c"], {})
        assert (opener.current.epoch, opener.retiring and opener.retiring.epoch) == (5, 1)
        # The epoch before still opens what comes late ...
        assert opened(opener, late[:1]) == ([b"a"], {})
        sealer.advance(6)
        assert opened(opener, sealer.seal_burst(4, [b"d"])) == ([b"d"], {})
        # ... until there is another one before.
        assert opened(opener, late[1:]) == ([], {DropReason.UNKNOWN_KEY: 1})

    def test_a_forged_packet_of_the_future_does_not(self) -> None:
        sealer, opener = make_ends()
        sealer.advance(2)
        (wire,) = sealer.seal_burst(1, [b"a"])
        assert opened(opener, [wire[:-1] + bytes([wire[-1] ^ 1])]) == ([], {DropReason.BAD_AUTHENTICATION: 1})
        assert opener.current.epoch == 1

    def test_beyond_the_window(self) -> None:
        sealer, opener = make_ends()
        sealer.advance(6)
        assert opened(opener, sealer.seal_burst(1, [b"a"])) == ([], {DropReason.UNKNOWN_KEY: 1})

    def test_one_run_of_several_epochs(self) -> None:
        sealer, opener = make_ends()
        one = sealer.seal_burst(1, [b"1a", b"1b"])
        sealer.advance(2)
        two = sealer.seal_burst(3, [b"2a", b"2b"])
        assert opened(opener, [one[0], two[0], one[1], two[1]]) == ([b"1a", b"2a", b"1b", b"2b"], {})

    def test_counters_begin_anew_and_no_pair_comes_twice(self) -> None:
        sealer, _ = make_ends()
        wires = sealer.seal_burst(1, [b"a", b"b"])
        sealer.advance(2)
        wires += sealer.seal_burst(3, [b"c"])
        sealer.advance(4)
        wires += sealer.seal_burst(4, [b"d", b"e"])
        assert epochs(wires) == [1, 1, 2, 4, 4]
        assert counters(wires) == [1, 2, 1, 1, 2]

    def test_the_sender_follows_its_peer(self) -> None:
        """crypto_test_epoch_key_rotation: a later receive epoch lifts the send epoch, an earlier one does not
        pull it back."""
        client, server = make_pair(epoch=True)
        sealer = server._slots.newest.sealer  # type: ignore[union-attr]
        assert isinstance(sealer, EpochSealer)
        sealer.advance(4)
        assert client.decrypt_burst(server.encrypt_burst([PACKET], 0.0), 0.0) == [PACKET]
        answer = client.encrypt_burst([PACKET], 0.0)
        assert epochs(answer) == [4]
        assert server.decrypt_burst(answer, 0.0) == [PACKET]
        ours = client._slots.newest.sealer  # type: ignore[union-attr]
        assert isinstance(ours, EpochSealer)
        ours.advance(6)
        assert client.decrypt_burst(server.encrypt_burst([PACKET], 0.0), 0.0) == [PACKET]
        assert epochs(client.encrypt_burst([PACKET], 0.0)) == [6]

    def test_replays_across_epochs(self) -> None:
        client, server = make_pair(epoch=True)
        sealer = client._slots.newest.sealer  # type: ignore[union-attr]
        assert isinstance(sealer, EpochSealer)
        one = client.encrypt_burst([PACKET] * 3, 0.0)
        assert len(server.decrypt_burst(one[:2], 0.0)) == 2
        sealer.advance(2)
        two = client.encrypt_burst([PACKET] * 2, 0.0)
        assert len(server.decrypt_burst(two, 0.0)) == 2
        assert server.decrypt_burst([*one[:2], *two], 0.0) == []
        assert server.drops == {DropReason.REPLAY: 4}
        assert server.decrypt_burst([one[2]], 0.0) == [PACKET]


class TestReplayWindow:
    def test_counter_zero_is_invalid(self) -> None:
        replay = EpochReplay(64, 15.0)
        assert not replay.check_and_update(1 << 48, 0.0)
        assert not replay.check_and_update(2 << 48, 0.0)
        assert replay.check_and_update(1 << 48 | 1, 0.0)

    def test_a_run_does_not_cross_epochs(self) -> None:
        replay = EpochReplay(64, 15.0)
        assert replay.check_and_update(1 << 48 | COUNTER_MASK - 2, 0.0)
        assert not replay.accept_run(1 << 48 | COUNTER_MASK - 1, 3, 0.0)
        assert not replay.accept_run(2 << 48 | 1, 3, 0.0)

    def test_epochs_before_the_retiring_one_are_gone(self) -> None:
        replay = EpochReplay(64, 15.0)
        for epoch in (1, 3, 5):
            assert replay.check_and_update(epoch << 48 | 7, 0.0)
        assert not replay.check_and_update(1 << 48 | 8, 0.0)
        assert replay.check_and_update(3 << 48 | 8, 0.0)
        assert not replay.check_and_update(3 << 48 | 8, 0.0)
        assert not replay.check_and_update(4 << 48 | 8, 0.0)


class TestLimits:
    def pair(self, cipher: str = "AES-256-GCM") -> tuple[DataChannel, DataChannel, EpochSealer, EpochOpener]:
        client, server = make_pair(cipher=cipher, epoch=True)
        slot = client._slots.newest
        assert slot is not None
        assert isinstance(slot.sealer, EpochSealer)
        assert isinstance(slot.opener, EpochOpener)
        return client, server, slot.sealer, slot.opener

    @pytest.mark.parametrize(("cipher", "epoch"), [("AES-256-GCM", 2), ("CHACHA20-POLY1305", 1)])
    def test_an_epoch_ends_at_the_ciphers_limit(self, cipher: str, epoch: int) -> None:
        """check_aead_limits: 2^40 blocks end an epoch of GCM, none of ChaCha20."""
        client, server, sealer, _ = self.pair(cipher)
        sealer.key.blocks = 1 << 40
        wires = client.encrypt_burst([PACKET], 0.0)
        assert epochs(wires) == [epoch]
        assert server.decrypt_burst(wires, 0.0) == [PACKET]
        assert client.poll_rekey() is None

    def test_just_below_the_limit_it_does_not(self) -> None:
        client, _, sealer, _ = self.pair()
        sealer.key.blocks = AES_GCM_LIMIT - 1
        assert epochs(client.encrypt_burst([PACKET], 0.0)) == [1]
        assert epochs(client.encrypt_burst([PACKET], 0.0)) == [2]

    def test_an_epoch_ends_with_its_counter(self) -> None:
        """check_aead_limits: at the end of the 48 bits any cipher moves on."""
        client, *_ = self.pair("CHACHA20-POLY1305")
        slot = client._slots.newest
        assert slot is not None
        slot.usage.packets_out = COUNTER_MASK - 2
        wires = client.encrypt_burst([PACKET] * 2, 0.0)
        assert counters(wires) == [COUNTER_MASK - 1, COUNTER_MASK]
        wires = client.encrypt_burst([PACKET] * 2, 0.0)
        assert epochs(wires) == [2, 2]
        assert counters(wires) == [1, 2]

    def test_what_the_peer_has_worn_out_makes_us_lead(self) -> None:
        client, server, _, opener = self.pair()
        opener.current.blocks = AES_GCM_LIMIT
        assert epochs(client.encrypt_burst([PACKET], 0.0)) == [2]
        # Once: it is for the peer to follow now.
        wires = client.encrypt_burst([PACKET], 0.0)
        assert epochs(wires) == [2]
        assert server.decrypt_burst(wires, 0.0) == [PACKET]
        assert epochs(server.encrypt_burst([PACKET], 0.0)) == [2]

    def test_forgeries_make_us_lead_and_end_an_epoch(self) -> None:
        client, server, _, opener = self.pair()
        opener.current.failures = FAILURE_TRIGGER
        assert epochs(client.encrypt_burst([PACKET], 0.0)) == [2]
        good = server.encrypt_burst([PACKET] * 2, 0.0)
        opener.current.failures = FAILURE_LIMIT - 1
        assert client.decrypt_burst([good[0][:-1] + b"\0"], 0.0) == []
        assert client.decrypt_burst(good, 0.0) == []
        assert client.drops == {DropReason.BAD_AUTHENTICATION: 1, DropReason.UNKNOWN_KEY: 2}

    def test_received_packets_count(self) -> None:
        client, server, _, opener = self.pair()
        client.decrypt_burst(server.encrypt_burst([bytes([0x45]) * 1600] * 10, 0.0), 0.0)
        assert (opener.current.packets, opener.current.blocks) == (10, 1010)

    def test_a_new_key_is_wanted_when_epochs_run_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(epoch_module, "next_secret", lambda secret: secret)
        client, _, sealer, _ = self.pair()
        sealer.advance(EPOCH_TRIGGER - 1)
        client.encrypt_burst([PACKET], 0.0)
        assert client.poll_rekey() is None
        sealer.advance(EPOCH_TRIGGER)
        client.encrypt_burst([PACKET], 0.0)
        assert client.poll_rekey() == "epochs are running out"

    def test_nothing_is_sent_after_the_last_epoch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(epoch_module, "next_secret", lambda secret: secret)
        client, _, sealer, _ = self.pair()
        sealer.advance(LAST_SENT_EPOCH)
        assert epochs(client.encrypt_burst([PACKET], 0.0)) == [LAST_SENT_EPOCH]
        sealer.key.blocks = AES_GCM_LIMIT
        assert client.encrypt_burst([PACKET], 0.0) == []
        assert client.drops == {DropReason.LIMIT: 1}

    @pytest.mark.parametrize("option", [{"reneg_bytes": 6400}, {"reneg_packets": 64}])
    def test_what_the_user_chose_counts_here_too(self, option: dict[str, int]) -> None:
        client, _ = make_pair(epoch=True, **option)
        client.encrypt_burst([bytes([0x45]) * 100] * 63, 0.0)
        assert client.poll_rekey() is None
        client.encrypt_burst([bytes([0x45]) * 100], 0.0)
        assert client.poll_rekey() == ("reneg-bytes" if "reneg_bytes" in option else "reneg-pkts")

    def test_limits_of_openvpns_table(self) -> None:
        """crypto_test_aead_limits: packets of 1600 and 9000 bytes until the limit."""
        assert AES_GCM_LIMIT == 2**36 - 1
        assert (AES_GCM_LIMIT // 101, AES_GCM_LIMIT // 563) == (680390858, 122059461)


def test_secrets_are_not_shown() -> None:
    key = DataChannelKey(
        key_id=KeyID(0), cipher="AES-256-GCM", auth="SHA1", send_cipher=b"S" * 64, send_hmac=b"S" * 64,
        receive_cipher=b"S" * 64, receive_hmac=b"S" * 64, peer_id=1, epoch=True,
    )  # fmt: skip
    channel = DataChannel(role=Role.CLIENT, rng=bytes)
    channel.install_key(key, 0.0)
    assert "SSS" not in repr(key)
    assert "_secret" not in repr(channel._slots.newest)
