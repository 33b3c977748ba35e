"""grpc.health.v1. "" is liveness: SERVING until an engine fails for good. The service's own name is readiness.

Knows: names and states. Does not know: why a state changes.
"""

from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

SERVICE = "dragoman.v1.TranslationService"


class HealthServicer(health.aio.HealthServicer):
    """Check and Watch by grpcio-health-checking, and List, which it leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self._states: dict[str, Any] = {"": health_pb2.HealthCheckResponse.SERVING}

    # The published types do not know the messages of List yet.
    async def List(self, request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:  # noqa: N802
        """Answers the state of every name that is known."""
        messages: Any = health_pb2
        states = {name: messages.HealthCheckResponse(status=status) for name, status in self._states.items()}
        return messages.HealthListResponse(statuses=states)

    async def set_ready(self, is_ready: bool, model_names: Iterable[str] = ()) -> None:
        """States readiness, of the service and of each model under its own name."""
        status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in (SERVICE, *model_names):
            self._states[name] = status
            await self.set(name, status)

    async def set_dead(self) -> None:
        """States that the process is to be started again."""
        self._states[""] = health_pb2.HealthCheckResponse.NOT_SERVING
        await self.set("", self._states[""])

    async def set_models(self, added: Iterable[str], removed: Iterable[str]) -> None:
        """States the models that came, as ready as the service is, and those that went."""
        for name in added:
            self._states[name] = self._states[SERVICE]
            await self.set(name, self._states[SERVICE])
        for name in removed:
            del self._states[name]
            await self.set(name, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
