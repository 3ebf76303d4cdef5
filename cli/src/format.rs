//! How things look: sizes, times, modes, tables, and the JSON of an entry.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, Table};
use curvine_protocol::{Attr, FileKind};
use serde::Serialize;

/// `1536` or, for people, `1.5K`.
pub fn size(bytes: u64, human: bool) -> String {
    if !human {
        return bytes.to_string();
    }
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => bytes.to_string(),
        _ if value < 9.95 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// `drwxr-xr-x`
pub fn mode(kind: FileKind, mode: u32) -> String {
    let kind = match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, lower, upper) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => lower,
            (true, false) => upper,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `2026-01-31 13:45`, in UTC.
pub fn minute(time_ns: i64) -> String {
    second(time_ns).chars().take(16).collect()
}

/// `2026-01-31 13:45:07`, in UTC.
pub fn second(time_ns: i64) -> String {
    // Any number of nanoseconds in 64 bits is in the range of dates.
    let time = jiff::Timestamp::from_second(time_ns.div_euclid(1_000_000_000)).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

pub fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "char_device",
        FileKind::BlockDevice => "block_device",
    }
}

/// A file or directory in JSON.
#[derive(Serialize)]
pub struct EntryJson<'a> {
    path: String,
    r#type: &'static str,
    size_bytes: u64,
    /// Octal digits.
    mode: String,
    uid: u32,
    gid: u32,
    mtime_ns: i64,
    atime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    links: u32,
    block_bytes: u64,
    hole_bytes: u64,
    replicas: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    /// It has an access control list beside its mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_acl: bool,
}

impl<'a> EntryJson<'a> {
    pub fn new(path: impl Into<String>, attr: &'a Attr, target: Option<&'a str>) -> Self {
        EntryJson {
            path: path.into(),
            r#type: kind(attr.kind),
            size_bytes: attr.size_bytes,
            mode: format!("{:04o}", attr.mode),
            uid: attr.uid,
            gid: attr.gid,
            mtime_ns: attr.mtime_ns,
            atime_ns: attr.atime_ns,
            ctime_ns: attr.ctime_ns,
            inode: attr.inode.0,
            links: attr.nlink,
            block_bytes: attr.block_bytes,
            hole_bytes: attr.hole_bytes,
            replicas: attr.replicas,
            target,
            etag: attr.ufs.as_ref().and_then(|ufs| ufs.etag.as_deref()),
            pinned: false,
            has_acl: attr.has_acl,
        }
    }

    pub fn pinned(self, pinned: bool) -> Self {
        EntryJson { pinned, ..self }
    }
}

/// A table without lines; a title that starts with `>` is for numbers and aligned to the right.
pub fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let right = |title: &str| title.starts_with('>');
    table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    for row in rows {
        let cells = row.into_iter().zip(titles).map(|(text, title)| {
            let alignment = if right(title) {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            };
            Cell::new(text).set_alignment(alignment)
        });
        table.add_row(cells.collect::<Vec<_>>());
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Whether colours may be used on standard output.
pub fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A name in the colour of its kind, on a terminal.
pub fn coloured(name: &str, attr: &Attr, colours: bool) -> String {
    let code = match attr.kind {
        _ if !colours => return name.to_owned(),
        FileKind::Directory => "1;34",
        FileKind::Symlink => "1;36",
        FileKind::File if attr.mode & 0o111 != 0 => "1;32",
        FileKind::File => return name.to_owned(),
        _ => "1;33",
    };
    format!("\x1b[{code}m{name}\x1b[0m")
}

/// A name as it is shown: control characters could command the terminal.
pub fn shown(name: &str) -> String {
    if name.chars().any(char::is_control) {
        name.chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_default().collect::<Vec<_>>()
                } else {
                    vec![c]
                }
            })
            .collect()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_for_people_and_exact_for_programs() {
        for (bytes, human) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10 << 20, "10M"),
            (3 << 40, "3.0T"),
        ] {
            assert_eq!(size(bytes, true), human);
            assert_eq!(size(bytes, false), bytes.to_string());
        }
    }

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode(FileKind::Directory, 0o755), "drwxr-xr-x");
        assert_eq!(mode(FileKind::File, 0o4640), "-rwSr-----");
        assert_eq!(mode(FileKind::Directory, 0o1777), "drwxrwxrwt");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(second(1_700_000_000_000_000_000), "2023-11-14 22:13:20");
        assert_eq!(minute(1_700_000_000_000_000_000), "2023-11-14 22:13");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("naïve *"), "naïve *");
    }
}
