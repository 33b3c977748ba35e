"""What gRPC is told: its numbers are milliseconds, ours are seconds, and none of them shows before it is too late."""

import pytest

from service.transport.server import ServerOptions, channel_options


def chosen(**fields: float) -> dict[str, int]:
    options = ServerOptions("127.0.0.1:0", keepalive_time_s=20, handshake_timeout_s=2.5, **fields)  # type: ignore[arg-type]
    found = channel_options(options, max_message_bytes=1000)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_every_option():
    assert chosen(max_connection_age_s=60, max_connection_age_grace_s=0.5) == {
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": 1000,
        "grpc.max_send_message_length": -1,
        "grpc.keepalive_time_ms": 20_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.server_handshake_timeout_ms": 2_500,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        "grpc.server.max_pending_requests": 4096,
        "grpc.server.max_pending_requests_hard_limit": 4096,
        "grpc.server_max_unrequested_time_in_server": 3600,
        "grpc.default_compression_level": 1,
        "grpc.max_connection_age_ms": 60_000,
        "grpc.max_connection_age_grace_ms": 500,
    }


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"compress_from_bytes": 0}, "grpc.default_compression_level"),
        ({"max_connection_age_s": 0}, "grpc.max_connection_age_ms"),
        ({"max_connection_age_s": 0, "max_connection_age_grace_s": 1}, "grpc.max_connection_age_grace_ms"),
        ({"max_connection_age_grace_s": 0}, "grpc.max_connection_age_grace_ms"),
    ],
)
def test_zero_is_never(fields: dict[str, float], left_out: str):
    assert left_out not in chosen(**fields)
