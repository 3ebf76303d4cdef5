//! Permission bits as people write them: `755`, `u+x,go-w`, `a=rX`.

use curvine_protocol::{Error, Result};

/// A change of permission bits.
#[derive(Clone, Debug)]
pub struct ModeChange(String);

impl ModeChange {
    pub fn parse(text: &str) -> Result<Self> {
        let change = ModeChange(text.to_owned());
        change.apply(0, false)?;
        Ok(change)
    }

    /// The bits after the change. `X` means execution for directories and for what somebody may execute already.
    pub fn apply(&self, mode: u32, is_dir: bool) -> Result<u32> {
        let text = self.0.as_str();
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| wrong(text));
        }
        text.split(',')
            .try_fold(mode, |mode, clause| apply_clause(mode, is_dir, clause))
    }
}

fn wrong(text: &str) -> Error {
    Error::invalid(format!("`{text}` is not a mode; write 755 or u+x,go-w"))
}

fn apply_clause(mode: u32, is_dir: bool, clause: &str) -> Result<u32> {
    let at = clause.find(['+', '-', '=']).ok_or_else(|| wrong(clause))?;
    let (who, action) = clause.split_at(at);
    let (operator, rights) = action.split_at(1);
    let mut classes = 0;
    for class in who.chars() {
        classes |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return Err(wrong(clause)),
        };
    }
    if who.is_empty() {
        classes = 0o7777;
    }
    let mut bits = 0;
    for right in rights.chars() {
        bits |= match right {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if is_dir || mode & 0o111 != 0 => 0o111,
            'X' => 0,
            's' => 0o6000,
            't' => 0o1000,
            _ => return Err(wrong(clause)),
        };
    }
    let sticky = if rights.contains('t') { 0o1000 } else { 0 };
    let bits = (bits & classes) | sticky;
    Ok(match operator {
        "+" => mode | bits,
        "-" => mode & !bits,
        _ => (mode & !(classes & 0o777)) | bits,
    })
}

#[cfg(test)]
mod tests {
    use curvine_protocol::ErrorKind;

    use super::*;

    #[test]
    fn modes_change_as_chmod_does() {
        for (text, before, is_dir, after) in [
            ("755", 0o600, false, 0o755),
            ("1777", 0o600, true, 0o1777),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o755, false, 0o700),
            ("a=r", 0o755, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("u+x,go-r", 0o644, false, 0o700),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o644, true, 0o755),
            ("a+X", 0o744, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
        ] {
            let change = ModeChange(text.to_owned());
            assert_eq!(change.apply(before, is_dir), Ok(after), "{text}");
        }
    }

    #[test]
    fn what_is_no_mode_is_wrong_use() {
        for text in ["", "888", "77777", "u", "z+x", "u+q"] {
            let kind = ModeChange::parse(text).map(|_| ()).map_err(|e| e.kind);
            assert_eq!(kind, Err(ErrorKind::InvalidArgument), "{text}");
        }
    }
}
