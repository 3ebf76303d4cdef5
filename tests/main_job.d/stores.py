"""Stores that fail at bad moments: nothing of theirs is harmed, and nothing that was written is forgotten."""

import contextlib
import os
import subprocess
import threading
import time
import urllib.request

from proxy import Proxy
from report import equal, holds, until


@contextlib.contextmanager
def faulty(job, name, *more):
    """A bucket behind a proxy, mounted for writing: the bucket's name, the path, the proxy."""
    bucket, top = name, f"/{name}"
    job.make_bucket(job.moto, bucket)
    proxy = Proxy(job.moto)
    try:
        job.mount(job.moto, bucket, top, "--write", "--staleness", "0s", *more, endpoint=proxy.endpoint)
        yield bucket, top, proxy
        proxy.clear()
        job.cv("umount", "--force", top)
    finally:
        proxy.close()


def backlog(job, top):
    return next(mount["backlog"] for mount in job.cv.json("mounts") if mount["path"] == top)


def is_idle(job, top):
    now = backlog(job, top)
    return now["files"] == 0 and not now["effects"]


def store_changes(job):
    """A store that refuses, is slow and loses answers: deletions and renames have one effect, or none"""
    cv, moto = job.cv, job.moto
    with faulty(job, "faults") as (bucket, top, proxy):
        put = lambda key, content: moto.put(bucket, key, content)  # noqa: E731
        with job.check("a deletion whose answer is lost deletes nothing that is written meanwhile"):
            put("a", b"old")
            lost = proxy.add("DELETE", "a", lose=True)
            cv("rm", f"{top}/a")
            holds(lost.met, "no answer was lost")
            cv("put", "-", f"{top}/a", stdin=b"new")
            equal((moto.get(bucket, "a"), cv("cat", f"{top}/a")), (b"new",) * 2)
        with job.check("a deletion that is refused changes nothing, and says what the store said"):
            proxy.add("DELETE", "a", times=9, refuse=403)
            cv.refused("rm", f"{top}/a", says="denie", code=4)
            equal(cv("cat", f"{top}/a"), b"new")
            proxy.clear()
        with job.check("another version than was meant is not deleted"):
            slow = proxy.add("HEAD", "a", times=2, delay=1.0)
            put("a", b"seen")
            removing = cv.start("rm", f"{top}/a")
            until(lambda: slow.met, "the deletion looks at the object")
            removing.communicate(timeout=60)
            put("a", b"theirs, later")
            equal(cv("cat", f"{top}/a"), b"theirs, later")
        place = job.node.mount_point / top[1:]
        with job.check("what is opened when its object is gone already is not there, be it deleted or replaced"):
            for words in (["rm", f"{top}/going"], ["rm", "-r", f"{top}/tree"]):
                put("going", b"g" * 100_000)
                put("tree/going", b"g" * 100_000)
                key = words[-1].removeprefix(f"{top}/").replace("tree", "tree/going")
                holds((place / key).exists(), key)
                slow = proxy.add("DELETE", key, late=3.0)
                removing = cv.start(*words)
                holds(slow.done.wait(30), "the object is deleted")
                try:
                    found = (place / key).read_bytes()
                except FileNotFoundError:
                    found = None
                equal((removing.communicate(timeout=60), removing.returncode)[1], 0, "exit code")
                equal(found, None, words)
            cv("put", "-f", "-", f"{top}/a", stdin=b"old")
            cv("put", "-f", "-", f"{top}/b", stdin=b"new")
            slow = proxy.add("COPY", "a", late=3.0)
            moving = cv.start("mv", f"{top}/b", f"{top}/a")
            holds(slow.done.wait(30), "the object is replaced")
            equal((place / "a").read_bytes(), b"new")
            equal((moving.communicate(timeout=60), moving.returncode)[1], 0, "exit code")
            cv("rm", f"{top}/a", f"{top}/going")
        with job.check("what somebody puts into a directory while it is renamed stays where it was put"):
            for number in range(20):
                put(f"tree/{number}", f"content {number}".encode())
            slow = proxy.add("COPY", "moved/.*", times=20, delay=0.5)
            moving = cv.start("mv", f"{top}/tree", f"{top}/moved")
            until(lambda: slow.met, "the first copy")
            effects = backlog(job, top)["effects"]
            equal([effect["what"] for effect in effects], ["rename"], "under way")
            put("tree/late", b"late")
            equal((moving.communicate(timeout=120), moving.returncode)[1], 0, "exit code")
            equal(moto.keys(bucket, "moved/"), sorted(f"moved/{number}" for number in range(20)))
            equal(moto.keys(bucket, "tree/"), ["tree/late"])
            equal((cv("cat", f"{top}/tree/late"), cv("cat", f"{top}/moved/7")), (b"late", b"content 7"))
            holds(is_idle(job, top), backlog(job, top))
        with job.check("a rename that is refused half-way leaves nothing behind, and can be made again"):
            proxy.add("COPY", "again/1[0-9]", times=99, refuse=403)
            cv.refused("mv", f"{top}/moved", f"{top}/again", says="denie", code=4)
            until(lambda: is_idle(job, top), "what was copied is removed")
            equal(moto.keys(bucket, "again/"), [])
            equal(len(moto.keys(bucket, "moved/")), 20, "objects")
            proxy.clear()
            cv("mv", f"{top}/moved", f"{top}/again")
            equal(moto.keys(bucket, "again/"), sorted(f"again/{number}" for number in range(20)))
            equal(moto.keys(bucket, "moved/"), [])
        with job.check("a rename over another object, made by a store that then says nothing, is made and loses neither"):
            put("over/old", b"old")
            put("over/new", b"new")
            equal(cv("cat", f"{top}/over/old", f"{top}/over/new"), b"oldnew")
            lost = proxy.add("COPY", "over/old", times=9, lose=True)
            moving = cv.start("mv", f"{top}/over/new", f"{top}/over/old")
            until(lambda: lost.met, "the copy")
            silent = proxy.add("HEAD", "over/.*", times=999, refuse=503)
            until(lambda: silent.met > 2, "the store is asked what it has done")
            time.sleep(3)
            equal(moto.get(bucket, "over/old"), b"new", "the copy stays")
            proxy.clear()
            moving.communicate(timeout=120)
            until(lambda: is_idle(job, top), "the rename is over", 60)
            equal((moto.keys(bucket, "over/"), moto.get(bucket, "over/old")), (["over/old"], b"new"))
            equal(cv("cat", f"{top}/over/old"), b"new")
            cv("rm", "-r", f"{top}/over")
        with job.check("a rename of many slow objects ends, however long it takes"):
            proxy.add("COPY", "slow/.*", times=99, delay=8.0)
            cv("mv", f"{top}/again", f"{top}/slow")
            equal(len(moto.keys(bucket, "slow/")), 20, "objects")
            proxy.clear()
        with job.check("a directory that loses its last file is still there"):
            cv("mkdir", f"{top}/kept")
            cv("put", "-", f"{top}/kept/one", stdin=b"1")
            cv("rm", f"{top}/kept/one")
            equal(cv.text("ls", "-C", top).split().count(f"{top}/kept"), 1)
            cv("rm", "-r", f"{top}/kept")
        with job.check("a link into a mount leads to the mount, also for who changes something"):
            place = job.node.mount_point
            (place / "link").symlink_to(f"{top[1:]}")
            cv("put", "-", "/link/through", stdin=b"1")
            equal(moto.get(bucket, "through"), b"1")
            cv("mv", "/link/through", "/link/moved-through")
            equal((moto.keys(bucket, "through"), moto.get(bucket, "moved-through")), ([], b"1"))
            cv("mkdir", "-p", "/link/made/below")
            cv("rm", "-r", "/link/made", "/link/moved-through")
            equal([key for key in moto.keys(bucket) if key.startswith(("made", "moved-through"))], [])
            cv("rm", "/link")
        with job.check("kill -9 of everything during a rename: it goes on after the start"):
            proxy.add("COPY", "after/.*", times=99, delay=1.0)
            moving = cv.start("mv", f"{top}/slow", f"{top}/after")
            until(lambda: proxy.count("COPY", "after/.*"), "the first copy")
            job.node.kill()
            proxy.clear()
            job.node.start()
            moving.communicate(timeout=120)
            until(lambda: is_idle(job, top), "the rename is over", 60)
            either = len(moto.keys(bucket, "after/")), len(moto.keys(bucket, "slow/"))
            holds(either in [(20, 0), (0, 20)], f"after and before: {either}")
            shown = cv.text("ls", "-C", top).split()
            holds((f"{top}/after" in shown) == (either[0] > 0), shown)


def store_exports(job):
    """A store that refuses exports: they are tried again, shown, and waited for"""
    cv, moto = job.cv, job.moto
    with faulty(job, "exports") as (bucket, top, proxy):
        with job.check("a PUT that is refused at close is an error, and is tried again until it is stored"):
            proxy.add("PUT", "f", times=4, refuse=403)
            cv.refused("put", "-", f"{top}/f", stdin=b"f", says="denie", code=4)
        place = job.node.mount_point / top[1:]
        with job.check("what a program wrote and the store refused is shown, and stored when the store takes it"):
            proxy.add("PUT", "g", times=4, refuse=403)
            failed = subprocess.run(["cp", "/etc/hostname", place / "g"], capture_output=True, check=False)
            holds(failed.returncode != 0, "cp says nothing of it")
            waiting = backlog(job, top)
            equal(waiting["files"], 1, waiting)
            holds("denied" in cv.text("mounts"), cv.text("mounts"))
            cv.refused("umount", top, says="cv persist", code=1)
            proxy.clear()
            cv("persist", top)
            equal(moto.get(bucket, "g"), open("/etc/hostname", "rb").read())
            holds(is_idle(job, top), backlog(job, top))
        with job.check("empty files and truncations reach the store, whoever makes them"):
            (place / "touched").touch()
            subprocess.run(["sh", "-c", f": > {place}/emptied"], check=True)
            subprocess.run(["cp", "/dev/null", place / "null"], check=True)
            subprocess.run(["sh", "-c", f": > {place}/g"], check=True)
            cv("touch", f"{top}/cv-touched")
            cv("persist", top)
            equal({key: moto.get(bucket, key) for key in moto.keys(bucket)}, {
                key: b"" for key in ("cv-touched", "emptied", "g", "null", "touched")
            })
        with job.check("two who change an object: both versions are kept, each under a name"):
            cv("put", "-", f"{top}/both", stdin=b"first")
            slow = proxy.add("PUT", "both", delay=2.0)
            writing = threading.Thread(target=lambda: (place / "both").write_bytes(b"ours"))
            proxy.add("HEAD", "both", times=0)
            writing.start()
            until(lambda: slow.met, "the export")
            moto.put(bucket, "both", b"theirs")
            writing.join(60)
            until(lambda: is_idle(job, top), "both are stored", 60)
            kept = {key: moto.get(bucket, key) for key in moto.keys(bucket, "both")}
            equal(sorted(kept.values()), [b"ours", b"theirs"], kept)
            shown = cv.text("ls", "-C", top).split()
            equal(sorted(name for name in shown if "/both" in name), sorted(f"{top}/{key}" for key in kept))


def uploads_aborted(worker):
    with urllib.request.urlopen(f"http://{worker.web}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("curvine_uploads_aborted_total "))


def store_uploads(job):
    """Uploads in parts that fail are aborted, also after a crash of their worker; those of others stay"""
    cv, moto = job.cv, job.moto
    content = os.urandom(24 << 20)
    with faulty(job, "uploads", "--write-mode", "back") as (bucket, top, proxy):
        place = job.node.mount_point / top[1:]
        begun = moto.client.create_multipart_upload(Bucket=bucket, Key="big")
        theirs = {("big", begun["UploadId"])}
        moto.client.upload_part(Bucket=bucket, Key="big", UploadId=begun["UploadId"], PartNumber=1, Body=b"theirs")
        with job.check("kill -9 while parts are sent: the next start aborts the upload, and the object comes whole"):
            held = proxy.add("PUT", "big", times=99, late=30.0)
            (place / "big").write_bytes(content)
            until(held.done.is_set, "a part is in the store")
            equal(len(moto.uploads(bucket) - theirs), 1, "uploads of the worker")
            left = moto.uploads(bucket) - theirs
            workers = job.node.of("worker") or job.node.parts
            for worker in workers:
                worker.kill()
            proxy.clear()
            for worker in workers:
                worker.start()
            until(lambda: not moto.uploads(bucket) & left, "the upload is aborted", 60)
            cv("persist", top)
            equal(moto.get(bucket, "big") == content, True, "the object is what was written")
            equal(moto.uploads(bucket), theirs, "uploads that are left")
        with job.check("parts and aborts that are refused: the upload is aborted later, and the object is stored"):
            counted = sum(uploads_aborted(worker) for worker in workers)
            proxy.add("PUT", "refused", times=4, refuse=403)
            refused = proxy.add("DELETE", "refused", refuse=403)
            (place / "refused").write_bytes(content)
            until(lambda: is_idle(job, top), "the object is stored", 60)
            equal(moto.get(bucket, "refused") == content, True, "the object is what was written")
            holds(refused.met, "no abort was refused")
            until(lambda: moto.uploads(bucket) == theirs, "nothing but theirs is left", 60)
            until(lambda: sum(uploads_aborted(worker) for worker in workers) > counted, "it is counted")


def store_without_copies(job):
    """A store that takes a copy for a write of nothing loses nothing when attributes change"""
    with faulty(job, "copyless") as (bucket, top, proxy):
        with job.check("the content stays, and the new mode is known"):
            deaf = proxy.add("COPY", ".*", times=1_000, forget="x-amz-copy-source")
            job.cv("put", "-", f"{top}/a", stdin=b"content")
            place = job.node.mount_point / top[1:] / "a"
            place.chmod(0o600)
            job.cv("persist", top)
            holds(deaf.met, "no copy was asked for")
            job.cv("free", top)
            equal((job.moto.get(bucket, "a"), place.read_bytes()), (b"content",) * 2)
            equal((place.stat().st_mode & 0o7777, job.moto.keys(bucket)), (0o600, ["a"]))


def store_back(job):
    """A mount that writes back: close returns at once, and the bucket is the namespace in the end"""
    cv, moto = job.cv, job.moto
    with faulty(job, "back", "--write-mode", "back") as (bucket, top, proxy):
        place = job.node.mount_point / top[1:]
        with job.check("close does not wait for the store, and the objects are there soon"):
            slow = proxy.add("PUT", ".*", times=5, delay=3.0)
            begun = time.monotonic()
            for number in range(5):
                (place / f"f{number}").write_bytes(f"content {number}".encode())
            took = time.monotonic() - begun
            holds(slow.met < 5 or took < 3 * 5, f"close waited for the store: {took:.1f} s")
            cv("persist", top)
            equal([moto.get(bucket, f"f{number}") for number in range(5)], [f"content {n}".encode() for n in range(5)])
        with job.check("kill -9 of everything while exports wait: they are made after the start"):
            proxy.add("PUT", "late.*", times=99, refuse=503)
            for number in range(5):
                (place / f"late{number}").write_bytes(b"x" * 100_000)
            holds(backlog(job, top)["files"] > 0, "nothing waits")
            job.node.kill()
            proxy.clear()
            job.node.start()
            cv("persist", top)
            equal([len(moto.get(bucket, f"late{number}")) for number in range(5)], [100_000] * 5)
        with job.check("a file that is written, renamed and deleted at once leaves what the namespace has"):
            for number in range(10):
                (place / "tmp").write_bytes(f"round {number}".encode())
                (place / "tmp").rename(place / "final")
            (place / "gone").write_bytes(b"gone")
            (place / "gone").unlink()
            cv("persist", top)
            until(lambda: is_idle(job, top), "nothing is under way")
            equal(moto.get(bucket, "final"), b"round 9")
            equal([key for key in moto.keys(bucket) if key in ("tmp", "gone")], [])


def store_renewed(job):
    """A key that has expired is renewed: reads and exports go on, and what is cached stays"""
    cv, moto = job.cv, job.moto
    with faulty(job, "renewed") as (bucket, top, proxy):
        def renew(key):
            return ("mount", "--update", top, "-o", f"access_key_id={key}", "-o", "secret_access_key=it-is-new")

        moto.put(bucket, "cached", b"cached" * 10_000)
        with job.check("an expired key is named, and one that has expired as well changes nothing"):
            cv("load", top, "--watch")
            proxy.expired |= {moto.key, "expired-too"}
            moto.put(bucket, "later", b"later")
            cv.refused("cat", f"{top}/later", says="have expired", code=4)
            cv.refused(*renew("expired-too"), says="have expired", code=4)
        with job.check("with a new key what is new is read, and what is cached is not fetched again"):
            fetched = proxy.count("GET", "cached")
            said = cv.text(*renew("a-new-key"))
            holds("it-is-new" not in said and "updated" in said, said)
            equal((cv("cat", f"{top}/later"), cv("cat", f"{top}/cached")), (b"later", b"cached" * 10_000))
            equal(proxy.count("GET", "cached"), fetched, "requests for what is cached")
        with job.check("what waits to be exported when a key expires is exported with the new one"):
            proxy.add("PUT", "waits", times=99, refuse=403)
            with contextlib.suppress(OSError):
                (job.node.mount_point / top[1:] / "waits").write_bytes(b"waits")
            equal(backlog(job, top)["files"], 1, "files that wait")
            proxy.expired.add("a-new-key")
            proxy.clear()
            cv(*renew("a-newer-key"))
            until(lambda: is_idle(job, top), "the export is made", 60)
            equal(moto.get(bucket, "waits"), b"waits")
