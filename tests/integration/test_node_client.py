"""A client in another language, made of the public contract alone; runs where Node.js and its packages are there."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.launched_server import LaunchedServer

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "build/node/node_modules"
TEXTS = ["the red house", "the old mill turns"]


@pytest.mark.integration
@pytest.mark.skipif(
    shutil.which("node") is None or not (PACKAGES / "@grpc/grpc-js").exists(),
    reason="needs Node.js and its gRPC packages; `make contract` installs them",
)
def test_the_contract_is_enough_for_a_client_in_node(nonsense_bundle: Path) -> None:
    proto = ROOT / "proto/dragoman/v1/translation.proto"
    script = Path(__file__).parent / "node/translate.cjs"
    with LaunchedServer("--bundle", str(nonsense_bundle), "--compress-from-bytes", "1000") as server:
        result = subprocess.run(
            ["node", str(script), str(proto), server.address, *TEXTS],
            env=os.environ | {"NODE_PATH": str(PACKAGES)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert len(answer["translations"]) == 2
    assert all(answer["translations"])
    assert set(answer["reasons"]) <= {"FINISH_REASON_END_TOKEN", "FINISH_REASON_LENGTH_LIMIT"}
    assert sorted(answer["streamed"]) == ["0", "1"]
    assert all(score < 0 for score in answer["scores"])
    assert answer["long"] == answer["long"][:1] * 64
    assert answer["unpacked"] == 1, "the long answer came compressed, the others as they are"
    assert answer["refused"] == "INVALID_ARGUMENT"
