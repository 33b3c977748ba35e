"""Certificates for tests, made anew each time: a root, and files in the form that a server and its clients read."""

from pathlib import Path

import trustme


class CertificateFiles:
    """A root and files signed by it.

    Attributes:
        root: PEM of the root.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.root: bytes = self._authority.cert_pem.bytes()
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.root)

    def issue(self, name: str, stem: str) -> tuple[Path, Path]:
        """Files of a certificate for ``name`` and of its key; those of the same stem are replaced."""
        issued = self._authority.issue_cert(name)
        certificate, key = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        for file, content in (
            (certificate, b"".join(pem.bytes() for pem in issued.cert_chain_pems)),
            (key, issued.private_key_pem.bytes()),
        ):
            part = file.with_suffix(".part")
            part.write_bytes(content)
            part.replace(file)
        return certificate, key
