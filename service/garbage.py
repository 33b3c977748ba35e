"""What Python's garbage collector leaves alone while calls are answered.

Knows: the gc module. Does not know: what is loaded. A full collection looks at every object there is and holds Python's
lock meanwhile: with the modules and models of a service that was 44 to 86 ms, some times in 10 s of load, in which no
call was answered or refused.
"""

import gc


def set_aside() -> None:
    """Collects what is garbage now and keeps the collector from looking at the rest again.

    Called when models have come or gone. What was set aside and becomes garbage in a cycle waits for the next time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def take_back() -> None:
    """Lets the collector look at everything again."""
    gc.unfreeze()
