"""Bundles that come, change and go while models are served; with scripted translators."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.config import ServiceConfig
from service.engine.observer import EngineObserver
from service.engine.settings import EngineSettings
from service.errors import BundleError, ConfigurationError
from service.metrics import Metrics
from service.model_store import Change, ModelStore, bundles_in, discard, fingerprint
from tests.unit.transport.scripted_translator import ScriptedTranslator, model_info


class Folder:
    """A models' folder whose bundles hold one line: name, source and target; anything else is damaged."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path, self.metrics, self.loaded_from = path, Metrics(), list[Path]()
        self.translators: list[ScriptedTranslator] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.store = ModelStore(ServiceConfig(models_folder=str(path), **settings), self.metrics, self.load)

    def write(self, bundle: str, line: str) -> None:
        (self.path / bundle).mkdir(exist_ok=True)
        (self.path / bundle / "manifest.json").write_text(line)

    def load(self, path: Path, _: EngineSettings, observer: EngineObserver) -> ScriptedTranslator:
        self.loaded_from.append(path)
        words = (path / "manifest.json" if path.is_dir() else path).read_text().split()
        if len(words) != 3:
            raise BundleError("damaged")
        observer.cache_bytes(100)
        self.meanwhile()
        self.translators.append(ScriptedTranslator(model_info(words[1], words[2], words[0])))
        return self.translators[-1]

    def sample(self, metric: str, /, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(metric, labels)


def names(change: Change) -> list[str]:
    return [model.translator.info.name for model in change.serve]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write("a", "first en fr")
    return folder


def test_bundles_come_and_go_once_they_are_at_rest(folder: Folder) -> None:
    [first] = folder.store.load_all()
    assert folder.loaded_from[0].parent != folder.path, "loaded from a copy: files may be overwritten in place"
    folder.store.refresh(is_asked=False)
    folder.write("b", "second en de")
    assert names(folder.store.refresh(is_asked=False)) == ["first"], "it may still be being copied"
    assert names(folder.store.refresh(is_asked=False)) == ["first", "second"]
    (folder.path / "a" / "manifest.json").unlink()
    change = folder.store.refresh(is_asked=False)
    assert names(change) == ["second"]
    assert change.retired == [first]
    assert discard(first)
    assert folder.sample("dragoman_cache_bytes") == 100
    assert folder.sample("dragoman_model_reloads_total", outcome="loaded") == 1


def test_a_change_replaces_and_damage_does_not(folder: Folder) -> None:
    [first] = folder.store.load_all()
    folder.write("a", "damaged")
    for _ in range(3):
        change = folder.store.refresh(is_asked=True)
        assert (change.serve, change.retired) == ([first], [])
    for _ in range(3):
        folder.store.refresh(is_asked=False)
    assert folder.sample("dragoman_model_reloads_total", outcome="failed") == 3, "tried again only when asked to"
    folder.write("a", "better en fr")
    change = folder.store.refresh(is_asked=True)
    assert (names(change), change.retired) == (["better"], [first])
    labels = {
        "version": "1",
        "source_language": "en",
        "target_language": "fr",
        "precision": "cpu-int8",
        "device": "cpu",
    }
    assert folder.sample("dragoman_model_info", name="better", **labels) == 1
    assert folder.sample("dragoman_model_info", name="first", **labels) is None


def test_what_changes_while_it_is_loaded_is_loaded_again(folder: Folder) -> None:
    folder.store.load_all()

    def change() -> None:
        folder.meanwhile = lambda: None
        folder.write("b", "latest en de")

    folder.meanwhile = change
    folder.write("b", "second en de")
    assert names(folder.store.refresh(is_asked=True)) == ["first", "second"]
    assert names(folder.store.refresh(is_asked=True)) == ["first", "latest"]
    assert names(folder.store.refresh(is_asked=True)) == ["first", "latest"]
    assert len(folder.loaded_from) == 3


def test_a_version_like_the_one_before_is_stated(folder: Folder) -> None:
    """The labels of the old one, which go with it, are its own too."""
    folder.store.load_all()
    folder.write("a", "first  en  fr")
    assert len(folder.store.refresh(is_asked=True).retired) == 1
    [line] = [line for line in folder.metrics.render().splitlines() if line.startswith(b"dragoman_model_info{")]
    assert line.endswith(b" 1.0")
    assert b'name="first"' in line


def test_two_for_the_same_pair_are_not_served_until_the_first_has_gone(folder: Folder) -> None:
    folder.store.load_all()
    folder.write("b", "rival en fr")
    change = folder.store.refresh(is_asked=True)
    assert (names(change), change.num_failed) == (["first"], 1)
    assert [translator._closed for translator in folder.translators] == [False, True], "nobody will use the rival"
    assert folder.sample("dragoman_cache_bytes") == 100
    (folder.path / "a" / "manifest.json").unlink()
    folder.store.refresh(is_asked=False)
    assert names(folder.store.refresh(is_asked=False)) == ["rival"]


def test_what_could_not_be_served_beside_the_old_is_served_beside_the_new(folder: Folder) -> None:
    folder.write("b", "second en de")
    folder.store.load_all()
    folder.write("a", "first en de")
    folder.write("b", "second en it")
    folder.store.refresh(is_asked=False)
    change = folder.store.refresh(is_asked=False)
    labels = {"version": "1", "source_language": "en", "precision": "cpu-int8", "device": "cpu"}
    assert (change.num_failed, len(change.serve)) == (1, 2)
    assert folder.sample("dragoman_model_info", name="first", target_language="de", **labels) is None, "it was refused"
    change = folder.store.refresh(is_asked=False)
    assert change.num_failed == 0
    assert {model.translator.info.target_language for model in change.serve} == {"de", "it"}
    assert folder.sample("dragoman_model_info", name="first", target_language="de", **labels) == 1


def test_an_unexpected_error_is_the_bundles_own(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher goes on: what is added after it is served."""
    folder.store.load_all()

    def break_down(*_: object) -> object:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(folder.store, "_load", break_down)
        folder.write("b", "second en de")
        assert folder.store.refresh(is_asked=True).num_failed == 1
    assert folder.sample("dragoman_model_reloads_total", outcome="failed") == 1
    assert names(folder.store.refresh(is_asked=True)) == ["first", "second"]


def test_a_folder_that_cannot_be_read_changes_nothing(folder: Folder) -> None:
    [first] = folder.store.load_all()
    folder.path.rename(folder.path.with_name("elsewhere"))
    change = folder.store.refresh(is_asked=True)
    assert (change.serve, change.retired, change.num_failed) == ([first], [], 1)
    for _ in range(3):
        folder.store.refresh(is_asked=False)
    assert folder.sample("dragoman_model_reloads_total", outcome="failed") == 1, "one failure, told once"
    folder.store.refresh(is_asked=True)
    assert folder.sample("dragoman_model_reloads_total", outcome="failed") == 2, "but to whoever asks"
    folder.path.with_name("elsewhere").rename(folder.path)
    assert folder.store.refresh(is_asked=False).num_failed == 0
    folder.path.rename(folder.path.with_name("elsewhere"))
    folder.store.refresh(is_asked=False)
    assert folder.sample("dragoman_model_reloads_total", outcome="failed") == 3, "gone again"


@pytest.mark.parametrize("look", ["exists", "is_dir"])
def test_a_disk_that_does_not_answer_for_a_while_does_not_end_the_watching(
    look: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path / "models", bundle=(str(tmp_path / "named"),))
    for bundle, line in (("../named", "first en fr"), ("b.zip", "second en de")):
        (folder.path / bundle).mkdir(parents=True)
        folder.write(bundle, line)
    loaded = folder.store.load_all()

    def fail(*_: object) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as stale:
        stale.setattr(Path, look, fail)
        change = folder.store.refresh(is_asked=False)
    assert (change.serve, change.retired, change.num_failed) == (loaded, [], 1)
    assert folder.store.refresh(is_asked=False).num_failed == 0


def test_the_last_model_stays_until_another_comes(folder: Folder) -> None:
    [first] = folder.store.load_all()
    (folder.path / "a").rename(folder.path / ".a")
    change = folder.store.refresh(is_asked=True)
    assert (change.serve, change.retired, change.num_failed) == ([first], [], 1), "an empty folder"
    folder.write("b", "damaged")
    assert folder.store.refresh(is_asked=True).serve == [first]
    for _ in range(3):
        folder.store.refresh(is_asked=False)
    assert folder.sample("dragoman_model_reloads_total", outcome="failed") == 2
    folder.write("b", "better en fr")
    assert folder.store.refresh(is_asked=False).serve == [first], "it may still be being copied"
    change = folder.store.refresh(is_asked=False)
    assert (names(change), change.retired) == (["better"], [first])


def test_at_start_everything_must_be_right(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Folder(tmp_path / "nothing").store.load_all()
    with pytest.raises(BundleError, match="holds no bundle"):
        Folder(tmp_path).store.load_all()
    folder = Folder(tmp_path, max_length=257)
    folder.write("a", "first en fr")
    with pytest.raises(ConfigurationError, match="257"):
        folder.store.load_all()
    assert folder.sample("dragoman_cache_bytes") == 0


def test_what_a_model_can_just_give_may_be_asked_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_length=256)
    folder.write("a", "first en fr")
    assert len(folder.store.load_all()) == 1


def test_a_bundle_that_is_named_beside_its_folder_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path, bundle=(str(tmp_path / "a"),))
    folder.write("a", "first en fr")
    with pytest.raises(ConfigurationError, match="named twice"):
        folder.store.load_all()


def test_a_disk_that_fails_is_no_bug_of_ours(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """Told without a traceback, and by its kind where it has no words."""
    folder.store.load_all()

    def fail() -> None:
        raise OSError

    folder.meanwhile = fail
    folder.write("b", "second en de")
    caplog.clear()
    assert folder.store.refresh(is_asked=True).num_failed == 1
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert not record.exc_info
    assert record.facts["why"] == "OSError"  # type: ignore[attr-defined]


def test_a_folder_that_is_no_bundle_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the whole disk."""
    monkeypatch.setattr("service.model_store.fingerprint", lambda path: pytest.fail("it was"))
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        ModelStore(ServiceConfig(bundle=(str(tmp_path),)), Metrics(), lambda *_: pytest.fail("loaded")).load_all()


def test_only_bundles_are_taken_for_some(tmp_path: Path) -> None:
    for name in ("b.zip", "notes.txt", ".hidden.zip"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    Folder(tmp_path).write("a", "")
    assert [path.name for path in bundles_in(tmp_path)] == ["a", "b.zip"]


def test_a_bundle_in_one_file_is_loaded_from_where_it_is(folder: Folder) -> None:
    """What it is unpacked to is a copy already."""
    (folder.path / "b.zip").write_text("second en de")
    assert [model.translator.info.name for model in folder.store.load_all()] == ["first", "second"]
    assert folder.loaded_from[1] == folder.path / "b.zip"


def test_a_link_in_a_bundle_stays_one_in_its_copy(folder: Folder) -> None:
    """So that it is refused there as it would be in its own place, instead of being followed."""
    secret = folder.path / ".secret"
    secret.touch()
    (folder.path / "a" / "weights.bin").symlink_to(secret)
    links = []
    folder.meanwhile = lambda: links.append((folder.loaded_from[-1] / "weights.bin").is_symlink())
    folder.store.load_all()
    assert links == [True]


@pytest.mark.parametrize("change", ["time", "inode"])
def test_a_file_of_the_same_size_may_be_another(tmp_path: Path, change: str) -> None:
    file, other = tmp_path / "a" / "manifest.json", tmp_path / "other"
    file.parent.mkdir()
    for path in (file, other):
        path.write_text("first")
        os.utime(path, ns=(10**18, 10**18))
    before = fingerprint(file.parent)
    assert fingerprint(file.parent) == before
    if change == "inode":
        other.rename(file)
    else:
        os.utime(file, ns=(10**18, 10**18 + 1000))
    os.utime(file.parent)
    assert fingerprint(file.parent) != before
