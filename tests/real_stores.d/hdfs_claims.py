"""What is checked on HDFS alone, by its own protocol."""

import grp
import os
import pwd

from machines import free_port
from report import equal, holds, until

MIB = 1 << 20


def attributes_of_files(trial):
    """Modes, owners and times that files have in HDFS are those in the namespace, and go the other way"""
    store = trial.store

    def set_owner(owner, group):
        store.ask("PUT", f"/{store.BUCKET}/kept/file", f"SETOWNER&owner={owner}&group={group}")

    def set_mode(mode):
        store.ask("PUT", f"/{store.BUCKET}/kept/file", f"SETPERMISSION&permission={mode}")

    def owned(place):
        stat = (place / "file").stat()
        return stat.st_mode & 0o7777, stat.st_uid, stat.st_gid

    daemon, staff = pwd.getpwnam("daemon").pw_uid, grp.getgrnam("staff").gr_gid
    store.put("kept/file", b"content")
    set_owner("daemon", "staff")
    set_mode("640")
    with trial.mounted("kept", "--write", "--staleness", "2s") as (top, place):
        with trial.check("mode, owner and time of a file in HDFS are shown"):
            equal(owned(place), (0o640, daemon, staff))
            equal((place / "file").stat().st_mtime_ns // 1_000_000, store.status("kept/file")["modificationTime"])
        with trial.check("what is changed of them in HDFS is shown"):
            set_mode("604")
            until(lambda: owned(place) == (0o604, daemon, staff), "the new mode", 15)
            set_owner("4321", "no-such-group")
            until(lambda: owned(place)[:2] == (0o604, 4321), "the new owner", 15)
            equal((place / "file").read_bytes(), b"content")
        with trial.check("what is changed of them in the mount is changed in HDFS"):
            os.chmod(place / "file", 0o751)
            os.chown(place / "file", daemon, staff)
            trial.cv("persist", top)
            found = store.status("kept/file")
            equal((found["permission"], found["owner"], found["group"]), ("751", "daemon", "staff"))
            equal(store.get("kept/file"), b"content")


def versions(trial):
    """What is replaced while it is read is never mixed with what replaces it"""
    store = trial.store
    size = 48 * MIB
    with trial.check("a file that is replaced while it is read is read in one version, or not to its end"):
        store.put("versions/file", b"1" * size)
        with trial.mounted("versions", "--staleness", "1h") as (_, place):
            with open(place / "file", "rb") as file:
                equal(os.pread(file.fileno(), MIB, 0), b"1" * MIB, "its beginning")
                store.put("versions/file", b"2" * size)
                try:
                    rest = os.pread(file.fileno(), size, size - 4 * MIB)
                except OSError:
                    rest = b""
                equal(rest.strip(b"1"), b"", "what is left of its end")
    with trial.check("a file that is cut off in HDFS and written on is another version"):
        store.put("versions/file", b"1" * MIB)
        with trial.mounted("versions", "--staleness", "0s") as (top, _):
            equal(trial.cv("cat", f"{top}/file"), b"1" * MIB)
            until(
                lambda: store.ask("POST", f"/{store.BUCKET}/versions/file", f"TRUNCATE&newlength={MIB // 2}").json()["boolean"]
                or store.status("versions/file")["length"] == MIB // 2,
                "the file is cut off", 30,
            )
            until(lambda: store.append("versions/file", b"3" * (MIB // 2)), "the file is written on", 60)
            equal(trial.cv("cat", f"{top}/file"), b"1" * (MIB // 2) + b"3" * (MIB // 2))


def nothing_is_left(trial):
    """What is written is complete when it is seen, and nothing stays beside it"""
    store = trial.store
    with (
        trial.check("a file is replaced by one rename, and no upload stays"),
        trial.mounted("complete", "--write") as (top, place),
    ):
        trial.cv("mkdir", f"{top}/dir")
        for number in range(5):
            trial.cv("put", "-f", "-", f"{top}/dir/file", stdin=bytes([number]) * (3 * MIB + number))
            found = store.status("complete/dir/file")
            equal((found["length"], found["permission"]), (3 * MIB + number, "644"))
        equal(store.keys("complete/.curvine-uploads/"), [])
        equal(os.listdir(place), ["dir"])
    with trial.check("a directory that is not empty in HDFS is not deleted"):
        with trial.mounted("complete", "--write", "--staleness", "1h") as (top, place):
            trial.cv("rm", f"{top}/dir/file")
            trial.settled(top)
            equal(os.listdir(place / "dir"), [])
            store.put("complete/dir/theirs", b"theirs")
            # Whether that is refused or forgets a name: what nobody here has seen stays.
            trial.cv.run("rm", "-r", f"{top}/dir")
            trial.settled(top)
            equal(store.get("complete/dir/theirs"), b"theirs")


def refusals(trial):
    """What HDFS refuses is said with the next step to take"""
    store, cv = trial.store, trial.cv
    uri = store.uri("refusals")
    store.put("refusals/file", b"content")
    with trial.check("a name that is no host and no name service is said to be that"):
        mount = ["mount", "hdfs://no-such-service.invalid/dir", "/refused"]
        says = ["hdfs://no-such-service.invalid/dir", "neither a host nor a name service", "dfs.ha.namenodes"]
        cv.refused(*mount, says=says, code=4)
    with trial.check("a port at which nobody listens is named"):
        address = f"hdfs://127.0.0.1:{free_port()}/dir"
        cv.refused("mount", address, "/refused", says=[address, "nobody answers there"], code=4)
    with trial.check("an option with a wrong name is refused with the nearest"):
        cv.refused("mount", uri, "/refused", "-o", "dfs.namenode.rpc-adress.ns.a=x", says="dfs.namenode.rpc-address.*", code=2)
    with trial.check("who may read and not write gets no writable mount"):
        store.ask("PUT", f"/{store.BUCKET}", "SETPERMISSION&permission=755")
        somebody = store.options(user_name="somebody")
        cv.refused("mount", uri, "/refused", *somebody, "--write", says=[uri, "access was denied", "somebody"], code=4)
        store.ask("PUT", f"/{store.BUCKET}", "SETPERMISSION&permission=700")
    with trial.mounted("refusals", "--write", "--staleness", "0s") as (top, place):
        store.admin("-safemode", "enter")
        try:
            with trial.check("in safe mode, a read is answered and a change is refused in these words"):
                equal(cv("cat", f"{top}/file"), b"content")
                cv.refused("mkdir", f"{top}/new", says=[uri, "safe mode", "dfsadmin -safemode leave"], code=4)
        finally:
            store.admin("-safemode", "leave")
        with trial.check("when safe mode is over, the change is made"):
            cv("mkdir", f"{top}/new")
            holds(store.status("refusals/new")["type"] == "DIRECTORY", "it is no directory")
        with trial.check("a quota of HDFS is said to be one"):
            store.admin("-setQuota", "2", f"/{store.BUCKET}/refusals/new")
            cv("mkdir", f"{top}/new/a")
            cv.refused("mkdir", f"{top}/new/b", says=[uri, "quota"], code=1)


IN_ORDER = (attributes_of_files, versions, nothing_is_left, refusals)
