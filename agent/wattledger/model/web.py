"""How the door over TCP stands: what is told of the web configuration in force."""

from __future__ import annotations

from typing import NamedTuple


class WebConcern(NamedTuple):
    """Something in a web configuration that serves, and should be mended all the same.

    Attributes:
        message: what it is, in plain words; anybody on the machine may read it.
        hint: what to do.
    """

    message: str
    hint: str


class WebStatus(NamedTuple):
    """Of one web configuration.

    Attributes:
        certificate_until_ns: Unix time at which the server's certificate in force ends; 0: it
            serves without TLS, or that cannot be told.
        fault: why the files as they are now are not in force; empty: they are.
        concerns: of what is in force.
        asks_who: nobody is let in without a password or a certificate.
        is_configured: False: there is no web configuration, only something to tell of the port.
    """

    certificate_until_ns: int = 0
    fault: str = ""
    concerns: tuple[WebConcern, ...] = ()
    asks_who: bool = False
    is_configured: bool = True
