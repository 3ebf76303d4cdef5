//! Whether some order of operations explains what was seen of them.
//!
//! Linearizable (Herlihy and Wing, 1990): in that order each operation has the outcome that was seen, and those that did not
//! overlap keep their order. The search is Wing and Gong's (1993), which takes one of the operations that may come next and goes
//! back when that leads nowhere, with Lowe's memory (2017) of what was tried: the same operations in another order that
//! lead to the same state need not be tried again. Knossos and Porcupine do the same.
//!
//! An operation whose outcome is unknown may have happened at any time since it began, or never.

use std::collections::HashSet;
use std::hash::Hash;

/// What the operations are done to, one after the other.
pub trait Model: Clone + Eq + Hash {
    type Operation;
    type Outcome: PartialEq;

    fn apply(&mut self, operation: &Self::Operation) -> Self::Outcome;
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Call<M: Model> {
    pub operation: M::Operation,
    /// Its place among everything that began and ended.
    pub began: usize,
    /// And that of its end, with what was seen; none if nobody saw it.
    pub ended: Option<(usize, M::Outcome)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    NotLinearizable,
    /// None was found among [`TRIED_MAX`].
    TooManyOrders,
}

/// Sets of operations, with the state that they lead to.
const TRIED_MAX: usize = 1_000_000;

/// Looks for an order. The calls are in the order of their begins.
pub fn check<M: Model>(initial: M, calls: &[Call<M>]) -> Verdict {
    debug_assert!(calls.is_sorted_by_key(|call| call.began));
    let mut taken = Set::of(calls.len());
    // Those of unknown outcome need not have happened.
    let mut left = calls.iter().filter(|call| call.ended.is_some()).count();
    let mut tried = HashSet::new();
    let mut steps = vec![Step::new(initial, calls, &taken)];
    while left > 0 {
        let Some(step) = steps.last_mut() else {
            return Verdict::NotLinearizable;
        };
        if let Some(call) = step.took.take() {
            taken.remove(call);
            left += usize::from(calls[call].ended.is_some());
        }
        let Some(call) = step.candidates.pop() else {
            steps.pop();
            continue;
        };
        let mut state = step.state.clone();
        let outcome = state.apply(&calls[call].operation);
        let is_possible = match &calls[call].ended {
            Some((_, seen)) => *seen == outcome,
            // One that changes nothing may as well come later.
            None => state != step.state,
        };
        if !is_possible {
            continue;
        }
        taken.insert(call);
        if !tried.insert((taken.clone(), state.clone())) {
            taken.remove(call);
            continue;
        }
        if tried.len() > TRIED_MAX {
            return Verdict::TooManyOrders;
        }
        step.took = Some(call);
        left -= usize::from(calls[call].ended.is_some());
        steps.push(Step::new(state, calls, &taken));
    }
    Verdict::Linearizable
}

/// A state on the way, and what may come next.
struct Step<M> {
    state: M,
    /// The last one is the first to be tried.
    candidates: Vec<usize>,
    /// Which of them led to the step after this.
    took: Option<usize>,
}

impl<M: Model> Step<M> {
    fn new(state: M, calls: &[Call<M>], taken: &Set) -> Self {
        let end = |call: &Call<M>| call.ended.as_ref().map_or(usize::MAX, |(end, _)| *end);
        let mut candidates = Vec::new();
        // Whatever began after this has to wait for whoever ends then.
        let mut first_end = usize::MAX;
        for (number, call) in calls.iter().enumerate().skip(taken.first_missing()) {
            if call.began > first_end {
                break;
            }
            if !taken.has(number) {
                candidates.push(number);
                first_end = first_end.min(end(call));
            }
        }
        // Those that nobody saw end last: most never need to have happened.
        candidates.sort_by_key(|number| std::cmp::Reverse(end(&calls[*number])));
        Step {
            state,
            candidates,
            took: None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn of(count: usize) -> Set {
        Set(vec![0; count.div_ceil(64)])
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] & 1 << (number % 64) != 0
    }

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    fn first_missing(&self) -> usize {
        let full = self.0.iter().take_while(|word| **word == u64::MAX).count();
        full * 64 + self.0.get(full).map_or(0, |word| word.trailing_ones() as usize)
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::number::to_usize;

    use super::*;

    /// A number that is written and read.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Register(u8);

    #[derive(Clone, Debug)]
    enum Operation {
        Write(u8),
        Read,
    }

    impl Model for Register {
        type Operation = Operation;
        type Outcome = u8;

        fn apply(&mut self, operation: &Operation) -> u8 {
            if let Operation::Write(value) = operation {
                self.0 = *value;
            }
            self.0
        }
    }

    fn call(operation: Operation, began: usize, ended: Option<(usize, u8)>) -> Call<Register> {
        Call {
            operation,
            began,
            ended,
        }
    }

    /// All orders, one after the other: what the search must agree with.
    fn brute_force(state: &Register, calls: &[Call<Register>], left: &[usize]) -> bool {
        if left.iter().all(|call| calls[*call].ended.is_none()) {
            return true;
        }
        left.iter().any(|next| {
            let is_early = left.iter().all(|other| match calls[*other].ended {
                Some((end, _)) => calls[*next].began < end,
                None => true,
            });
            let mut state = state.clone();
            let outcome = state.apply(&calls[*next].operation);
            let fits = calls[*next].ended.is_none_or(|(_, seen)| seen == outcome);
            let rest: Vec<usize> = left.iter().copied().filter(|call| call != next).collect();
            is_early && fits && brute_force(&state, calls, &rest)
        })
    }

    #[test]
    fn the_search_finds_an_order_exactly_when_there_is_one() {
        let mut random = crate::random::Seeded::new(7);
        let mut verdicts = [0, 0];
        for _ in 0..20_000 {
            let mut calls: Vec<Call<Register>> = Vec::new();
            let mut open = Vec::new();
            for event in 0..12 {
                if open.len() < 3 && random.below(2) == 0 {
                    let operation = match random.below(2) {
                        0 => Operation::Read,
                        _ => Operation::Write(random.byte_below(2) + 1),
                    };
                    open.push(calls.len());
                    calls.push(call(operation, event, None));
                } else if !open.is_empty() {
                    let ends = open.swap_remove(to_usize(random.below(open.len() as u64)));
                    let outcome = match calls[ends].operation {
                        Operation::Write(value) => value,
                        Operation::Read => random.byte_below(3),
                    };
                    calls[ends].ended = Some((event, outcome));
                }
            }
            let all: Vec<usize> = (0..calls.len()).collect();
            let there_is_one = brute_force(&Register(0), &calls, &all);
            let expected = match there_is_one {
                true => Verdict::Linearizable,
                false => Verdict::NotLinearizable,
            };
            assert_eq!(check(Register(0), &calls), expected, "{calls:?}");
            verdicts[usize::from(there_is_one)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 1_000), "{verdicts:?}");
    }
}
