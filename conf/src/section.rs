//! Declares a section of the configuration: its struct, its defaults and its documentation, from one text.

/// One key, as documentation shows it and as text (a variable, a flag) is turned into it.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    pub doc: Vec<&'static str>,
    pub shape: Shape,
    pub range: Option<Range>,
}

/// The amounts that a key takes, as they are written in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub least: &'static str,
    pub most: Option<&'static str>,
    /// 1, if any amount in between will do.
    pub step: &'static str,
}

impl Range {
    pub const fn of(least: &'static str, most: &'static str) -> Option<Range> {
        Some(Range {
            least,
            most: Some(most),
            step: "",
        })
    }

    pub const fn from(least: &'static str) -> Option<Range> {
        Some(Range {
            least,
            most: None,
            step: "",
        })
    }

    pub const fn in_steps(least: &'static str, most: &'static str, step: &'static str) -> Option<Range> {
        Some(Range {
            least,
            most: Some(most),
            step,
        })
    }

    /// Whether a value is one of them.
    pub fn has<T: Setting>(&self, value: &T) -> bool {
        let amount = |text: &str| T::amount_of(text).expect("ranges are parsed by the tests of this crate");
        value.amounts().into_iter().all(|value| {
            value >= amount(self.least)
                && self.most.is_none_or(|most| value <= amount(most))
                && (self.step.is_empty() || value.is_multiple_of(amount(self.step)))
        })
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.most {
            Some(most) => write!(f, "{} to {most}", self.least)?,
            None => write!(f, "{} or more", self.least)?,
        }
        match self.step {
            "" => Ok(()),
            step => write!(f, ", a multiple of {step}"),
        }
    }
}

/// What the value of a key looks like in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Number,
    Switch,
    List,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Shape::Text => "text",
            Shape::Number => "number",
            Shape::Switch => "true or false",
            Shape::List => "list of texts",
        }
    }
}

/// The shape of a field's type. Types written as text need not say so.
pub trait Setting {
    const SHAPE: Shape = Shape::Text;

    /// The amounts in this value that have to be in its key's range.
    fn amounts(&self) -> Vec<u128> {
        Vec::new()
    }

    /// The amount that a text means, where there are any.
    fn amount_of(_text: &str) -> Option<u128> {
        None
    }
}

impl Setting for String {}

impl Setting for u64 {
    const SHAPE: Shape = Shape::Number;

    fn amounts(&self) -> Vec<u128> {
        vec![u128::from(*self)]
    }

    fn amount_of(text: &str) -> Option<u128> {
        text.parse().ok()
    }
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Switch;
}

impl<T: Setting> Setting for Vec<T> {
    const SHAPE: Shape = Shape::List;

    fn amounts(&self) -> Vec<u128> {
        self.iter().flat_map(T::amounts).collect()
    }

    fn amount_of(text: &str) -> Option<u128> {
        T::amount_of(text)
    }
}

/// A default given as text.
pub fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &str) -> T {
    value
        .parse()
        .expect("every default is parsed by the tests of this crate")
}

macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident {
        $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr $(, $range:expr)?;)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl $name {
            pub(crate) const ABOUT: &'static [&'static str] = &[$($about),*];

            /// Reads each key by itself, so that whatever is wrong names the key and where it was set.
            pub(crate) fn read(
                figment: &figment::Figment,
                section: &str,
            ) -> curvine_protocol::Result<Self> {
                let key = |name: &str| match section {
                    "" => name.to_owned(),
                    section => format!("{section}.{name}"),
                };
                Ok($name { $(
                    $field: $crate::layers::read(
                        figment,
                        &key(stringify!($field)),
                        [$($range,)? None][0],
                    )?,
                )* })
            }

            pub(crate) fn fields() -> Vec<$crate::section::Field> {
                vec![$($crate::section::Field {
                    name: stringify!($field),
                    doc: vec![$($doc),*],
                    shape: <$type as $crate::section::Setting>::SHAPE,
                    range: [$($range,)? None][0],
                },)*]
            }
        }
    };
}

pub(crate) use section;
