"""Runs the scenarios of a client library and prints a line for each, as test/compat/scenarios.ts reads them."""
import json
import sys
import time
import traceback

SCENARIOS = []
FULL = len(sys.argv) > 2 and sys.argv[2] == "full"
BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else ""
_RUN = format(int(time.time() * 1000) % 36**6, "x")


def scenario(run):
    """Marks a scenario of every run."""
    SCENARIOS.append(run)
    return run


def full(run):
    """Marks a scenario that takes too long for a quick run."""
    if FULL:
        SCENARIOS.append(run)
    return run


def named(name):
    """A name of this run, so that it can be repeated on a broker that keeps its topics."""
    return f"{name}-{_RUN}"


def name_of(run):
    return run.__name__.replace("_", "-")


def report(run, error=None):
    if error is None:
        print(f"ok {name_of(run)}", flush=True)
    else:
        print(f"failed {name_of(run)} {json.dumps(error)}", flush=True)


def run_all():
    for run in SCENARIOS:
        started = time.monotonic()
        try:
            run()
            print(f"{name_of(run)} took {time.monotonic() - started:.1f} s", flush=True)
            report(run)
        except BaseException:  # pylint: disable=broad-except
            report(run, traceback.format_exc())


def eventually(condition, seconds=20.0, pause=0.05):
    """Waits until the condition holds and answers its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(pause)


def equal(found, expected, what=""):
    if found != expected:
        raise AssertionError(f"{what}: found {str(found)[:500]}, expected {str(expected)[:500]}")
