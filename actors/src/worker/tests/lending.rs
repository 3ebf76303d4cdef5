//! Files that are lent to programs on the worker's host.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{DeleteBlocks, GetHostSocket, HostReply, HostRequest, LentBlock};
use curvine_protocol::{BlockId, CallContext, ErrorKind, Result, codec};

use super::eviction::*;
use super::world::*;
use crate::kit::call;
use crate::kit::host_socket::{HostSocket, MESSAGE_BYTES_MAX};
use crate::kit::until::until_some;
use crate::worker::WorkerHandle;
use crate::worker::disk::pieces_of;

/// A program on the host.
struct Reader {
    socket: HostSocket,
    number: u64,
}

impl Reader {
    async fn of(worker: &WorkerHandle) -> Reader {
        let told = call(&*worker.port, GetHostSocket {}, CallContext::default()).await;
        let name = told.unwrap().name;
        let socket = until_some("the worker lends", async || HostSocket::connect(&name).ok()).await;
        Reader { socket, number: 0 }
    }

    async fn borrows(&mut self, block: u64, generation: u32) -> Result<(LentBlock, File)> {
        self.number += 1;
        self.borrows_as(self.number, block, generation).await
    }

    async fn borrows_as(&self, number: u64, block: u64, generation: u32) -> Result<(LentBlock, File)> {
        let request = HostRequest::Lend {
            number,
            block: BlockId(block),
            generation,
        };
        self.socket.send(&codec::encode(&request), None).await.unwrap();
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let (length, file) = self
            .socket
            .receive(&mut buffer)
            .await
            .unwrap()
            .expect("an answer");
        let reply: HostReply = codec::decode(&buffer[..length]).unwrap();
        assert_eq!(reply.number, number);
        let lent = reply.lent?;
        Ok((lent, file.expect("the file comes with it").into()))
    }

    fn gives_back(&self, number: u64) {
        let request = HostRequest::Return {
            number,
            read_bytes: 0,
            mount: None,
        };
        self.socket.try_send(&codec::encode(&request)).unwrap();
    }
}

fn content(lent: &LentBlock, file: &File) -> Bytes {
    let mut bytes = vec![0; to_usize(lent.len_bytes)];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let bytes = Bytes::from(bytes);
    let sums: Vec<_> = pieces_of(0, &bytes).iter().map(|piece| piece.checksum).collect();
    assert_eq!(sums, lent.checksums, "what is lent has its checksums");
    bytes
}

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.err().expect("it is refused").kind
}

const LONG: usize = 3 * to_usize(CHUNK_BYTES) + 100;

#[actix::test]
async fn a_file_is_lent_whole_for_reading_alone_and_only_as_what_is_asked_for() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let body = bytes_of(1, LONG);
    put(&*worker.port, 7, 2, body.clone()).await.unwrap();
    put(&*worker.port, 8, 1, bytes_of(2, 100)).await.unwrap();
    write(&*worker.port, 9, 1, 0, 0, bytes_of(3, LONG)).await.unwrap();
    let mut reader = Reader::of(&worker).await;
    let (lent, file) = reader.borrows(7, 2).await.unwrap();
    assert_eq!(content(&lent, &file), body);
    assert!(file.write_all_at(b"x", 0).is_err(), "it is open for reading");
    assert_eq!(kind(reader.borrows(7, 1).await), ErrorKind::Stale);
    assert_eq!(kind(reader.borrows(7, 3).await), ErrorKind::Stale);
    assert_eq!(
        kind(reader.borrows(8, 1).await),
        ErrorKind::Unsupported,
        "it is in the index"
    );
    assert_eq!(
        kind(reader.borrows(9, 1).await),
        ErrorKind::NotFound,
        "it is being written"
    );
    assert_eq!(kind(reader.borrows(10, 1).await), ErrorKind::NotFound);
    let taken = reader.borrows_as(1, 7, 2).await;
    assert_eq!(kind(taken), ErrorKind::InvalidArgument, "the number is in use");
    reader.gives_back(1);
    reader.borrows_as(1, 7, 2).await.unwrap();
    worker.stop().await;
}

#[actix::test]
async fn what_is_lent_stays_as_it_is_while_the_block_is_changed() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let port = worker.port.clone();
    let body = bytes_of(1, LONG);
    let length = LONG as u64;
    put(&*port, 7, 1, body.clone()).await.unwrap();
    let mut reader = Reader::of(&worker).await;
    let first = reader.borrows(7, 1).await.unwrap();

    // Appended to, the file is the same.
    let inode = |file: &File| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
    let in_place = || inode(&File::open(block_file(&world.disk("d0"), 7)).unwrap());
    write(&*port, 7, 2, length, length, bytes_of(2, 50))
        .await
        .unwrap();
    seal(&*port, 7, 2, true).await.unwrap();
    assert_eq!(in_place(), inode(&first.1));
    assert_eq!(content(&first.0, &first.1), body);

    // Written over, cut, and with a hole, it is another one.
    let appended = [&body[..], &bytes_of(2, 50)].concat();
    write(&*port, 7, 3, 10, length + 50, bytes_of(3, 20))
        .await
        .unwrap();
    seal(&*port, 7, 3, true).await.unwrap();
    assert_ne!(in_place(), inode(&first.1));
    assert_eq!(content(&first.0, &first.1), body);
    let second = reader.borrows(7, 3).await.unwrap();
    let mut written = appended.clone();
    written[10..30].copy_from_slice(&bytes_of(3, 20));
    assert_eq!(content(&second.0, &second.1), written);
    write(&*port, 7, 4, 100, 100, bytes_of(4, 8)).await.unwrap();
    seal(&*port, 7, 4, true).await.unwrap();
    assert_eq!(content(&second.0, &second.1), written);
    let third = reader.borrows(7, 4).await.unwrap();
    let cut = [&written[..100], &bytes_of(4, 8)].concat();
    assert_eq!(content(&third.0, &third.1), cut);
    punch(&*port, 7, 5, 0..108, 108).await.unwrap();
    seal(&*port, 7, 5, true).await.unwrap();
    assert_eq!(content(&third.0, &third.1), cut);
    let fourth = reader.borrows(7, 5).await.unwrap();
    put(&*port, 7, 6, bytes_of(6, LONG)).await.unwrap();
    assert_eq!(content(&fourth.0, &fourth.1), vec![0; 108]);
    assert_eq!(
        read(&*port, 7, 6, 0, 1 << 20, None).await.unwrap(),
        bytes_of(6, LONG)
    );
    worker.stop().await;
    drop((port, worker));

    let worker = world.start(world.config()).await;
    assert_eq!(
        read(&*worker.port, 7, 6, 0, 1 << 20, None).await.unwrap(),
        bytes_of(6, LONG)
    );
    kill(worker);
}

#[actix::test]
async fn the_space_of_a_block_that_goes_while_it_is_lent_comes_free_when_it_is_given_back() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let port = worker.port.clone();
    put(&*port, 7, 1, bytes_of(1, 1 << 20)).await.unwrap();
    put(&*port, 8, 1, bytes_of(2, 1 << 20)).await.unwrap();
    let used = || {
        let store = worker.disks.all()[0].store.clone();
        store.status().used_bytes
    };
    let before = used();
    let mut reader = Reader::of(&worker).await;
    let (lent, file) = reader.borrows(7, 1).await.unwrap();
    let again = reader.borrows(7, 1).await.unwrap();
    write(&*port, 8, 2, 0, 1 << 20, bytes_of(3, 10)).await.unwrap();
    seal(&*port, 8, 2, true).await.unwrap();
    assert!(used() < before + (1 << 20), "nobody has that");
    let delete = DeleteBlocks {
        blocks: vec![BlockId(7)],
    };
    call(&*port, delete, CallContext::default()).await.unwrap();
    assert_eq!(kind(reader.borrows(7, 1).await), ErrorKind::NotFound);
    assert!(used() >= before, "a reader has it");
    assert_eq!(content(&lent, &file), bytes_of(1, 1 << 20));
    reader.gives_back(1);
    drop((lent, file));
    assert_eq!(kind(reader.borrows(99, 1).await), ErrorKind::NotFound);
    assert!(used() >= before, "it was lent twice");
    drop((reader, again));
    crate::kit::until::until("the space comes free", || used() + (1 << 19) <= before).await;
    worker.stop().await;
}

#[actix::test]
async fn what_is_lent_is_not_evicted_and_something_always_may_be() {
    let little = Little::start().await;
    little.reads(0).await;
    let mut reader = Reader::of(&little.worker).await;
    let (lent, file) = reader.borrows(100, 1).await.unwrap();
    for _ in 0..2 {
        for block in 1..BLOCKS {
            little.reads(block).await;
        }
    }
    assert!(little.has(0).await, "it is lent");
    let before = content(&lent, &file);
    let mut refused = 0;
    for block in 1..BLOCKS {
        if !little.has(block).await {
            continue;
        }
        match reader.borrows(100 + block, 1).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Overloaded, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no more than half is lent");
    assert_eq!(content(&lent, &file), before);
    drop(reader);
    crate::kit::until::until_some("it may go", async || {
        for block in 1..BLOCKS {
            little.reads(block).await;
        }
        let store = &little.worker.disks.all()[0].store;
        (!store.holds(BlockId(100)).unwrap()).then_some(())
    })
    .await;
}
