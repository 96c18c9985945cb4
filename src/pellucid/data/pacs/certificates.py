"""The certificates that are trusted and shown, from the user's files."""

from __future__ import annotations

import ssl

from pellucid.data.pacs.address import Access
from pellucid.errors import expected


def context_of(access: Access) -> ssl.SSLContext:
    """How TLS is spoken: with the system's authorities or those of `ca`, always checked, and our certificate if any.

    Raises InputError that names the option whose file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
    except OSError:  # of which ssl.SSLError is one
        raise expected("pacs-ca", "a file with certificates (PEM)", f"{str(access.ca)!r}, which has none") from None
    if access.certificate is not None:
        try:
            context.load_cert_chain(access.certificate, access.key, password="")  # else a locked key would ask for one
        except (OSError, ValueError):
            got = f"{str(access.certificate)!r}" + (f" and {str(access.key)!r}" if access.key else "")
            wanted = "a certificate with its key, not locked by a password (PEM)"
            raise expected("pacs-cert", wanted, got) from None
    return context
