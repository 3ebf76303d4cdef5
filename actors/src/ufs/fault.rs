//! OpenDAL's errors as ours: the kind for programs; for people which store it was, what it answered and what to do.

use curvine_protocol::{Error, ErrorKind};

use super::answer::Answer;

/// Where an error happened.
pub struct Fault<'a> {
    pub uri: &'a str,
    /// Empty for the mount as a whole.
    pub key: &'a str,
}

/// What is wrong, by the code that a store gives it: S3 and its dialects, Azure, HDFS.
struct Row {
    codes: &'static [&'static str],
    kind: ErrorKind,
    advice: &'static str,
}

const MISSING_BUCKET: &[&str] = &["NoSuchBucket", "ContainerNotFound"];

pub const NO_BUCKET: &str = "no such bucket or container; check its name and the region";
const ELSEWHERE: &str = "the bucket is in another region or at another endpoint; check region and endpoint";
const DENIED: &str =
    "access was denied; check the credentials among the mount's options and what they may do";
const BUSY: &str = "the store asks for fewer requests; try again later";
const BROKEN: &str = "the store has a fault of its own; try again later";

const ROWS: &[Row] = &[
    Row {
        codes: &[
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "TemporaryRedirect",
            "IllegalLocationConstraintException",
            "InvalidRegion",
        ],
        kind: ErrorKind::Ufs,
        advice: ELSEWHERE,
    },
    Row {
        codes: &["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"],
        kind: ErrorKind::Ufs,
        advice: "the object is archived; restore it in the store, then read it again",
    },
    Row {
        codes: &[
            "ExpiredToken",
            "ExpiredTokenException",
            "TokenRefreshRequired",
            "SecurityTokenExpired",
        ],
        kind: ErrorKind::UfsDenied,
        advice: "the credentials have expired; give the mount new ones",
    },
    Row {
        codes: &["RequestTimeTooSkewed", "RequestExpired"],
        kind: ErrorKind::UfsDenied,
        advice: "the clock of this node differs from the store's; set it",
    },
    Row {
        codes: &[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "AuthenticationFailed",
            "InvalidAuthenticationInfo",
        ],
        kind: ErrorKind::UfsDenied,
        advice: "access was denied: the store does not know the credentials; check access_key_id and secret_access_key, or their like",
    },
    Row {
        codes: &[
            "AccessDenied",
            "AllAccessDisabled",
            "AccountProblem",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "AccessControlException",
        ],
        kind: ErrorKind::UfsDenied,
        advice: DENIED,
    },
    Row {
        codes: &[
            "SlowDown",
            "TooManyRequests",
            "ServerBusy",
            "RequestLimitExceeded",
        ],
        kind: ErrorKind::Ufs,
        advice: BUSY,
    },
    Row {
        codes: &["InternalError", "ServiceUnavailable", "OperationTimedOut"],
        kind: ErrorKind::Ufs,
        advice: BROKEN,
    },
    Row {
        codes: &["SafeModeException"],
        kind: ErrorKind::Ufs,
        advice: "the name node is in safe mode and takes no changes; wait until it has heard of all blocks, or end it with \
                 `hdfs dfsadmin -safemode leave`",
    },
    Row {
        codes: &["StandbyException"],
        kind: ErrorKind::Ufs,
        advice: "no name node of those that are known is active; check them with `hdfs haadmin -getAllServiceState`, and \
                 name all of them by dfs.ha.namenodes",
    },
    Row {
        codes: &["UnknownNameService"],
        kind: ErrorKind::Ufs,
        advice: "neither a host nor a name service of this name is known; give dfs.ha.namenodes.NAME and \
                 dfs.namenode.rpc-address.NAME.ID as options, or config_dir, or check DNS",
    },
    Row {
        codes: &["NSQuotaExceededException", "DSQuotaExceededException"],
        kind: ErrorKind::QuotaExceeded,
        advice: "a directory in HDFS would hold more than its quota allows; see `hdfs dfs -count -q`",
    },
    Row {
        codes: &["FileAlreadyExistsException"],
        kind: ErrorKind::AlreadyExists,
        advice: "something of this name is there already",
    },
    Row {
        codes: &["PathIsNotEmptyDirectoryException"],
        kind: ErrorKind::DirectoryNotEmpty,
        advice: "there is something in it",
    },
    Row {
        codes: &["InvalidPathException", "PathComponentTooLongException"],
        kind: ErrorKind::InvalidArgument,
        advice: "HDFS takes no such name; choose another one",
    },
    Row {
        codes: &["BlockMissingException"],
        kind: ErrorKind::Ufs,
        advice: "no data node has a block of the file; check them with `hdfs fsck`",
    },
];

impl Fault<'_> {
    pub fn of(&self, error: &opendal::Error) -> Error {
        let answer = Answer::of(error);
        let of_system = self.of_system(error);
        let (kind, advice) = of_system.unwrap_or_else(|| judge(error, &answer));
        self.says(kind, &format!("{advice}{}", answer.quoted()))
    }

    /// What a system call said of a directory that is mounted.
    fn of_system(&self, error: &opendal::Error) -> Option<(ErrorKind, &'static str)> {
        if !self.uri.starts_with("file:") {
            return None;
        }
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                return by_errno(io.raw_os_error()?);
            }
            source = cause.source();
        }
        None
    }

    /// The store did not answer for so long. Not `Timeout`, which is said of the cluster's own nodes.
    pub fn silent(&self, for_s: u64) -> Error {
        let words = format!("the store gave no answer within {for_s} s; check the endpoint and the network");
        self.says(ErrorKind::Ufs, &words)
    }

    fn says(&self, kind: ErrorKind, words: &str) -> Error {
        match self.key {
            "" => Error::new(kind, format!("{}: {words}", self.uri)),
            key => Error::new(kind, format!("{}: `{key}`: {words}", self.uri)),
        }
    }
}

fn by_errno(errno: i32) -> Option<(ErrorKind, &'static str)> {
    Some(match errno {
        libc::ENOSPC => (
            ErrorKind::NoSpace,
            "the file system that it is in is full; make room there",
        ),
        libc::EDQUOT => (
            ErrorKind::QuotaExceeded,
            "a quota of the file system that it is in is used up; see `quota` there",
        ),
        libc::EROFS => (
            ErrorKind::ReadOnly,
            "the file system that it is in is mounted read-only; mount it writable there, or here without `--write`",
        ),
        libc::EACCES | libc::EPERM => (
            ErrorKind::UfsDenied,
            "access was denied; see its owner and mode, and which user the workers and masters run as",
        ),
        libc::ENAMETOOLONG => (
            ErrorKind::NameTooLong,
            "the file system that it is in takes no name that long; choose a shorter one",
        ),
        libc::EIO => (
            ErrorKind::Ufs,
            "the device of the file system that it is in has failed; see the kernel's log there",
        ),
        libc::ESTALE => (
            ErrorKind::Ufs,
            "the file system that it is in was replaced or unmounted on its server; mount it there again",
        ),
        _ => return None,
    })
}

fn judge(error: &opendal::Error, answer: &Answer) -> (ErrorKind, &'static str) {
    if is_of_missing_bucket(answer) {
        return (ErrorKind::NotFound, NO_BUCKET);
    }
    if let Some(row) = ROWS.iter().find(|row| answer.is_one_of(row.codes)) {
        return (row.kind, row.advice);
    }
    if answer.is_page {
        return (
            ErrorKind::Ufs,
            "a web page answered instead of the store; check the endpoint, and proxies before it",
        );
    }
    by_kind(error.kind())
        .or_else(|| match answer.status {
            Some(status) => by_status(status),
            None => unanswered(error, answer),
        })
        .unwrap_or((ErrorKind::Ufs, "the under file system failed"))
}

fn by_kind(kind: opendal::ErrorKind) -> Option<(ErrorKind, &'static str)> {
    use opendal::ErrorKind as Dal;
    Some(match kind {
        Dal::NotFound => (ErrorKind::NotFound, "not found"),
        Dal::PermissionDenied => (ErrorKind::UfsDenied, DENIED),
        Dal::RateLimited => (ErrorKind::Ufs, BUSY),
        Dal::ConfigInvalid => (ErrorKind::InvalidArgument, "bad mount options"),
        Dal::ConditionNotMatch => (ErrorKind::UfsChanged, "the object changed; open it again"),
        Dal::RangeNotSatisfied => (
            ErrorKind::UfsChanged,
            "the object is shorter than it was; open it again",
        ),
        Dal::Unsupported => (ErrorKind::Unsupported, "the service cannot do this"),
        Dal::NotADirectory => (ErrorKind::NotADirectory, "not a directory"),
        Dal::IsADirectory => (ErrorKind::IsADirectory, "is a directory"),
        _ => return None,
    })
}

fn by_status(status: u16) -> Option<(ErrorKind, &'static str)> {
    Some(match status {
        301 | 302 | 307 | 308 => (ErrorKind::Ufs, ELSEWHERE),
        // `HEAD` has no words for it.
        400 => (
            ErrorKind::Ufs,
            "the store does not understand the request; check region, endpoint and credentials",
        ),
        401 | 403 => (ErrorKind::UfsDenied, DENIED),
        429 => (ErrorKind::Ufs, BUSY),
        500..=599 => (ErrorKind::Ufs, BROKEN),
        _ => return None,
    })
}

/// Nobody answered. None of these is `Unreachable`, which is said of the cluster's own nodes: clients would look for
/// another master.
fn unanswered(error: &opendal::Error, answer: &Answer) -> Option<(ErrorKind, &'static str)> {
    let told = format!("{} {}", error.message(), answer.words).to_ascii_lowercase();
    let says = |signs: &[&str]| signs.iter().any(|sign| told.contains(sign));
    if says(&[
        "no valid credential",
        "loading credential",
        "credential is required",
    ]) {
        return Some((
            ErrorKind::UfsDenied,
            "there are no credentials; give them as options, or to the nodes",
        ));
    }
    if says(&["dns error", "failed to lookup address"]) {
        return Some((
            ErrorKind::Ufs,
            "the name of the store's host is not known; check the endpoint and DNS",
        ));
    }
    if says(&["certificate", "handshake", "corrupt message", "tls"]) {
        return Some((
            ErrorKind::Ufs,
            "no encrypted connection can be made; check http:// or https:// in the endpoint, and certificates",
        ));
    }
    if says(&["timeout reached"]) {
        return Some((
            ErrorKind::Ufs,
            "the store gives no answer; check the endpoint and the network",
        ));
    }
    let unreachable = [
        "error sending request",
        "connection refused",
        "tcp connect",
        "connection closed",
        "send http request",
    ];
    says(&unreachable).then_some((
        ErrorKind::Ufs,
        "nobody answers there; check the endpoint and the network",
    ))
}

/// OpenDAL also says `NotFound` of a bucket that does not exist.
pub fn names_missing_bucket(error: &opendal::Error) -> bool {
    is_of_missing_bucket(&Answer::of(error))
}

/// Google has no code for it.
fn is_of_missing_bucket(answer: &Answer) -> bool {
    answer.is_one_of(MISSING_BUCKET) || answer.words.contains("bucket does not exist")
}
