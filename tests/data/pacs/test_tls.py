"""A PACS behind TLS whose certificate nobody knows: refused until its file is given, never trusted in silence."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from pellucid.data.pacs import Access, PacsError, Query, connect, fetch_study, find_studies, store_files
from pellucid.errors import InputError
from servers.certificates import Certificate, make
from servers.orthanc import DICOM, WEB, running
from servers.relay import behind_tls
from servers.studies import slice_of, uid, write


@dataclasses.dataclass(frozen=True)
class Tls:
    """Where the server is by either protocol, the certificate that it shows and the one that it wants."""

    web: str
    dicom: str
    server: Certificate
    client: Certificate


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """An Orthanc; by HTTPS behind a relay, since Debian's dies of any request by HTTPS."""
    folder = tmp_path_factory.mktemp("tls")
    server, client = make(folder, "pacs"), make(folder, "reader")
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(server.certificate),
        "DicomTlsPrivateKey": str(server.key),
        "DicomTlsTrustedCertificates": str(client.certificate),
        "DicomTlsRemoteCertificateRequired": True,
    }
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client.certificate)
    context.load_cert_chain(server.certificate, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    with running(folder / "orthanc", **settings) as orthanc, behind_tls(orthanc.http_port, context) as port:
        yield Tls(f"https://127.0.0.1:{port}/dicom-web", orthanc.dicom, server, client)


@pytest.fixture(params=["dicomweb", "dimse"])
def way(request: pytest.FixtureRequest, tls: Tls) -> tuple[str, Access]:
    return (tls.web, WEB) if request.param == "dicomweb" else (tls.dicom, DICOM)


def test_a_certificate_that_nobody_knows_is_refused(way: tuple[str, Access], tls: Tls, tmp_path: Path) -> None:
    url, access = way
    server, client = tls.server, tls.client
    refusals: list[tuple[str, dict[str, Path], str]] = [
        (url, {}, "its certificate is signed by itself. Give the file of that certificate or authority with --pacs-ca"),
        (url, {"ca": client.certificate}, "its certificate is signed by (itself|an authority unknown here)"),
        (url.replace("127.0.0.1", "localhost"), {"ca": server.certificate}, "its certificate is for another host"),
    ]
    for address, files, told in refusals:
        entered = dataclasses.replace(access, **files)  # type: ignore[arg-type]
        with connect(address, entered) as pacs, pytest.raises(PacsError, match=told):
            find_studies(pacs, Query())


def test_our_own_certificate_is_asked_for(way: tuple[str, Access], tls: Tls, tmp_path: Path) -> None:
    url, access = way
    known = dataclasses.replace(access, ca=tls.server.certificate)
    wrong = make(tmp_path, "stranger")
    stranger = dataclasses.replace(known, certificate=wrong.certificate, key=wrong.key)
    for refused in (known, stranger):
        with (
            connect(url, refused) as pacs,
            pytest.raises(PacsError, match="client certificate"),
        ):
            find_studies(pacs, Query())


def test_with_the_right_certificates_all_works(way: tuple[str, Access], tls: Tls, tmp_path: Path) -> None:
    url, access = way
    server, client = tls.server, tls.client
    name = url.split(":")[0]
    paths = write(tmp_path / "in", *(slice_of(name, number) for number in range(3)))
    for own in ({"certificate": client.both}, {"certificate": client.certificate, "key": client.key}):
        with connect(url, dataclasses.replace(access, ca=server.certificate, **own)) as pacs:  # type: ignore[arg-type]
            assert {each.state for each in store_files(pacs, paths)} <= {"stored", "there"}
            assert len(fetch_study(pacs, uid(name), tmp_path / "out").files) == 3


def test_a_server_that_wants_tls_is_told(tls: Tls) -> None:
    plain = [(tls.web.replace("https", "http"), WEB), (tls.dicom.replace("dicom-tls", "dicom"), DICOM)]
    for url, access in plain:
        impatient = dataclasses.replace(access, timeout=3, attempts=1)
        with connect(url, impatient) as pacs, pytest.raises(PacsError, match="is it http:// or https://|dicom-tls://"):
            find_studies(pacs, Query())


def test_files_that_are_no_certificates_are_told(way: tuple[str, Access], tls: Tls, tmp_path: Path) -> None:
    url, access = way
    (tmp_path / "junk.pem").write_text("junk")
    known = dataclasses.replace(access, ca=tls.server.certificate)
    for wrong, told in [
        (dataclasses.replace(access, ca=tmp_path / "junk.pem"), "pacs-ca: expected a file with certificates"),
        (
            dataclasses.replace(known, certificate=tmp_path / "junk.pem"),
            "pacs-cert: expected a certificate with its key",
        ),
        (
            dataclasses.replace(known, certificate=tls.client.certificate),
            "pacs-cert: expected a certificate with its key",
        ),
        (
            dataclasses.replace(known, certificate=tls.client.certificate, key=tls.server.key),
            "pacs-cert: expected a certificate with its key",
        ),
    ]:
        with pytest.raises(InputError, match=told), connect(url, wrong) as pacs:
            find_studies(pacs, Query())
