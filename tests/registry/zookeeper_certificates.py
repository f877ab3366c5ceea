"""Certificates for tests of TLS, by openssl: an authority, a server and a client of its."""

import subprocess
from pathlib import Path

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def make_certificates(folder: Path, *, names: str = NAMES) -> Path:
    """Fill the folder: ca.pem; server.pem and client.pem, each with its -key.pem."""
    folder.mkdir(parents=True)
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = folder / "ca.pem", folder / "ca-key.pem"
    subject = ("-subj", f"/CN={folder.name} authority")
    openssl(
        "req", "-x509", *new, "-days", "30", *subject, "-keyout", authority[1], "-out", authority[0]
    )
    extensions = folder / "extensions"
    extensions.write_text(names)
    for role in ("server", "client"):
        request, certificate = folder / f"{role}.csr", folder / f"{role}.pem"
        key = folder / f"{role}-key.pem"
        openssl("req", *new, "-subj", f"/CN={role}", "-keyout", key, "-out", request)
        signed_by = ("-CA", authority[0], "-CAkey", authority[1], "-CAcreateserial")
        openssl(
            "x509", "-req", "-in", request, *signed_by, "-days", "30",
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        both = folder / f"{role}-both.pem"
        both.write_text(key.read_text() + certificate.read_text())
    return folder
