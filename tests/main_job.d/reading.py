"""Reading through Curvine: mounts and their refusals, loads, cold reads, what changes behind its back."""

import hashlib
import os
import subprocess
import threading
import time

import data
from machines import free_port
from relay import Relay
from report import equal, holds, until


def start(job):
    """A node is started and says what it serves"""
    with job.check("the node is ready in time"):
        ready = job.node.start()
        equal(ready["event"], "ready")
        equal(ready["master"], job.node.addresses[0])
        holds(ready["ready_ms"] < job.node.ready_ms_max, f"ready after {ready['ready_ms']} ms")
    with job.check("cv finds it"):
        report = job.cv.json("report")[0]
        equal((len(report["masters"]), len(report["workers"])), (len(job.node.addresses), job.node.workers), "nodes")


def refusals(job):
    """What cannot be mounted is refused with its cause, and changes nothing"""
    cv, s3s, moto = job.cv, job.s3s, job.moto
    for s3 in job.servers:
        job.mount(s3, "data", f"/{s3.name}")
    cv("mkdir", "-p", "/full/below")
    cv("put", "-", "/a-file", stdin=b"x")
    before = cv.mounts(), cv.json("ls", "-R", "/full"), cv.text("ls", "-C", "/")

    def refused(claim, uri, path, options, says, code=None):
        with job.check(claim):
            begun = time.monotonic()
            cv.refused("mount", uri, path, *options, says=says, code=code)
            holds(time.monotonic() - begun < 25, f"took {time.monotonic() - begun:.0f} s")

    data_uri = "s3://data"
    refused("a wrong secret is named", data_uri, "/x", s3s.options(secret_access_key="wr0ng"), "access was denied", 4)
    refused("a wrong key is named", data_uri, "/x", s3s.options(access_key_id="nobody"), "access was denied", 4)
    for s3 in job.servers:
        refused(f"a missing bucket is named ({s3.name})", "s3://nowhere", "/x", s3.options(), "no such bucket")
    closed = f"http://127.0.0.1:{free_port()}"
    refused("a dead endpoint is named", data_uri, "/x", moto.options(endpoint=closed), "nobody answers there")
    refused("an unknown option is named with the nearest", data_uri, "/x", ["-o", "acces_key_id=x"], "`access_key_id`", 2)
    refused("an unknown scheme is named with the known", "s4://data", "/x", [], ["`s4`", "s3"], 2)
    refused("credentials in a URI are refused", "s3://me:h1dden@data", "/x", [], "no place in a URI", 2)
    refused("the root is no place", data_uri, "/", moto.options(), "below the root", 2)
    refused("a directory with something in it is no place", data_uri, "/full", moto.options(), "not empty", 1)
    refused("a file is no place", data_uri, "/a-file", moto.options(), "not a directory", 1)
    refused("a mount is no place", data_uri, "/moto", moto.options(), "mounted there already", 1)
    refused("the inside of a mount is no place", data_uri, "/moto/python/new", moto.options(), "do not nest")
    refused("a directory of this node that is not there is named", "file:///no/such/dir", "/x", [], "/no/such/dir", 1)
    if own := job.node.mount_point:
        refused("a mount of Curvine is no source", f"file://{own}", "/x", [], f"in the mount of Curvine on {own}", 2)
    refused("a source that takes no writes is named", "file:///sys/kernel", "/x", ["--write"], "cannot be written")
    with job.check("a refused mount prints no secret"):
        holds(b"wr0ng" not in b"".join(cv_said(cv)) and b"h1dden" not in b"".join(cv_said(cv)), "a secret was printed")
    with job.check("refused mounts changed nothing"):
        equal((cv.mounts(), cv.json("ls", "-R", "/full"), cv.text("ls", "-C", "/")), before)
    with job.check("a file is not put or moved to the name of a directory that is not there"):
        cv.refused("put", "-", "/nowhere/", says="is no directory", stdin=b"x")
        cv.refused("mv", "/a-file", "/nowhere/", says="is no directory")
        cv("mkdir", "/somewhere")
        cv("mv", "/somewhere", "/elsewhere/")
        equal(cv.text("ls", "-C", "/elsewhere"), "")
        cv("rm", "-r", "/elsewhere")
    with job.check("a directory that holds a mount is not deleted, a mount not renamed"):
        cv("mkdir", "-p", "/above")
        job.mount(moto, "data", "/above/m")
        cv.refused("rm", "-r", "/above", says="mount")
        cv.refused("rm", "-r", "/above/m", says="mount")
        cv.refused("mv", "/above/m", "/elsewhere", says="mount")
        cv("umount", "/above/m")
        cv("rm", "-r", "/above")
        holds(moto.keys("data"), "the bucket is empty")


def cv_said(cv):
    return [part if isinstance(part, bytes) else part.encode() for part in cv.said]


def listed(job, s3):
    """The listing through Curvine is that of the source."""
    expected = data.files(job.source_of[s3])
    found = {}
    for entry in job.cv.json("ls", "-R", "-a", f"/{s3.name}"):
        if entry["type"] == "file":
            found[entry["path"].removeprefix(f"/{s3.name}/")] = entry["size_bytes"]
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    holds(not missing and not extra, f"missing {sorted(missing)[:5]}, too many {sorted(extra)[:5]}")
    equal(found, expected, "sizes")


def load_and_get(job):
    """A bucket is mounted, loaded with a progress, listed and read: nothing differs (moto)"""
    cv, s3 = job.cv, job.moto
    expected = data.files(job.source_of[s3])
    job.mount(s3, "data", "/moto")
    with job.check("the listing is that of the bucket"):
        listed(job, s3)
    with job.check("every file is loaded, and the counts say so"):
        loaded = cv.json("load", "/moto", "--watch")[-1]
        equal(loaded["state"], "done")
        equal(loaded["files_total"], len(expected), "files_total")
        equal(loaded["files_loaded"] + loaded["files_already"], len(expected), "files loaded or there already")
        equal((loaded["files_failed"], loaded["failures"]), (0, []), "failures")
        equal((loaded["bytes_total"], loaded["bytes_done"]), (sum(expected.values()),) * 2, "bytes")
    with job.check("what is loaded is cached"):
        used = cv.json("du", "-s", "/moto")[0]
        equal((used["files"], used["cached_bytes"]), (len(expected), sum(expected.values())))
    with job.check("loading what is cached moves no bytes and asks for no object"):
        log = s3.scratch.path / "moto.log"
        before = objects_asked_for(log)
        again = cv.json("load", "/moto", "--watch")[-1]
        equal((again["files_already"], again["bytes_moved"]), (len(expected), 0), "already, moved")
        equal(objects_asked_for(log), before, "requests for objects")
    with job.check("everything that is read back is what was put in"):
        cv("get", "-R", "/moto", job.scratch.path / "from-moto")
        data.same_trees(job.scratch.path / "from-moto", job.source_of[s3])
    with job.check("after `cv free` nothing is cached and everything is still there"):
        cv("free", "/moto")
        equal(cv.json("du", "-s", "/moto")[0]["cached_bytes"], 0, "cached bytes")
        listed(job, s3)
    with job.check("a manifest loads what it names, and a missing path is a failure that is named"):
        some = sorted(expected)[:7]
        manifest = "# a list\n" + "".join(f"/moto/{name}\n" for name in some)
        loaded = cv.json("load", "--manifest", "-", "--watch", stdin=manifest.encode())[-1]
        equal((loaded["state"], loaded["files_total"]), ("done", len(some)))
        cv.refused("load", "/moto/not-there", says="/moto/not-there", code=1)


def objects_asked_for(log):
    return sum("/data/" in line and ('"GET ' in line or '"HEAD ' in line) and "list-type" not in line for line in log.open())


def cold_and_get(job):
    """A bucket is read cold, as it comes: nothing differs, and then it is cached (s3s-fs)"""
    cv, s3 = job.cv, job.s3s
    expected = data.files(job.source_of[s3])
    job.mount(s3, "data", "/s3s")
    with job.check("the listing is that of the bucket"):
        listed(job, s3)
    with job.check("everything that is read cold is what was put in"):
        cv("get", "-R", "/s3s", job.scratch.path / "from-s3s")
        data.same_trees(job.scratch.path / "from-s3s", job.source_of[s3])
    with job.check("what was read is cached: a load moves no bytes"):
        loaded = cv.json("load", "/s3s", "--watch")[-1]
        equal((loaded["state"], loaded["files_already"], loaded["bytes_moved"]), ("done", len(expected), 0))
    with job.check("a part of the big file is the same part"):
        offset = job.big.stat().st_size - 12_345
        equal(cv("tail", "-c", "12345", "/s3s/big.bin"), job.big.open("rb").read()[offset:], "the tail")
        equal(cv("head", "-c", "54321", "/s3s/big.bin"), job.big.open("rb").read(54321), "the head")


def once_for_all(job):
    """A cold file is fetched once for any number of readers"""
    relay = Relay(job.s3s.port)
    size = job.big.stat().st_size
    digest = hashlib.file_digest(job.big.open("rb"), "blake2b").hexdigest()
    job.mount(job.s3s, "data", "/relayed", endpoint=relay.endpoint)
    with job.check("six cold readers get the same bytes, which are fetched once"):
        before = relay.sent
        readers = [job.cv.start("cat", "/relayed/big.bin") for _ in range(6)]
        digests = [None] * len(readers)

        def drain(index):
            digests[index] = hashlib.file_digest(readers[index].stdout, "blake2b").hexdigest()

        threads = [threading.Thread(target=drain, args=(index,)) for index in range(len(readers))]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        ends = [(reader.wait(), reader.stderr.read().decode(errors="replace")) for reader in readers]
        equal(ends, [(0, "")] * 6, "exit codes and what was said")
        equal(set(digests), {digest}, "digests")
        fetched = relay.sent - before
        holds(size <= fetched <= size * 1.02 + data.MIB, f"{fetched} bytes were fetched for a file of {size}")
    with job.check("a warm reader fetches nothing"):
        before = relay.sent
        equal(len(job.cv("cat", "/relayed/big.bin")), size, "bytes")
        holds(relay.sent - before < data.MIB, f"{relay.sent - before} bytes were fetched")
    with job.check("the head of a cold file fetches little of it"):
        job.cv("free", "/relayed")
        before = relay.sent
        job.cv("head", "-c", "1000", "/relayed/big.bin")
        holds(relay.sent - before <= size / 4, f"{relay.sent - before} bytes were fetched")
    job.cv("umount", "/relayed")
    relay.close()


AWKWARD = [
    "plain", "with space", " leads", "per%20cent", "100%", "plus+plus", "a&b=c?d#e", "ünïcödé/日本語", "emoji-🦀", "quote'\"s",
    "back\\slash", "dir with space/x y", "deep/" * 20 + "end", "n" * 255, "~tilde", "star*", "[bracket]", "{brace}",
    "semi;colon", "co:lon", "a-/b", "a.b/c", ".hidden", "..two", "tab\there",
]


def awkward_keys(job):
    """Keys that other tools stumble over are listed and read as they are"""
    for s3 in job.servers:
        job.make_bucket(s3, "awkward")
        # A name of white space at its end, `//` or `..` is no name of a file; s3s-fs has files behind its keys.
        unusable = ["trails ", "x//y", "up/../down"] if s3 is job.moto else []
        both = ["both", "both/below", "marker/"] if s3 is job.moto else []
        # Its files of metadata have longer names than their keys.
        storable = [key for key in AWKWARD if s3 is job.moto or len(key) < 200]
        content = {key: f"this is {key}".encode() for key in storable}
        for key in [*content, *unusable]:
            s3.put("awkward", key, f"this is {key}".encode())
        for key in both:
            s3.put("awkward", key, b"" if key.endswith("/") else f"this is {key}".encode())
        top = f"/awkward-{s3.name}"
        job.mount(s3, "awkward", top)
        if both:
            content["both"] = b"this is both"
        with job.check(f"awkward keys are listed as they are ({s3.name})"):
            entries = job.cv.json("ls", "-R", "-a", top)
            found = {entry["path"].removeprefix(top + "/") for entry in entries if entry["type"] == "file"}
            equal(found ^ set(content), set(), "the difference of the listings")
        with job.check(f"each is read as it is ({s3.name})"):
            target = job.scratch.path / f"from-awkward-{s3.name}"
            job.cv("get", "-R", top, target)
            found = {name: (target / name).read_bytes() for name in data.files(target)}
            equal(found, content)
        with job.check(f"each is found by its path ({s3.name})"):
            for key, expected in content.items():
                if not set(key) & set("*[{\\"):
                    equal(job.cv("cat", f"{top}/{key}"), expected, key)
        if both:
            with job.check("a marker is an empty directory, and an object wins over a prefix of its name"):
                kinds = {entry["path"]: entry["type"] for entry in job.cv.json("ls", "-a", top)}
                equal((kinds[f"{top}/marker"], kinds[f"{top}/both"]), ("directory", "file"))
        job.cv("umount", top)


def behind_the_back(job):
    """What others change, add and delete in the bucket shows, also when it is cached"""
    for s3 in job.servers:
        bucket, top = "changes", f"/changes-{s3.name}"
        job.make_bucket(s3, bucket)
        first = {
            "same-size": b"one", "shorter": b"a longer text", "longer": b"short", "gone": b"going", "kept": b"kept",
            "dir/inner": b"inner 1", "vanishing/only": b"only", "to-dir": b"a file", "to-file/x": b"below",
            "large": b"1" * (9 * data.MIB),
        }
        for key, content in first.items():
            s3.put(bucket, key, content)
        job.mount(s3, bucket, top, "--staleness", "0s")
        job.mount(s3, bucket, top + "-5s")
        for place in (top, top + "-5s"):
            equal(job.cv.json("load", place, "--watch")[-1]["files_loaded"], len(first), "files loaded")
        # s3s-fs writes the ETag of an object after its bytes: a second between versions keeps it out of the picture.
        time.sleep(1.1)
        second = {
            "same-size": b"two", "shorter": b"text", "longer": b"not so short any more", "dir/inner": b"inner 2",
            "new": b"new", "new-dir/deep/file": b"deep", "to-dir/x": b"below", "to-file": b"a file",
            "large": b"2" * (9 * data.MIB),
        }
        for key in ("gone", "vanishing/only", "to-dir", "to-file/x"):
            s3.delete(bucket, key)
        if s3 is job.s3s:
            # Its keys are files: what is left of a key in the way is a directory.
            for empty in ("vanishing", "to-file"):
                os.rmdir(s3.scratch.path / "s3s-data" / bucket / empty)
        for key, content in second.items():
            s3.put(bucket, key, content)
        changed_at = time.monotonic()
        truth = {**{"kept": b"kept"}, **second}

        def shows(place):
            found = job.scratch.path / f"seen-{time.monotonic_ns()}"
            job.cv("get", "-R", place, found)
            content = {name: (found / name).read_bytes() for name in data.files(found)}
            differing = {name for name in content.keys() | truth.keys() if content.get(name) != truth.get(name)}
            equal(differing, set(), "what is not as in the bucket")

        with job.check(f"with no staleness, each changed file is read as it is at once ({s3.name})"):
            keys = ["same-size", "shorter", "longer", "dir/inner", "new-dir/deep/file", "to-file"]
            if s3 is job.moto:
                # s3s-fs goes on to answer for the object that was where there is a directory now: only a listing shows it.
                keys.append("to-dir/x")
            for key in keys:
                equal(job.cv("cat", f"{top}/{key}"), second[key], key)
            equal(hashlib.md5(job.cv("cat", f"{top}/large")).digest(), hashlib.md5(second["large"]).digest(), "large")
            for key in ("gone", "vanishing/only", "to-file/x"):
                job.cv.refused("cat", f"{top}/{key}", code=1)
        with job.check(f"with no staleness, the whole tree is the bucket's at once ({s3.name})"):
            shows(top)
        with job.check(f"with the default staleness, it is after 5 s ({s3.name})"):
            time.sleep(max(0.0, changed_at + 5.1 - time.monotonic()))
            shows(top + "-5s")
        with job.check(f"a load after the change loads what changed and counts it ({s3.name})"):
            loaded = job.cv.json("load", top, "--watch")[-1]
            equal((loaded["state"], loaded["files_total"]), ("done", len(truth)))
        with job.check(f"a vanished object is an error for its reader and no failure of a load ({s3.name})"):
            s3.delete(bucket, "new")
            job.cv.refused("cat", f"{top}/new", says=f"{top}/new", code=1)
            loaded = job.cv.json("load", top, "--watch")[-1]
            equal((loaded["state"], loaded["files_total"]), ("done", len(truth) - 1))
        for place in (top, top + "-5s"):
            job.cv("umount", place)


def one_version(job):
    """An object that others replace while it is read is read in one version or not at all (moto)"""
    bucket, size = "versions", 20 * data.MIB
    job.make_bucket(job.moto, bucket)
    content = [bytes([65 + version]) * size for version in range(8)]
    job.moto.put(bucket, "object", content[0])
    job.mount(job.moto, bucket, "/versions", "--staleness", "0s")
    stopped = threading.Event()
    written = [0]

    def replace():
        while not stopped.wait(0.05):
            written[0] += 1
            job.moto.put(bucket, "object", content[written[0] % len(content)])

    with job.check("every read that succeeds is of one version"):
        writer = threading.Thread(target=replace)
        writer.start()
        outcomes = {"whole": 0, "refused": 0}
        try:
            until(lambda: written[0] > 2, "the first versions")
            end = time.monotonic() + 15
            while time.monotonic() < end:
                code, out, err = job.cv.run("cat", "/versions/object")
                if code == 0:
                    equal((len(out), len(set(out))), (size, 1), "bytes, different bytes")
                    outcomes["whole"] += 1
                else:
                    holds("changed" in err or "replaced" in err, err)
                    # What was printed before the error is of one version as well.
                    holds(len(set(out)) <= 1, "two versions before the error")
                    outcomes["refused"] += 1
        finally:
            stopped.set()
            writer.join()
        holds(outcomes["whole"] + outcomes["refused"] >= 3, f"too few reads: {outcomes}")
        holds(written[0] > 10, f"too few versions: {written[0]}")
    with job.check("when it rests, the last version is read"):
        equal(job.cv("cat", "/versions/object") == content[written[0] % len(content)], True, "the last version")
    job.cv("umount", "/versions")
