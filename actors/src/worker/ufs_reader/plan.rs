//! What to fetch of a block, and when: pure.

use std::ops::Range;

use crate::worker::disk::Bitmap;

/// Unit of fetching: 1 MiB. A random read costs the segments it touches.
pub const SEGMENT_CHUNKS: usize = 16;
/// Most of a block that one request of a reader fetches, and least that a load cuts one into: 8 MiB.
const PART_CHUNKS: usize = 128;
/// Most that is read ahead of a sequential reader: 32 MiB.
const WINDOW_CHUNKS_MAX: usize = 512;

/// The chunks of one block while it is filled. Every chunk is fetched once, whoever asks.
#[derive(Clone, Debug)]
pub struct Plan {
    present: Bitmap,
    /// Being fetched, or present.
    requested: Vec<bool>,
    /// Where a sequential reader would go on.
    next: usize,
    window_chunks: usize,
}

impl Plan {
    pub fn new(present: Bitmap) -> Self {
        Plan {
            requested: (0..present.len()).map(|chunk| present.get(chunk)).collect(),
            present,
            next: 0,
            window_chunks: 0,
        }
    }

    pub fn present(&self) -> &Bitmap {
        &self.present
    }

    pub fn has(&self, chunks: Range<usize>) -> bool {
        self.present.all(chunks)
    }

    /// Somebody reads these chunks: what to fetch for it now, readahead included.
    pub fn want(&mut self, asked: Range<usize>) -> Vec<Range<usize>> {
        let near = asked.start <= self.next + SEGMENT_CHUNKS && asked.start + SEGMENT_CHUNKS >= self.next;
        if near {
            self.next = self.next.max(asked.end);
            self.window_chunks = (self.window_chunks * 2).clamp(SEGMENT_CHUNKS, WINDOW_CHUNKS_MAX);
        } else {
            self.next = asked.end;
            self.window_chunks = 0;
        }
        let segments = |chunks: Range<usize>| {
            chunks.start / SEGMENT_CHUNKS * SEGMENT_CHUNKS..chunks.end.next_multiple_of(SEGMENT_CHUNKS)
        };
        let needed = segments(asked.clone());
        // Half a window of lead is enough to stay ahead; asking only then makes the requests large.
        let lead = asked.end + self.window_chunks / 2;
        let ahead = if (asked.end..lead.min(self.requested.len())).any(|chunk| !self.requested[chunk]) {
            segments(asked.end..asked.end + self.window_chunks)
        } else {
            needed.end..needed.end
        };
        self.claim(needed.start..needed.end.max(ahead.end), PART_CHUNKS)
    }

    /// Everything that is missing, in about so many parts. Each costs a request: an object store bills it, and some read
    /// a whole object to answer it.
    pub fn want_all(&mut self, parts: usize) -> Vec<Range<usize>> {
        let missing = self.requested.iter().filter(|requested| !**requested).count();
        let part_chunks = missing.div_ceil(parts.max(1)).max(PART_CHUNKS);
        self.claim(0..self.requested.len(), part_chunks)
    }

    fn claim(&mut self, chunks: Range<usize>, part_chunks_max: usize) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for chunk in chunks.start..chunks.end.min(self.requested.len()) {
            if std::mem::replace(&mut self.requested[chunk], true) {
                continue;
            }
            match parts.last_mut() {
                Some(part) if part.end == chunk && part.len() < part_chunks_max => part.end += 1,
                _ => parts.push(chunk..chunk + 1),
            }
        }
        parts
    }

    /// These chunks are on the disk now.
    pub fn stored(&mut self, chunks: Range<usize>) {
        chunks.for_each(|chunk| {
            self.present.set(chunk);
        });
    }

    /// Fetching these failed: what is not there may be asked for again.
    pub fn given_up(&mut self, chunks: Range<usize>) {
        for chunk in chunks {
            self.requested[chunk] = self.present.get(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(chunks: usize) -> Plan {
        Plan::new(Bitmap::new(chunks))
    }

    #[test]
    fn a_random_read_fetches_the_segments_it_touches() {
        let mut plan = plan(10_000);
        assert_eq!(plan.want(5_000..5_001), vec![4_992..5_008]);
        assert_eq!(plan.want(900..930), vec![896..944]);
        assert!(plan.want(5_002..5_003).is_empty(), "fetched once");
    }

    #[test]
    fn a_sequential_reader_gets_a_window_that_doubles_up_to_its_limit() {
        let mut plan = plan(100_000);
        let mut ahead = Vec::new();
        for at in (0..2_000).step_by(16) {
            plan.want(at..at + 16);
            let end = plan.requested.iter().position(|requested| !requested);
            ahead.push(end.map_or(0, |end| end - (at + 16)));
        }
        assert_eq!(ahead[..4], [16, 32, 64, 128]);
        assert!(
            ahead[8..]
                .iter()
                .all(|&lead| (WINDOW_CHUNKS_MAX / 2..=WINDOW_CHUNKS_MAX).contains(&lead))
        );
    }

    #[test]
    fn parts_have_a_limit_and_do_not_overlap() {
        let mut plan = plan(300);
        plan.want(200..201);
        assert_eq!(plan.want_all(16), vec![0..128, 128..192, 208..300]);
        assert!(plan.want_all(16).is_empty());
    }

    #[test]
    fn a_load_has_as_many_parts_of_a_block_as_it_asks_for_and_none_too_small() {
        assert_eq!(plan(1_000).want_all(1), vec![0..1_000]);
        assert_eq!(plan(1_000).want_all(2), vec![0..500, 500..1_000]);
        assert_eq!(plan(300).want_all(16), vec![0..128, 128..256, 256..300]);
    }

    #[test]
    fn what_failed_is_asked_for_again_and_what_is_there_is_not() {
        let mut plan = plan(40);
        assert_eq!(plan.want_all(16), vec![0..40]);
        plan.stored(0..10);
        plan.given_up(0..40);
        assert_eq!(plan.want_all(16), vec![10..40]);
        plan.stored(10..40);
        assert!(plan.present().is_full() && plan.has(0..40));
    }
}
