"""kill -9 at bad moments, restarts, credentials."""

import os
import random
import signal
import stat
import threading
import time

import data
from cv import Cv
from machines import Node
from report import equal, holds, until


def last_load(cv):
    return cv.json("load", "--list")[0]


def watched_load(cv, top, files):
    """`cv load --watch`, begun and a tenth done."""
    watching = cv.start("--json", "load", top, "--watch")
    # It may be no job yet.
    loads = lambda: [load for load in cv.json("load", "--list") if load["paths"] == [top]]  # noqa: E731
    until(lambda: any(load["files_loaded"] >= files // 10 for load in loads()), "a tenth of the files", 120)
    return watching


def kill_while_loading(job):
    """kill -9 during a load: the load goes on after the restart and ends with true counts"""
    cv = job.cv
    for s3 in job.servers:
        top = f"/killed-{s3.name}"
        expected = data.files(job.source_of[s3])
        job.mount(s3, "data", top)
        with job.check(f"a load that is watched survives kill -9 of the node ({s3.name})"):
            watching = watched_load(cv, top, len(expected))
            interrupted = last_load(cv)
            holds(interrupted["state"] in ("planning", "running"), f"killed too late: {interrupted}")
            job.node.kill()
            job.node.start()
            out, err = watching.communicate(timeout=300)
            equal(watching.returncode, 0, f"exit code; {err.decode()}")
            ended = cv.json("load-status", interrupted["id"])[0]
            equal((ended["state"], ended["files_total"], ended["files_failed"]), ("done", len(expected), 0))
            equal(ended["files_loaded"] + ended["files_already"], len(expected), "files loaded or there already")
            equal((ended["bytes_total"], ended["bytes_done"]), (sum(expected.values()),) * 2, "bytes")
        with job.check(f"everything is cached then and as it was put in ({s3.name})"):
            equal(cv.json("du", "-s", top)[0]["cached_bytes"], sum(expected.values()), "cached bytes")
            target = job.scratch.path / f"after-kill-{s3.name}"
            cv("get", "-R", top, target)
            data.same_trees(target, job.source_of[s3])
        cv("umount", top)


def kill_while_writing(job):
    """kill -9 during writes: everything that was acknowledged is there, and no repair is needed"""
    cv = job.cv
    job.make_bucket(job.moto, "acknowledged")
    job.mount(job.moto, "acknowledged", "/acknowledged", "--write")
    cv("mkdir", "-p", "/written")
    acknowledged, numbers, lock = {}, iter(range(1_000_000)), threading.Lock()
    stopped = threading.Event()

    def write():
        source = random.Random(threading.get_ident())
        while not stopped.is_set():
            with lock:
                number = next(numbers)
            place = "/acknowledged" if number % 2 else "/written"
            # Small ones, ones of several chunks, ones of several pieces.
            content = source.randbytes(source.choice([10, 5_000, 200_000, 3_000_000]))
            if cv.run("put", "-", f"{place}/{number}", stdin=content)[0] == 0:
                acknowledged[f"{place}/{number}"] = content

    writers = [threading.Thread(target=write) for _ in range(3)]
    [writer.start() for writer in writers]
    try:
        for round_number in range(3):
            with job.check(f"the node starts after kill -9 while files are written ({round_number + 1} of 3)"):
                goal = len(acknowledged) + 15
                until(lambda: len(acknowledged) >= goal, "files acknowledged", 120)
                job.node.kill()
                ready = job.node.start()
                holds(ready["ready_ms"] < 2.5 * job.node.ready_ms_max, f"ready after {ready['ready_ms']} ms")
    finally:
        stopped.set()
        [writer.join() for writer in writers]
    with job.check("every file whose writer was told so is there, whole"):
        for path, content in acknowledged.items():
            equal(cv("cat", path) == content, True, path)
        holds(len(acknowledged) > 45, f"only {len(acknowledged)} files")
    with job.check("and those of the writable mount are objects"):
        for path, content in acknowledged.items():
            if path.startswith("/acknowledged/"):
                equal(job.moto.get("acknowledged", path.removeprefix("/acknowledged/")) == content, True, path)
    with job.check("what was under way at the kill can be written again or deleted"):
        for place in ("/written", "/acknowledged"):
            for path in cv.text("ls", "-C", place).split():
                if path not in acknowledged:
                    cv("put", "-f", "-", path, stdin=b"again")
                    equal(cv("cat", path), b"again", path)
    cv("rm", "-r", "/written")
    cv("umount", "/acknowledged")


def lose_a_part(job):
    """kill -9 of the leader, then of a worker, during a load: it goes on and loads everything

    Where there is another of the kind, the part stays away until the load has ended.
    """
    if not job.node.of("worker"):
        return
    cv, s3 = job.cv, job.moto
    expected = data.files(job.source_of[s3])
    leader = lambda: next(master["id"] for master in cv.json("report")[0]["masters"] if master["role"] == "leader")  # noqa: E731
    victims = {"leader": lambda: job.node.of("master")[leader() - 1], "worker": lambda: job.node.of("worker")[0]}
    for what, choose in victims.items():
        top = f"/lost-{what}"
        job.mount(s3, "data", top)
        with job.check(f"a load that is watched goes on when the {what} is killed and started again"):
            watching = watched_load(cv, top, len(expected))
            part = choose()
            is_spare = len(job.node.of(part.role)) > 1
            part.kill()
            if not is_spare:
                part.start()
            out, err = watching.communicate(timeout=300)
            if is_spare:
                part.start()
            equal(watching.returncode, 0, f"exit code; {err.decode()}")
            ended = last_load(cv)
            equal((ended["files_failed"], ended["files_loaded"] + ended["files_already"]), (0, len(expected)))
            target = job.scratch.path / f"after-{what}"
            cv("get", "-R", top, target)
            data.same_trees(target, job.source_of[s3])
        cv("umount", top)


def clean_restart(job):
    """SIGTERM ends the node cleanly; mounts, files and the cache are there after a start"""
    cv = job.cv
    job.mount(job.moto, "data", "/moto")
    cv("load", "/moto", "--watch")
    cv("put", "-f", "-", "/kept", stdin=b"kept")
    mounts, files = cv.mounts(), cv.json("count", "/moto")
    with job.check("SIGTERM ends it with exit code 0"):
        equal(job.node.stop(), 0)
    with job.check("without a node, cv says within 5 s where it looked and what to check"):
        begun = time.monotonic()
        cv.refused("ls", "/", says=[*job.node.addresses, "curvine-node", "--master"], code=3)
        holds(time.monotonic() - begun < 5, f"took {time.monotonic() - begun:.1f} s")
    with job.check("it starts again and has everything"):
        job.node.start()
        equal((cv.mounts(), cv.json("count", "/moto"), cv("cat", "/kept")), (mounts, files, b"kept"))
    with job.check("the cache is still the cache: a load moves no bytes"):
        loaded = cv.json("load", "/moto", "--watch")[-1]
        equal((loaded["state"], loaded["bytes_moved"]), ("done", 0))
    with job.check("Ctrl-C ends it with exit code 0, too"):
        equal(job.node.stop(signal.SIGINT), 0)
        job.node.start()


def credentials_of_the_node(job):
    """Without credentials among the options, the node's own are used: environment, then profile files"""
    s3 = job.s3s
    endpoint = ["-o", f"endpoint={s3.endpoint}"]
    good = {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret, "AWS_EC2_METADATA_DISABLED": "true"}
    home = job.scratch.path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
        f"[lake]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
    )
    (home / ".aws" / "credentials").chmod(0o600)

    def with_node(name, environment, act):
        node = Node(job.scratch, job.programs, job.shape, name, environment)
        try:
            node.start()
            act(Cv(job.programs, node))
        finally:
            node.kill()

    def reads(cv, *more):
        cv("mount", "s3://data", "/lake", *endpoint, *more)
        equal(cv("cat", "/lake/python/empty"), b"")
        equal(cv("head", "-c", "100", "/lake/big.bin"), job.big.open("rb").read(100))

    with job.check("credentials of the environment are used"):
        with_node("node-env", good, reads)
    with job.check("credentials of a profile are used"):
        profile = {"HOME": str(home), "AWS_PROFILE": "lake", "AWS_EC2_METADATA_DISABLED": "true"}
        with_node("node-profile", profile, reads)
    with job.check("a profile can be named among the options"):
        home_only = {"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}
        with_node("node-option", home_only, lambda cv: reads(cv, "-o", "profile=lake"))
    with job.check("wrong credentials of the environment are named"):
        wrong = {**good, "AWS_SECRET_ACCESS_KEY": "wr0ng"}
        act = lambda cv: cv.refused("mount", "s3://data", "/lake", *endpoint, says="access was denied")  # noqa: E731
        with_node("node-wrong", wrong, act)


def secrets(job):
    """Credentials are in no log, no output and no file that others can read"""
    cv, secret = job.cv, job.s3s.secret
    job.mount(job.s3s, "data", "/s3s")
    with job.check("cv mounts shows the options and not the secrets"):
        shown = cv.text("mounts") + cv.text("--json", "mounts")
        holds(job.s3s.endpoint in shown and "***" in shown, shown)
        holds(secret not in shown and job.s3s.key not in shown, "a credential is shown")
    with job.check("no command ever said a secret"):
        for said in cv.said:
            text = said if isinstance(said, bytes) else said.encode()
            holds(secret.encode() not in text, "a command printed the secret")
    with job.check("no log of the node has a credential"):
        for log in job.scratch.path.glob("node*.log"):
            text = log.read_text(errors="replace")
            holds(secret not in text and job.s3s.key not in text, f"{log.name} has a credential")
    with job.check("only the service's user can read the files of the node"):
        for data_dir in job.scratch.path.glob("node*-data"):
            mode = stat.S_IMODE(os.stat(data_dir).st_mode)
            equal(mode & 0o077, 0, f"permissions of {data_dir.name} ({mode:o})")
    with job.check("the status page shows no secret"):
        import urllib.request

        for page in ("/", "/api/status", "/metrics"):
            text = urllib.request.urlopen(f"http://{job.node.web}{page}", timeout=10).read().decode()
            holds(secret not in text and job.s3s.key not in text, f"{page} has a credential")
