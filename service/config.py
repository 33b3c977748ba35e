"""Every setting of the service: its meaning, its range, and where its value comes from.

Defaults < TOML file (``--config``) < environment ``DRAGOMAN_*`` < flags. Knows: names, ranges and sources. Does not
know: what uses a setting.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.decoding.options import MAX_BEAMS, DecodeOptions
from service.engine.settings import EngineSettings
from service.errors import ConfigurationError
from service.transport.limits import Limits
from service.transport.security import SecurityOptions

ENVIRONMENT_PREFIX = "DRAGOMAN_"
# What Kubernetes puts into the environment of every container beside a Service named "dragoman"; not ours.
_SERVICE_LINK = re.compile(r"DRAGOMAN_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$")
# The TOML file, and where training and benchmarks find their texts: not settings of the service.
_NO_SETTINGS = ("DRAGOMAN_CONFIG", "DRAGOMAN_DATA", "DRAGOMAN_KERNELS", "DRAGOMAN_PRODUCTS")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _setting(default: Any, meaning: str) -> Any:
    """A field whose meaning is kept with it: `dragoman serve --help` prints it and a test requires it."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What `dragoman serve` runs with. Checked on construction, never changed.

    Raises:
        ConfigurationError: a value is out of its range; the message names the field and the value.
    """

    bundle: tuple[str, ...] = _setting(
        (),
        "directories or zip files of the models to serve, in the environment divided by colons; none: the shipped one",
    )
    models_folder: str = _setting(
        "", "folder of bundles to serve too, looked at for new, changed and removed ones; empty: none"
    )
    models_poll_s: float = _setting(2.0, "seconds between two looks at the models' folder; 0: only at SIGHUP")
    listen: str = _setting("127.0.0.1:50051", "HOST:PORT for gRPC; port 0 picks a free one and prints it")
    metrics_listen: str = _setting("127.0.0.1:9464", "HOST:PORT for /metrics, /livez and /readyz over HTTP; empty: off")
    metrics: bool = _setting(True, "whether there is /metrics beside /livez and /readyz")
    device: str = _setting(
        "cpu", "where models run: cpu, cuda, or auto: a GPU where there is one that can be used, else the CPU"
    )
    device_memory_share: float = _setting(0.9, "how much of a GPU's free memory may be used, 0.01 to 1")
    record_steps: bool = _setting(True, "whether a GPU's steps are recorded as CUDA graphs and replayed")
    precision: str = _setting("auto", "arithmetic: auto, fp32, int8 or fp16; auto: the fastest the bundle has")
    num_workers: int = _setting(0, "engine threads per model, 0 to 256; 0: chosen from the CPUs of this process")
    threads_per_worker: int = _setting(0, "threads inside one step, 0 to 256; 0: CPUs of this process / workers")
    niceness: int = _setting(
        10, "how far engine threads stand back behind those that answer calls, 0 to 19 as nice counts"
    )
    max_rows: int = _setting(32, "rows (beams counted) of one worker's running batch, max_beams to 65536")
    max_queue_sentences: int = _setting(4096, "sentences that may wait; past it RESOURCE_EXHAUSTED")
    max_queue_tokens: int = _setting(262_144, "source tokens that may wait; past it RESOURCE_EXHAUSTED")
    max_delay_s: float = _setting(
        5.0, "expected seconds to an answer; past it interactive calls get RESOURCE_EXHAUSTED; 0: never"
    )
    num_beams: int = _setting(4, "beam width where a request names none, 1 to max_beams; 1: greedy")
    length_penalty: float = _setting(1.0, "length penalty where a request names none, 0 to 5")
    max_length: int = _setting(0, "target tokens per sentence where a request names none; 0: the model's limit")
    stop_repetition: bool = _setting(True, "whether a translation that begins to repeat itself is stopped and flagged")
    max_texts: int = _setting(1024, "texts in one request; past it INVALID_ARGUMENT, as for the next four")
    max_text_characters: int = _setting(100_000, "characters of one text")
    max_request_characters: int = _setting(1_000_000, "characters of all texts of one request")
    max_beams: int = _setting(MAX_BEAMS, f"beam width a request may ask for, 1 to {MAX_BEAMS}")
    max_alternatives: int = _setting(MAX_BEAMS, f"alternatives a request may ask for, 1 to {MAX_BEAMS}")
    max_stream_texts: int = _setting(64, "unfinished texts of one stream; past it the stream is read no further")
    max_stream_idle_s: int = _setting(300, "seconds without a text read or a result written until a stream is ended")
    max_message_bytes: int = _setting(16 * 1024 * 1024, "bytes of one gRPC message; past it RESOURCE_EXHAUSTED")
    max_open_calls: int = _setting(1024, "calls open at a time, streams included; past it RESOURCE_EXHAUSTED")
    max_connection_age_s: float = _setting(300.0, "seconds until a connection is told to reconnect; 0: never")
    max_connection_age_grace_s: float = _setting(0.0, "seconds that its open calls then have; 0: as long as they take")
    keepalive_time_s: float = _setting(30.0, "seconds of silence until a client is checked for being there")
    handshake_timeout_s: float = _setting(10.0, "seconds that a new connection has to begin to speak HTTP/2, >= 0.1")
    message_timeout_s: float = _setting(30.0, "seconds that the message of a call may take to arrive, >= 0.1")
    admit_grace_s: float = _setting(1.0, "seconds after SIGTERM in which calls are still taken (endpoints lag)")
    drain_grace_s: float = _setting(30.0, "seconds after that in which accepted calls may finish")
    max_step_s: float = _setting(30.0, "seconds of one step; past it health says NOT_SERVING until it ends; 0: never")
    max_stuck_s: float = _setting(
        90.0, "seconds of one step; past it the process ends with 1, to be restarted; 0: never"
    )
    compress_from_bytes: int = _setting(
        4096, "bytes from which on an answer is gzipped for clients that take it; 0: never"
    )
    reflection: bool = _setting(True, "whether the server describes its API to tools such as grpcurl")
    tls_certificate: str = _setting("", "PEM file of the server's certificate chain; empty: no TLS")
    tls_key: str = _setting("", "PEM file of its private key, without a password; read anew when replaced, as are all")
    tls_client_ca: str = _setting("", "PEM file of the roots a client's certificate must have (mutual TLS)")
    clients: str = _setting("", "TOML file of the clients that may call and their tokens; empty: anybody may")
    open_health: bool = _setting(True, "whether health checks need no token")
    max_client_calls: int = _setting(0, "calls open of one client; past it RESOURCE_EXHAUSTED; 0: no limit of its own")
    max_client_tokens: int = _setting(0, "source tokens open of one client; past it RESOURCE_EXHAUSTED; 0: no limit")
    otlp_endpoint: str = _setting(
        "", "URL that takes OpenTelemetry traces (OTLP over gRPC), such as http://localhost:4317; empty: no traces"
    )
    trace_ratio: float = _setting(1.0, "share of calls to trace where the client does not say, 0 to 1")
    log_level: str = _setting("info", "least level that is logged: debug, info, warning or error")
    log_format: str = _setting("json", "json: one object a line; text: for eyes")

    def __post_init__(self) -> None:
        _require("log_level", self.log_level, self.log_level in LOG_LEVELS, f"be one of {', '.join(LOG_LEVELS)}")
        _require("log_format", self.log_format, self.log_format in LOG_FORMATS, f"be one of {', '.join(LOG_FORMATS)}")
        parse_address("listen", self.listen)
        if self.metrics_listen:
            parse_address("metrics_listen", self.metrics_listen)
        for name in (
            "max_connection_age_s",
            "max_connection_age_grace_s",
            "keepalive_time_s",
            "handshake_timeout_s",
            "message_timeout_s",
            "admit_grace_s",
            "drain_grace_s",
            "max_step_s",
            "max_stuck_s",
            "models_poll_s",
        ):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 86_400 and math.isfinite(value), "be in [0, 86400]")
        is_later = not self.max_stuck_s or 0 < self.max_step_s <= self.max_stuck_s
        _require(
            "max_stuck_s", self.max_stuck_s, is_later, f"be 0 or >= max_step_s ({self.max_step_s}), which is not 0"
        )
        is_url = re.fullmatch(r"(https?://[^/\s]+/?)?", self.otlp_endpoint) is not None
        _require("otlp_endpoint", self.otlp_endpoint, is_url, "be a URL such as http://localhost:4317")
        _require("trace_ratio", self.trace_ratio, 0 <= self.trace_ratio <= 1, "be in [0, 1]")
        for name, least in (("handshake_timeout_s", 0.1), ("message_timeout_s", 0.1), ("keepalive_time_s", 1)):
            _require(name, getattr(self, name), getattr(self, name) >= least, f"be >= {least}")
        _require(
            "compress_from_bytes", self.compress_from_bytes, 0 <= self.compress_from_bytes < 2**31, "be in [0, 2**31)"
        )
        _require("max_open_calls", self.max_open_calls, self.max_open_calls >= 1, "be >= 1")
        _require("num_beams", self.num_beams, self.num_beams <= self.max_beams, f"be <= max_beams ({self.max_beams})")
        try:
            _ = self.limits, self.engine, self.decode_defaults, self.security
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        _require("max_rows", self.max_rows, self.max_rows >= self.max_beams, f"be >= max_beams ({self.max_beams})")

    @property
    def limits(self) -> Limits:
        """What a request may ask for."""
        return Limits(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Limits)})

    @property
    def security(self) -> SecurityOptions:
        """What keeps strangers out."""
        return SecurityOptions(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(SecurityOptions)}
        )

    @property
    def engine(self) -> EngineSettings:
        """How each model's engine runs."""
        # max_length goes into every request's options (decode_defaults); the engine's own is for other callers.
        names = {field.name for field in dataclasses.fields(EngineSettings)} - {"default_max_length"}
        return EngineSettings(**{name: getattr(self, name) for name in names})

    @property
    def decode_defaults(self) -> DecodeOptions:
        """What decode options mean where a request leaves them unset."""
        return DecodeOptions(num_beams=self.num_beams, length_penalty=self.length_penalty, max_length=self.max_length)

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, for the log line at start."""
        return dataclasses.asdict(self)


def load_config(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> ServiceConfig:
    """Puts the sources together; flags that are None count as not given.

    Raises:
        ConfigurationError: a key is unknown (the nearest known one is named), a value has the wrong type or is out of
            its range, or the file cannot be read.
    """
    values: dict[str, Any] = {}
    if file is None and environment.get(ENVIRONMENT_PREFIX + "CONFIG"):
        file = Path(environment[ENVIRONMENT_PREFIX + "CONFIG"])
    if file is not None:
        values.update(_read_file(file))
    values.update(_read_environment(environment))
    values.update({name: value for name, value in flags.items() if value is not None})
    return ServiceConfig(**values)


def parse_address(name: str, address: str) -> tuple[str, int]:
    """Splits HOST:PORT, where an IPv6 host stands in brackets; the host comes back without them.

    Raises:
        ConfigurationError: it is not of that form; the message begins with the setting's name.
    """
    host, colon, port = address.rpartition(":")
    is_valid = bool(host and colon) and port.isascii() and port.isdigit() and int(port) <= 65_535
    if is_valid and ":" in host:
        is_valid = host.startswith("[") and host.endswith("]")
    _require(name, address, is_valid, "have the form HOST:PORT, such as 0.0.0.0:50051 or [::]:50051")
    return host.strip("[]"), int(port)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, numbers and brackets without end
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    fields = _fields()
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise ConfigurationError(f"{file}: unknown key {key!r}{_nearest(key, fields)}")
        values[key] = _typed(f"{file}: {key}", fields[key], value)
    return values


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    fields = _fields()
    known = {ENVIRONMENT_PREFIX + name.upper(): field for name, field in fields.items()}
    values = {}
    for variable, text in environment.items():
        is_ours = variable.startswith(ENVIRONMENT_PREFIX) and not _SERVICE_LINK.match(variable)
        if not is_ours or variable in _NO_SETTINGS:
            continue
        if variable not in known:
            raise ConfigurationError(
                f"unknown environment variable {variable}{_nearest(variable, known, ENVIRONMENT_PREFIX)}"
            )
        values[known[variable].name] = parse_text(variable, known[variable], text)
    return values


def parse_text(where: str, field: "dataclasses.Field[Any]", text: str) -> Any:
    """The value that an environment variable's or a flag's text stands for.

    Raises:
        ConfigurationError: the text does not fit the field's type.
    """
    if isinstance(field.default, bool):
        _require(where, text, text.lower() in _TRUE + _FALSE, "be true or false")
        return text.lower() in _TRUE
    if isinstance(field.default, tuple):
        return tuple(part for part in text.split(":") if part)
    if isinstance(field.default, str):
        return text
    number: type[int] | type[float] = float if isinstance(field.default, float) else int
    try:
        return number(text)
    except ValueError:
        raise ConfigurationError(f"{where} ({text!r}) must be {_article(number)}") from None


def _typed(where: str, field: "dataclasses.Field[Any]", value: Any) -> Any:
    """Checks the type of a TOML value; only whole numbers pass for fractions and lists for tuples."""
    expected = type(field.default)
    if expected is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if expected is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ConfigurationError(f"{where} must be a number of less than 309 digits") from None
    if type(value) is not expected:
        raise ConfigurationError(f"{where} ({value!r}) must be {_article(expected)}")
    return value


def _article(kind: type) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a string",
        bool: "true or false",
        tuple: "a list of strings",
    }
    return names[kind]


def _fields() -> "dict[str, dataclasses.Field[Any]]":
    return {field.name: field for field in dataclasses.fields(ServiceConfig)}


def _nearest(name: str, known: Mapping[str, Any], prefix: str = "") -> str:
    """``prefix``: what all names begin with, so that it is no likeness."""
    ends = [one.removeprefix(prefix) for one in known]
    matches = difflib.get_close_matches(name.removeprefix(prefix), ends, n=1, cutoff=0.5)
    return f"; did you mean {prefix}{matches[0]}?" if matches else ""


def _require(name: str, value: object, condition: bool, must: str) -> None:
    if not condition:
        raise ConfigurationError(f"{name} ({value!r}) must {must}")
