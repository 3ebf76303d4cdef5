"""Checks and their count."""

import contextlib
import time
import traceback


class Report:
    def __init__(self, name="MAIN JOB"):
        self.name = name
        self.passed = self.skipped = 0
        # Each by its part and its claim, and what was told of it, for the end of the output.
        self.failures = []
        self.part = ""
        self.begun = time.monotonic()

    @contextlib.contextmanager
    def check(self, claim):
        """A claim, and the steps that prove it. A failure is reported and the job goes on."""
        begun = time.monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001: whatever went wrong, the claim is not proven
            reason = str(error) if isinstance(error, AssertionError) else traceback.format_exc().strip()
            told = f"FAIL  {claim}\n      " + reason.replace("\n", "\n      ")
            self.failures.append((self.part, claim, told))
            print(told, flush=True)
        else:
            self.passed += 1
            print(f"ok    {claim} ({time.monotonic() - begun:.1f} s)", flush=True)

    def skip(self, claim, why):
        """A claim that is not made here."""
        self.skipped += 1
        print(f"--    {claim}: {why}", flush=True)

    @property
    def failed(self):
        return len(self.failures)

    def title(self, text, part):
        """A new part, by its title, and by its short name, which its failures are told with at the end."""
        self.part = part
        print(f"\n{text} [{time.monotonic() - self.begun:.0f} s]", flush=True)

    def end(self):
        """What failed once more, where the end of a long output shows it, and the counts."""
        for part, _, told in self.failures:
            print(f"\n{part}\n{told}", flush=True)
        for part, claim, _ in self.failures:
            print(f"FAILED: {part}: {claim}", flush=True)
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.name}: {self.passed} passed, {self.failed} failed{skipped}", flush=True)
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
