"""Which models are served, from which bundles, and how they are added, replaced and removed while the service runs.

Knows: bundles on disk, when one has changed, translators. Does not know: gRPC, who uses a translator.

A bundle of the watched folder is loaded from a copy of its own: files that are overwritten in place would change, or
end, the version that is still in use.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.config import ServiceConfig
from service.engine.observer import EngineObserver
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import BundleError, ConfigurationError, DragomanError
from service.metrics import EngineMetrics, Metrics
from service.runtime.bundle import MANIFEST
from service.runtime.folder_kind import hint
from service.runtime.scratch import ScratchFolder
from service.transport.registry import ModelRegistry

log = logging.getLogger("dragoman.models")
LoadTranslator = Callable[[Path, EngineSettings, EngineObserver], Translator]
SHIPPED_BUNDLE = Path(__file__).parent / "models" / "en-fr"

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True, eq=False, weakref_slot=True)
class LoadedModel:
    """A translator, the metrics it writes to, what its bundle looked like when loaded, and how long that took."""

    translator: Translator
    observer: EngineMetrics
    fingerprint: Fingerprint
    load_s: float


@dataclass(slots=True)
class Change:
    """What a look at the bundles came to: the models to serve now, and those that are served no longer."""

    serve: list[LoadedModel]
    retired: list[LoadedModel] = field(default_factory=list)
    num_failed: int = 0


class ModelStore:
    """The models of one service. Its methods block and must not be called at the same time."""

    def __init__(self, config: ServiceConfig, metrics: Metrics, load: LoadTranslator) -> None:
        self._config, self._metrics, self._load = config, metrics, load
        self._served: dict[Path, LoadedModel] = {}
        # What was seen at the last look, and what could not be loaded: neither is tried before it is another.
        self._seen: dict[Path, Fingerprint] = {}
        self._failed: dict[Path, Fingerprint] = {}
        # Served bundles that are gone, while no other has come; why the folder could not be read at the last look.
        self._removed: set[Path] = set()
        self._folder_error = ""

    def load_all(self) -> list[LoadedModel]:
        """Loads every bundle for the first time.

        Raises:
            BundleError, ConfigurationError: one of them cannot be served.
        """
        for path in self._bundles():
            if path in self._served:
                raise ConfigurationError(f"bundle {path} is named twice")
            self._served[path] = model = self._load_one(path)
            self._metrics.model_loaded(model.translator.info, model.load_s)
        return list(self._served.values())

    def refresh(self, is_asked: bool) -> Change:
        """Looks at the bundles again; what cannot be loaded is logged and counted, and its old version goes on.

        Args:
            is_asked: somebody asked for it: every bundle that has changed, or failed before, is tried at once. Else it
                must look as it did at the last look, so that a bundle which is still being copied is left alone.
        """
        try:
            paths = self._bundles()
            prints = {path: fingerprint(path) for path in paths}
        except (DragomanError, OSError) as error:  # of a folder on the network anything may fail for a while
            if is_asked or str(error) != self._folder_error:  # told once
                self._count_failure("", error)
            self._folder_error = str(error)
            return Change(list(self._served.values()), num_failed=1)
        self._folder_error = ""
        change = Change([])
        removed = {path for path in self._served if path not in paths}
        if is_asked or removed != self._removed:
            self._failed.clear()
        for path in paths:
            is_settled = is_asked or self._seen.get(path) == prints[path]
            has_failed = self._failed.get(path) == prints[path]
            is_current = path in self._served and self._served[path].fingerprint == prints[path]
            if is_settled and not is_current and not has_failed:
                self._replace(path, prints[path], removed, change)
        if any(path in paths for path in self._served):  # the last one goes when another has come
            change.retired += [self._served.pop(path) for path in removed]
            removed.clear()
        self._seen, self._removed = prints, removed
        change.serve = list(self._served.values())
        for model in change.retired:
            self._metrics.model_removed(model.translator.info)
        for model in change.serve:  # two versions may have had the same labels
            self._metrics.model_served(model.translator.info)
        return change

    def _replace(self, path: Path, seen: Fingerprint, removed: set[Path], change: Change) -> None:
        others = [model.translator for other, model in self._served.items() if other not in {path, *removed}]
        try:
            model = self._load_one(path)
            try:
                ModelRegistry([*others, model.translator])
            except ConfigurationError:
                discard(model)
                raise
        except Exception as error:  # whatever a damaged bundle makes ONNX Runtime or numpy raise
            self._failed[path] = seen
            change.num_failed += 1
            self._count_failure(str(path), error)
            return
        if path in self._served:
            change.retired.append(self._served[path])
        self._served[path] = model
        self._metrics.model_loaded(model.translator.info, model.load_s)
        self._metrics.model_reloaded("loaded")
        self._failed.clear()  # what could not be served beside the old version may be now

    def _count_failure(self, path: str, error: Exception) -> None:
        self._metrics.model_reloaded("failed")
        log.error(
            "a bundle cannot be served; what was loaded goes on",
            exc_info=None if isinstance(error, DragomanError | OSError) else error,
            extra={"facts": {"bundle": path, "why": str(error) or type(error).__name__}},
        )

    def _bundles(self) -> list[Path]:
        """Where the bundles are, one at least. Raises BundleError."""
        folder = self._config.models_folder
        named = bundle_paths(self._config.bundle) if self._config.bundle or not folder else []
        paths = [*named, *(bundles_in(Path(folder)) if folder else [])]
        if not paths:
            raise BundleError(f"the models' folder {folder} holds no bundle")
        return paths

    def _load_one(self, path: Path) -> LoadedModel:
        started = time.monotonic()
        if path.is_dir() and not (path / MANIFEST).exists():  # it may be the whole disk, which nobody wants looked at
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}{hint(path, 'bundle')}")
        seen, observer = fingerprint(path), self._metrics.observer()
        if self._config.models_folder and path.parent == Path(self._config.models_folder) and path.is_dir():
            with _copied(path) as copy:
                translator = self._load(copy, self._config.engine, observer)
        else:
            translator = self._load(path, self._config.engine, observer)
        model = LoadedModel(translator, observer, seen, time.monotonic() - started)
        if self._config.max_length > translator.info.max_target_tokens:
            discard(model)
            raise ConfigurationError(
                f"max_length ({self._config.max_length}) must be <= {translator.info.max_target_tokens}, the most that "
                f"model {translator.info.name!r} can give"
            )
        facts = {"model": translator.info.name, "version": translator.info.version, "seconds": round(model.load_s, 3)}
        log.info("loaded", extra={"facts": facts})
        return model


@contextlib.contextmanager
def _copied(bundle: Path) -> Iterator[Path]:
    """A copy of a bundle's folder. Raises BundleError where there is no room for one."""
    try:
        scratch = ScratchFolder()
    except OSError as error:
        raise BundleError(f"{bundle} cannot be copied: {error.strerror}") from None
    with scratch:
        copy = scratch.path / bundle.name
        try:
            shutil.copytree(bundle, copy, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise BundleError(f"{bundle} cannot be copied: {error}") from None
        yield copy


def discard(model: LoadedModel, timeout_s: float | None = None) -> bool:
    """Ends a model that nobody uses; False where a step outlasts ``timeout_s``."""
    is_ended = model.translator.close(timeout_s)
    model.observer.forget()
    return is_ended


def bundle_paths(bundles: Sequence[str]) -> list[Path]:
    """The bundles to serve; the shipped one where none is named.

    Raises:
        BundleError: a bundle is not there.
    """
    paths = [Path(bundle) for bundle in bundles]
    if not paths:
        if not SHIPPED_BUNDLE.exists():
            raise BundleError(f"this installation holds no model at {SHIPPED_BUNDLE}; name one with --bundle")
        return [SHIPPED_BUNDLE]
    if "" in bundles:
        raise BundleError("the name of a bundle is empty")
    for path in paths:
        if not path.exists():
            raise BundleError(f"there is no bundle at {path}")
    return paths


def bundles_in(folder: Path) -> list[Path]:
    """The folders with a manifest and the .zip files in ``folder``, by name; hidden ones are left out.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise BundleError(f"the models' folder {folder} cannot be read: {error.strerror}") from None
    return [path for path in entries if path.suffix == ".zip" or os.path.exists(path / MANIFEST)]


def fingerprint(path: Path) -> Fingerprint:
    """Changes whenever a file of the bundle does: names, sizes, times and inodes, without reading any."""
    inside = (Path(folder, name) for folder, folders, names in os.walk(path) for name in folders + names)
    files = sorted(inside) if path.is_dir() else [path]  # os.walk passes over what goes away while it looks
    found = []
    for file in files:
        try:
            state = file.lstat()
        except OSError:  # gone since it was listed
            continue
        found.append((str(file), state.st_size, state.st_mtime_ns, state.st_ino))
    return tuple(found)
