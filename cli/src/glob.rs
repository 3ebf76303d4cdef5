//! Globs in paths: `*`, `?`, `[a-z]`, `{a,b}` in any part. `\` takes a sign's meaning away.

use curvine_actors::client::Client;
use curvine_protocol::{CurvinePath, DirEntry, Error, ErrorKind, Result};
use futures::TryStreamExt;
use globset::{GlobBuilder, GlobMatcher};

/// The paths that an argument names, in the order of names. A path that exists under the very name wins.
///
/// # Errors
/// `NotFound` if it is a glob and nothing matches; `InvalidArgument` for what is no path.
pub async fn expand(client: &Client, argument: &str) -> Result<Vec<CurvinePath>> {
    if !is_glob(argument) {
        return Ok(vec![CurvinePath::parse(argument)?]);
    }
    if let Ok(literal) = CurvinePath::parse(argument)
        && client.lookup(&literal, false).await.is_ok()
    {
        return Ok(vec![literal]);
    }
    let Some(rest) = argument.strip_prefix('/') else {
        return Err(Error::invalid(format!(
            "path `{argument}` is not absolute; it must start with `/`"
        )));
    };
    let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let mut found = vec![CurvinePath::root()];
    for (depth, part) in parts.iter().enumerate() {
        let last = depth + 1 == parts.len();
        found = step(client, found, part, last).await?;
    }
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{argument}: nothing matches"),
        ));
    }
    Ok(found)
}

async fn step(client: &Client, bases: Vec<CurvinePath>, part: &str, last: bool) -> Result<Vec<CurvinePath>> {
    let mut found = Vec::new();
    if !is_glob(part) {
        for base in bases {
            let path = base.join(part)?;
            if client.exists(&path).await? {
                found.push(path);
            }
        }
        return Ok(found);
    }
    let pattern = Pattern::new(part)?;
    for base in bases {
        let entries: Vec<DirEntry> = match client.list(&base).try_collect().await {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind, ErrorKind::NotADirectory | ErrorKind::NotFound) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            if pattern.matches(&entry.name) && (last || !entry.attr.is_file()) {
                found.push(base.join(&entry.name)?);
            }
        }
    }
    Ok(found)
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// A glob for one name. As in a shell, a leading dot is matched by a dot only.
struct Pattern {
    matcher: GlobMatcher,
    dotted: bool,
}

impl Pattern {
    fn new(part: &str) -> Result<Pattern> {
        let glob = GlobBuilder::new(part)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|e| Error::invalid(format!("`{part}` is not a glob: {}", e.kind())))?;
        Ok(Pattern {
            matcher: glob.compile_matcher(),
            dotted: part.starts_with('.'),
        })
    }

    fn matches(&self, name: &str) -> bool {
        (self.dotted || !name.starts_with('.')) && self.matcher.is_match(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_a_shell_does() {
        for (pattern, name, expected) in [
            ("x-?.parquet", "x-1.parquet", true),
            ("x-?.parquet", "x-12.parquet", false),
            ("*", "anything", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("[a-c]*", "beta", true),
            ("[!a-c]*", "beta", false),
            ("{one,two}.txt", "two.txt", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("*.TXT", "a.txt", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_broken_glob_is_wrong_use() {
        assert_eq!(
            Pattern::new("[a").map(|_| ()).map_err(|e| e.kind),
            Err(ErrorKind::InvalidArgument)
        );
    }
}
