//! What clients saw of a few names, and whether it can be explained by one order of what they did.
//!
//! A cell is two names side by side, so that one can be renamed to the other. Each name is absent, a directory, or a
//! directory with a value (an extended attribute). Cells have nothing to do with each other: each is checked alone
//! ([`crate::linearizability`]).

use std::collections::BTreeMap;

use crate::linearizability::{Call, Model, Verdict, check};

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

impl Model for Cell {
    type Operation = Operation;
    type Outcome = Outcome;

    fn apply(&mut self, operation: &Operation) -> Outcome {
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
    number: usize,
}

/// Operations as they began and ended, in one order.
#[derive(Clone, Debug, Default)]
pub struct History {
    cells: BTreeMap<usize, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    calls: Vec<Call<Cell>>,
    /// By their place in `calls`.
    clients: Vec<u64>,
    /// How many began and ended.
    events: usize,
}

impl History {
    /// An operation that is never ended has an unknown outcome.
    pub fn begin(&mut self, cell: usize, client: u64, operation: Operation) -> Ticket {
        let seen = self.cells.entry(cell).or_default();
        let number = seen.calls.len();
        seen.calls.push(Call {
            operation,
            began: seen.events,
            ended: None,
        });
        seen.clients.push(client);
        seen.events += 1;
        Ticket { cell, number }
    }

    pub fn end(&mut self, Ticket { cell, number }: Ticket, outcome: Outcome) {
        let seen = self.cells.get_mut(&cell).expect("it began");
        seen.calls[number].ended = Some((seen.events, outcome));
        seen.events += 1;
    }

    /// Operations that began.
    pub fn len(&self) -> usize {
        self.cells.values().map(|seen| seen.calls.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// # Errors
    /// The cell whose history no order explains, with that history.
    pub fn check(&self) -> Result<(), String> {
        self.cells.iter().try_for_each(|(cell, seen)| {
            let what = match check(Cell::default(), &seen.calls) {
                Verdict::Linearizable => return Ok(()),
                Verdict::NotLinearizable => "is not linearizable",
                Verdict::TooManyOrders => "was not found to be linearizable",
            };
            let calls = seen.calls.iter().zip(&seen.clients);
            let lines: Vec<String> = calls
                .map(
                    |(
                        Call {
                            operation,
                            began,
                            ended,
                        },
                        client,
                    )| match ended {
                        Some((ended, outcome)) => {
                            format!("\n  {began}-{ended} client {client}: {operation:?}, {outcome:?}")
                        }
                        None => format!("\n  {began}- client {client}: {operation:?}, unknown"),
                    },
                )
                .collect();
            Err(format!("the history of cell {cell} {what}:{}", lines.concat()))
        })
    }
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
