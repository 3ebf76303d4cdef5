//! The sample configuration and its reference, made from the declarations.

use std::fmt::Write;

use crate::section::Field;
use crate::tree::{Config, Section};

const LINE: &str = "writing to a String cannot fail";

/// `curvine.toml`: every key with its documentation, commented out at its default.
pub fn sample() -> String {
    let mut out = String::from(
        "# The configuration of Curvine. Every key is here, commented out at its default.\n\
         # `curvine-node --config curvine.toml`. Variables (CURVINE_SECTION_KEY) win over this file, flags win over both.\n",
    );
    for section in Config::sections() {
        out.push('\n');
        for line in section.about {
            writeln!(out, "#{line}").expect(LINE);
        }
        if !section.name.is_empty() {
            writeln!(out, "[{}]", section.name).expect(LINE);
        }
        for field in &section.fields {
            out.push('\n');
            for line in &field.doc {
                writeln!(out, "#{line}").expect(LINE);
            }
            if let Some(range) = field.range {
                writeln!(out, "# {range}.").expect(LINE);
            }
            writeln!(out, "#{} = {}", field.name, default_of(&section, field)).expect(LINE);
        }
    }
    out
}

/// `REFERENCE.md`: a table for each section.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         Rendered from the code by `curvine-node config-reference`. Layers, weakest first: defaults, the file\n\
         (`--config curvine.toml`), variables (`CURVINE_SECTION_KEY`, for instance `CURVINE_MASTER_LISTEN`; lists with\n\
         commas), flags. An unknown key, and a value of the wrong shape or out of its range, is refused.\n\
         [curvine.toml](curvine.toml) is a sample with every key.\n\
         Sizes are written with their unit (`128MiB`, `100GB`), time spans too (`5s`, `200ms`).\n",
    );
    for section in Config::sections() {
        let title = match section.name {
            "" => "Top of the file".to_owned(),
            name => format!("`[{name}]`"),
        };
        writeln!(out, "\n## {title}\n\n{}\n", section.about.concat().trim()).expect(LINE);
        out.push_str("| key | type | default | range | meaning |\n|---|---|---|---|---|\n");
        for field in &section.fields {
            writeln!(
                out,
                "| `{}` | {} | `{}` | {} | {} |",
                field.name,
                field.shape.name(),
                default_of(&section, field),
                field.range.map_or(String::new(), |range| range.to_string()),
                field.doc.concat().trim().replace('|', "\\|"),
            )
            .expect(LINE);
        }
    }
    out
}

fn default_of(section: &Section, field: &Field) -> String {
    default_value(section.name, field.name).to_string()
}

pub(crate) fn default_value(section: &str, field: &str) -> toml::Value {
    let defaults = toml::Table::try_from(Config::default()).expect("the defaults are plain TOML");
    let table = match section {
        "" => &defaults,
        name => defaults[name].as_table().expect("a section is a table"),
    };
    table[field].clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Sources, load};

    /// `UPDATE_RENDERED=1 cargo test -p curvine-conf` writes the files anew.
    fn assert_rendered(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE_RENDERED").is_some() {
            std::fs::write(&path, text).expect("written");
        }
        let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == text,
            "conf/{name} is out of date: UPDATE_RENDERED=1 cargo test -p curvine-conf"
        );
    }

    #[test]
    fn the_files_in_this_folder_are_what_the_code_says() {
        assert_rendered("curvine.toml", &sample());
        assert_rendered("REFERENCE.md", &reference());
    }

    #[test]
    fn the_sample_with_every_key_uncommented_is_the_defaults() {
        let keys: Vec<String> = Config::sections()
            .iter()
            .flat_map(|section| section.fields.iter().map(|field| format!("#{} = ", field.name)))
            .collect();
        let text: String = sample()
            .lines()
            .map(|line| match keys.iter().any(|key| line.starts_with(key)) {
                true => format!("{}\n", &line[1..]),
                false => format!("{line}\n"),
            })
            .collect();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("curvine.toml");
        std::fs::write(&file, &text).expect("written");
        let loaded = load(&Sources {
            file: Some(file),
            ..Sources::default()
        })
        .expect("the sample is valid");
        assert_eq!(loaded.config, Config::default());
        for section in Config::sections() {
            for field in section.fields {
                let key = match section.name {
                    "" => field.name.to_owned(),
                    name => format!("{name}.{}", field.name),
                };
                assert!(loaded.is_set(&key), "{key} is missing in the sample");
            }
        }
    }
}
