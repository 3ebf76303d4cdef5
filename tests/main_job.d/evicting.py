"""A worker that is much smaller than what is read through it."""

import data
from cv import Cv
from machines import Node
from report import equal, holds, until

ROOM = 50 * 1000 * 1000
# What its index may take besides for a while.
MORE = ROOM // 32
OBJECTS, OBJECT_MIB = 30, 5


def is_kept(disk, size):
    return disk["used_bytes"] - disk["cached_bytes"] >= size


def evictions(job):
    """A bucket of three times the worker's room is read twice, and written through a full cache (s3s-fs)"""
    s3, scratch = job.s3s, job.scratch.path
    source, kept = scratch / "source-evictions", scratch / "source-kept"
    for number in range(OBJECTS):
        # Another content for each.
        data.big_file(source / f"part-{number:02}", OBJECT_MIB * data.MIB)
        with open(source / f"part-{number:02}", "r+b") as part:
            part.write(b"%06d" % number)
    for number in range(4):
        data.big_file(kept / f"kept-{number}", (number + 4) * data.MIB)
    job.make_bucket(s3, "evictions")
    data.upload(s3, "evictions", source)
    environment = {"CURVINE_WORKER_DATA_DIRS": f"[SSD:50MB]{scratch / 'evictions-disk'}"}
    node = Node(job.scratch, job.programs, job.shape and (1, 1, 0), "node-evictions", environment)
    cv = Cv(job.programs, node)
    disk = lambda: cv.json("report")[0]["workers"][0]["disks"][0]  # noqa: E731
    try:
        node.start()
        cv("mount", "s3://evictions", "/b", *s3.options(), "--write")
        for time in ["first", "second"]:
            with job.check(f"what does not fit is read right the {time} time"):
                cv("get", "-R", "/b", scratch / f"evictions-{time}")
                data.same_trees(scratch / f"evictions-{time}", source)
                until(lambda: disk()["cached_bytes"] > ROOM // 2, f"the worker has what was read: {disk()}")
                found = disk()
                holds(ROOM // 2 < found["cached_bytes"] <= found["used_bytes"] <= ROOM + MORE, f"the worker says {found}")
        with job.check("what is cached makes room for what is written"):
            for number in range(4):
                cv("put", kept / f"kept-{number}", f"/kept-{number}")
            size = sum(data.files(kept).values())
            # Its masters hear of it with the next heartbeat.
            until(lambda: is_kept(disk(), size), f"the worker keeps {size} bytes: {disk()}")
        with job.check("a file is written to the bucket through a full cache, and is in the bucket"):
            cv("put", source / "part-07", "/b/new")
            equal(s3.get("evictions", "new"), (source / "part-07").read_bytes())
            cv("rm", "/b/new")
        with job.check("what was written stays while the bucket is read again"):
            cv("get", "-R", "/b", scratch / "evictions-third")
            data.same_trees(scratch / "evictions-third", source)
            for number in range(4):
                equal(cv("cat", f"/kept-{number}"), (kept / f"kept-{number}").read_bytes())
        with job.check("more than there is room for is refused, and says so"):
            data.big_file(scratch / "too-much", 60 * data.MIB)
            cv.refused("put", scratch / "too-much", "/too-much", says="more are needed", code=4)
    finally:
        node.kill()
