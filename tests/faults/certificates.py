"""Certificates of an authority of the test's own, also such as have run out, by openssl."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
SETTINGS = """[ca]
default_ca = ours
[ours]
certificate = ca.pem
private_key = ca-key.pem
database = issued
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
x509_extensions = uses
[any]
commonName = supplied
[uses]
subjectAltName = IP:127.0.0.1,DNS:localhost
extendedKeyUsage = serverAuth,clientAuth
"""
DAY = dt.timedelta(days=1)


class Certificates:
    """An authority whose certificates are for 127.0.0.1, servers and clients alike."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings").write_text(SETTINGS)
        (folder / "issued").touch()
        (folder / "serial").write_text("01")
        authority = ("-x509", "-days", "30", "-subj", "/CN=authority")
        self._openssl("req", *authority, *KEY, "-keyout", "ca-key.pem", "-out", "ca.pem")

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.pem"

    def cert(self, name: str) -> Path:
        """Where the certificate of this name is."""
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        """Where its key is."""
        return self.folder / f"{name}-key.pem"

    def issue(self, name: str, *, lasts: dt.timedelta = DAY) -> None:
        """Write certificate and key, over those of the same name if there are some.

        Args:
            name: of the files, and who it is for.
            lasts: for how long from now it is valid; below zero it has run out already.
        """
        request = ("-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", "request.pem")
        self._openssl("req", *KEY, *request)
        now = dt.datetime.now(dt.UTC)
        start, end = ((now + each).strftime("%y%m%d%H%M%SZ") for each in (-2 * DAY, lasts))
        signed = ("-batch", "-config", "settings", "-in", "request.pem", "-out", f"{name}.pem")
        self._openssl("ca", "-notext", *signed, "-startdate", start, "-enddate", end)

    def _openssl(self, *command: str) -> None:
        subprocess.run(["openssl", *command], cwd=self.folder, check=True, capture_output=True)
