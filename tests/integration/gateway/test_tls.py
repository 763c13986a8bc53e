"""HTTPS, and certificates that change while it runs."""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
import time
import warnings
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tracklayer.gateway.tls import Certificate
from tracklayer.serving.protocol import open_inference_pb2 as messages


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def subject(url: str) -> str:
    """Who the gateway says it is."""
    where = urlsplit(url)
    pem = ssl.get_server_certificate((str(where.hostname), where.port or 0), timeout=5)
    found = x509.load_pem_x509_certificate(pem.encode())
    return str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_no_tls_is_spoken_that_is_older_than_1_2(
    gateway: Any, tmp_path: Path, version: str
) -> None:
    certificate, key = certify(tmp_path, "first")
    where = urlsplit(gateway("--tls-cert", certificate, "--tls-key", key).url)
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would not offer the old ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        wanted = getattr(ssl.TLSVersion, version)
        context.minimum_version = context.maximum_version = wanted
    with socket.create_connection((str(where.hostname), where.port or 0), timeout=5) as plain:
        if version in ("TLSv1", "TLSv1_1"):
            with pytest.raises(ssl.SSLError, match=r"alert protocol version|EOF occurred"):
                context.wrap_socket(plain, server_hostname="127.0.0.1")
        else:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                assert secure.version() == version.replace("_", ".")


def test_https_and_a_renewed_certificate(gateway: Any, echo: Any, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path, "first")
    gate, one = gateway("--tls-cert", certificate, "--tls-key", key), echo()
    assert gate.url.startswith("https://127.0.0.1:")
    gate.client.switch("digits", 1, [one.path])
    trust = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(verify=trust) as client:
        for size in (0, 5, 3 << 20):
            answer = client.post(f"{gate.url}/digits/x", content=b"x" * size)
            assert (answer.status_code, answer.json()["bytes"]) == (200, size)
        assert dict(answer.json()["headers"])["x-forwarded-proto"] == "https"
        with pytest.raises(httpx.TransportError):
            httpx.get(gate.url.replace("https", "http"))
        # Half a renewal changes nothing; the other half makes it whole.
        new_certificate, new_key = certify(tmp_path, "second")
        certificate.write_bytes(new_certificate.read_bytes())
        time.sleep(0.6)
        assert subject(gate.url) == "first"
        key.write_bytes(new_key.read_bytes())
        deadline = time.monotonic() + 5
        while subject(gate.url) != "second" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert subject(gate.url) == "second"
        # Whoever is connected stays so.
        assert client.get(f"{gate.url}/digits/x").status_code == 200
    gate.process.terminate()
    _, said = gate.process.communicate(timeout=10)
    assert "the certificate stays as it was" in said
    assert "was renewed" in said
    assert "Traceback" not in said


def test_grpc_has_the_same_certificate(gateway: Any, peer: Any, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path, "first")
    gate = gateway("--grpc-port", 0, "--tls-cert", certificate, "--tls-key", key)
    gate.client.switch("digits", 1, [peer().path])
    request = messages.ModelInferRequest(model_name="digits").SerializeToString()

    def answers(channel: grpc.Channel) -> bool:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            return bool(call(request, timeout=10))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    def trusts(authority: bytes) -> bool:
        credentials = grpc.ssl_channel_credentials(authority)
        # Not the connection that another channel has.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(gate.grpc, credentials, options) as channel:
            return answers(channel)

    first = certificate.read_bytes()
    assert trusts(first)
    with grpc.insecure_channel(gate.grpc) as plain:
        assert not answers(plain)
    new_certificate, new_key = certify(tmp_path, "second")
    second = new_certificate.read_bytes()
    with grpc.secure_channel(gate.grpc, grpc.ssl_channel_credentials(first)) as stays:
        assert answers(stays)
        # Half a renewal changes nothing; the other half makes it whole.
        certificate.write_bytes(second)
        time.sleep(0.6)
        assert (trusts(first), trusts(second)) == (True, False)
        key.write_bytes(new_key.read_bytes())
        deadline = time.monotonic() + 5
        while not trusts(second) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (trusts(first), trusts(second)) == (False, True)
        # Whoever is connected stays so.
        assert answers(stays)


def test_no_protocol_is_older_than_tls_1_2(tmp_path: Path) -> None:
    context = Certificate(*certify(tmp_path, "first")).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        ("missing", "a.key", "missing cannot be read: No such file"),
        ("a.pem", "missing", "missing cannot be read: No such file"),
        ("a.key", "a.key", "cannot be used"),
        ("a.pem", "b.key", "key values mismatch"),
        ("empty", "a.key", "cannot be used"),
    ],
)
def test_wrong_files_end_the_start(
    spawn: Any, tmp_path: Path, certificate: str, key: str, problem: str
) -> None:
    for name in "ab":
        certify(tmp_path, name)
    (tmp_path / "empty").touch()
    process: subprocess.Popen[str] = spawn(
        "tracklayer.gateway",
        *("--port", 0, "--admin", tmp_path / "admin.sock", "--routes", tmp_path / "routes.json"),
        *("--state", tmp_path / "state"),
        *("--tls-cert", tmp_path / certificate, "--tls-key", tmp_path / key),
    )
    _, said = process.communicate(timeout=20)
    assert process.returncode == 13
    assert problem in said
    assert str(tmp_path / ("missing" if "missing" in problem else certificate)) in said
    assert "Traceback" not in said
