//! The bytes of every message, of every command of the replicated log, and the codes that never change.
//!
//! The macros below walk over every call and every variant: one without a sample does not compile, or fails here.

mod render;
mod samples;

use std::path::PathBuf;

use curvine_protocol::acl::{AclScope, AclWho};
use curvine_protocol::backup::BackupHeader;
use curvine_protocol::cluster::{Tier, WorkerService, WorkerState};
use curvine_protocol::error::Retry;
use curvine_protocol::frame::{FrameKind, PREFIX_BYTES, Prefix};
use curvine_protocol::job::JobState;
use curvine_protocol::master_or_worker::*;
use curvine_protocol::number::to_u32;
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{
    Call, CallContext, Error, ErrorKind, FileKind, Node, for_master_calls, for_mutations, for_worker_calls,
};
use render::Golden;
use samples::{Sample, backup_header, context};
use serde::{Serialize, de::DeserializeOwned};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn short<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

fn add_samples<T: Sample + Serialize + DeserializeOwned + 'static>(golden: &mut Golden, name: &str) {
    let samples = T::samples();
    assert!(!samples.is_empty(), "{name} has a sample");
    for (number, sample) in samples.iter().enumerate() {
        match number {
            0 => golden.value(name, sample),
            _ => golden.value(&format!("{name} ({})", number + 1), sample),
        }
    }
}

/// Collects the calls of a service: the table of codes, the calls, then each type of reply once.
#[derive(Default)]
struct Service {
    table: Vec<(u16, &'static str, &'static str)>,
    calls: Vec<fn(&mut Golden)>,
    replies: Vec<fn(&mut Golden)>,
}

impl Service {
    fn call<C: Call + Sample>(&mut self)
    where
        C::Reply: Sample,
    {
        let reply = short::<C::Reply>();
        self.calls
            .push(|golden| add_samples::<C>(golden, &format!("{} {}", C::CODE, C::NAME)));
        if self.table.iter().all(|(_, _, known)| *known != reply) {
            self.replies
                .push(|golden| add_samples::<C::Reply>(golden, &format!("reply {}", short::<C::Reply>())));
        }
        self.table.push((C::CODE, C::NAME, reply));
    }

    fn check(mut self, mut golden: Golden, name: &str) {
        self.table.sort_unstable();
        self.table
            .windows(2)
            .for_each(|pair| assert_ne!(pair[0].0, pair[1].0, "a code is used twice"));
        for (code, call, reply) in &self.table {
            let read_back = |bytes: &[u8]| Ok(bytes.to_vec());
            golden.bytes(
                &format!("code {call}"),
                format_args!("{code} {call} -> {reply}"),
                &code.to_le_bytes(),
                read_back,
            );
        }
        self.calls
            .iter()
            .chain(&self.replies)
            .for_each(|add| add(&mut golden));
        golden.check(&file(name));
    }
}

macro_rules! all_calls {
    ($service:ident ; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {
        $($service.call::<$call>();)*
    };
}

#[test]
fn every_call_of_the_master_and_its_reply_has_its_golden_bytes() {
    let mut service = Service::default();
    for_master_calls!(all_calls, service);
    service.check(Golden::new("The master service."), "master.txt");
}

#[test]
fn every_call_of_the_worker_and_its_reply_has_its_golden_bytes() {
    let mut service = Service::default();
    for_worker_calls!(all_calls, service);
    service.check(Golden::new("The worker service."), "worker.txt");
}

/// Names every variant of an enum: one that is missing here does not compile, one without a sample fails.
macro_rules! variants {
    ($($enum:ident: $($variant:ident),*;)*) => {$(
        impl Variants for $enum {
            const ALL: &'static [&'static str] = &[$(stringify!($variant)),*];

            fn name(&self) -> &'static str {
                match self { $($enum::$variant { .. } => stringify!($variant),)* }
            }
        }
    )*};
}

trait Variants {
    const ALL: &'static [&'static str];

    fn name(&self) -> &'static str;
}

macro_rules! variants_of_op {
    (; $($call:ident -> $variant:ident $nodes:tt;)*) => {
        variants! {
            Op: $($call,)* Format, AddWorker, AddMount, RemoveMount, SyncDir, SetUfsVersion, AddJob, UpdateJob,
                ExpireSessions, EndSessions, BreakLease, Reclaim, LeaseFenced, HoldInodes, AgreeDir,
                Note, CommitChange, RefuseChange, NoteCopies, SettleCopies, BeginExport, EndExport,
                BeginAttributes, UpdateMount, RecoverLease, DoubtReplicas, SetWorkerService, StartBalance, EndBalance, SetPins,
                QuotaCounted, SetExpiry, Expire, Accessed;
        }
    };
}
for_mutations!(variants_of_op);

variants! {
    OpReply: Done, Entry, Layout, Renamed, Deleted, Worker, Mount, Job, Synced, MountRemoved, SessionOpened,
        Noted, Failed;
    Node: Inode, Child, Path;
    HostRequest: Lend, Return;
    FileKind: File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice;
    IfExists: Fail, Open, Truncate;
    AclChange: Set, Modify, Remove, RemoveDefault, Clear;
    AclScope: Access, Default;
    AclWho: Owner, User, Group, NamedGroup, Mask, Other;
    SetTime: Now, At;
    RenameMode: Replace, NoReplace, Exchange;
    Tier: Mem, Ssd, Hdd;
    WorkerState: Live, Lost;
    WorkerService: InService, Draining, Drained, Maintenance;
    JobState: Planning, Running, Done, Failed, Cancelled;
}

fn add_variants<T: Variants + Sample + Serialize + DeserializeOwned + 'static>(
    golden: &mut Golden,
    what: &str,
) {
    let samples = T::samples();
    for name in T::ALL {
        let of_name: Vec<&T> = samples.iter().filter(|sample| sample.name() == *name).collect();
        assert_eq!(of_name.len(), 1, "{what} {name} has one sample");
        golden.value(&format!("{what} {name}"), of_name[0]);
    }
}

#[test]
fn every_command_of_the_log_and_every_reply_to_one_has_its_golden_bytes() {
    let mut golden = Golden::new("The replicated log: commands, their ops, and what applying them yields.");
    add_samples::<Command>(&mut golden, "command");
    add_variants::<Op>(&mut golden, "op");
    add_variants::<OpReply>(&mut golden, "reply");
    golden.check(&file("ops.txt"));
}

#[test]
fn every_enumeration_keeps_the_codes_of_its_values() {
    let mut golden = Golden::new("Values of enumerations, wherever they occur.");
    add_variants::<Node>(&mut golden, "Node");
    add_variants::<FileKind>(&mut golden, "FileKind");
    add_variants::<IfExists>(&mut golden, "IfExists");
    add_variants::<AclChange>(&mut golden, "AclChange");
    add_variants::<AclScope>(&mut golden, "AclScope");
    add_variants::<AclWho>(&mut golden, "AclWho");
    add_variants::<SetTime>(&mut golden, "SetTime");
    add_variants::<RenameMode>(&mut golden, "RenameMode");
    add_variants::<Tier>(&mut golden, "Tier");
    add_variants::<WorkerState>(&mut golden, "WorkerState");
    add_variants::<WorkerService>(&mut golden, "WorkerService");
    add_variants::<JobState>(&mut golden, "JobState");
    add_variants::<HostRequest>(&mut golden, "HostRequest");
    add_samples::<HostReply>(&mut golden, "HostReply");
    golden.check(&file("values.txt"));
}

#[test]
fn every_kind_of_error_keeps_its_code_errno_exception_exit_code_and_advice() {
    let mut golden =
        Golden::new("Kinds of errors: errno, Java exception, exit code of cv, retry; then errors.");
    for &kind in ErrorKind::ALL {
        let says = format_args!(
            "{} errno {} exit {} {:?} {}",
            u16::from(kind),
            kind.errno(),
            kind.exit_code(),
            kind.retry(),
            kind.java_exception()
        )
        .to_string();
        golden.bytes(
            kind.name(),
            says,
            &curvine_protocol::codec::encode(&kind),
            |bytes| {
                curvine_protocol::codec::decode::<ErrorKind>(bytes)
                    .map(|kind| curvine_protocol::codec::encode(&kind))
                    .map_err(|error| error.to_string())
            },
        );
    }
    add_samples::<Error>(&mut golden, "error");
    golden.check(&file("errors.txt"));
}

#[test]
fn the_documentation_has_every_kind_of_error() {
    macro_rules! named {
        ($($name:ident)*) => { [$((stringify!($name), libc::$name)),*] };
    }
    let errnos = named! {
        EACCES EAGAIN EBUSY ECANCELED EDEADLK EDQUOT EEXIST EFBIG EHOSTUNREACH EINVAL
        EIO EISDIR ELOOP EMLINK ENAMETOOLONG ENODATA ENOENT ENOSPC
        ENOTDIR ENOTEMPTY EOPNOTSUPP EPERM EPROTO EROFS ESTALE ETIMEDOUT
        EXDEV
    };
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let text = std::fs::read_to_string(path).expect("docs/troubleshooting.md is there");
    let (_, table) = text
        .split_once("| kind | errno | exit | again |")
        .expect("a table of kinds");
    // Behind the head: what is left of its line, and the line below it.
    let rows: Vec<String> = table
        .lines()
        .skip(2)
        .map(|row| row.split(" | ").take(4).collect::<Vec<_>>().join(" | "))
        .collect();
    let expected: Vec<String> = ErrorKind::ALL
        .iter()
        .map(|kind| {
            let errno = errnos.iter().find(|(_, errno)| *errno == kind.errno());
            let (errno, _) = errno.expect("this test has the errno of every kind");
            let again = match kind.retry() {
                Retry::Never => "no",
                Retry::Later => "later",
                Retry::Elsewhere => "elsewhere",
            };
            format!("| {} | {errno} | {} | {again}", kind.name(), kind.exit_code())
        })
        .collect();
    assert_eq!(rows, expected);
}

/// A whole frame: prefix, header, body.
fn frame(kind: FrameKind, code: u16, header: &[u8], body: &[u8]) -> Vec<u8> {
    let prefix = Prefix {
        kind,
        code,
        request_id: 0x0102_0304_0506_0708,
        header_bytes: to_u32(header.len()),
        body_bytes: to_u32(body.len()),
    };
    [&prefix.encode()[..], header, body].concat()
}

#[test]
fn every_kind_of_frame_has_its_golden_bytes() {
    use curvine_protocol::codec::encode;
    let mut golden =
        Golden::new("Frames as they cross a socket. The header's own bytes are in the other files.");
    golden.value("context", &context());
    let call = &ReadBlock::samples()[0];
    let error = &Error::samples()[0];
    let request = frame(
        FrameKind::Request,
        ReadBlock::CODE,
        &encode(&(context(), call)),
        b"",
    );
    let reply = frame(
        FrameKind::Reply,
        ReadBlock::CODE,
        &encode(&BlockData::samples()[0]),
        b"BODY",
    );
    let failure = frame(FrameKind::Failure, ReadBlock::CODE, &encode(error), b"");
    let goodbye = frame(FrameKind::Goodbye, 0, &encode(error), b"");
    for (name, bytes) in [
        ("request", request),
        ("reply", reply),
        ("failure", failure),
        ("goodbye", goodbye),
    ] {
        let prefix = Prefix::decode(bytes.first_chunk().expect("a prefix")).expect("ours");
        golden.bytes(name, prefix, &bytes, |bytes| {
            let prefix = bytes.first_chunk::<PREFIX_BYTES>().ok_or("too short")?;
            let prefix = Prefix::decode(prefix).map_err(|error| error.to_string())?;
            Ok([&prefix.encode()[..], &bytes[PREFIX_BYTES..]].concat())
        });
    }
    golden.bytes(
        "head of a backup",
        backup_header(),
        &backup_header().to_head(),
        |bytes| {
            let (header, len) = BackupHeader::from_head(bytes).map_err(|error| error.to_string())?;
            assert_eq!(len, bytes.len(), "it is all head");
            Ok(header.to_head())
        },
    );
    golden.check(&file("frames.txt"));
}

/// Calls as a newer version may have them: one more field, with a default.
mod newer {
    use super::*;
    use serde::Deserialize;

    /// [`CallContext`] with more at its end.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Context {
        pub client: u64,
        pub sequence: u64,
        pub acked_below: u64,
        pub deadline_ms: u32,
        pub uid: u32,
        pub gid: u32,
        #[serde(default)]
        pub stale: bool,
        #[serde(default)]
        pub near: u32,
        #[serde(default)]
        pub trace: Option<String>,
    }

    /// [`RemoveDir`] with more at its end.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct RemoveDirs {
        pub node: Node,
        #[serde(default)]
        pub also: Vec<String>,
    }
}

#[test]
fn a_call_of_a_newer_version_is_understood_and_one_of_an_older_too() {
    use curvine_protocol::codec::{decode, encode};
    let call = RemoveDir::samples().remove(0);
    let newer_context = |trace| newer::Context {
        client: context().client.0,
        sequence: context().sequence,
        acked_below: context().acked_below,
        deadline_ms: context().deadline_ms,
        uid: context().uid,
        gid: context().gid,
        stale: context().stale,
        near: context().near,
        trace,
    };
    let newer = |trace: Option<&str>, also: Vec<String>| {
        let call = newer::RemoveDirs {
            node: call.node.clone(),
            also,
        };
        (newer_context(trace.map(str::to_owned)), call)
    };
    assert_eq!(
        decode::<(CallContext, RemoveDir)>(&encode(&newer(Some("t"), vec!["x".to_owned()]))),
        Ok((context(), call.clone()))
    );
    assert_eq!(
        decode::<(newer::Context, newer::RemoveDirs)>(&encode(&(context(), &call))),
        Ok(newer(None, Vec::new()))
    );
}

#[test]
fn a_field_that_may_be_left_out_is_the_last_of_its_struct() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for directory in [
        "src",
        "src/master",
        "../actors/src/master/namespace",
        "../actors/src/worker/disk",
    ] {
        for entry in std::fs::read_dir(root.join(directory)).expect("there") {
            let path = entry.expect("readable").path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for (at, _) in lines
                .iter()
                .enumerate()
                .filter(|(_, line)| line.contains("skip_serializing_if"))
            {
                let field = lines[at..]
                    .iter()
                    .position(|line| line.starts_with("pub "))
                    .expect("a field");
                let after = lines[at + field + 1];
                assert_eq!(
                    after,
                    "}",
                    "{}:{}: others follow by their places",
                    path.display(),
                    at + 1
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "they are somewhere else now");
}
