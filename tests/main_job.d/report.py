"""Checks and their count."""

import contextlib
import time
import traceback


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.begun = time.monotonic()

    @contextlib.contextmanager
    def check(self, claim):
        """A claim, and the steps that prove it. A failure is reported and the job goes on."""
        begun = time.monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001: whatever went wrong, the claim is not proven
            self.failed += 1
            reason = str(error) if isinstance(error, AssertionError) else traceback.format_exc().strip()
            print(f"FAIL  {claim}\n      " + reason.replace("\n", "\n      "), flush=True)
        else:
            self.passed += 1
            print(f"ok    {claim} ({time.monotonic() - begun:.1f} s)", flush=True)

    def title(self, text):
        print(f"\n{text} [{time.monotonic() - self.begun:.0f} s]", flush=True)

    def end(self):
        print(f"MAIN JOB: {self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


def equal(found, expected, what=""):
    assert found == expected, f"{what}: found {found!r}, expected {expected!r}"


def holds(condition, text):
    assert condition, text


def until(question, what, seconds=30):
    """Waits for a condition; its value."""
    give_up = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < give_up, f"waited {seconds} s for: {what}"
        time.sleep(0.05)
