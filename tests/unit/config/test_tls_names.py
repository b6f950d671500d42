"""IANA's names of cipher suites into OpenSSL's."""

from __future__ import annotations

import ssl
import warnings

import pytest

from minivpn_trio.config.tls_names import openssl_name, openssl_names

#: From `openssl ciphers -stdname` (3.0.19), with hyphens as profiles have them.
TEXT = """
    TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384 ECDHE-ECDSA-AES256-GCM-SHA384
    TLS-ECDHE-RSA-WITH-CHACHA20-POLY1305-SHA256 ECDHE-RSA-CHACHA20-POLY1305
    TLS-DHE-RSA-WITH-AES-256-GCM-SHA384 DHE-RSA-AES256-GCM-SHA384
    TLS-DHE-RSA-WITH-AES-256-CBC-SHA256 DHE-RSA-AES256-SHA256
    TLS-DHE-RSA-WITH-AES-256-CBC-SHA DHE-RSA-AES256-SHA
    TLS-DHE-DSS-WITH-AES-256-CBC-SHA DHE-DSS-AES256-SHA
    TLS-ECDHE-RSA-WITH-AES-256-CBC-SHA384 ECDHE-RSA-AES256-SHA384
    TLS-RSA-WITH-AES-256-CBC-SHA AES256-SHA
    TLS-RSA-WITH-AES-128-GCM-SHA256 AES128-GCM-SHA256
    TLS-RSA-WITH-CAMELLIA-256-CBC-SHA CAMELLIA256-SHA
    TLS-DHE-RSA-WITH-CAMELLIA-128-CBC-SHA256 DHE-RSA-CAMELLIA128-SHA256
    TLS-ECDHE-ECDSA-WITH-AES-128-CCM-8 ECDHE-ECDSA-AES128-CCM8
    TLS-DHE-RSA-WITH-AES-256-CCM DHE-RSA-AES256-CCM
    TLS-ECDHE-RSA-WITH-ARIA-256-GCM-SHA384 ECDHE-ARIA256-GCM-SHA384
    TLS-ECDHE-ECDSA-WITH-ARIA-128-GCM-SHA256 ECDHE-ECDSA-ARIA128-GCM-SHA256
    TLS-DHE-RSA-WITH-ARIA-128-GCM-SHA256 DHE-RSA-ARIA128-GCM-SHA256
    TLS-RSA-WITH-ARIA-128-GCM-SHA256 ARIA128-GCM-SHA256
    TLS-DH-anon-WITH-AES-256-CBC-SHA256 ADH-AES256-SHA256
    TLS-ECDH-anon-WITH-AES-256-CBC-SHA AECDH-AES256-SHA
    TLS-RSA-WITH-NULL-SHA256 NULL-SHA256
"""
PAIRS = [line.split() for line in TEXT.splitlines() if line]


@pytest.mark.parametrize(("iana", "openssl"), PAIRS)
def test_names(iana: str, openssl: str) -> None:
    assert openssl_name(iana) == openssl
    assert openssl_name("!" + iana) == "!" + openssl


@pytest.mark.parametrize(
    "name", ["DEFAULT", "@SECLEVEL=0", "!aNULL", "ECDHE-RSA-AES256-SHA", "TLS-X", "TLS-X-WITH-Y-SHA"]
)
def test_other_names_stay(name: str) -> None:
    assert openssl_name(name) == name


def test_a_list_that_openssl_takes() -> None:
    names = openssl_names(
        "TLS-DHE-RSA-WITH-AES-256-CBC-SHA:TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384:TLS-RSA-WITH-AES-256-CBC-SHA"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings():
        context.set_ciphers(names)
    assert set(names.split(":")) <= {cipher["name"] for cipher in context.get_ciphers()}
