"""The rows of tasks that do not come to their end. Spark's Python workers run this: it needs nothing but Python and PySpark."""

import os
import time

from pyspark import TaskContext

ROWS = 20_000


def failing(index):
    """The third of these tasks fails."""
    yield index, "x" * 1000
    if index == 2:
        raise ValueError("this task was to fail")


def killed_once(index, killed):
    """The process of the second one is killed in the midst of its rows, the first time; a file says so."""
    for number in range(ROWS):
        if number == ROWS * 3 // 4 and index == 1 and TaskContext.get().attemptNumber() == 0:
            open(killed, "w").close()
            os.kill(os.getpid(), 9)
        yield ROWS * index + number, "x" * 100


def executor_killed_once(index):
    """The Java process that runs the second one, likewise."""
    for number in range(ROWS):
        if number == ROWS * 3 // 4 and index == 1 and TaskContext.get().attemptNumber() == 0:
            # This process is a child of the daemon of Python workers, and that of the executor.
            daemon = f"/proc/{os.getppid()}/stat"
            os.kill(int(open(daemon).read().rsplit(")", 1)[1].split()[1]), 9)
        yield ROWS * index + number, "x" * 100


def halting(index, gate):
    """Says that its rows were taken, and waits for a file before the last one."""
    for number in range(ROWS):
        yield ROWS * index + number, "x" * 100
    open(f"{gate}-{index}", "w").close()
    while not os.path.exists(gate):
        time.sleep(0.05)
    yield 0, "late"
