"""Where and in which arithmetic a bundle is run, of what the settings leave open.

Knows: what the bundle has, what the machine has. Does not know: how either is used.
"""

import dataclasses
import logging

from service.engine.settings import EngineSettings
from service.errors import BundleError, ConfigurationError
from service.runtime.bundle import Bundle
from service.runtime.gpu import missing, require_gpu

PREFERENCE = {"cpu": ("int8", "fp32"), "cuda": ("fp16",)}

log = logging.getLogger(__name__)


def choose_precision(bundle: Bundle, settings: EngineSettings) -> str:
    """The bundle's name of the precision to run, such as ``cpu-int8``. Raises BundleError where it has none."""
    if settings.precision != "auto":
        name = f"{settings.device}-{settings.precision}"
        bundle.graphs(name)
        return name
    for precision in PREFERENCE[settings.device]:
        if (name := f"{settings.device}-{precision}") in bundle.manifest.precisions:
            return name
    have = ", ".join(bundle.manifest.precisions)
    hint = "; `dragoman derive-cuda` makes graphs for CUDA of int8 weights" if settings.device == "cuda" else ""
    raise BundleError(f"{bundle.origin} has nothing for device {settings.device!r}; it has {have}{hint}")


def settle_device(bundle: Bundle, settings: EngineSettings) -> EngineSettings:
    """The settings with ``auto`` replaced by a device.

    Raises:
        ConfigurationError: a GPU was asked for and cannot be used; the message names what is missing. Or the settings
            do not fit the device that was found.
    """
    if settings.device == "cuda":
        require_gpu()
    if settings.device != "auto":
        return settings
    reasons = [] if any(name.startswith("cuda-") for name in bundle.manifest.precisions) else ["no graphs for CUDA"]
    reasons = reasons or missing()
    device = "cpu" if reasons else "cuda"
    log.info("device chosen", extra={"facts": {"device": device, "missing_for_cuda": reasons}})
    try:
        return dataclasses.replace(settings, device=device)
    except ValueError as error:  # what a CPU can do and a GPU cannot
        raise ConfigurationError(f"device auto is {device} here: {error}") from None
