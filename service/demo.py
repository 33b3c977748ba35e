"""`make demo`: the real server in a process of its own, a real client, some metrics, and an orderly end.

Knows: the public side only. It is the shortest example of how the service is started, awaited, used and stopped.
"""

import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from typing import IO, Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.client import Client, ServiceError
from service.decoding.options import DecodeOptions

SENTENCES: Final = [
    "Good morning, how are you?",
    "I would like to know when the next train leaves.",
    "She has been learning French for three years.",
    "The committee has approved the proposal.",
    "It was raining. We stayed at home and read books.",
]
PORTS: Final = range(20_000, 32_000)
MAX_START_S: Final = 60.0
SHOWN_METRICS: Final = (
    "dragoman_requests_total",
    "dragoman_texts_total",
    "dragoman_input_tokens_total",
    "dragoman_output_tokens_total",
    "dragoman_decoder_step_seconds_count",
    "dragoman_model_info",
)


def main() -> int:
    """Runs the demonstration; 0 where everything went as it should."""
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-m", "service.cli", "serve", "--log-format", "text", "--admit-grace-s", "0.2"]
    command += ["--listen", f"127.0.0.1:{port}", "--metrics-listen", f"127.0.0.1:{metrics_port}"]
    print("$ dragoman serve --listen", f"127.0.0.1:{port}")
    with tempfile.TemporaryFile("w+") as server_log:
        started = time.monotonic()
        server = subprocess.Popen(command, stdout=server_log, stderr=server_log)
        try:
            if not wait_until_serving(f"127.0.0.1:{port}", server):
                return give_up(server_log, "the server did not come up")
            print(f"  SERVING after {time.monotonic() - started:.1f} s\n")
            translate_all(f"127.0.0.1:{port}")
            show_metrics(metrics_port)
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=30)
        except (ServiceError, OSError, subprocess.TimeoutExpired) as error:
            return give_up(server_log, str(error))
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
        print(f"\nSIGTERM: the server finished its work and left with exit code {code}")
        return 0 if code == 0 else give_up(server_log, "that should have been 0")


def free_port() -> int:
    """A port that is free now, and not one of those that the system gives to outgoing connections; it may be taken a
    moment later, which the server would then say."""
    for port in random.sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"of 100 ports from {PORTS[0]} to {PORTS[-1]} none is free")


def wait_until_serving(address: str, server: "subprocess.Popen[bytes]") -> bool:
    """Watches the server's own health answer; False where it ended or took too long."""
    request = health_pb2.HealthCheckRequest(service="dragoman.v1.TranslationService")
    deadline = time.monotonic() + MAX_START_S
    while server.poll() is None and time.monotonic() < deadline:
        with grpc.insecure_channel(address) as channel:
            try:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # the published types lack Watch
                for response in stub.Watch(request, timeout=MAX_START_S):
                    if response.status == health_pb2.HealthCheckResponse.SERVING:
                        return True
            except grpc.RpcError:
                time.sleep(0.05)  # not listening yet
    return False


def translate_all(address: str) -> None:
    """Translates SENTENCES with greedy and with beam search, and prints both."""
    with Client(address) as client:
        [model] = client.list_models().models
        print(f"model {model.name} {model.version}, {model.source_language} to {model.target_language}, ", end="")
        print(f"{model.precision} on {model.device}")
        source, target = model.source_language, model.target_language
        client.translate(SENTENCES[:1], source=source, target=target)  # the first call also opens the connection
        for name, options in (("greedy", DecodeOptions(num_beams=1)), ("beam 4", DecodeOptions(num_beams=4))):
            started = time.monotonic()
            results = client.translate(SENTENCES, source=source, target=target, options=options)
            duration_s = time.monotonic() - started
            print(f"\n{name}, {len(SENTENCES)} texts in {duration_s * 1000:.0f} ms")
            for sentence, result in zip(SENTENCES, results, strict=True):
                if isinstance(result, ServiceError):
                    raise result
                print(f"  {sentence}\n    -> {result.text}")


def show_metrics(port: int) -> None:
    """Prints a few lines of what Prometheus would read."""
    print(f"\n$ curl http://127.0.0.1:{port}/metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        for line in response.read().decode().splitlines():
            if re.match(rf"({'|'.join(SHOWN_METRICS)})\b", line):
                print(" ", line)


def give_up(server_log: IO[str], message: str) -> int:
    """Prints what the server said, for whoever has to find out why."""
    server_log.seek(0)
    print(f"demo: {message}; the server's log:\n{server_log.read()}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
