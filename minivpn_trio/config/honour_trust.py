"""Directives about who we are, whom we trust, and how the control channel is protected."""

from __future__ import annotations

import binascii
import hashlib
import re

from .draft import BadValue, Draft, Handler, WrapDraft
from .grammar import Statement
from .model import Credentials, StaticChallenge
from .static_key import parse_static_key_text
from .tls_names import openssl_names

__all__ = ["HANDLERS", "check_pem"]

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----\s(.*?)-----END \1-----", re.DOTALL)
#: Characters of a user name or a password.
_LONGEST_CREDENTIAL = 4096
#: Characters of static-challenge's text.
_LONGEST_QUESTION = 256


_BEGIN = re.compile(rb"-----BEGIN ([A-Za-z0-9 -]{1,40})-----")
#: What a PEM block may be, by the end of its label.
_KINDS = {
    "tls-crypt-v2 client key": "a tls-crypt-v2 client key",
    "tls-crypt-v2 server key": "a tls-crypt-v2 server key, which only a server may have",
    "Static key V1": "an OpenVPN static key",
    "CERTIFICATE REQUEST": "a request for a certificate",
    "CERTIFICATE": "a certificate",
    "PRIVATE KEY": "a private key",
    "PUBLIC KEY": "a public key",
    "X509 CRL": "a list of revoked certificates",
    "DH PARAMETERS": "Diffie-Hellman parameters",
}


def instead(data: bytes, wanted: str) -> str:
    """Words on what ``data`` has in place of a ``wanted``, a label of ``_KINDS``. Nothing of it is quoted."""
    if not data.strip():
        return "; it is empty"
    for match in _BEGIN.finditer(data):
        label = match[1].decode()
        name = next((name for end, name in _KINDS.items() if label.endswith(end)), None)
        if name is not None:
            return "; it begins, but its end is missing" if label.endswith(wanted) else f", but {name}"
    return ""


def check_pem(data: bytes, *suffixes: str) -> list[str]:
    """The kinds of the PEM blocks in ``data``. Raises BadValue unless one ends in ``suffixes`` and
    all of those that do are well-formed."""
    kinds: list[str] = []
    for match in _PEM.finditer(data):
        kind = match[1].decode()
        body = match[2]
        if kind.endswith(suffixes):
            lines = [line.strip() for line in body.split(b"\n")]
            if any(b":" in line for line in lines):
                # Headers of an old encrypted key, up to an empty line.
                lines = lines[lines.index(b"") :] if b"" in lines else []
            try:
                if not binascii.a2b_base64(b"".join(lines), strict_mode=True):
                    raise BadValue(f"the {kind} is empty")
            except binascii.Error:
                raise BadValue(f"the {kind} is damaged: it is no base64") from None
        kinds.append(kind)
    if not any(kind.endswith(suffixes) for kind in kinds):
        named = _KINDS.get(suffixes[0], f"a {suffixes[0].lower()}")
        raise BadValue(f"there is no PEM block of {named} in it" + instead(data, suffixes[0]))
    return kinds


def _pem(field: str, *suffixes: str) -> Handler:
    def handle(draft: Draft, statement: Statement) -> None:
        data = draft.material(statement)
        if data is not None:
            check_pem(data, *suffixes)
            draft.values[field] = data

    return handle


def _key(draft: Draft, statement: Statement) -> None:
    data = draft.material(statement)
    if data is None:
        return
    kinds = check_pem(data, "PRIVATE KEY")
    draft.values["key"] = data
    if "ENCRYPTED PRIVATE KEY" in kinds or b"Proc-Type: 4,ENCRYPTED" in data:
        draft.lines["(encrypted key)"] = statement.line


def _pkcs12(draft: Draft, statement: Statement) -> None:
    data = draft.material(statement)
    if data is not None and statement.block is not None:
        try:
            data = binascii.a2b_base64(data)
        except binascii.Error:
            raise BadValue("the block is no base64") from None
    if data is not None:
        # DER of a SEQUENCE, which every PKCS #12 file is (RFC 7292); what is inside may need a password.
        if not data.startswith(b"\x30"):
            raise BadValue("it is no PKCS #12 file" + instead(data, "PKCS12"))
        draft.values["pkcs12"] = data


def _crl_verify(draft: Draft, statement: Statement) -> None:
    if len(statement.values) > 1:
        if statement.values[1] != "dir":
            raise BadValue("only dir may follow the name, which is that of a folder then")
        if draft.folder(statement):
            draft.values["crl_folder"] = draft.lasting_path(statement)
        return
    if draft.is_folder(statement):
        raise BadValue("it is a folder: write dir after it")
    data = draft.material(statement)
    if data is not None:
        check_pem(data, "X509 CRL")
        path = draft.lasting_path(statement)
        read = None if path is None else hashlib.sha256(data).digest()
        draft.values.update(crl=data, crl_file=path, crl_read=read)


def _text_lines(data: bytes) -> list[str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]


def _auth_user_pass(draft: Draft, statement: Statement) -> None:
    draft.values["needs_credentials"] = True
    if "credentials" in draft.values:
        return
    data = None
    if statement.block is not None or (statement.values and statement.values[0] != "stdin"):
        data = draft.material(statement)
    username, password = "", ""
    if data is not None:
        username, password, *_ = [*_text_lines(data), "", ""]
        if max(len(username), len(password)) > _LONGEST_CREDENTIAL or "\0" in username + password:
            raise BadValue("the user name or the password cannot be one")
    if username and password:
        draft.values["credentials"] = Credentials(username, password)
        draft.lines["(profile's credentials)"] = statement.line
        draft.satisfied("auth-user-pass")
    else:
        draft.values["username"] = username or None
        draft.need("auth-user-pass", statement.line)


def _static_challenge(draft: Draft, statement: Statement) -> None:
    text, echo, form, *_ = [*statement.values, "scrv1"]
    if not text or len(text) > _LONGEST_QUESTION or not text.isprintable():
        raise BadValue("a question of at most 256 characters is wanted")
    if echo not in ("0", "1"):
        raise BadValue("0 or 1 is wanted after the question: whether the answer may be seen")
    if form not in ("scrv1", "concat"):
        raise BadValue("scrv1 or concat may follow")
    draft.values["static_challenge"] = StaticChallenge(text, echo == "1", form == "concat")
    draft.need("static-challenge", statement.line)


def _auth_retry(draft: Draft, statement: Statement) -> None:
    if statement.values[0] not in ("none", "nointeract", "interact"):
        raise BadValue("none, nointeract or interact is wanted")
    draft.values["auth_retry"] = statement.values[0]


def _auth_nocache(draft: Draft, statement: Statement) -> None:
    draft.values["auth_nocache"] = True


def _askpass(draft: Draft, statement: Statement) -> None:
    if "key_password" in draft.values or not statement.values or statement.values[0] == "stdin":
        return
    data = draft.material(statement)
    if data is not None:
        draft.values["key_password"] = _text_lines(data)[0].encode()


# -- the control channel's wrapping ----------------------------------------------------------


def _direction(text: str) -> int:
    if text not in ("0", "1"):
        raise BadValue("the key direction is 0 or 1")
    return int(text)


def _static_key(draft: Draft, statement: Statement) -> bytes | None:
    data = draft.material(statement)
    if data is None:
        return None
    try:
        parse_static_key_text(data)
    except ValueError as exc:
        hint = instead(data, "Static key V1") if str(exc).startswith("there is no") else ""
        raise BadValue(str(exc) + hint) from None
    return data


def _tls_auth(draft: Draft, statement: Statement) -> None:
    wrap = WrapDraft("tls-auth", statement.line)
    draft.wraps.append(wrap)
    if len(statement.values) > 1:
        # Like key-direction, and as lasting: an inline key after it is used in this direction.
        draft.values["key_direction"] = _direction(statement.values[1])
    wrap.key = _static_key(draft, statement)


def _tls_crypt(draft: Draft, statement: Statement) -> None:
    wrap = WrapDraft("tls-crypt", statement.line)
    draft.wraps.append(wrap)
    wrap.key = _static_key(draft, statement)


def _tls_crypt_v2(draft: Draft, statement: Statement) -> None:
    wrap = WrapDraft("tls-crypt-v2", statement.line)
    draft.wraps.append(wrap)
    data = draft.material(statement)
    if data is not None:
        from .tls_crypt_v2_key import parse_client_key

        try:
            parse_client_key(data)
        except ValueError as exc:
            hint = instead(data, "tls-crypt-v2 client key") if str(exc).startswith("there is no") else ""
            raise BadValue(str(exc) + hint) from None
    wrap.key = data


def _key_direction(draft: Draft, statement: Statement) -> None:
    draft.values["key_direction"] = _direction(statement.values[0])


# -- TLS -------------------------------------------------------------------------------------


_VERSIONS = ("1.0", "1.1", "1.2", "1.3")


def _tls_version_min(draft: Draft, statement: Statement) -> None:
    version, *rest = statement.values
    if rest and rest != ["or-highest"]:
        raise BadValue("only or-highest may follow the version")
    if version not in _VERSIONS:
        if not rest:
            raise BadValue("1.0, 1.1, 1.2 or 1.3 is wanted")
        version = _VERSIONS[-1]
    draft.values["tls_version_min"] = version


def _tls_version_max(draft: Draft, statement: Statement) -> None:
    if statement.values[0] not in _VERSIONS:
        raise BadValue("1.0, 1.1, 1.2 or 1.3 is wanted")
    draft.values["tls_version_max"] = statement.values[0]


def _names(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable():
        raise BadValue("a list of names with colons between them is wanted")
    return text


def _tls_cipher(draft: Draft, statement: Statement) -> None:
    draft.values["tls_cipher"] = openssl_names(_names(statement.values[0]))


def _tls_ciphersuites(draft: Draft, statement: Statement) -> None:
    names = _names(statement.values[0]).split(":")
    # IANA's names are written with hyphens here and with underscores in OpenSSL.
    draft.values["tls_ciphersuites"] = ":".join(
        name.replace("-", "_") if name.startswith("TLS-") else name for name in names
    )


def _tls_groups(draft: Draft, statement: Statement) -> None:
    draft.values["tls_groups"] = _names(statement.values[0])


def _one_of(field: str, *allowed: str) -> Handler:
    def handle(draft: Draft, statement: Statement) -> None:
        if statement.values[0] not in allowed:
            raise BadValue("one of these is wanted: " + ", ".join(allowed))
        draft.values[field] = statement.values[0]

    return handle


# -- the server's certificate ----------------------------------------------------------------


def _remote_cert_tls(draft: Draft, statement: Statement) -> None:
    if statement.values[0] == "server":
        draft.values["remote_cert_tls"] = True
    elif statement.values[0] == "client":
        draft.values.update(remote_cert_ku=(), remote_cert_eku="TLS Web Client Authentication")
        draft.warn(statement, "the server will have to show the certificate of a client")
    else:
        raise BadValue("server is wanted")


def _ns_cert_type(draft: Draft, statement: Statement) -> None:
    if statement.values[0] != "server":
        raise BadValue("server is wanted")
    draft.values["remote_cert_tls"] = True
    draft.warn(statement, "Netscape's certificate types are history; taken as remote-cert-tls server")


def _remote_cert_ku(draft: Draft, statement: Statement) -> None:
    usages = []
    for text in statement.values:
        if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,4}", text):
            raise BadValue("hexadecimal numbers of up to four digits are wanted")
        usages.append(int(text, 16))
    # None given: the certificate must have the field, whatever it says.
    draft.values["remote_cert_ku"] = tuple(usages)


_OID = r"([01]\.[1-3]?[0-9]|2\.[1-9]?[0-9]{1,8})(\.(0|[1-9][0-9]{0,8})){1,20}"
#: OpenSSL's long and short names of purposes, lower case.
_PURPOSES = frozenset(
    {
        "tls web server authentication",
        "serverauth",
        "tls web client authentication",
        "clientauth",
        "code signing",
        "codesigning",
        "e-mail protection",
        "emailprotection",
    }
)


def _remote_cert_eku(draft: Draft, statement: Statement) -> None:
    purpose = statement.values[0]
    if purpose.lower() not in _PURPOSES and not re.fullmatch(_OID, purpose):
        raise BadValue("the name of a purpose, such as 'TLS Web Server Authentication', or an OID is wanted")
    draft.values["remote_cert_eku"] = purpose


def _verify_x509_name(draft: Draft, statement: Statement) -> None:
    name, kind, *_ = [*statement.values, "subject"]
    if not name:
        raise BadValue("a name is wanted")
    if kind not in ("subject", "name", "name-prefix"):
        raise BadValue("subject, name or name-prefix is wanted after the name")
    if kind == "name" and "*" in name:
        draft.warn(
            statement, "the asterisk stands for itself: only a certificate with one in its name, at this place, matches"
        )
    draft.values["verify_x509_name"] = (name, kind)


def _fingerprints(statement: Statement, size: int) -> list[bytes]:
    if statement.block is None:
        texts = [statement.values[0]]
    else:
        lines = (line.strip() for line in statement.block.split("\n"))
        texts = [line for line in lines if line and line[0] not in "#;"]
    found = []
    for text in texts:
        if not re.fullmatch(rf"[0-9a-fA-F]{{2}}(:[0-9a-fA-F]{{2}}){{{size - 1}}}", text):
            raise BadValue(f"{size} hexadecimal bytes with colons between them are wanted")
        found.append(bytes.fromhex(text.replace(":", "")))
    return found


def _peer_fingerprint(draft: Draft, statement: Statement) -> None:
    draft.fingerprints.extend(_fingerprints(statement, 32))


def _verify_hash(draft: Draft, statement: Statement) -> None:
    default = "SHA1" if statement.block is None else "SHA256"
    algorithm = statement.values[1] if len(statement.values) > 1 else default
    if algorithm not in ("SHA1", "SHA256"):
        raise BadValue("SHA1 or SHA256 is wanted after the hash")
    hashes = _fingerprints(statement, 20 if algorithm == "SHA1" else 32)
    if not hashes:
        raise BadValue("a hash is wanted")
    draft.values["verify_hash"] = (*draft.values.get("verify_hash", ()), *hashes)


HANDLERS: dict[str, Handler] = {
    "ca": _pem("ca", "CERTIFICATE"),
    "cert": _pem("cert", "CERTIFICATE"),
    "extra-certs": _pem("extra_certs", "CERTIFICATE"),
    "key": _key,
    "pkcs12": _pkcs12,
    "crl-verify": _crl_verify,
    "askpass": _askpass,
    "auth-user-pass": _auth_user_pass,
    "auth-retry": _auth_retry,
    "auth-nocache": _auth_nocache,
    "static-challenge": _static_challenge,
    "tls-auth": _tls_auth,
    "tls-crypt": _tls_crypt,
    "tls-crypt-v2": _tls_crypt_v2,
    "key-direction": _key_direction,
    "tls-version-min": _tls_version_min,
    "tls-version-max": _tls_version_max,
    "tls-cipher": _tls_cipher,
    "tls-ciphersuites": _tls_ciphersuites,
    "tls-groups": _tls_groups,
    "tls-cert-profile": _one_of("tls_cert_profile", "insecure", "legacy", "preferred", "suiteb"),
    "remote-cert-tls": _remote_cert_tls,
    "ns-cert-type": _ns_cert_type,
    "remote-cert-ku": _remote_cert_ku,
    "remote-cert-eku": _remote_cert_eku,
    "verify-x509-name": _verify_x509_name,
    "peer-fingerprint": _peer_fingerprint,
    "verify-hash": _verify_hash,
}
