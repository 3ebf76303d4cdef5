//! The end of the log: what was appended since the last commit of LMDB, in a file of its own.
//!
//! A commit of LMDB waits for the disk twice, one after the other: for its pages, then for the one that leads to them. A
//! record of this file waits once, which is most of what a change of the namespace takes.
//!
//! The file has one length for ever, so that a sync is of data alone. It is written from its start to its end, and then from
//! its start again: each such pass is a *series*, whose number LMDB has. Records of other series count for nothing. A record
//! begins on a page, and so no write ever touches what another record's sync has made durable:
//!
//! | bytes | |
//! |---|---|
//! | 4 | CRC32C of what follows, little-endian, as all numbers here |
//! | 4 | how many pieces it has |
//! | 4 | length of the pieces in bytes, with their lengths |
//! | 8 | series |
//! | | the pieces, each behind its length in 4 bytes |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::{Error, ErrorKind, Result};

use crate::planted::{Bug, is_planted};

const NAME: &str = "journal";
/// When it is full, LMDB commits what it has: a few times a minute of steady changes, each for some tens of milliseconds.
const LEN_BYTES: usize = 4 << 20;
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 20;

pub struct Journal {
    file: File,
    path: PathBuf,
    series: u64,
    at_bytes: usize,
}

impl Journal {
    /// Makes the file, which is on disk when this returns. It has no records of any series.
    ///
    /// # Errors
    /// As the file system says.
    pub fn create(directory: &Path) -> io::Result<()> {
        let fresh = directory.join(format!("{NAME}.new"));
        crate::durable::replace(&directory.join(NAME), &fresh, &vec![0; LEN_BYTES])
    }

    /// Opens it with its records of a series, each in its pieces, in the order in which they were appended.
    ///
    /// # Errors
    /// `Corrupt` if the file is not whole, or a record before the last one is not. Those of reading it.
    pub fn open(directory: &Path, series: u64) -> Result<(Self, Vec<Vec<Bytes>>)> {
        let path = directory.join(NAME);
        let read = || -> io::Result<(File, Vec<u8>)> {
            let file = File::options().read(true).write(true).open(&path)?;
            let mut bytes = Vec::with_capacity(LEN_BYTES);
            io::Read::read_to_end(&mut &file, &mut bytes)?;
            Ok((file, bytes))
        };
        let (file, bytes) = match read() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(&path, "it is missing"));
            }
            Err(error) => {
                return Err(Error::from(error).while_doing(format_args!("reading {}", path.display())));
            }
        };
        if bytes.len() != LEN_BYTES {
            let words = format!("it has {} bytes of {LEN_BYTES}", bytes.len());
            return Err(damaged(&path, &words));
        }
        let bytes = Bytes::from(bytes);
        let (mut at_bytes, mut records) = (0, Vec::new());
        while let Some((pieces, next)) = record_at(&bytes, at_bytes, series) {
            records.push(pieces);
            at_bytes = next;
        }
        // The last one may be torn, as nobody was told of it. The one before was on disk before the next was written.
        let mut behind = (at_bytes..LEN_BYTES).step_by(PAGE_BYTES).skip(1);
        if behind.any(|at| record_at(&bytes, at, series).is_some()) {
            let words =
                format!("the record at byte {at_bytes} does not match its checksum, and others follow");
            return Err(damaged(&path, &words));
        }
        let journal = Journal {
            file,
            path,
            series,
            at_bytes,
        };
        Ok((journal, records))
    }

    pub fn series(&self) -> u64 {
        self.series
    }

    /// Appends a record, which is on disk when this returns; false if there is no room for it.
    ///
    /// # Errors
    /// As the file system says. What was appended is not there then, unless the process ends before the next try.
    pub fn append(&mut self, pieces: &[Bytes]) -> Result<bool> {
        let len: usize = pieces.iter().map(|piece| 4 + piece.len()).sum();
        if self.at_bytes + HEADER_BYTES + len > LEN_BYTES {
            return Ok(false);
        }
        let mut record = Vec::with_capacity(HEADER_BYTES + len);
        record.extend([0; 4]);
        record.extend(to_u32(pieces.len()).to_le_bytes());
        record.extend(to_u32(len).to_le_bytes());
        record.extend(self.series.to_le_bytes());
        for piece in pieces {
            record.extend(to_u32(piece.len()).to_le_bytes());
            record.extend_from_slice(piece);
        }
        let checksum = crc32c(&record[4..]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
        let written = self.file.write_all_at(&record, self.at_bytes as u64);
        let synced = written.and_then(|()| match is_planted(Bug::LogWithoutSync) {
            true => Ok(()),
            false => self.file.sync_data(),
        });
        synced.map_err(|e| Error::from(e).while_doing(format_args!("writing {}", self.path.display())))?;
        self.at_bytes += record.len().next_multiple_of(PAGE_BYTES);
        Ok(true)
    }

    /// From its start again: LMDB has all its records, and the number of the series that begins.
    pub fn begin(&mut self, series: u64) {
        self.series = series;
        self.at_bytes = 0;
    }
}

/// The record of a series at a place, and the place behind it.
fn record_at(bytes: &Bytes, at: usize, series: u64) -> Option<(Vec<Bytes>, usize)> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (checksum, count, len) = (number(0), number(4), to_usize(u64::from(number(8))));
    let its_series = u64::from_le_bytes(header[12..20].try_into().expect("eight bytes"));
    let of_another = its_series != series && !is_planted(Bug::ReplaysOldJournal);
    if of_another || its_series == 0 {
        return None;
    }
    let end = at + HEADER_BYTES + len;
    if crc32c(bytes.get(at + 4..end)?) != checksum {
        return None;
    }
    let (mut pieces, mut from) = (Vec::new(), at + HEADER_BYTES);
    for _ in 0..count {
        let len = u32::from_le_bytes(bytes.get(from..from + 4)?.try_into().ok()?);
        let until = from + 4 + to_usize(u64::from(len));
        if until > end {
            return None;
        }
        pieces.push(bytes.slice(from + 4..until));
        from = until;
    }
    Some((pieces, end.next_multiple_of(PAGE_BYTES)))
}

fn damaged(path: &Path, how: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "{}: {how}, so that changes may be missing that clients were told of: if there are other masters, move the data \
             directory of this one away and start it again, and it gets all from them; else restore a backup",
            path.display()
        ),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn piece(number: usize, len: usize) -> Bytes {
        let word = number.to_le_bytes();
        word.iter().copied().cycle().take(len).collect()
    }

    fn made() -> (tempfile::TempDir, Journal) {
        let scratch = tempfile::tempdir().unwrap();
        Journal::create(scratch.path()).unwrap();
        let (journal, records) = Journal::open(scratch.path(), 1).unwrap();
        assert!(records.is_empty());
        (scratch, journal)
    }

    fn records(directory: &Path, series: u64) -> Result<Vec<Vec<Bytes>>> {
        Journal::open(directory, series).map(|(_, records)| records)
    }

    #[test]
    fn records_come_back_in_their_pieces_until_another_series_begins() {
        let (scratch, mut journal) = made();
        let first = vec![piece(1, 10), piece(2, 0), piece(3, 3 * PAGE_BYTES)];
        let second = vec![piece(4, PAGE_BYTES)];
        for record in [&first, &second, &Vec::new()] {
            assert_eq!(journal.append(record), Ok(true));
        }
        assert_eq!(journal.at_bytes, (4 + 2 + 1) * PAGE_BYTES, "whole pages");
        assert_eq!(
            records(scratch.path(), 1),
            Ok(vec![first.clone(), second, Vec::new()])
        );
        assert_eq!(records(scratch.path(), 2), Ok(Vec::new()));
        journal.begin(2);
        assert_eq!(journal.append(&first), Ok(true));
        // The second one of series 1 lies behind it, whole.
        assert_eq!(records(scratch.path(), 2), Ok(vec![first.clone()]));
        // Opened again, it goes on behind what it has.
        let (mut journal, _) = Journal::open(scratch.path(), 2).unwrap();
        assert_eq!(journal.append(&[piece(9, 1)]), Ok(true));
        assert_eq!(records(scratch.path(), 2), Ok(vec![first, vec![piece(9, 1)]]));
    }

    #[test]
    fn what_has_no_room_is_refused_and_the_last_byte_is_used() {
        let (scratch, mut journal) = made();
        assert_eq!(journal.append(&[piece(1, LEN_BYTES)]), Ok(false));
        let rest = piece(2, LEN_BYTES - HEADER_BYTES - 4);
        assert_eq!(journal.append(std::slice::from_ref(&rest)), Ok(true));
        assert_eq!(journal.append(&[]), Ok(false));
        assert_eq!(records(scratch.path(), 1), Ok(vec![vec![rest]]));
    }

    #[test]
    fn a_torn_last_record_is_let_go_and_a_damaged_one_before_it_is_named() {
        let (scratch, mut journal) = made();
        let all: Vec<_> = (0..4).map(|number| vec![piece(number, 5_000)]).collect();
        for record in &all {
            assert_eq!(journal.append(record), Ok(true));
        }
        let path = scratch.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for (number, place) in [
            (3, 0),
            (3, 19),
            (3, 4_999),
            (3, 5_023),
            (1, 4),
            (0, 12),
            (2, 5_000),
        ] {
            let mut bytes = whole.clone();
            bytes[number * 2 * PAGE_BYTES + place] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            match records(scratch.path(), 1) {
                Ok(left) => assert_eq!((number, left), (3, all[..3].to_vec()), "byte {place}"),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Corrupt);
                    let at = format!("record at byte {} ", number * 2 * PAGE_BYTES);
                    assert!(number < 3 && error.message.contains(&at), "{error}");
                }
            }
        }
        std::fs::write(&path, &whole[..LEN_BYTES - 1]).unwrap();
        let error = records(scratch.path(), 1).unwrap_err();
        assert!(error.message.contains("4194303 bytes of 4194304"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let error = records(scratch.path(), 1).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    }
}
