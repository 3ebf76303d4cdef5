//! What clients saw of a few names, and whether it can be explained by one order of what they did.
//!
//! A cell is two names side by side, so that one can be renamed to the other. Each name is absent, a directory, or a
//! directory with a value (an extended attribute). Cells have nothing to do with each other: each is checked alone, by
//! stateright's `LinearizabilityTester` (Herlihy and Wing, 1990): some order of the operations must give each of them the
//! outcome that was seen, and keep those that did not overlap in theirs. An operation whose outcome is unknown may have
//! happened at any time since it began, or never.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    A,
    B,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Make(Name),
    Remove(Name),
    Set(Name, u64),
    /// The other name is replaced if it is there.
    Rename(Name, Name),
    Get(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Done,
    Exists,
    Absent,
    NoValue,
    Value(u64),
}

/// What a cell is: for each name nothing, or a directory with or without a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Cell {
    names: [Option<Option<u64>>; 2],
}

impl Cell {
    fn at(&mut self, name: Name) -> &mut Option<Option<u64>> {
        &mut self.names[name as usize]
    }
}

impl SequentialSpec for Cell {
    type Op = Operation;
    type Ret = Outcome;

    fn invoke(&mut self, operation: &Operation) -> Outcome {
        match *operation {
            Operation::Make(name) => match self.at(name) {
                Some(_) => Outcome::Exists,
                absent => {
                    *absent = Some(None);
                    Outcome::Done
                }
            },
            Operation::Remove(name) => match self.at(name).take() {
                Some(_) => Outcome::Done,
                None => Outcome::Absent,
            },
            Operation::Set(name, value) => match self.at(name) {
                Some(had) => {
                    *had = Some(value);
                    Outcome::Done
                }
                None => Outcome::Absent,
            },
            Operation::Rename(from, to) => match self.at(from).take() {
                Some(moved) => {
                    *self.at(to) = Some(moved);
                    Outcome::Done
                }
                None => Outcome::Absent,
            },
            Operation::Get(name) => match *self.at(name) {
                None => Outcome::Absent,
                Some(None) => Outcome::NoValue,
                Some(Some(value)) => Outcome::Value(value),
            },
        }
    }
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    cell: usize,
    client: u64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Began(u64, Operation),
    Ended(u64, Outcome),
}

/// Operations as they began and ended, in one order.
#[derive(Clone, Debug, Default)]
pub struct History {
    cells: BTreeMap<usize, Vec<Event>>,
}

/// For one cell. An order that exists is found in milliseconds; that there is none can take for ever to be sure of.
const CHECKED_WITHIN: Duration = Duration::from_secs(20);
/// stateright looks for an order by recursion.
const STACK_BYTES: usize = 1 << 30;

impl History {
    /// A client does one thing at a time: one that does not know what became of an operation goes on under another number.
    pub fn begin(&mut self, cell: usize, client: u64, operation: Operation) -> Ticket {
        self.cells
            .entry(cell)
            .or_default()
            .push(Event::Began(client, operation));
        Ticket { cell, client }
    }

    pub fn end(&mut self, Ticket { cell, client }: Ticket, outcome: Outcome) {
        self.cells
            .entry(cell)
            .or_default()
            .push(Event::Ended(client, outcome));
    }

    /// Operations that began.
    pub fn len(&self) -> usize {
        let events = self.cells.values().flatten();
        events.filter(|event| matches!(event, Event::Began(..))).count()
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// # Errors
    /// The cell whose history no order explains, with that history.
    pub fn check(&self) -> Result<(), String> {
        self.cells
            .iter()
            .try_for_each(|(cell, events)| check(*cell, events))
    }
}

fn check(cell: usize, events: &[Event]) -> Result<(), String> {
    let (tell, told) = channel();
    let theirs = events.to_vec();
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let mut tester = LinearizabilityTester::new(Cell::default());
            for event in theirs {
                let taken = match event {
                    Event::Began(client, operation) => tester.on_invoke(client, operation).map(|_| ()),
                    Event::Ended(client, outcome) => tester.on_return(client, outcome).map(|_| ()),
                };
                if let Err(error) = taken {
                    return drop(tell.send(Err(error)));
                }
            }
            // Nobody waits any more if it took too long.
            let _ = tell.send(Ok(tester.is_consistent()));
        })
        .map_err(|error| format!("the checker does not start: {error}"))?;
    match told.recv_timeout(CHECKED_WITHIN) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(explain(cell, "is not linearizable", events)),
        Ok(Err(error)) => Err(explain(cell, &error, events)),
        Err(RecvTimeoutError::Timeout) => Err(explain(cell, "was not found to be linearizable", events)),
        Err(RecvTimeoutError::Disconnected) => Err(explain(cell, "overwhelmed the checker", events)),
    }
}

fn explain(cell: usize, what: &str, events: &[Event]) -> String {
    let lines: Vec<String> = events.iter().map(|event| format!("\n  {event:?}")).collect();
    format!("the history of cell {cell} {what}:{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Name::{A, B};

    /// Operations one after the other, each with its client and what was seen; none: it is not known.
    fn seen(operations: &[(u64, Operation, Option<Outcome>)]) -> Result<(), String> {
        let mut history = History::default();
        for (client, operation, outcome) in operations {
            let ticket = history.begin(0, *client, *operation);
            if let Some(outcome) = outcome {
                history.end(ticket, *outcome);
            }
        }
        history.check()
    }

    #[test]
    fn an_operation_of_unknown_outcome_may_have_happened_at_any_time_since_or_never() {
        let change = [
            (1, Operation::Make(A), Some(Outcome::Done)),
            (2, Operation::Set(A, 7), None),
            (3, Operation::Get(A), Some(Outcome::NoValue)),
        ];
        assert_eq!(seen(&change), Ok(()));
        let later = (3, Operation::Get(A), Some(Outcome::Value(7)));
        let never = (3, Operation::Get(A), Some(Outcome::NoValue));
        assert_eq!(seen(&[&change[..], &[later]].concat()), Ok(()));
        assert_eq!(seen(&[&change[..], &[never]].concat()), Ok(()));
        let undone = seen(&[&change[..], &[later, never]].concat());
        assert!(
            undone
                .expect_err("a value that vanishes")
                .contains("is not linearizable")
        );
    }

    #[test]
    fn a_stale_read_a_lost_change_and_an_effect_that_comes_twice_are_found() {
        let is_found = |operations: &[_]| {
            let found = seen(operations).expect_err("no order explains it");
            assert!(found.contains("cell 0 is not linearizable"), "{found}");
        };
        let made = (1, Operation::Make(A), Some(Outcome::Done));
        is_found(&[made, (2, Operation::Get(A), Some(Outcome::Absent))]);
        is_found(&[
            made,
            (1, Operation::Set(A, 1), Some(Outcome::Done)),
            (2, Operation::Get(A), Some(Outcome::NoValue)),
        ]);
        is_found(&[(1, Operation::Make(A), Some(Outcome::Exists))]);
        is_found(&[
            made,
            (1, Operation::Rename(A, B), Some(Outcome::Done)),
            (2, Operation::Get(A), Some(Outcome::NoValue)),
        ]);
    }

    #[test]
    fn what_overlaps_may_have_happened_in_either_order() {
        let mut history = History::default();
        let make = history.begin(0, 1, Operation::Make(A));
        let get = history.begin(0, 2, Operation::Get(A));
        history.end(get, Outcome::NoValue);
        let again = history.begin(0, 2, Operation::Get(A));
        history.end(again, Outcome::NoValue);
        history.end(make, Outcome::Done);
        assert_eq!(history.check(), Ok(()));
        assert_eq!(history.len(), 3);
    }
}
