//! How far apart replicas are: on different racks before different hosts, on different hosts before different workers. Pure.
//!
//! A worker that has not said where it stands is on a host, and in a rack, of its own.

use std::collections::BTreeSet;

use curvine_protocol::WorkerId;

use super::roster::Roster;

/// How many racks, and how many hosts, some workers are on: the greater, the further apart.
pub type Apart = (usize, usize);

/// Where one stands, as far as it differs from others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Named(&'a str),
    Own(WorkerId),
}

impl Roster {
    fn rack(&self, id: WorkerId) -> Place<'_> {
        self.place_of(id, |labels| &labels.rack)
    }

    /// Hosts of different racks are different ones, whatever their names.
    fn host(&self, id: WorkerId) -> (Place<'_>, Place<'_>) {
        let is_racked = self.labels(id).is_some_and(|labels| !labels.rack.is_empty());
        let rack = match is_racked {
            true => self.rack(id),
            false => Place::Named(""),
        };
        (rack, self.place_of(id, |labels| &labels.host))
    }

    fn place_of(&self, id: WorkerId, name: impl Fn(&curvine_protocol::cluster::Labels) -> &str) -> Place<'_> {
        match self.labels(id).map(name) {
            Some(name) if !name.is_empty() => Place::Named(name),
            _ => Place::Own(id),
        }
    }

    pub fn apart(&self, workers: &[WorkerId]) -> Apart {
        let racks: BTreeSet<_> = workers.iter().map(|id| self.rack(*id)).collect();
        let hosts: BTreeSet<_> = workers.iter().map(|id| self.host(*id)).collect();
        (racks.len(), hosts.len())
    }

    /// Of workers, those that are preferred first, so many as are furthest apart from each other and from those that have
    /// something already.
    pub fn spread(
        &self,
        preferred: impl IntoIterator<Item = WorkerId>,
        has: &[WorkerId],
        count: usize,
    ) -> Vec<WorkerId> {
        let mut left: Vec<WorkerId> = preferred.into_iter().collect();
        let mut all = has.to_vec();
        while all.len() < has.len() + count && !left.is_empty() {
            let apart_with = |id: &WorkerId| {
                let with: Vec<_> = all.iter().copied().chain([*id]).collect();
                self.apart(&with)
            };
            let furthest = left.iter().map(apart_with).max().unwrap_or_default();
            let at = left
                .iter()
                .position(|id| apart_with(id) == furthest)
                .unwrap_or_default();
            all.push(left.remove(at));
        }
        all.split_off(has.len())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::cluster::Labels;
    use tokio::time::Instant;

    use super::super::roster::WorkerEntry;
    use super::*;

    fn roster(workers: &[(u32, &str, &str)]) -> Roster {
        let mut roster = Roster::default();
        for &(id, host, rack) in workers {
            let entry = WorkerEntry {
                labels: Labels {
                    host: host.to_owned(),
                    rack: rack.to_owned(),
                },
                ..WorkerEntry::heard(Instant::now(), Vec::new())
            };
            roster.register(WorkerId(id), entry);
        }
        roster
    }

    fn ids(ids: &[u32]) -> Vec<WorkerId> {
        ids.iter().map(|id| WorkerId(*id)).collect()
    }

    #[test]
    fn replicas_go_to_other_racks_then_to_other_hosts_then_anywhere() {
        let roster = roster(&[
            (1, "a", "r1"),
            (2, "a", "r1"),
            (3, "b", "r1"),
            (4, "c", "r2"),
            (5, "c", "r2"),
        ]);
        let spread = |preferred: &[u32], has: &[u32], count| roster.spread(ids(preferred), &ids(has), count);
        assert_eq!(spread(&[1, 2, 3, 4, 5], &[], 1), ids(&[1]), "as is preferred");
        assert_eq!(spread(&[1, 2, 3, 4, 5], &[], 2), ids(&[1, 4]));
        assert_eq!(spread(&[1, 2, 3, 4, 5], &[], 3), ids(&[1, 4, 3]));
        assert_eq!(spread(&[1, 2, 3, 4, 5], &[], 5), ids(&[1, 4, 3, 2, 5]));
        assert_eq!(spread(&[2, 3], &[1], 1), ids(&[3]));
        assert_eq!(spread(&[2, 3, 5], &[1], 1), ids(&[5]));
        assert_eq!(spread(&[1], &[], 3), ids(&[1]), "there are no more");
        assert_eq!(spread(&[], &[1], 1), ids(&[]));
    }

    #[test]
    fn who_says_nothing_is_on_its_own_and_a_host_is_where_its_rack_is() {
        let nobody = roster(&[(1, "", ""), (2, "", ""), (3, "h", "")]);
        assert_eq!(nobody.apart(&ids(&[1, 2, 3])), (3, 3));
        assert_eq!(
            nobody.spread(ids(&[2, 1, 3]), &[], 2),
            ids(&[2, 1]),
            "as is preferred"
        );
        let same = roster(&[(1, "h", ""), (2, "h", ""), (3, "h", "r1"), (4, "h", "r2")]);
        assert_eq!(same.apart(&ids(&[1, 2])), (2, 1));
        assert_eq!(same.apart(&ids(&[3, 4])), (2, 2), "two hosts of one name");
        assert_eq!(same.spread(ids(&[2, 3]), &ids(&[1]), 1), ids(&[3]));
    }
}
