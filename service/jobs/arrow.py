"""pyarrow, which Parquet and zstd need and nothing else does. Knows: that it may be missing."""

from typing import Any

from service.errors import ConfigurationError


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise ConfigurationError("Parquet and zstd need more packages: pip install 'dragoman[batch]'") from None
    return pyarrow


def parquet() -> Any:
    """The module pyarrow.parquet. Raises as arrow() does."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet
