"""A bundle packed into one .zip. Knows: archives, and what one must not do. Does not know: what a bundle holds."""

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from service.errors import BundleError


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks the plain files of a .zip whose names stay inside ``folder``."""
    try:
        with zipfile.ZipFile(archive) as source:
            needed, free = sum(entry.file_size for entry in source.infolist()), shutil.disk_usage(folder).free
            if needed > free:
                raise BundleError(f"{archive} would unpack to {needed} bytes; {folder} has {free} left")
            for entry in source.infolist():
                name = PurePosixPath(entry.filename)
                if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
                    raise BundleError(f"{archive}: path {entry.filename!r} leaves the bundle")
                if entry.is_dir():
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(entry) as packed, target.open("wb") as plain:
                    shutil.copyfileobj(packed, plain)
    # RuntimeError: an archive that is encrypted, or compressed in a way that Python does not know.
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError) as error:
        raise BundleError(f"{archive} cannot be unpacked: {error}") from error
