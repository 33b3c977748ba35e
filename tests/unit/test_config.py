"""Where settings come from, and what is said of wrong ones."""

import dataclasses
from pathlib import Path

import pytest

from service.config import ServiceConfig, load_config, parse_address
from service.decoding.options import DecodeOptions
from service.errors import ConfigurationError


def test_every_setting_says_what_it_means():
    for field in dataclasses.fields(ServiceConfig):
        assert len(field.metadata["meaning"]) > 10, field.name


# Changed here on purpose only: whoever upgrades gets what is new, and README, RUNBOOK and manifests may name the old.
DEFAULTS: dict[str, object] = {
    "bundle": (),
    "models_folder": "",
    "models_poll_s": 2.0,
    "listen": "127.0.0.1:50051",
    "metrics_listen": "127.0.0.1:9464",
    "metrics": True,
    "device": "cpu",
    "device_memory_share": 0.9,
    "record_steps": True,
    "precision": "auto",
    "num_workers": 0,
    "threads_per_worker": 0,
    "niceness": 10,
    "max_rows": 32,
    "max_queue_sentences": 4096,
    "max_queue_tokens": 262_144,
    "max_delay_s": 5.0,
    "num_beams": 4,
    "length_penalty": 1.0,
    "max_length": 0,
    "stop_repetition": True,
    "max_texts": 1024,
    "max_text_characters": 100_000,
    "max_request_characters": 1_000_000,
    "max_beams": 16,
    "max_alternatives": 16,
    "max_stream_texts": 64,
    "max_stream_idle_s": 300,
    "max_message_bytes": 16_777_216,
    "max_open_calls": 1024,
    "max_connection_age_s": 300.0,
    "max_connection_age_grace_s": 0.0,
    "keepalive_time_s": 30.0,
    "handshake_timeout_s": 10.0,
    "message_timeout_s": 30.0,
    "admit_grace_s": 1.0,
    "drain_grace_s": 30.0,
    "max_step_s": 30.0,
    "max_stuck_s": 90.0,
    "compress_from_bytes": 4096,
    "reflection": True,
    "tls_certificate": "",
    "tls_key": "",
    "tls_client_ca": "",
    "clients": "",
    "open_health": True,
    "max_client_calls": 0,
    "max_client_tokens": 0,
    "otlp_endpoint": "",
    "trace_ratio": 1.0,
    "log_level": "info",
    "log_format": "json",
}


def test_what_a_service_does_where_nothing_is_said():
    assert load_config(None, {}, {}).as_dict() == DEFAULTS


def test_flags_go_before_environment_before_file_before_defaults(tmp_path: Path):
    file = tmp_path / "dragoman.toml"
    file.write_text('max_rows = 16\nmax_texts = 1\nnum_beams = 1\nbundle = ["a", "b"]\n')
    environment = {"DRAGOMAN_MAX_TEXTS": "2", "DRAGOMAN_NUM_BEAMS": "2", "PATH": "/bin"}
    config = load_config(file, environment, {"num_beams": 3, "length_penalty": None})
    assert (config.max_rows, config.max_texts, config.num_beams) == (16, 2, 3)
    assert config.bundle == ("a", "b")
    assert config.length_penalty == ServiceConfig().length_penalty


def test_the_environment_can_name_the_file(tmp_path: Path):
    file = tmp_path / "dragoman.toml"
    file.write_text("max_rows = 70\n")
    assert load_config(None, {"DRAGOMAN_CONFIG": str(file)}, {}).max_rows == 70


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_row = 1", "unknown key 'max_row'; did you mean max_rows?"),
        ("max_rows = 'many'", "max_rows .'many'. must be a whole number"),
        ("max_rows = true", "max_rows .True. must be a whole number"),
        ("reflection = 1", "must be true or false"),
        ("bundle = 'a'", "must be a list of strings"),
        ("bundle = ['a', 1]", "must be a list of strings"),
        ("drain_grace_s = true", "must be a number"),
        ("max_rows = ", "not valid TOML"),
        (
            "otlp_endpoint = 'collector:4317'",
            "otlp_endpoint .'collector:4317'. must be a URL such as http://localhost:4317",
        ),
        (f"max_delay_s = 1{400 * '0'}", "max_delay_s must be a number of less than 309 digits"),
        (f"max_rows = 1{5000 * '0'}", "not valid TOML"),
        (f"bundle = {5000 * '['}", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str):
    file = tmp_path / "dragoman.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_config(file, {}, {})


def test_a_missing_file_is_explained(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_config(tmp_path / "nothing.toml", {}, {})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DRAGOMAN_MAX_ROW", "1", "did you mean DRAGOMAN_MAX_ROWS?"),
        ("DRAGOMAN_FOO", "1", "unknown environment variable DRAGOMAN_FOO$"),  # the prefix is like that of all
        ("DRAGOMAN_MAX_ROWS", "x", "DRAGOMAN_MAX_ROWS .'x'. must be a whole number"),
        ("DRAGOMAN_REFLECTION", "maybe", "must be true or false"),
    ],
)
def test_a_wrong_variable_is_explained(variable: str, value: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        load_config(None, {variable: value}, {})


def test_what_kubernetes_puts_into_the_environment_is_no_setting():
    links = ("DRAGOMAN_SERVICE_HOST", "DRAGOMAN_SERVICE_PORT_GRPC", "DRAGOMAN_PORT", "DRAGOMAN_PORT_50051_TCP_ADDR")
    assert load_config(None, dict.fromkeys(links, "tcp://10.0.0.1:50051"), {}) == ServiceConfig()


def test_what_is_beside_the_settings_in_the_environment():
    """Bundles are divided by colons, of which one too many is none; where texts are is no setting."""
    found = load_config(None, {"DRAGOMAN_BUNDLE": "a::b:", "DRAGOMAN_DATA": "/texts"}, {})
    assert found == ServiceConfig(bundle=("a", "b"))


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("0", False), ("False", False)])
def test_truth_values_of_the_environment(text: str, value: bool):
    assert load_config(None, {"DRAGOMAN_REFLECTION": text}, {}).reflection is value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_rows": 0}, r"max_rows \(0\) must be in \[1, 65536\]"),
        ({"max_rows": 8}, "max_rows .8. must be >= max_beams .16."),
        ({"num_beams": 17}, "num_beams .17. must be <= max_beams .16."),
        ({"niceness": 20}, r"niceness \(20\) must be in \[0, 19\]"),
        ({"max_texts": 0}, "max_texts .0. must be in"),
        ({"device": "tpu"}, "device .'tpu'. must be one of cpu, cuda"),
        ({"length_penalty": float("nan")}, "length_penalty .nan. must be in"),
        ({"drain_grace_s": -1.0}, "drain_grace_s"),
        ({"drain_grace_s": float("inf")}, "drain_grace_s"),
        ({"listen": "50051"}, "listen .'50051'. must have the form HOST:PORT"),
        ({"listen": "::1:50051"}, "listen"),
        ({"listen": "localhost:\uff15\uff10"}, "listen"),
        ({"listen": "localhost:65536"}, "listen"),
        ({"metrics_listen": "localhost:99999"}, "metrics_listen"),
        ({"log_level": "loud"}, "log_level"),
        ({"log_format": "xml"}, "log_format"),
        ({"max_open_calls": 0}, "max_open_calls"),
        ({"handshake_timeout_s": 0.05}, r"handshake_timeout_s \(0\.05\) must be >= 0\.1"),
        ({"message_timeout_s": 0.0}, r"message_timeout_s \(0\.0\) must be >= 0\.1"),
        ({"keepalive_time_s": 0.5}, r"keepalive_time_s \(0\.5\) must be >= 1"),
        ({"max_stuck_s": 29.0}, r"max_stuck_s \(29\.0\) must be 0 or >= max_step_s \(30\.0\), which is not 0"),
        ({"max_step_s": 0.0}, r"max_stuck_s \(90\.0\) must be 0 or >= max_step_s \(0\.0\), which is not 0"),
        ({"trace_ratio": -0.1}, r"trace_ratio \(-0\.1\) must be in \[0, 1\]"),
        ({"trace_ratio": 1.1}, r"trace_ratio \(1\.1\) must be in \[0, 1\]"),
        ({"trace_ratio": float("nan")}, "trace_ratio"),
        ({"compress_from_bytes": -1}, "compress_from_bytes"),
        ({"compress_from_bytes": 2**31}, "compress_from_bytes"),
        ({"max_beams": 17}, r"max_beams \(17\) must be in \[1, 16\]"),
        *(
            ({name: value}, rf"{name} \({value}\) must be in \[0, 86400\]")
            for name in (
                *("max_connection_age_s", "max_connection_age_grace_s", "keepalive_time_s", "handshake_timeout_s"),
                *("message_timeout_s",),
                *("admit_grace_s", "drain_grace_s", "max_step_s", "max_stuck_s", "models_poll_s"),
            )
            for value in (-1.0, 86_401.0)
        ),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        ServiceConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"message_timeout_s": 0.1},
        {"handshake_timeout_s": 0.1, "keepalive_time_s": 1.0, "admit_grace_s": 0.0, "drain_grace_s": 86_400.0},
        {"max_stuck_s": 30.0, "trace_ratio": 0.0, "compress_from_bytes": 0},
        {"max_stuck_s": 0.0, "max_step_s": 0.0, "compress_from_bytes": 2**31 - 1},
        {"max_rows": 16, "num_beams": 16, "niceness": 0},
    ],
)
def test_values_at_the_ends_of_their_ranges_are_taken(fields: dict[str, object]):
    assert ServiceConfig(**fields).as_dict().items() >= fields.items()  # type: ignore[arg-type]


def test_what_a_request_leaves_unset_is_what_the_service_was_told():
    config = ServiceConfig(num_beams=2, length_penalty=0.5, max_length=7)
    assert config.decode_defaults == DecodeOptions(num_beams=2, length_penalty=0.5, max_length=7)


def test_every_setting_of_an_engine_reaches_it():
    chosen = {
        "max_rows": 48,
        "niceness": 3,
        "device_memory_share": 0.5,
        "record_steps": False,
        "stop_repetition": False,
    }
    engine = ServiceConfig(device="auto", precision="int8", num_workers=2, **chosen).engine
    assert dataclasses.asdict(engine).items() >= (chosen | {"device": "auto", "num_workers": 2}).items()
    names = {field.name for field in dataclasses.fields(engine)} & set(ServiceConfig().as_dict())
    assert {name: getattr(ServiceConfig().engine, name) for name in names} == {
        name: getattr(ServiceConfig(), name) for name in names
    }


def test_addresses():
    assert parse_address("listen", "[::]:50051") == ("::", 50051)
    assert parse_address("listen", "localhost:0") == ("localhost", 0)
    assert parse_address("listen", "localhost:65535") == ("localhost", 65535)
