//! What a store answered, taken out of OpenDAL's error: its code and words, without Rust, markup, headers or secrets.
//!
//! Pure. OpenDAL keeps an answer as text: a struct in Rust's notation (`S3Error { code: "SlowDown", .. }`), the body
//! where it could not be read as one, or nothing for `HEAD`, whose answers have no body.

use std::error::Error as _;

/// Longest quotation of a store, in characters.
const WORDS_MAX: usize = 300;

/// An answer of a store, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of HTTP, where somebody answered.
    pub status: Option<u16>,
    /// The store's own name for what is wrong, such as `InvalidObjectState`.
    pub code: Option<String>,
    /// The store's words, or those of the network and the system. One line, no secrets; may be empty.
    pub words: String,
    /// A page for people answered: a proxy, a console, another service.
    pub is_page: bool,
}

impl Answer {
    pub fn of(error: &opendal::Error) -> Answer {
        let text = error.to_string();
        // The contexts come before the message; one of them is the head of the answer.
        let contexts = text.split(" => ").next().unwrap_or(&text);
        let status = (contexts.split_once("response: Parts { status: "))
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|digits| digits.parse().ok());
        let body = Body::read(error.message());
        // Where OpenDAL took a page for a struct, its fields are empty. Answers to `HEAD` say nothing by their type.
        let is_page = body.is_page
            || is_struct(error.message())
                && body.code.is_none()
                && contexts.contains("\"content-type\": \"text/html")
                && !contexts.contains("service_operation: Head");
        let words = match causes(error) {
            causes if causes.is_empty() => body.words,
            causes => causes,
        };
        Answer {
            status,
            code: body.code,
            words: clean(&words),
            is_page,
        }
    }

    /// Whether the code is one of these.
    pub fn is_one_of(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// For the end of a message: ` (it answered 503 SlowDown: Please reduce your request rate.)`.
    pub fn quoted(&self) -> String {
        let head = [self.status.map(|status| status.to_string()), self.code.clone()];
        let head = head.into_iter().flatten().collect::<Vec<_>>().join(" ");
        match (head.as_str(), self.words.as_str()) {
            ("", "") => String::new(),
            ("", words) => format!(" ({words})"),
            (head, "") => format!(" (it answered {head})"),
            (head, words) => format!(" (it answered {head}: {words})"),
        }
    }
}

/// What went wrong below HTTP, from the outside to the inside, without repetitions.
fn causes(error: &opendal::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !said.iter().any(|known| known.contains(&words)) {
            said.push(words);
        }
        cause = inner.source();
    }
    said.join(": ")
}

#[derive(Default)]
struct Body {
    code: Option<String>,
    words: String,
    is_page: bool,
}

impl Body {
    fn read(text: &str) -> Body {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let first = |names: &[&str], of: fn(&str, &str) -> Option<String>| {
            names
                .iter()
                .find_map(|name| of(text, name).filter(|found| !found.is_empty()))
        };
        if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
            return Body {
                code: None,
                words: element(&lower, "title")
                    .and_then(|title| lower.find(&title).map(|at| text[at..at + title.len()].to_owned()))
                    .unwrap_or_default(),
                is_page: true,
            };
        }
        if text.starts_with('<') {
            return Body {
                code: first(&["Code"], element),
                words: first(&["Message"], element).unwrap_or_default(),
                is_page: false,
            };
        }
        if is_struct(text) || text.starts_with('{') {
            return Body {
                code: first(&["code", "error_code", "exception", "reason"], field),
                words: first(&["message", "error_message", "error_summary"], field).unwrap_or_default(),
                is_page: false,
            };
        }
        Body {
            words: text.to_owned(),
            ..Body::default()
        }
    }
}

/// Whether a text is a struct in Rust's notation: `Name { field: ...`.
fn is_struct(text: &str) -> bool {
    let Some((name, _)) = text.split_once(" { ") else {
        return false;
    };
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The text of the first element of this name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim().to_owned())
}

/// The value of the first field of this name, of a struct in Rust's notation or of JSON.
fn field(text: &str, name: &str) -> Option<String> {
    let plain = [
        format!("{{ {name}: "),
        format!(", {name}: "),
        format!("\"{name}\":"),
    ];
    let value = plain
        .iter()
        .find_map(|start| text.split_once(start.as_str()))
        .map(|(_, value)| value.trim_start())?;
    let value = value.strip_prefix("Some(").unwrap_or(value);
    let Some(quoted) = value.strip_prefix('"') else {
        let end = value.find([',', ' ', '}', ')']).unwrap_or(value.len());
        return Some(value[..end].to_owned()).filter(|value| value != "None" && value != "null");
    };
    let mut found = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => match characters.next() {
                Some('n' | 'r' | 't') => found.push(' '),
                Some(escaped) => found.push(escaped),
                None => break,
            },
            c => found.push(c),
        }
    }
    Some(found)
}

/// On one line, without secrets, cut between words.
fn clean(words: &str) -> String {
    let mut cleaned = String::new();
    for word in words.split_whitespace() {
        let lower = word.to_ascii_lowercase();
        // A header: what follows belongs to it.
        if ["authorization:", "bearer", "x-amz-security-token:", "cookie:"].contains(&lower.as_str()) {
            break;
        }
        let word = without_secret(word);
        if cleaned.chars().count() + 1 + word.chars().count() > WORDS_MAX {
            cleaned.push_str(" ...");
            break;
        }
        if !cleaned.is_empty() {
            cleaned.push(' ');
        }
        cleaned.push_str(&word);
    }
    cleaned
}

/// A word without the value that it gives to something secret. URLs lose their query and who asks.
fn without_secret(word: &str) -> String {
    const SECRETS: &[&str] = &[
        "signature=",
        "credential=",
        "sig=",
        "token=",
        "password=",
        "key=",
        "secret=",
        "accesskeyid=",
    ];
    if let Some((scheme, rest)) = word.split_once("://") {
        let rest = rest.split('?').next().unwrap_or(rest);
        let (host, path) = rest
            .split_once('/')
            .map_or((rest, None), |(host, path)| (host, Some(path)));
        let host = host.rsplit('@').next().unwrap_or(host);
        return match path {
            Some(path) => format!("{scheme}://{host}/{path}"),
            None => format!("{scheme}://{host}"),
        };
    }
    let lower = word.to_ascii_lowercase();
    let secret = SECRETS
        .iter()
        .find_map(|name| lower.find(name).map(|at| at + name.len()));
    match secret.and_then(|end| word.get(..end)) {
        Some(shown) => format!("{shown}***"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message: &str) -> Answer {
        Answer::of(&opendal::Error::new(opendal::ErrorKind::Unexpected, message))
    }

    #[test]
    fn a_struct_of_rust_becomes_code_and_words() {
        let said = answer(
            r#"S3Error { code: "AuthorizationHeaderMalformed", message: "The \"region\" is wrong", resource: "", request_id: "7" }"#,
        );
        assert_eq!(
            said.quoted(),
            " (it answered AuthorizationHeaderMalformed: The \"region\" is wrong)"
        );
        let nested = answer(
            r#"GcsErrorResponse { error: GcsError { code: 404, message: "No such object", errors: [] } }"#,
        );
        assert_eq!(
            (nested.code.as_deref(), nested.words.as_str()),
            (Some("404"), "No such object")
        );
    }

    #[test]
    fn markup_and_json_are_read() {
        let xml = answer(
            "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Wait a\n bit</Message></Error>",
        );
        assert_eq!(xml.quoted(), " (it answered SlowDown: Wait a bit)");
        let page =
            answer("<html><head><title>502 Bad Gateway</title></head><body>secrets of a proxy</body></html>");
        assert_eq!(
            (page.is_page, page.quoted().as_str()),
            (true, " (502 Bad Gateway)")
        );
        let json = answer(r#"{"RemoteException":{"exception":"AccessControlException","message":"no"}}"#);
        assert_eq!(json.quoted(), " (it answered AccessControlException: no)");
    }

    #[test]
    fn no_secret_is_quoted_and_words_stay_whole() {
        for (words, quoted) in [
            (
                "refused Authorization: AWS4 Credential=AKIA/x Signature=ff",
                " (refused)",
            ),
            ("X-Amz-Signature=ff is wrong", " (X-Amz-Signature=*** is wrong)"),
            (
                "see http://me:hunter2@h:1/a?sig=ff now",
                " (see http://h:1/a now)",
            ),
            (
                "AuthorizationHeaderMalformed is a code",
                " (AuthorizationHeaderMalformed is a code)",
            ),
        ] {
            assert_eq!(answer(words).quoted(), quoted);
        }
        let long = answer(&"word ".repeat(100)).words;
        assert!(
            long.ends_with("word ...") && long.chars().count() <= WORDS_MAX + 4,
            "{long}"
        );
    }
}
