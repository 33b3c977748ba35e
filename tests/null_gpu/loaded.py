"""What becomes of a bundle's graphs on a GPU, as JSON: ``python -m tests.null_gpu.loaded BUNDLE MAX_ROWS``.

For each graph the operators by the provider that runs them, after ONNX Runtime's own changes to the graph; then the
engine's sessions are warmed up, which records every step, and each step is run once more.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from service.runtime.bundle import Bundle
from service.runtime.device_memory import Device
from service.runtime.device_session import DeviceSessions
from service.runtime.gpu import PROVIDER
from service.runtime.session import StepInputs


def operators(graph: Path) -> dict[str, dict[str, int]]:
    """Provider -> how often it runs which operator; "all" are those of the graph as it is run, copies included."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = ort.InferenceSession(str(graph), options, providers=[PROVIDER])
        found: dict[str, Counter[str]] = {}
        for part in session.get_provider_graph_assignment_info():
            found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
        model = onnx.load(options.optimized_model_filepath, load_external_data=False)
        found["all"] = Counter(node.op_type for node in model.graph.node)
    return {provider: dict(counts) for provider, counts in found.items()}


def main() -> None:
    bundle, max_rows = Bundle.open(Path(sys.argv[1])), int(sys.argv[2])
    names = sorted(name for name in bundle.graphs("cuda-fp16").files if name.endswith(".onnx"))
    graphs = {Path(name).stem: operators(bundle.path(name)) for name in names}
    sessions = DeviceSessions(bundle, "cuda-fp16", Device("cuda", records=True), memory_share=0.9)
    manifest = bundle.manifest
    cache = sessions.make_cache(max_rows, manifest.max_source_tokens, manifest.max_target_tokens)
    sessions.warm_up(cache)
    replayed = []
    for decoder in sessions.decoders.values():
        step = sessions.bind_step(decoder, cache)
        for num_rows in step.sizes:
            rows = np.zeros(num_rows, np.int64)
            queries = np.zeros(num_rows * decoder.num_beams, np.int64)
            step.run(StepInputs(rows, queries, rows, decoder.usual_candidates), num_rows)
            replayed.append(step.was_replayed)
    planned, used = sessions.device_bytes
    print(json.dumps({"graphs": graphs, "replayed": replayed, "planned": planned, "used": used}))


if __name__ == "__main__":
    main()
