"""What is asked beside the list of a server that speaks S3 by itself."""

import concurrent.futures

from claims import MIB, content_of, digest
from report import equal, until


def conditional_writes(trial):
    """What a store makes of conditions does not come between a file and its own next version"""
    store, cv = trial.store, trial.cv
    with (
        trial.check("a file that is changed again and again is one object, and no conflict with itself"),
        trial.mounted("again", "--write") as (top, place),
    ):
        for number in range(5):
            with open(place / "file", "ab") as file:
                file.write(b"%d\n" % number)
            cv("persist", f"{top}/file")
        equal((store.keys("again/"), store.get("again/file")), (["again/file"], b"0\n1\n2\n3\n4\n"))


def overtaken_uploads(trial):
    """What others write while a file is sent in parts stays, and of the upload nothing does"""
    store = trial.store
    key = "overtaken/file"
    ours = content_of(192 * MIB, 8)
    store.put(key, b"first")

    def uploads():
        listed = store.client.list_multipart_uploads(Bucket=store.BUCKET, Prefix=key)
        return [upload["Key"] for upload in listed.get("Uploads", [])]

    with (
        trial.check("what others write during an upload in parts is not replaced, and ours is kept beside it"),
        trial.mounted("overtaken", "--write", "--staleness", "1h") as (top, place),
        concurrent.futures.ThreadPoolExecutor(1) as writer,
    ):
        equal((place / "file").read_bytes(), b"first")
        written = writer.submit((place / "file").write_bytes, ours)
        until(lambda: key in uploads(), "an upload in parts", 60)
        store.put(key, b"theirs")
        written.result()
        trial.settled(top)
        equal((digest(store.get(key)), uploads()), (digest(b"theirs"), []), "what is there")
        beside = [other for other in store.keys("overtaken/") if other != key]
        equal([digest(store.get(other)) for other in beside], [digest(ours)], "what is kept beside it")
