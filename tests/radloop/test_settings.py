"""Settings: one typed value, from RADLOOP_* and flags; what cannot be used is named."""

import pytest

from radloop.settings import BadSettings, Settings


def test_the_defaults_are_those_of_one_machine() -> None:
    settings = Settings.from_env({})
    assert (settings.host, settings.port, settings.live_port) == ("127.0.0.1", 8080, 8081)
    assert settings.origin == "http://127.0.0.1:8080"
    assert settings.fhir_base == "http://127.0.0.1:8080/fhir"
    assert settings.dicomweb_base == "http://127.0.0.1:8080/dicomweb"
    assert settings.live_url == "ws://127.0.0.1:8081"


def test_variables_are_read_and_flags_win() -> None:
    environ = {"RADLOOP_PORT": "9000", "RADLOOP_DATA_DIR": "/d", "HOME": "/x", "RADLOOP_DEMO": "true"}
    settings = Settings.from_env(environ, port=9100, host=None)
    assert (settings.port, settings.data_dir, settings.host, settings.demo) == (9100, "/d", "127.0.0.1", True)


def test_a_public_address_is_used_everywhere() -> None:
    settings = Settings.from_env(
        {"RADLOOP_PUBLIC_URL": "https://r.example.org/", "RADLOOP_PUBLIC_LIVE_URL": "wss://r.example.org"}
    )
    assert settings.fhir_base == "https://r.example.org/fhir"
    assert settings.live_url == "wss://r.example.org"


def test_they_reach_another_process_unchanged() -> None:
    settings = Settings.from_env(
        {"RADLOOP_OUTGOING_ALLOW": "10.0.0.0/8, ehr.local", "RADLOOP_MONGODB_CACHE_GB": "1.5", "RADLOOP_OPEN": "yes"}
    )
    assert settings.outgoing_allow == ("10.0.0.0/8", "ehr.local")
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "eighty"),
        ("LIVE_PORT", "70000"),
        ("LIVE_PORT", "8080"),
        ("PUBLIC_URL", "example.org"),
        ("PUBLIC_URL", "ftp://example.org"),
        ("PUBLIC_URL", "https://example.org/?a=b"),
        ("PUBLIC_LIVE_URL", "https://example.org"),
        ("MONGODB_URI", "http://db"),
        ("MONGODB_DATABASE", "a/b"),
        ("MONGODB_CACHE_GB", "0.1"),
        ("WEB_WORKERS", "0"),
        ("PRACTICE_ORGANIZATION", "Patient/1"),
        ("PRACTICE_TIME_ZONE", "Mars/Olympus"),
        ("PRACTICE_TIME_ZONE", "../../etc/passwd"),
        ("NOSHOW_GRACE_MINUTES", "-1"),
        ("DEMO", "perhaps"),
        ("NO_SUCH_SETTING", "1"),
    ],
)
def test_a_bad_value_stops_the_start_and_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"RADLOOP_{name}"):
        Settings.from_env({f"RADLOOP_{name}": value})


@pytest.mark.parametrize("name", ["DEMO", "OPEN"])
def test_what_is_for_loopback_is_refused_elsewhere(name: str) -> None:
    with pytest.raises(BadSettings, match=f"RADLOOP_{name}.*loopback"):
        Settings.from_env({f"RADLOOP_{name}": "true", "RADLOOP_HOST": "0.0.0.0"})
    assert Settings.from_env({f"RADLOOP_{name}": "true", "RADLOOP_HOST": "localhost"})


@pytest.mark.parametrize(
    "given",
    [
        {"RADLOOP_HOST": "0.0.0.0"},
        {"RADLOOP_HOST": "0.0.0.0", "RADLOOP_PUBLIC_URL": "http://r.example.org"},
        {"RADLOOP_PUBLIC_URL": "http://r.example.org"},
    ],
)
def test_nothing_goes_in_the_clear_between_machines(given: dict[str, str]) -> None:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#privacy-and-security-considerations: TLS."""
    with pytest.raises(BadSettings, match=r"RADLOOP_PUBLIC_URL.*https"):
        Settings.from_env(given)
    assert Settings.from_env(given | {"RADLOOP_PUBLIC_URL": "https://r.example.org"})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadSettings, match=r"RADLOOP_LIVE_PORT.*; RADLOOP_PORT|RADLOOP_PORT.*; RADLOOP_LIVE_PORT"):
        Settings.from_env({"RADLOOP_PORT": "x", "RADLOOP_LIVE_PORT": "y"})
