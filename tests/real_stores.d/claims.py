"""The list that is checked on every store. Each claim has a prefix of its own; a store's `without` names it."""

import concurrent.futures
import hashlib
import os
import random
import signal
import subprocess
import time

from report import equal, holds, until

MIB = 1 << 20
ODD_NAMES = (
    " leads", "two words", "per%20cent", "100%", "plus+plus", "ünï 日本", "a&b=c", "quote'n'\"quote", "semi;colon", "a?b#c",
    "[x]{y}",
)
# A client waits for a store for 25 s, and has a second try.
ERROR_SECONDS_MAX = 40


def in_order():
    return [
        reading, listing, ranges, odd_names_found, writing, writing_in_parts, odd_names_written, overwriting,
        changing_in_place, renaming_a_file, renaming_a_directory, deleting, empty_directories, attributes, changes_from_outside,
        wrong_credentials, missing_bucket, silent_server, stopped_server,
    ]


def content_of(size, seed):
    return random.Random(seed).randbytes(size)


def digest(content):
    return hashlib.sha256(content).hexdigest()


def shell(script, place):
    """By programs that have never heard of Curvine."""
    ended = subprocess.run(["sh", "-ec", script], cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, f"{script}: exit code {ended.returncode}: {ended.stderr.strip()[-1000:]}"
    return ended.stdout


def reading(trial):
    """What is there is mounted and read, and a mount without --write takes no change"""
    store, cv = trial.store, trial.cv
    whole = content_of(20 * MIB + 17, 1)
    for key, content in {"whole": whole, "empty": b"", "below/it": b"below"}.items():
        store.put(f"reading/{key}", content)
    with (
        trial.check("objects are read whole, cold and warm, and are what was put"),
        trial.mounted("reading") as (top, place),
    ):
        for _ in range(2):
            equal(digest(cv("cat", f"{top}/whole")), digest(whole), "sha256")
            equal((cv("cat", f"{top}/empty"), cv("cat", f"{top}/below/it")), (b"", b"below"))
        equal(digest((place / "whole").read_bytes()), digest(whole), "sha256 through the mount")
    with trial.check("a mount without --write takes no change"), trial.mounted("reading") as (top, _):
        new, whole = f"{top}/x", f"{top}/whole"
        for words in (["put", "-", new], ["rm", whole], ["mkdir", new], ["mv", whole, new]):
            cv.refused(*words, says="read-only", code=1)
        equal(store.keys("reading/"), ["reading/below/it", "reading/empty", "reading/whole"])


def listing(trial):
    """Several hundred objects are listed as the store lists them"""
    sizes = {f"listing/{number % 7}/{number:03}": number for number in range(300)}
    sizes |= {f"listing/{number:03}": 1 for number in range(150)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: trial.store.put(key, bytes(sizes[key])), sizes))
    with trial.check("every object is listed once, with its size"), trial.mounted("listing") as (top, place):
        listed = [entry for entry in trial.cv.json("ls", "-R", top) if entry["type"] == "file"]
        found = {f"listing{entry['path'].removeprefix(top)}": entry["size_bytes"] for entry in listed}
        equal((len(listed), sorted(found)), (len(sizes), trial.store.keys("listing/")), "the listing")
        equal(found, sizes, "sizes")
        walked = [os.path.join(where, name) for where, _, names in os.walk(place) for name in names]
        equal(len(walked), len(sizes), "files in the mount")


def ranges(trial):
    """Ranges that nobody has read before are what they are in the object"""
    content = content_of(40 * MIB, 2)
    trial.store.put("ranges/big", content)
    with trial.check("ranges of an object that is not cached are right"), trial.mounted("ranges") as (_, place):
        chance = random.Random(3)
        with open(place / "big", "rb") as file:
            starts = [0, len(content) - 1, len(content) - 5, *(chance.randrange(len(content)) for _ in range(20))]
            for start in starts:
                size = chance.randrange(1, 300_000)
                found = os.pread(file.fileno(), size, start)
                equal(digest(found), digest(content[start : start + size]), f"sha256 of {size} bytes from {start}")


def odd_names_found(trial):
    """Objects with odd names are listed and read"""
    names = trial.store.odd_names(ODD_NAMES)
    for name in names:
        trial.store.put(f"odd/{name}", name.encode())
        trial.store.put(f"odd/in {name}/file", name.encode())
    with (
        trial.check("objects with odd names, and in directories with such, are listed and read"),
        trial.mounted("odd") as (top, place),
    ):
        equal(sorted(os.listdir(place)), sorted([*names, *(f"in {name}" for name in names)]), "names")
        for name in names:
            expected = (name.encode(),) * 2
            equal((trial.cv("cat", f"{top}/{name}"), (place / f"in {name}" / "file").read_bytes()), expected, name)


def writing(trial):
    """What is put is an object with these bytes when the command ends"""
    store, cv = trial.store, trial.cv
    sizes = {"empty": 0, "small": 1_000, "part": 8 * MIB}
    with trial.mounted("writing", "--write") as (top, place):
        for name, size in sizes.items():
            with trial.check(f"a new file of {size} bytes is an object when cv put ends"):
                content = content_of(size, name)
                cv("put", "-", f"{top}/{name}", stdin=content)
                equal(digest(store.get(f"writing/{name}")), digest(content), "sha256 in the store")
                equal(digest(cv("cat", f"{top}/{name}")), digest(content), "sha256 through Curvine")
        with trial.check("a tree that is copied into the mount is the tree in the store"):
            shell("mkdir -p tree/a/b && echo one > tree/a/1 && echo two > tree/a/b/2 && cp -r tree copy", place)
            equal(store.keys("writing/copy/"), ["writing/copy/a/1", "writing/copy/a/b/2"])
            equal(store.get("writing/copy/a/b/2"), b"two\n")
    with (
        trial.check("a mount that is made anew shows what was written, and nothing else"),
        trial.mounted("writing") as (top, place),
    ):
        equal(sorted(os.listdir(place)), sorted([*sizes, "copy", "tree"]), "names")
        equal(digest((place / "part").read_bytes()), digest(content_of(sizes["part"], "part")), "sha256")


def writing_in_parts(trial):
    """Large files, which are sent in parts, are written, replaced and moved"""
    store, cv = trial.store, trial.cv
    with (
        trial.check("a file of several parts is written, replaced and renamed, and seen by a mount that is made anew"),
        trial.mounted("parts", "--write") as (top, place),
    ):
        for number, more in enumerate(([], ["-f"])):
            content = content_of(20 * MIB + 5 * number, number)
            cv("put", *more, "-", f"{top}/file", stdin=content)
            equal(digest(store.get("parts/file")), digest(content), "sha256 in the store")
            equal(digest(cv("cat", f"{top}/file")), digest(content), "sha256 through Curvine")
        cv("mv", f"{top}/file", f"{top}/moved")
        equal((store.keys("parts/"), digest(store.get("parts/moved"))), (["parts/moved"], digest(content)))
        cv("umount", top)
        cv("mount", store.uri("parts"), top, *store.options(), "--write")
        equal((os.listdir(place), digest((place / "moved").read_bytes())), (["moved"], digest(content)))


def odd_names_written(trial):
    """Odd names are written as they are"""
    with (
        trial.check("files with odd names are objects of these names"),
        trial.mounted("odd-written", "--write") as (top, _),
    ):
        names = trial.store.odd_names(ODD_NAMES)
        for name in names:
            trial.cv("put", "-", f"{top}/{name}", stdin=name.encode())
            equal(trial.store.get(f"odd-written/{name}"), name.encode(), name)
        equal(trial.store.keys("odd-written/"), sorted(f"odd-written/{name}" for name in names))


def overwriting(trial):
    """What exists is replaced when that is asked, and only then"""
    store, cv = trial.store, trial.cv
    store.put("overwriting/theirs", b"from outside")
    with trial.mounted("overwriting", "--write") as (top, _):
        with trial.check("what exists is replaced with -f, and not without"):
            cv.refused("put", "-", f"{top}/theirs", stdin=b"mine", says="exists", code=1)
            equal(store.get("overwriting/theirs"), b"from outside")
            for content in (b"mine", b"", content_of(3 * MIB, 4), b"mine again"):
                cv("put", "-f", "-", f"{top}/theirs", stdin=content)
                equal(digest(store.get("overwriting/theirs")), digest(content), "sha256 in the store")
                equal(digest(cv("cat", f"{top}/theirs")), digest(content), "sha256 through Curvine")


def changing_in_place(trial):
    """Programs that append, write in place and cut off leave in the store what they wrote"""
    store = trial.store
    big = bytearray(content_of(6 * MIB, 5))
    for key, content in {"log": b"one\n", "big": bytes(big), "cut": b"0123456789"}.items():
        store.put(f"in-place/{key}", content)
    with (
        trial.check("an append, a write in the middle and a truncation reach the object"),
        trial.mounted("in-place", "--write") as (top, place),
    ):
        shell("echo two >> log; echo three >> log", place)
        equal(store.get("in-place/log"), b"one\ntwo\nthree\n")
        with open(place / "big", "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"in the middle")
        big[5 * MIB : 5 * MIB + 13] = b"in the middle"
        equal(digest(store.get("in-place/big")), digest(big), "sha256 in the store")
        os.truncate(place / "cut", 4)
        trial.cv("persist", top)
        equal(store.get("in-place/cut"), b"0123")


def renaming_a_file(trial):
    """A file that is renamed is renamed in the store"""
    store, cv = trial.store, trial.cv
    content = {"small": b"small", "big": content_of(3 * MIB, 6), "target": b"old"}
    for key, it in content.items():
        store.put(f"renaming/{key}", it)
    with (
        trial.check("a file is renamed, also into a directory and onto another one"),
        trial.mounted("renaming", "--write") as (top, place),
    ):
        cv("mv", f"{top}/small", f"{top}/renamed")
        cv("mkdir", f"{top}/dir")
        cv("mv", f"{top}/big", f"{top}/dir/moved")
        shell("mv -f renamed target", place)
        trial.settled(top)
        equal(store.keys("renaming/"), ["renaming/dir/moved", "renaming/target"])
        expected = digest(content["big"]), b"small"
        equal((digest(store.get("renaming/dir/moved")), store.get("renaming/target")), expected)
        equal((digest(cv("cat", f"{top}/dir/moved")), cv("cat", f"{top}/target")), expected)


def renaming_a_directory(trial):
    """A directory that is renamed is renamed in the store, with all that is in it"""
    store, cv = trial.store, trial.cv
    for number in range(30):
        store.put(f"directories/tree/{number % 3}/{number}", f"content {number}".encode())
    with (
        trial.check("a directory is renamed with all that is in it"),
        trial.mounted("directories", "--write") as (top, place),
    ):
        cv("mkdir", f"{top}/tree/empty")
        cv("mv", f"{top}/tree", f"{top}/moved")
        trial.settled(top)
        expected = sorted(f"directories/moved/{number % 3}/{number}" for number in range(30))
        equal((store.keys("directories/tree/"), store.keys("directories/")), ([], expected))
        equal(sorted(os.listdir(place)), ["moved"])
        equal(sorted(os.listdir(place / "moved")), ["0", "1", "2", "empty"])
        equal((store.get("directories/moved/1/7"), (place / "moved/1/7").read_bytes()), (b"content 7",) * 2)


def deleting(trial):
    """What is deleted is gone from the store"""
    store, cv = trial.store, trial.cv
    for key in ("one", "two", "tree/a", "tree/b/c", "kept"):
        store.put(f"deleting/{key}", key.encode())
    with (
        trial.check("files and directories are deleted, and nothing else"),
        trial.mounted("deleting", "--write") as (top, place),
    ):
        cv("rm", f"{top}/one")
        shell("rm two", place)
        cv.refused("rm", f"{top}/tree", code=1)
        equal(store.keys("deleting/"), ["deleting/kept", "deleting/tree/a", "deleting/tree/b/c"])
        cv("rm", "-r", f"{top}/tree")
        trial.settled(top)
        equal((store.keys("deleting/"), os.listdir(place)), (["deleting/kept"], ["kept"]))


def empty_directories(trial):
    """A directory with nothing in it stays, and is taken away when that is asked"""
    with trial.check("an empty directory is made, and is there in a new mount"):
        with trial.mounted("empty", "--write") as (top, place):
            trial.cv("mkdir", "-p", f"{top}/a/b")
            equal(os.listdir(place / "a"), ["b"])
        with trial.mounted("empty", "--write") as (top, place):
            equal((os.listdir(place), os.listdir(place / "a"), os.listdir(place / "a" / "b")), (["a"], ["b"], []))
    with trial.check("a directory that loses its last file is there, and is gone after rmdir"):
        with trial.mounted("empty", "--write") as (top, place):
            shell("echo 1 > a/b/file; rm a/b/file; rmdir a/b", place)
            equal((os.listdir(place / "a"), trial.store.keys("empty/")), ([], []))
            shell("rmdir a", place)
            equal(os.listdir(place), [])
        with trial.mounted("empty", "--write") as (top, place):
            equal(os.listdir(place), [])


def attributes(trial):
    """Mode, owner, time and extended attributes of a file are kept with its object"""
    def seen(place):
        stat = (place / "file").stat()
        all_of_it = {
            "mode": stat.st_mode & 0o7777,
            "owner": (stat.st_uid, stat.st_gid),
            "time": stat.st_mtime_ns,
            "note": os.getxattr(place / "file", "user.note") if "note" in trial.store.kept else None,
        }
        return {name: all_of_it[name] for name in trial.store.kept}

    with trial.check("a mount that is made anew shows the attributes that a file was written with"):
        with trial.mounted("attributes", "--write") as (top, place):
            with open(place / "file", "wb") as file:
                file.write(b"content")
                os.fchmod(file.fileno(), 0o640)
                os.fchown(file.fileno(), 1_001, 2_001)
                os.setxattr(file.fileno(), "user.note", "nøte".encode())
            # With the content: elsewhere than in s3 they go with it alone.
            os.utime(place / "file", ns=(7, 1_234_567_890_123_456_789))
            with open(place / "file", "ab") as file:
                file.write(b" and more")
                file.flush()
                os.utime(file.fileno(), ns=(7, 1_234_567_890_123_456_789))
            trial.cv("persist", top)
            expected = seen(place)
            equal((expected["mode"], expected["owner"]), (0o640, (1_001, 2_001)), "mode and owner")
        with trial.mounted("attributes", "--write") as (top, place):
            equal(seen(place), expected)


def changes_from_outside(trial):
    """What others change in the store shows when the staleness is over"""
    store, cv = trial.store, trial.cv
    for key, content in {"changed": b"one", "gone": b"gone", "dir/kept": b"kept"}.items():
        store.put(f"outside/{key}", content)
    with trial.check("a change, a new object and a deletion show within the staleness"):
        with trial.mounted("outside", "--write", "--staleness", "2s") as (top, place):
            equal((cv("cat", f"{top}/changed"), sorted(os.listdir(place))), (b"one", ["changed", "dir", "gone"]))
            # As long as the first: only the version says that it is another.
            store.put("outside/changed", b"two")
            store.put("outside/dir/new", b"new")
            store.delete("outside/gone")
            until(lambda: cv("cat", f"{top}/changed") == b"two", "the new content", 15)
            until(lambda: (place / "changed").read_bytes() == b"two", "the new content in the mount", 15)
            until(lambda: not (place / "gone").exists(), "the deletion", 15)
            until(lambda: sorted(os.listdir(place / "dir")) == ["kept", "new"], "the new listing", 15)
            equal(cv("cat", f"{top}/dir/new"), b"new")
    with trial.check("what others have changed is not deleted unseen"):
        with trial.mounted("outside", "--write", "--staleness", "1h") as (top, place):
            equal(cv("cat", f"{top}/changed"), b"two")
            store.put("outside/changed", b"theirs, and longer")
            # Whether that is refused or shows what is new: what nobody here has seen stays.
            cv.run("rm", f"{top}/changed")
            equal(store.get("outside/changed"), b"theirs, and longer")


def refused_in_time(trial, claim, *words, says, **more):
    """What must fail, saying this, before anybody gives up."""
    with trial.check(claim):
        begun = time.monotonic()
        trial.cv.refused(*words, says=says, **more)
        took = time.monotonic() - begun
        holds(took < ERROR_SECONDS_MAX, f"took {took:.0f} s")


def wrong_credentials(trial):
    """Wrong credentials are refused in words that name the store"""
    uri = trial.store.uri("reading")
    for kind, more in {"to read": [], "to write": ["--write"]}.items():
        mount = ["mount", uri, "/refused", *trial.store.wrong(), *more]
        says = [uri, trial.store.denied]
        refused_in_time(trial, f"wrong credentials are refused to a mount {kind}", *mount, says=says, code=4)
    with trial.check("no secret is printed"):
        said = b"".join(trial.cv.said)
        holds(not [secret for secret in trial.store.secrets if secret.encode() in said], "a secret was printed")


def missing_bucket(trial):
    """A bucket that is not there is named"""
    store = trial.store
    uri = store.uri("", "nowhere")
    for kind, more in {"to read": [], "to write": ["--write"]}.items():
        if more and store.is_made:
            continue
        mount = ["mount", uri, "/refused", *store.options(), *more]
        says = [uri, store.missing]
        refused_in_time(trial, f"a bucket that is not there is named to a mount {kind}", *mount, says=says)


def asked_in_vain(trial, top, says):
    """A listing, a read and a new directory, which the store does not answer."""
    questions = {"a listing": ("ls", "unseen"), "a read": ("cat", "file"), "a new directory": ("mkdir", "new")}
    for doing, (command, name) in questions.items():
        claim = f"{doing} fails in time and says so: {says}"
        refused_in_time(trial, claim, command, f"{top}/{name}", says=[trial.store.uri("down"), says])


def silent_server(trial):
    """A server that is silent: an error in time that names the store, and all is well when it speaks again"""
    store, cv = trial.store, trial.cv
    store.put("down/file", b"content")
    store.put("down/unseen/file", b"content")
    with trial.mounted("down", "--write", "--staleness", "0s") as (top, place):
        store.process.send_signal(signal.SIGSTOP)
        try:
            asked_in_vain(trial, top, "the store gave no answer within")
        finally:
            store.process.send_signal(signal.SIGCONT)
        with trial.check("when the server speaks again, all is well"):
            until(lambda: cv.run("cat", f"{top}/file")[:2] == (0, b"content"), "the file is read", 90)
            trial.settled(top)


def stopped_server(trial):
    """A server that is gone: an error in time that names the store, and all is well when it is back"""
    store, cv = trial.store, trial.cv
    store.put("down/file", b"content")
    store.put("down/unseen/file", b"content")
    with trial.mounted("down", "--write", "--staleness", "0s") as (top, place):
        store.kill()
        asked_in_vain(trial, top, "nobody answers there")
        uri = store.uri("reading")
        mount = ["mount", uri, "/refused", *store.options()]
        refused_in_time(trial, "a mount fails in time and says so", *mount, says=[uri, "nobody answers there"])
        store.start()
        with trial.check("when the server is back, all is well"):
            until(lambda: cv.run("cat", f"{top}/file")[:2] == (0, b"content"), "the file is read", 90)
            cv("put", "-", f"{top}/after", stdin=b"after")
            equal(store.get("down/after"), b"after")
