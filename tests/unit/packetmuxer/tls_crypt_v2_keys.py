"""Keys of tls-crypt-v2 as the C client's unit tests hold them.

Provenance: OpenVPN, tests/unit_tests/openvpn/test_tls_crypt.c at commit 3de926089fde: a server key of the bytes 0 to
127, client keys of the bytes 0 to 255, wrapped with a time of 0 and with metadata of the operator's. Numbers only.
"""

from __future__ import annotations

SERVER_KEY = bytes(range(128))
CLIENT_KEY = bytes(range(256))

#: With metadata of type 1, a 64-bit time: 0.
METADATA_TIME = bytes.fromhex("010000000000000000")
WRAPPED_TIME = bytes.fromhex(
    "177da5c074a94619b16be4acb71f1a6ccf24f33c6bbaf498459d5f06c369d4952c78396efd93c2598f4771e068cafca3"
    "d2d387d87151392b1f74b43df29137072ca3ceae6bf741153c97b0cf6d8386b0ddd4baa201fd024693fa44510e035c29"
    "691009bc2624ad8995f9171c1c1b02d9a7efc02436e868e90085a8276a19a6f7ce1daf85e16a18c3dd1a9ba46c5ad3de"
    "b70edd52f151e1be45dcd788c4c2a494a8bc504fd650e46306093e7cfa75a1218f44f3277055aeef56dc2a68b5d36dee"
    "ed3d927c407e90b18edacfdec7a6b037b0fe04c1b5c7d0fcea131721479cde64459faad7b482e276dadcfa7cfc5b34fa"
    "149bbf6b49a33a03f1212516aed221626c7224d887cabc7f9c90c6376de16c6efd9e70b4f080674b4ece3e08b5323bed"
    "f04e6114df11acb31e012b"
)
#: With metadata of type 0.
METADATA_USER = bytes.fromhex("000000410820c3")
WRAPPED_USER = bytes.fromhex(
    "69eda75582aa170b8c9418fe28248cdb7761bea2d277aa1647eb3a9d94083733e91489b4f2d96ef38e2941e4daac313d"
    "852c1429f3fc8595ebf6622d1ada6f35294bca123751d2e8feeaa8076b1ca81f8554c76ac7527f651d3133c2ec70609c"
    "ff4b97416128dd21eef4b36dbb7b40cef01fd9abd5e71cfccb744985b6969c0068939b6064f293a8538169b483f30baf"
    "0a2b2eb7b34ea507059cd5b2ef8b0f2a8b58ad65cc935deba32e34eb060386057db0ac0e1f27dc7f82c3593960d0590d"
    "86093ad55480159785e3babe0a0e9aa0dd234740437855a3d0c4f9290216381f978158db22c487d655659ae5d5e0f53b"
    "087f5f5efc0a41eb049625f4b3504b24042a50c65b004b43fa58deab6372daf7a55eb630f41d068fb595cb230c225540"
    "0e9753296d6ace0129"
)
