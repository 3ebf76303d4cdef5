//! Against a server that hangs, refuses and lies: what is said of it.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::kit::deadlines::{CALL, LEADER_WAIT};

/// What a server does with each connection.
#[derive(Clone)]
enum Conduct {
    Hang,
    /// Speaks first, and not TLS.
    Greet,
    /// To every request.
    Answer(String),
    /// The head and some bytes of a body, then nothing.
    Stall(String),
}

async fn serve(listener: TcpListener, conduct: Conduct) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            return;
        };
        let conduct = conduct.clone();
        tokio::spawn(async move {
            if matches!(conduct, Conduct::Greet) {
                return drop(client.write_all(b"220 hello there\r\n").await);
            }
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match client.read_buf(&mut request).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            match conduct {
                Conduct::Hang | Conduct::Greet => std::future::pending().await,
                Conduct::Answer(answer) => drop(client.write_all(answer.as_bytes()).await),
                Conduct::Stall(head) => {
                    let _ = client.write_all(head.as_bytes()).await;
                    std::future::pending().await
                }
            }
        });
    }
}

fn answer(status: &str, kind: &str, body: &str) -> Conduct {
    Conduct::Answer(format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nSet-Cookie: hunter2\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ))
}

fn error(status: &str, code: &str, message: &str) -> Conduct {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    answer(status, "application/xml", &body)
}

async fn bucket(conduct: Conduct, protocol: &str) -> Ufs {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(serve(listener, conduct));
    let options = [
        ("endpoint", format!("{protocol}://{address}")),
        ("region", "us-east-1".to_owned()),
        ("access_key_id", "id".to_owned()),
        ("secret_access_key", "hunter2".to_owned()),
    ];
    let options: BTreeMap<_, _> = options.map(|(name, value)| (name.to_owned(), value)).into();
    Ufs::open_parts("s3://b", &options).expect("opens")
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named_in_whatever_words_the_store_says_it() {
    for words in ["Not Found", "The specified bucket does not exist."] {
        let ufs = bucket(error("404 Not Found", "notFound", words), "http").await;
        let error = ufs.check_root(None, true).await.expect_err("it is not there");
        assert_eq!(error.kind, ErrorKind::NotFound);
        let expected = "s3://b: no such bucket or container; check its name and the region";
        assert!(error.message.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn what_a_store_answers_is_said_in_its_words() {
    let cases = [
        (
            error(
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                "the region 'us-east-1' is wrong; expecting 'eu-west-1'",
            ),
            ErrorKind::Ufs,
            "s3://b: the bucket is in another region or at another endpoint; check region and endpoint (it answered \
             400 AuthorizationHeaderMalformed: the region 'us-east-1' is wrong; expecting 'eu-west-1')",
        ),
        (
            error(
                "301 Moved Permanently",
                "PermanentRedirect",
                "use another endpoint",
            ),
            ErrorKind::Ufs,
            "s3://b: the bucket is in another region or at another endpoint; check region and endpoint (it answered \
             301 PermanentRedirect: use another endpoint)",
        ),
        (
            error(
                "400 Bad Request",
                "ExpiredToken",
                "The provided token has expired.",
            ),
            ErrorKind::UfsDenied,
            "s3://b: the credentials have expired; give the mount new ones (it answered 400 ExpiredToken: The provided token \
             has expired.)",
        ),
        (
            error("403 Forbidden", "InvalidAccessKeyId", "no such key"),
            ErrorKind::UfsDenied,
            "s3://b: access was denied: the store does not know the credentials; check access_key_id and \
             secret_access_key, or their like (it answered 403 InvalidAccessKeyId: no such key)",
        ),
        (
            error("404 Not Found", "NoSuchBucket", "gone"),
            ErrorKind::NotFound,
            "s3://b: no such bucket or container; check its name and the region (it answered 404 NoSuchBucket: gone)",
        ),
        (
            error(
                "503 Service Unavailable",
                "SlowDown",
                "Please reduce your request rate.",
            ),
            ErrorKind::Ufs,
            "s3://b: the store asks for fewer requests; try again later (it answered 503 SlowDown: Please reduce your \
             request rate.)",
        ),
        (
            answer(
                "403 Forbidden",
                "text/html",
                "<html><head><title>Blocked by policy</title></head><body>session=hunter2</body></html>",
            ),
            ErrorKind::Ufs,
            "s3://b: a web page answered instead of the store; check the endpoint, and proxies before it (it answered \
             403)",
        ),
    ];
    for (conduct, kind, message) in cases {
        let error = bucket(conduct, "http")
            .await
            .list("")
            .await
            .expect_err("it refuses");
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
    }
}

#[tokio::test]
async fn a_page_that_says_that_all_is_well_is_no_answer_of_a_store() {
    let page = "<html><title>Sign in</title></html>";
    let says = "a web page answered instead of the store; check the endpoint, and proxies before it";
    let ufs = bucket(answer("200 OK", "text/html; charset=utf-8", page), "http").await;
    let listed = ufs.list("").await.expect_err("it is no listing");
    assert_eq!(
        (listed.kind, listed.message),
        (ErrorKind::Ufs, format!("s3://b: {says}"))
    );
    let found = ufs.stat("a").await.expect_err("it is no object");
    assert_eq!(
        (found.kind, found.message),
        (ErrorKind::Ufs, format!("s3://b: `a`: {says}"))
    );
    let written = write(&ufs).await.expect_err("nothing is written");
    assert!(written.message.contains(says), "{written}");
    // Nor is an empty one, of whatever type.
    let ufs = bucket(answer("200 OK", "application/xml", ""), "http").await;
    let found = ufs.stat("a").await.expect_err("it has no version");
    assert!(found.message.contains("in the store's place"), "{found}");
    let written = write(&ufs).await.expect_err("nothing is written");
    assert!(written.message.contains("in the store's place"), "{written}");
}

async fn write(ufs: &Ufs) -> Result<changes::Written> {
    let how = changes::Replacement {
        replaces: None,
        mark: "1-2",
        attributes: None,
    };
    let content = futures::stream::once(async { Ok(Bytes::from_static(b"new")) });
    ufs.replace("a", Box::pin(content), how, async { Ok(()) }).await
}

#[tokio::test]
async fn an_archived_object_is_not_a_matter_of_credentials() {
    let archived = error("403 Forbidden", "InvalidObjectState", "The object is in GLACIER.");
    let ufs = bucket(archived, "http").await;
    let version = UfsVersion {
        size_bytes: 3,
        mtime_ms: 0,
        etag: Some("e".to_owned()),
    };
    let refused = ufs
        .read("cold", 0..3, &version)
        .await
        .err()
        .expect("it is archived");
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (
            ErrorKind::Ufs,
            "s3://b: `cold`: the object is archived; restore it in the store, then read it again (it answered 403 \
             InvalidObjectState: The object is in GLACIER.)"
        )
    );
}

#[tokio::test]
async fn an_answer_without_words_is_said_by_its_status() {
    let ufs = bucket(answer("403 Forbidden", "application/xml", ""), "http").await;
    let refused = ufs.stat("a").await.expect_err("it refuses");
    assert_eq!(
        refused.message,
        "s3://b: `a`: access was denied; check the credentials among the mount's options and what they may do (it \
         answered 403)"
    );
}

#[tokio::test]
async fn encryption_that_fails_is_said() {
    let ufs = bucket(Conduct::Greet, "https").await;
    let refused = ufs.stat("a").await.expect_err("it speaks no TLS");
    assert_eq!(refused.kind, ErrorKind::Ufs);
    assert!(
        refused.message.starts_with(
            "s3://b: `a`: no encrypted connection can be made; check http:// or https:// in the endpoint"
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn a_host_that_is_not_known_is_said() {
    // As the transport gives it: the outer error says little, the inner one why.
    let inner = std::io::Error::other("failed to lookup address information: Name or service not known");
    let dal = opendal::Error::new(opendal::ErrorKind::Unexpected, "send http request").set_source(inner);
    let fault = Fault {
        uri: "s3://b",
        key: "",
    }
    .of(&dal);
    assert_eq!(
        (fault.kind, fault.message.as_str()),
        (
            ErrorKind::Ufs,
            "s3://b: the name of the store's host is not known; check the endpoint and DNS (failed to lookup address \
             information: Name or service not known)"
        )
    );
}

#[test]
fn what_a_system_call_says_of_a_directory_is_its_kind_and_a_connection_is_no_directory() {
    let failed = |uri, errno| {
        let inner = std::io::Error::from_raw_os_error(errno);
        let dal = opendal::Error::new(opendal::ErrorKind::Unexpected, "write").set_source(inner);
        Fault { uri, key: "a" }.of(&dal)
    };
    for (errno, kind, words) in [
        (libc::ENOSPC, ErrorKind::NoSpace, "is full; make room there"),
        (libc::EDQUOT, ErrorKind::QuotaExceeded, "a quota"),
        (libc::EROFS, ErrorKind::ReadOnly, "mounted read-only"),
        (libc::EACCES, ErrorKind::UfsDenied, "which user the workers"),
        (libc::ENAMETOOLONG, ErrorKind::NameTooLong, "a shorter one"),
        (libc::EIO, ErrorKind::Ufs, "the device"),
        (libc::EMLINK, ErrorKind::Ufs, "the under file system failed"),
    ] {
        let fault = failed("file:///data/x", errno);
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.starts_with("file:///data/x: `a`: "), "{fault}");
        assert!(fault.message.contains(words), "{fault}");
    }
    assert_eq!(failed("s3://b", libc::ENOSPC).kind, ErrorKind::Ufs);
}

/// Virtual time: it goes on as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_silent_store_is_named_before_whoever_asked_gives_up() {
    let ufs = bucket(Conduct::Hang, "http").await;
    let silent = "the store gave no answer within 20 s; check the endpoint and the network";
    let listed = timeout(CALL, ufs.list(""))
        .await
        .expect("before a client gives up");
    let listed = listed.expect_err("it hangs");
    assert_eq!(
        (listed.kind, listed.message),
        (ErrorKind::Ufs, format!("s3://b: {silent}"))
    );
    let ufs = bucket(Conduct::Hang, "http").await;
    let found = timeout(CALL, ufs.find("a"))
        .await
        .expect("before a client gives up");
    let found = found.expect_err("it hangs");
    assert_eq!(
        (found.kind, found.message),
        (ErrorKind::Ufs, format!("s3://b: `a`: {silent}"))
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_a_silent_store_one_thing_after_the_other_hears_of_it_in_time() {
    let version = UfsVersion {
        size_bytes: 3,
        mtime_ms: 0,
        etag: Some("e".to_owned()),
    };
    for changed in 0..5 {
        let ufs = bucket(Conduct::Hang, "http").await;
        let asked = async {
            let found = ufs.stat("a").await.expect_err("it hangs");
            let change = match changed {
                0 => ufs.make_dir("a").await,
                1 => ufs.delete_dir("a").await,
                2 => ufs.something_in("a").await.map(drop),
                3 => ufs.delete_version("a", &version).await.map(drop),
                _ => {
                    let copied = ufs.copy_version(("a", &version), ("b", None)).await;
                    copied.map(drop)
                }
            };
            (found, change.expect_err("it hangs"))
        };
        let (found, change) = timeout(LEADER_WAIT, asked)
            .await
            .expect("before the leader says so");
        assert!(found.message.contains("no answer within 20 s"), "{found}");
        assert!(change.message.contains("no answer within 21 s"), "{change}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_stalls_is_named() {
    let head = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 3\r\n\r\na";
    let ufs = bucket(Conduct::Stall(head.to_owned()), "http").await;
    let version = UfsVersion {
        size_bytes: 3,
        mtime_ms: 0,
        etag: Some("e".to_owned()),
    };
    let outcome: Result<Vec<Bytes>> = match ufs.read("a", 0..3, &version).await {
        Ok(pieces) => pieces.try_collect().await,
        Err(error) => Err(error),
    };
    let stalled = outcome.expect_err("two bytes never come");
    assert_eq!(
        stalled.message,
        "s3://b: `a`: the store gave no answer within 20 s; check the endpoint and the network"
    );
}
