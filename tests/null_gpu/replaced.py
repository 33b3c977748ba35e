"""Models that come and go on a GPU where another works, as JSON: ``python -m tests.null_gpu.replaced BUNDLE COUNT``.

One model translates all the time; COUNT others are loaded one after the other, used, and closed. Printed: how many
texts the first translated meanwhile, and the memory that was free after each of the others had gone.
"""

import json
import sys
import threading
from pathlib import Path

from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.runtime import gpu

TEXTS, OPTIONS = ["the red house stands beside the river"], DecodeOptions(num_beams=1)
SETTINGS = EngineSettings(device="cuda", max_rows=20)


def main() -> None:
    path, count = Path(sys.argv[1]), int(sys.argv[2])
    first = Translator.load(path, SETTINGS)
    has_ended, num_translated, free = threading.Event(), 0, []

    def work() -> None:
        nonlocal num_translated
        while not has_ended.is_set():
            first.translate(TEXTS, OPTIONS)
            num_translated += 1

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(count):
        other = Translator.load(path, SETTINGS)
        other.translate(TEXTS, OPTIONS)
        other.close()
        del other
        free.append(gpu.free_bytes())
    has_ended.set()
    worker.join()
    is_whole = first.engine.failure is None
    first.close()
    print(json.dumps({"translated": num_translated if is_whole else 0, "free": free}))


if __name__ == "__main__":
    main()
