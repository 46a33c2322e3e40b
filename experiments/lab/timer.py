r"""The one place where an experiment reads a clock.

Call these through the module, `timer.processor()`: the tests replace both by a clock
that moves by itself, so that no test waits for, or depends on, a real one.
"""

import time


def processor() -> float:
    """Seconds of processor time that this process has used."""
    return time.process_time()


def wall() -> float:
    """Seconds by the wall; only differences mean something."""
    return time.perf_counter()
