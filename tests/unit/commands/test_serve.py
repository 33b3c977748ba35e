"""How many files a server lets itself open."""

import resource

import pytest

from service.commands.serve import MAX_FILES, MIN_FILES, allow_files
from service.errors import ConfigurationError


@pytest.mark.parametrize(
    ("granted", "wanted"),
    [
        (resource.RLIM_INFINITY, MAX_FILES),
        (2 * MAX_FILES, MAX_FILES),
        (1000, 1000),
        (MIN_FILES, MIN_FILES),
    ],
)
def test_it_takes_what_the_system_grants_within_reason(monkeypatch: pytest.MonkeyPatch, granted: int, wanted: int):
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (32, granted))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: taken.append(limits))
    allow_files()
    assert taken == [(wanted, granted)]


def test_too_few_to_begin_with_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, MIN_FILES - 1))
    with pytest.raises(ConfigurationError, match=f"may open {MIN_FILES - 1} files at a time; it needs {MIN_FILES}"):
        allow_files()
