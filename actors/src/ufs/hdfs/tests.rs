//! What needs no name node: what is said of errors, and of a name node that says nothing.

use curvine_protocol::{Error, ErrorKind, UfsVersion};
use futures::TryStreamExt;
use hdfs_native::HdfsError;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::super::fault::Fault;
use super::*;
use crate::kit::deadlines::{CALL, LEADER_WAIT};

fn said_at(name_node: &str, error: HdfsError) -> (ErrorKind, String) {
    let hdfs = Hdfs::new(&[("name_node".to_owned(), name_node.to_owned())]);
    let fault = Fault {
        uri: "hdfs://nn/d",
        key: "k",
    };
    let Error { kind, message, .. } = fault.of(&hdfs.place.told(error));
    (kind, message)
}

#[test]
fn what_hdfs_refuses_is_said_with_its_kind_and_the_next_step() {
    let rpc = |class: &str, words: &str| HdfsError::RPCError(class.to_owned(), words.to_owned());
    let io = |kind: std::io::ErrorKind, words: &str| HdfsError::IOError(std::io::Error::new(kind, words));
    for (error, kind, says) in [
        (
            rpc(
                "org.apache.hadoop.security.AccessControlException",
                "Permission denied: user=me, access=WRITE, inode=\"/d\":you:you:drwxr-xr-x\n\tat org.apache.Trace",
            ),
            ErrorKind::UfsDenied,
            "access was denied; check the credentials among the mount's options and what they may do (it answered \
             AccessControlException: Permission denied: user=me, access=WRITE, inode=\"/d\":you:you:drwxr-xr-x)",
        ),
        (
            rpc(
                "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
                "Cannot create directory /d/k. Name node is in safe mode.\nThe reported blocks",
            ),
            ErrorKind::Ufs,
            "the name node is in safe mode and takes no changes; wait until it has heard of all blocks, or end it with `hdfs \
             dfsadmin -safemode leave` (it answered SafeModeException: Cannot create directory /d/k. Name node is in safe \
             mode.)",
        ),
        (
            rpc(
                "org.apache.hadoop.ipc.RetriableException",
                "org.apache.hadoop.hdfs.server.namenode.SafeModeException: Cannot delete /d/k.",
            ),
            ErrorKind::Ufs,
            "the name node is in safe mode",
        ),
        (
            rpc(
                "org.apache.hadoop.ipc.StandbyException",
                "Operation category READ is not supported in state standby.",
            ),
            ErrorKind::Ufs,
            "no name node of those that are known is active; check them with `hdfs haadmin -getAllServiceState`",
        ),
        (
            rpc(
                "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException",
                "The DiskSpace quota of /d is exceeded",
            ),
            ErrorKind::QuotaExceeded,
            "a directory in HDFS would hold more than its quota allows",
        ),
        (
            rpc(
                "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException",
                "`/d/k is non empty': Directory is not empty",
            ),
            ErrorKind::DirectoryNotEmpty,
            "there is something in it",
        ),
        (
            rpc(
                "org.apache.hadoop.fs.InvalidPathException",
                "Invalid path name Invalid file name: /d/a:b",
            ),
            ErrorKind::InvalidArgument,
            "HDFS takes no such name",
        ),
        (
            rpc("java.io.FileNotFoundException", "File does not exist: /d/k"),
            ErrorKind::NotFound,
            "not found",
        ),
        (
            rpc(
                "org.apache.hadoop.fs.ParentNotDirectoryException",
                "/d (is not a directory)",
            ),
            ErrorKind::NotADirectory,
            "not a directory",
        ),
        (
            rpc(
                "java.io.IOException",
                "File /d/k could only be written to 0 of the 1 minReplication nodes.",
            ),
            ErrorKind::Ufs,
            "(it answered IOException: File /d/k could only be written to 0 of the 1 minReplication nodes.)",
        ),
        (
            HdfsError::UnsupportedFeature("file is in an HDFS encryption zone".to_owned()),
            ErrorKind::Unsupported,
            "the service cannot do this (file is in an HDFS encryption zone)",
        ),
        (
            HdfsError::BlocksNotFound("/d/k".to_owned()),
            ErrorKind::Ufs,
            "no data node has a block of the file",
        ),
        (
            HdfsError::AlreadyExists("Path is not a directory: /d/k".to_owned()),
            ErrorKind::AlreadyExists,
            "something of this name is there already (it answered FileAlreadyExistsException: Path is not a directory: /d/k)",
        ),
        (
            HdfsError::NoSASLMechanism,
            ErrorKind::UfsDenied,
            "No valid SASL mechanism found",
        ),
        (
            io(
                std::io::ErrorKind::ConnectionRefused,
                "Connection refused (os error 111)",
            ),
            ErrorKind::Ufs,
            "nobody answers there; check the endpoint and the network",
        ),
        (
            io(std::io::ErrorKind::ConnectionAborted, "RPC listener disconnected"),
            ErrorKind::Ufs,
            "nobody answers there",
        ),
        (
            io(
                std::io::ErrorKind::HostUnreachable,
                "No route to host (os error 113)",
            ),
            ErrorKind::Ufs,
            "nobody answers there",
        ),
        (
            io(std::io::ErrorKind::TimedOut, "No data received"),
            ErrorKind::Ufs,
            "the store gives no answer",
        ),
        (
            io(
                std::io::ErrorKind::Other,
                "failed to lookup address information: Name or service not known",
            ),
            ErrorKind::Ufs,
            "neither a host nor a name service of this name is known; give dfs.ha.namenodes.NAME and \
             dfs.namenode.rpc-address.NAME.ID as options, or config_dir, or check DNS (it answered UnknownNameService: no host \
             is known as nn, and no keys dfs.ha.namenodes.nn and dfs.namenode.rpc-address.nn.ID)",
        ),
    ] {
        let (found, message) = said_at("nn", error);
        assert_eq!(found, kind, "{message}");
        assert!(message.starts_with("hdfs://nn/d: `k`: "), "{message}");
        assert!(message.contains(says), "{message}\n lacks: {says}");
    }
    let lookup = io(
        std::io::ErrorKind::Other,
        "failed to lookup address information: x",
    );
    let (_, message) = said_at("nn:8020", lookup);
    assert!(
        message.contains("the name of the store's host is not known"),
        "{message}"
    );
}

#[test]
fn a_key_is_a_path_below_the_root() {
    for (root, key, path) in [
        ("/", "", "/"),
        ("/", "/", "/"),
        ("/", "a/b", "/a/b"),
        ("/d/e", "", "/d/e"),
        ("/d/e", "/", "/d/e"),
        ("/d/e", "a/", "/d/e/a"),
    ] {
        let hdfs = Hdfs::new(&[("root".to_owned(), root.to_owned())]);
        assert_eq!(hdfs.path(key), path, "{root} {key}");
    }
}

#[test]
fn a_file_is_another_version_if_its_time_mode_or_owner_is() {
    let status = |time, mode, owner: &str, group: &str| FileStatus {
        path: "/f".to_owned(),
        length: 1,
        isdir: false,
        permission: mode,
        owner: owner.to_owned(),
        group: group.to_owned(),
        modification_time: time,
        access_time: 0,
        replication: None,
        blocksize: None,
    };
    let all = [
        status(1, 0o644, "a", "b"),
        status(2, 0o644, "a", "b"),
        status(1, 0o640, "a", "b"),
        status(1, 0o644, "c", "b"),
        status(1, 0o644, "a", "c"),
    ];
    let etags: std::collections::BTreeSet<String> = all.iter().map(etag).collect();
    assert_eq!(etags.len(), all.len());
    let read_since = FileStatus {
        access_time: 9,
        replication: Some(2),
        ..all[0].clone()
    };
    assert_eq!(etag(&read_since), etag(&all[0]));
}

/// A name node that takes connections and says nothing.
async fn silent() -> Ufs {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move { while client.read_u8().await.is_ok() {} });
        }
    });
    Ufs::open_parts(&format!("hdfs://{address}/d"), &Default::default()).expect("opens")
}

/// Virtual time: it goes on as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_silent_name_node_is_named_before_whoever_asked_gives_up_and_is_asked_anew() {
    let version = UfsVersion {
        size_bytes: 3,
        mtime_ms: 0,
        etag: Some("hdfs-0".to_owned()),
    };
    for asked in 0..7 {
        let ufs = silent().await;
        let question = async {
            match asked {
                0 => ufs.list("").await.map(drop),
                1 => ufs.find("a").await.map(drop),
                2 => ufs.make_dir("a").await,
                3 => ufs.delete_version("a", &version).await.map(drop),
                4 => ufs
                    .set_attributes("a", &version, &KeptAttributes::default())
                    .await
                    .map(drop),
                5 => ufs.check(true).await.map(drop),
                _ => match ufs.read("a", 0..3, &version).await {
                    Ok(pieces) => pieces.try_collect::<Vec<_>>().await.map(drop),
                    Err(error) => Err(error),
                },
            }
        };
        let limit = if asked == 0 { CALL } else { LEADER_WAIT };
        let answer = timeout(limit, question)
            .await
            .expect("before whoever asked gives up");
        let error = answer.expect_err("it hangs");
        assert_eq!(error.kind, ErrorKind::Ufs, "{error}");
        let says = "the store gave no answer within 20 s; check the endpoint and the network";
        assert!(error.message.contains(says), "{asked}: {error}");
        assert!(error.message.contains("hdfs://127.0.0.1:"), "{asked}: {error}");
        let hdfs = ufs.hdfs.as_ref().expect("it is one");
        let given_up = hdfs.connection().given_up;
        assert!(
            given_up > 0 && hdfs.connection().client.is_none(),
            "{asked}: {given_up}"
        );
        ufs.stat("b").await.expect_err("it hangs");
        let again = hdfs.connection().given_up;
        assert!(again > given_up, "{asked}: {again}");
    }
}

#[tokio::test]
async fn a_port_without_a_name_node_is_named_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    drop(listener);
    let uri = format!("hdfs://{address}/d");
    let ufs = Ufs::open_parts(&uri, &Default::default()).expect("opens");
    let error = ufs.list("").await.expect_err("nobody is there");
    let says = "nobody answers there; check the endpoint and the network (Connection refused (os error 111))";
    assert_eq!(
        (error.kind, error.message),
        (ErrorKind::Ufs, format!("{uri}: {says}"))
    );
}
