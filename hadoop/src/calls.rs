//! What Java may ask for, and how it is answered. The Java side of the table is `io.curvine.Call`.

use std::time::Duration;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions, OpenFile};
use curvine_protocol::acl::WantedMode;
use curvine_protocol::master::{AttrChange, IfExists, RenameMode, SetTime};
use curvine_protocol::number::to_usize;
use curvine_protocol::{Attr, CurvinePath, Error, ErrorKind, FileKind, FileLayout, InodeId, Result};

use crate::library::{Connection, LIBRARY, Library, Wanted};
use crate::users::Names;
use crate::wire::{Reply, Request};
use crate::{acls, checksum};

macro_rules! calls {
    ($($name:ident = $code:literal;)*) => {
        /// A call, by its code in a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Call { $($name = $code,)* }

        impl Call {
            #[cfg(test)]
            const ALL: &'static [(&'static str, u8)] = &[$((stringify!($name), $code),)*];

            fn of(code: u8) -> Result<Call> {
                match code {
                    $($code => Ok(Call::$name),)*
                    _ => Err(Error::internal(format!(
                        "the native library knows no call {code}: the jar and its library are of different versions"
                    ))),
                }
            }
        }
    };
}

calls! {
    Connect = 1;
    Disconnect = 2;
    Stat = 3;
    List = 4;
    MakeDir = 5;
    Delete = 6;
    Rename = 7;
    SetMode = 8;
    SetOwner = 9;
    SetTimes = 10;
    Truncate = 11;
    Locate = 12;
    Summarize = 13;
    StatFs = 14;
    GetXattr = 15;
    ListXattrs = 16;
    SetXattr = 17;
    RemoveXattr = 18;
    Symlink = 19;
    Open = 20;
    Create = 21;
    Append = 22;
    Read = 23;
    Write = 24;
    Flush = 25;
    Close = 26;
    Concat = 27;
    Checksum = 28;
    OpenHandle = 29;
    SetReplication = 30;
    Mounts = 31;
    GetAcl = 32;
    ChangeAcl = 33;
    IsClosed = 34;
    RevokeLease = 35;
}

/// The code of a call that panics, in builds for development alone: Java's tests see what becomes of it.
#[cfg(debug_assertions)]
const PANICS: u8 = 255;

/// Carries out a request; `room` is the direct buffer beside it, empty if there is none.
pub fn answer(request: &[u8], room: &mut [u8]) -> Result<Reply> {
    let library = LIBRARY.as_ref().map_err(Error::clone)?;
    let mut request = Request::new(request);
    let code = request.byte()?;
    #[cfg(debug_assertions)]
    assert_ne!(code, PANICS, "a test has asked for a panic");
    let call = Call::of(code)?;
    library.runtime.block_on(async {
        match call {
            Call::Connect => connect(library, &mut request).await,
            Call::Disconnect => {
                library.disconnect(request.long()?).await;
                Ok(Reply::default())
            }
            Call::Read | Call::Write | Call::Flush | Call::Close => {
                on_file(library, call, &mut request, room).await
            }
            _ => {
                let connection = library.connection(request.long()?)?;
                let path = request.text()?;
                let done = on_path(library, &connection, call, path, &mut request).await;
                done.map_err(|error| naming(error, path))
            }
        }
    })
}

/// Makes sure that a message names what it is about.
fn naming(error: Error, path: &str) -> Error {
    match error.message.contains(path) {
        true => error,
        false => error.while_doing(path),
    }
}

async fn connect(library: &Library, request: &mut Request<'_>) -> Result<Reply> {
    let masters = request.text()?.split(',').map(|master| master.trim().to_owned());
    let wanted = Wanted {
        masters: masters.collect(),
        user: request.text()?.to_owned(),
        connect_timeout: Duration::from_millis(request.count()?),
        operation_timeout: Duration::from_millis(request.count()?),
    };
    let mut reply = Reply::default();
    reply.long(library.connect(wanted).await?);
    Ok(reply)
}

async fn on_file(library: &Library, call: Call, request: &mut Request<'_>, room: &mut [u8]) -> Result<Reply> {
    let handle = request.long()?;
    let mut reply = Reply::default();
    if call == Call::Close {
        // What is closed already stays closed.
        if let Some(file) = library.take(handle) {
            let closed = file.file.close().await;
            closed.map_err(|error| naming(error, &file.path))?;
        }
        return Ok(reply);
    }
    let file = library.file(handle)?;
    let outcome: Result<()> = async {
        match call {
            Call::Read => {
                let (offset_bytes, length) = (request.count()?, to_usize(request.count()?));
                let room = room.get_mut(..length).ok_or_else(too_small)?;
                reply.count(file.read_at(offset_bytes, room).await? as u64);
            }
            Call::Write => {
                let length = to_usize(request.count()?);
                let bytes = room.get(..length).ok_or_else(too_small)?;
                file.file.append(Bytes::copy_from_slice(bytes)).await?;
            }
            _ => match request.flag()? {
                true => file.file.sync().await.map(|_| ())?,
                false => file.file.flush().await.map(|_| ())?,
            },
        }
        Ok(())
    }
    .await;
    outcome.map_err(|error| naming(error, &file.path))?;
    Ok(reply)
}

fn too_small() -> Error {
    Error::internal("the buffer of a stream is smaller than what is asked for")
}

async fn on_path(
    library: &Library,
    connection: &Connection,
    call: Call,
    path: &str,
    request: &mut Request<'_>,
) -> Result<Reply> {
    let (client, names) = (connection.client(), connection.names());
    let node = &CurvinePath::parse(path)?;
    let mut reply = Reply::default();
    match call {
        Call::Stat => {
            let entry = client.lookup(node, request.flag()?).await?;
            status(&mut reply, &entry.attr, entry.target.as_deref(), names);
        }
        Call::List => {
            let (after, limit) = (request.text_if_any()?, request.int()?);
            let page = client.list_page(node, after, limit).await?;
            reply.byte(u8::from(page.more));
            reply.length(page.entries.len());
            for entry in &page.entries {
                reply.text(&entry.name);
                status(&mut reply, &entry.attr, entry.target.as_deref(), names);
            }
        }
        Call::MakeDir => {
            let (masked, parents) = (request.int()?, request.flag()?);
            let unmasked = Some(request.int()?);
            client
                .make_dir(node, WantedMode { masked, unmasked }, parents)
                .await?;
        }
        Call::Delete => {
            client.delete(node, request.flag()?).await?;
        }
        Call::Rename => {
            let to = CurvinePath::parse(request.text()?)?;
            let mode = match request.flag()? {
                true => RenameMode::Replace,
                false => RenameMode::NoReplace,
            };
            client.rename(node, &to, mode, false).await?;
        }
        Call::SetMode | Call::SetOwner | Call::SetTimes | Call::SetReplication | Call::Truncate => {
            let change = change(call, request, names)?;
            client.set_attr(node, true, change).await?;
        }
        Call::Concat => {
            let sources = (0..request.int()?).map(|_| CurvinePath::parse(request.text()?));
            let sources = sources.collect::<Result<Vec<_>>>()?;
            client.concat(node, &sources).await?;
        }
        Call::Checksum => reply.int(checksum::of_file(client, node, request.count()?).await?),
        Call::Locate => located(&mut reply, &client.locate(node).await?),
        Call::Summarize => {
            let summary = client.summarize(node).await?;
            reply.count(summary.directories);
            reply.count(summary.files);
            reply.count(summary.bytes);
        }
        Call::StatFs => {
            let room = client.statfs().await?;
            reply.count(room.capacity_bytes);
            reply.count(room.used_bytes);
            reply.count(room.available_bytes);
        }
        // Of the whole cluster; the path is where they are seen from.
        Call::Mounts => {
            let mounts = client.mounts().await?;
            reply.length(mounts.len());
            for mount in &mounts {
                reply.text(mount.path.as_str());
                reply.text(&mount.uri);
            }
        }
        Call::GetXattr => reply.bytes(&client.xattr(node, request.text()?).await?),
        Call::ListXattrs => {
            let names = client.xattr_names(node).await?;
            reply.length(names.len());
            names.iter().for_each(|name| reply.text(name));
        }
        Call::SetXattr => {
            let (name, value) = (request.text()?, request.bytes()?);
            let (create_only, replace_only) = (request.flag()?, request.flag()?);
            client
                .set_xattr(node, name, value, create_only, replace_only)
                .await?;
        }
        Call::GetAcl => acls::show(&mut reply, &client.acl(node).await?, names),
        Call::ChangeAcl => {
            client.change_acl(node, acls::change(request, names)?).await?;
        }
        Call::IsClosed => reply.byte(u8::from(client.is_closed(node).await?)),
        Call::RevokeLease => reply.byte(u8::from(client.revoke_lease(node).await?)),
        Call::RemoveXattr => client.remove_xattr(node, request.text()?).await?,
        Call::Symlink => {
            client.symlink(node, request.text()?).await?;
        }
        Call::Open | Call::Create | Call::Append => {
            let (handle, size_bytes) = open(library, client, call, node, request).await?;
            reply.long(handle);
            reply.count(size_bytes);
        }
        Call::OpenHandle => {
            let file = open_handle(client, node, request).await?;
            let size_bytes = file.size_now();
            reply.long(library.keep(file, node.as_str()));
            reply.count(size_bytes);
        }
        Call::Connect | Call::Disconnect | Call::Read | Call::Write | Call::Flush | Call::Close => {
            return Err(Error::internal("a call that is not about a path"));
        }
    }
    Ok(reply)
}

async fn open(
    library: &Library,
    client: &Client,
    call: Call,
    node: &CurvinePath,
    request: &mut Request<'_>,
) -> Result<(i64, u64)> {
    let file = match call {
        Call::Open => client.open(node).await?,
        Call::Append => client.open_for_write(node, false).await?,
        _ => {
            let if_exists = match request.flag()? {
                true => IfExists::Truncate,
                false => IfExists::Fail,
            };
            let options = CreateOptions {
                if_exists,
                parents: request.flag()?,
                mode: request.int()?,
                block_bytes: request.count()?,
                replicas: request.byte()?,
                unmasked: Some(request.int()?),
            };
            client.create(node, options).await?
        }
    };
    let size_bytes = file.size_now();
    Ok((library.keep(file, node.as_str()), size_bytes))
}

/// Opens a file by its number: with the content that it had, unless that is -1, and where it was, unless it may have moved.
///
/// # Errors
/// `Stale` if it is not so any more; `NotFound` if nothing has its name.
async fn open_handle(client: &Client, node: &CurvinePath, request: &mut Request<'_>) -> Result<OpenFile> {
    let inode = InodeId(request.count()?);
    let (content_version, may_move) = (request.long()?, request.flag()?);
    if !may_move && client.lookup(node.clone(), true).await?.attr.inode != inode {
        return Err(Error::new(ErrorKind::Stale, "another file has the name by now"));
    }
    let file = client.open_named(inode).await?;
    match u64::try_from(content_version) {
        Ok(version) if version != file.content_version() => {
            Err(Error::new(ErrorKind::Stale, "its content has changed"))
        }
        _ => Ok(file),
    }
}

fn change(call: Call, request: &mut Request<'_>, names: &Names) -> Result<AttrChange> {
    let mut change = AttrChange::default();
    match call {
        Call::SetMode => change.mode = Some(request.int()?),
        Call::SetOwner => {
            change.uid = request.text_if_any()?.map(|user| names.uid(user)).transpose()?;
            change.gid = request.text_if_any()?.map(|group| names.gid(group)).transpose()?;
        }
        Call::SetTimes => {
            change.mtime = time(request.long()?);
            change.atime = time(request.long()?);
        }
        Call::SetReplication => change.replicas = u8::try_from(request.int()?).ok(),
        _ => change.size_bytes = Some(request.count()?),
    }
    Ok(change)
}

/// Java's milliseconds; -1 leaves the time as it is.
fn time(milliseconds: i64) -> Option<SetTime> {
    (milliseconds != -1).then(|| SetTime::At(milliseconds.saturating_mul(1_000_000)))
}

fn status(reply: &mut Reply, attr: &Attr, target: Option<&str>, names: &Names) {
    let kind = match attr.kind {
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        _ => 0,
    };
    reply.byte(kind);
    reply.count(if attr.is_file() { attr.size_bytes } else { 0 });
    reply.count(attr.block_bytes);
    reply.byte(attr.replicas);
    reply.int(attr.mode);
    reply.long(attr.mtime_ns.div_euclid(1_000_000));
    reply.long(attr.atime_ns.div_euclid(1_000_000));
    reply.text(&names.user(attr.uid));
    reply.text(&names.group(attr.gid));
    reply.text(target.unwrap_or_default());
    reply.byte(u8::from(attr.has_acl));
    reply.count(attr.inode.0);
    reply.count(attr.content_version);
}

/// Every block of the file, holes too: its offset, its length, and `host:port` of the workers that have it.
fn located(reply: &mut Reply, layout: &FileLayout) {
    let size_bytes = layout.attr.size_bytes;
    let block_bytes = layout.attr.block_bytes.max(1);
    let blocks = u32::try_from(size_bytes.div_ceil(block_bytes)).unwrap_or(u32::MAX);
    reply.int(blocks);
    for index in 0..blocks {
        let start = u64::from(index) * block_bytes;
        reply.count(start);
        reply.count(block_bytes.min(size_bytes - start));
        let workers = layout
            .block_at(index)
            .map(|located| &located.workers[..])
            .unwrap_or_default();
        let addresses = workers
            .iter()
            .filter_map(|id| layout.workers.iter().find(|worker| worker.id == *id))
            .collect::<Vec<_>>();
        reply.length(addresses.len());
        addresses.iter().for_each(|worker| reply.text(&worker.address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_has_the_same_calls_with_the_same_codes() {
        let java = include_str!("../src/main/java/io/curvine/Call.java");
        let rows = java.lines().filter_map(|line| {
            let (name, rest) = line.trim().split_once('(')?;
            let code = rest
                .strip_suffix("),")
                .or(rest.strip_suffix(");"))?
                .parse()
                .ok()?;
            let words = name
                .split('_')
                .map(|word| word[..1].to_owned() + &word[1..].to_lowercase());
            Some((words.collect::<String>(), code))
        });
        let known = Call::ALL.iter().map(|(name, code)| ((*name).to_owned(), *code));
        assert_eq!(rows.collect::<Vec<(String, u8)>>(), known.collect::<Vec<_>>());
    }

    #[test]
    fn a_handle_that_nobody_gave_out_is_refused() {
        let mut request = vec![Call::Read as u8];
        request.extend(12_345_i64.to_be_bytes());
        let refused = answer(&request, &mut []).err().map(|error| error.kind);
        assert_eq!(refused, Some(ErrorKind::Stale));
    }
}
