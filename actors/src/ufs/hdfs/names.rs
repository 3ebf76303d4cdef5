//! Users and groups: names in HDFS, numbers in POSIX. The user database of this node says which is which; a name that is a
//! number stands for itself, and so does a number that has no name.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex};

/// Names that are remembered. Then all are forgotten.
const NAMES_MAX: usize = 10_000;
/// What the user database may say of one name, at least.
const ENTRY_BYTES: usize = 4 << 10;
const ENTRY_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Of {
    User,
    Group,
}

/// What the user database has said.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    numbers: HashMap<(Of, String), Option<u32>>,
    names: HashMap<(Of, u32), String>,
}

impl Names {
    /// The number of a name; none if this node does not know it.
    pub async fn number(&self, of: Of, name: &str) -> Option<u32> {
        let asked = (of, name.to_owned());
        let known = self.with(|known| known.numbers.get(&asked).copied());
        if let Some(known) = known {
            return known;
        }
        let name = name.to_owned();
        let number = on_a_thread(move || number_of(of, &name)).await?;
        self.with(|known| {
            forget(&mut known.numbers);
            known.numbers.insert(asked, number);
        });
        number
    }

    /// The name that a number has in HDFS.
    pub async fn name(&self, of: Of, number: Option<u32>) -> Option<String> {
        let number = number?;
        if let Some(known) = self.with(|known| known.names.get(&(of, number)).cloned()) {
            return Some(known);
        }
        let name = on_a_thread(move || name_of(of, number)).await?;
        let name = name.unwrap_or_else(|| number.to_string());
        self.with(|known| {
            forget(&mut known.names);
            known.names.insert((of, number), name.clone());
        });
        Some(name)
    }

    /// What nobody here knew is asked for again.
    pub fn forget_unknown(&self) {
        self.with(|known| known.numbers.retain(|_, number| number.is_some()));
    }

    fn with<T>(&self, what: impl FnOnce(&mut Known) -> T) -> T {
        what(&mut self.0.lock().expect("nobody panics while it holds this"))
    }
}

fn forget<K, V>(known: &mut HashMap<K, V>) {
    if known.len() >= NAMES_MAX {
        known.clear();
    }
}

/// The user database may be a server.
async fn on_a_thread<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(ask).await.ok()
}

fn number_of(of: Of, name: &str) -> Option<u32> {
    let text = CString::new(name).ok()?;
    let found = match of {
        // SAFETY: as `asked` has it; the name is a string that lives until the call has ended.
        Of::User => asked(|entry, buffer, length, found| unsafe {
            libc::getpwnam_r(text.as_ptr(), entry, buffer, length, found)
        })
        .map(|(entry, _): (libc::passwd, _)| entry.pw_uid),
        // SAFETY: the same.
        Of::Group => asked(|entry, buffer, length, found| unsafe {
            libc::getgrnam_r(text.as_ptr(), entry, buffer, length, found)
        })
        .map(|(entry, _): (libc::group, _)| entry.gr_gid),
    };
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    found
        .or_else(|| is_number.then(|| name.parse().ok())?)
        .filter(|number| *number != u32::MAX)
}

fn name_of(of: Of, number: u32) -> Option<String> {
    // SAFETY: as `asked` has it; the names that are found are strings in the buffer, which lives on.
    let found =
        unsafe {
            match of {
                Of::User => asked(|entry, buffer, length, found| {
                    libc::getpwuid_r(number, entry, buffer, length, found)
                })
                .map(|(entry, buffer): (libc::passwd, _)| (CStr::from_ptr(entry.pw_name).to_owned(), buffer)),
                Of::Group => asked(|entry, buffer, length, found| {
                    libc::getgrgid_r(number, entry, buffer, length, found)
                })
                .map(|(entry, buffer): (libc::group, _)| (CStr::from_ptr(entry.gr_name).to_owned(), buffer)),
            }
        };
    found?.0.into_string().ok()
}

/// Asks the user database, with a buffer that is large enough: the entry and the buffer that its pointers lead into.
///
/// `ask` is one of `getpwnam_r` and its like. It gets an entry to write, a buffer of the length that is said, and where to
/// say whether it found anything; all three live as long as the call.
fn asked<T>(
    ask: impl Fn(*mut T, *mut libc::c_char, libc::size_t, *mut *mut T) -> libc::c_int,
) -> Option<(T, Vec<libc::c_char>)> {
    let mut length = ENTRY_BYTES;
    loop {
        let mut buffer: Vec<libc::c_char> = vec![0; length];
        let mut entry = std::mem::MaybeUninit::<T>::uninit();
        let mut found = std::ptr::null_mut();
        let said = ask(entry.as_mut_ptr(), buffer.as_mut_ptr(), length, &mut found);
        if said == libc::ERANGE && length < ENTRY_BYTES_MAX {
            length *= 2;
            continue;
        }
        // SAFETY: what says that it has found something has written the entry.
        return (said == 0 && !found.is_null()).then(|| (unsafe { entry.assume_init() }, buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_numbers_are_those_of_this_node_and_numbers_stand_for_themselves() {
        let names = Names::default();
        for _ in 0..2 {
            assert_eq!(names.number(Of::User, "root").await, Some(0));
            assert_eq!(names.number(Of::Group, "root").await, Some(0));
            assert_eq!(names.name(Of::User, Some(0)).await.as_deref(), Some("root"));
            assert_eq!(names.name(Of::Group, Some(0)).await.as_deref(), Some("root"));
            assert_eq!(names.number(Of::User, "4000001").await, Some(4_000_001));
            assert_eq!(
                names.name(Of::Group, Some(4_000_001)).await.as_deref(),
                Some("4000001")
            );
            for unknown in ["nobody-has-this-name", "", "-1", "4294967295", "a\0b"] {
                assert_eq!(names.number(Of::User, unknown).await, None, "{unknown}");
            }
            assert_eq!(names.name(Of::User, None).await, None);
        }
        names.forget_unknown();
        assert!(names.with(|known| known.numbers.values().all(Option::is_some)));
        assert!(names.with(|known| known.numbers.len() == 3));
    }
}
