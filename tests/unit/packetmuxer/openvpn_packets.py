"""Packets of the C client, as its own unit tests hold them.

Provenance: OpenVPN, tests/unit_tests/openvpn/test_pkt.c (the key, every packet) and
test_tls_crypt.c (DYNAMIC_*) at commit 3de926089fde. Numbers only. All were made by a
client, so a server reads them with the second pair of the key.
"""

from __future__ import annotations

STATIC_KEY = bytes.fromhex(
    "37268ea8f95d7f71f9fb8fc03770c460daf714a483d815c013ce0a537efc18f28f4f172669d9e6a413bac6741d8ea054"
    "00f49b7fd6326470f23798c606bf53d4de63ebc64ec59d57ce5d04d5b62e68b53ca6e5354351097fa370446c4d269f18"
    "7bb6ae54af2dc70ff7317fe2f8754b8282aad4202f9fa42c8640245d883e2c54a0c1c489a036cf3a8964d8d289c1583b"
    "9447c262b1da5fd167a5d27bd5ac514317bc2343a31a2efc38dd920d910375f51c2e27f3afd36c49269da079f7ce466e"
    "bb0f9ad13e9bbb4665974e6bc24b513c5700393bf4a3e7f967e2f384069ac8a8e78b18b15604993fd16515cce9c0f3e4"
    "2b4126b999005ade802797b0eeb8b9e6"
)

# The client's hard reset without a wrap, with tls-auth (SHA1) and with tls-crypt.
RESET_PLAIN = bytes.fromhex("386891923fa31034370000000000")
RESET_TLS_AUTH = bytes.fromhex("38de694c5c7bfba27493537c1ded4e781529ae7cfe4b8c6d6b2b51f05a0000000161d3bf6c0000000000")
RESET_TLS_CRYPT = bytes.fromhex(
    "38f419cb12d1f9e48f0000000161d3f8e1330206f56802be44fbed905064e3db43416bec5e526719462b7eb90c96defc9b05c44879f7"
)
# A ClientHello behind tls-auth.
CONTROL_TLS_AUTH = bytes.fromhex(
    "2014014ebc80c6142b7bc876fbc52e27b1c507355bb6006bae71ba4e380000000361d3ff530000000001160301010c01"
    "00010803038caaac3a1a07bde7b750069b940c344b5a35cac479bdc909b07bd9eebb7de725203938e2183336149f34f0"
    "4459968d0ed24776648859e9380397969845fbf5ff230032130213031301c02cc030009fcca9cca8ccaac02bc02f009e"
    "c024c028006bc023c0270067c00ac0140039c009c013003300ff0100008d000b000403000102000a000c000a001d0017"
    "001e001900180016000000170000000d0030002e040305030603080708080809080a080b080408050806040105010601"
    "030302030301020103020202040205020602002b00050403040303002d00020101003300260024001d00200ec97aff58"
    "db56f640d1eddb9181d6ef83868ab23d88923fd8519cd62656336b"
)
# CONTROL_V1 with one acknowledgement and the first bytes of a TLS record.
CONTROL_WITH_ACK = bytes.fromhex("207819bf2ebcd19a450100000000eafebfa4418ae31b00000001160301")
# ACK_V1 with one and with three acknowledgements.
ACK_OF_0 = bytes.fromhex("28aeb9afe1f01d79c80100000000dd85db535623b02e")
ACK_OF_0_1_2 = bytes.fromhex("28aeb9afe1f01d79c803000000000000000100000002dd85db535623b02e")
# CONTROL_V1 that ends in its acknowledgements.
CONTROL_CUT = bytes.fromhex("20aeb9afe1f01d79c8010000000002")

# The key is 256 bytes ba; net_time is 0; the packet is made without opcode and session id.
DYNAMIC_KEY = b"\xba" * 256
DYNAMIC_TEXT = b"1234567890"
DYNAMIC_WRAPPED = bytes.fromhex(
    "0000000100000000e319277f1c8d6e6a7796a855337b9cfb56e1f13a870e6647dfa195c92c17a015ba4967a11d55ea1a06a7"
)
