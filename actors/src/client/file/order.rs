//! The order of a writer's changes of blocks, and what its workers have of them. Pure.
//!
//! A worker tells by it which requests come late, and says so if it has lost what it acknowledged; see
//! [`WriteOrder`].

use curvine_protocol::worker::WriteOrder;
use curvine_protocol::{Error, ErrorKind, Result, WorkerId};

/// Numbers the changes that are made of a file under one lease.
#[derive(Default)]
pub struct Numbers {
    last: u64,
    /// One for each worker that a change is on its way to.
    under_way: Vec<u64>,
}

impl Numbers {
    /// That of the next change.
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The change is on its way to one more worker.
    pub fn sent(&mut self, number: u64) {
        self.under_way.push(number);
    }

    /// One worker has answered, or is not waited for any more.
    pub fn ended(&mut self, number: u64) {
        if let Some(found) = self.under_way.iter().position(|other| *other == number) {
            self.under_way.swap_remove(found);
        }
    }

    /// Below this one all have ended.
    pub fn floor(&self) -> u64 {
        self.under_way.iter().copied().min().unwrap_or(self.last + 1)
    }
}

/// What each worker has acknowledged of one block, in the block's generation.
#[derive(Clone, Default)]
pub struct Taken(Vec<(WorkerId, Had)>);

/// The highest number, in which life of its disk the worker said so, and the end of the bytes.
#[derive(Clone, Copy, Default)]
struct Had {
    number: u64,
    life: u64,
    end_bytes: u64,
}

impl Taken {
    fn of(&self, worker: WorkerId) -> Had {
        let known = self.0.iter().find(|(id, _)| *id == worker);
        known.map_or_else(Had::default, |(_, had)| *had)
    }

    /// The order of a change that is sent to a worker now.
    pub fn order(&self, worker: WorkerId, number: u64, floor: u64) -> WriteOrder {
        let Had {
            number: has, life, ..
        } = self.of(worker);
        WriteOrder {
            number,
            floor,
            has,
            life,
        }
    }

    /// The last change that the worker acknowledged, once more.
    pub fn again(&self, worker: WorkerId) -> WriteOrder {
        let Had { number, .. } = self.of(worker);
        self.order(worker, number, number)
    }

    /// A worker has acknowledged a change, in this life of its disk.
    ///
    /// # Errors
    /// `Lost` if it had acknowledged others in another one since this was sent: some of them are not there any more.
    pub fn acknowledged(&mut self, worker: WorkerId, order: &WriteOrder, life: u64) -> Result<()> {
        let before = self.of(worker);
        let is_another = life != before.life && life != 0 && before.life != 0;
        if is_another && before.number > order.has {
            return Err(Error::new(
                ErrorKind::Lost,
                "the worker's machine lost its power while the block was written",
            ));
        }
        let had = Had {
            number: before.number.max(order.number),
            life,
            ..before
        };
        self.set(worker, had);
        Ok(())
    }

    /// The worker has bytes up to here.
    pub fn up_to(&mut self, worker: WorkerId, end_bytes: u64) {
        let before = self.of(worker);
        let end_bytes = before.end_bytes.max(end_bytes);
        self.set(worker, Had { end_bytes, ..before });
    }

    /// The end of the bytes that the worker acknowledged; 0 if there are none.
    pub fn end_bytes(&self, worker: WorkerId) -> u64 {
        self.of(worker).end_bytes
    }

    fn set(&mut self, worker: WorkerId, had: Had) {
        match self.0.iter_mut().find(|(id, _)| *id == worker) {
            Some((_, known)) => *known = had,
            None => self.0.push((worker, had)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_rises_with_what_has_ended_everywhere() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.floor(), 1);
        let (first, second) = (numbers.next(), numbers.next());
        for number in [first, first, second] {
            numbers.sent(number);
        }
        numbers.ended(first);
        assert_eq!(numbers.floor(), first, "one of two workers has not answered");
        numbers.ended(first);
        assert_eq!(numbers.floor(), second);
        numbers.ended(second);
        assert_eq!(numbers.floor(), 3);
    }

    #[test]
    fn a_worker_of_another_life_has_what_it_was_asked_for_and_nothing_that_came_in_between() {
        let (worker, mut taken) = (WorkerId(1), Taken::default());
        let first = taken.order(worker, 1, 1);
        let second = taken.order(worker, 2, 1);
        assert_eq!((second.has, second.life), (0, 0));
        taken.acknowledged(worker, &first, 7).expect("the first life");
        let late = taken.acknowledged(worker, &second, 8);
        assert_eq!(late.map_err(|error| error.kind), Err(ErrorKind::Lost));
        let third = taken.order(worker, 3, 3);
        assert_eq!((third.has, third.life), (1, 7));
        taken
            .acknowledged(worker, &third, 8)
            .expect("it was asked for the first");
        let again = taken.again(worker);
        assert_eq!((again.number, again.has, again.life), (3, 3, 8));
    }
}
