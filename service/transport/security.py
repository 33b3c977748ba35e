"""What keeps strangers out, as settings: TLS, who may call, and how much one client may have open.

Knows: names and ranges. Does not know: certificates (certificates.py), tokens (callers.py), counting (quotas.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """By default nothing is asked of a client, which suits a port that only this machine can reach.

    Raises:
        ValueError: a setting is out of its range, or useless without another one.
    """

    tls_certificate: str = ""
    """PEM file of the server's certificate and what leads to its root; empty: no TLS."""
    tls_key: str = ""
    """PEM file of its private key, without a password."""
    tls_client_ca: str = ""
    """PEM file of the roots that a client's certificate must come from; empty: clients need none."""
    clients: str = ""
    """TOML file of the clients that may call (service/transport/callers.py); empty: whoever reaches the port may."""
    open_health: bool = True
    """Whether grpc.health.v1 answers without a token: a Kubernetes probe has none."""
    max_client_calls: int = 0
    """Calls of one client open at a time; 0: no limit of its own."""
    max_client_tokens: int = 0
    """Source tokens of one client waiting or being translated; 0: no limit of its own."""

    def __post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = ("tls_certificate", "tls_key") if self.tls_certificate else ("tls_key", "tls_certificate")
            raise ValueError(f"{given} needs {missing}")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        for name in ("max_client_calls", "max_client_tokens"):
            value = getattr(self, name)
            if not 0 <= value <= 2**31 - 1:
                raise ValueError(f"{name} ({value}) must be in [0, {2**31 - 1}]")
