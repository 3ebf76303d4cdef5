//! Declares a section of the configuration: its struct, its defaults and its documentation, from one text.

/// One key, as documentation shows it and as text (a variable, a flag) is turned into it.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    pub doc: Vec<&'static str>,
    pub shape: Shape,
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
}

impl Setting for String {}

impl Setting for u64 {
    const SHAPE: Shape = Shape::Number;
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Switch;
}

impl<T> Setting for Vec<T> {
    const SHAPE: Shape = Shape::List;
}

/// A default given as text.
pub fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &str) -> T {
    value
        .parse()
        .expect("every default is parsed by the tests of this crate")
}

macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident {
        $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr;)*
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

            pub(crate) fn fields() -> Vec<$crate::section::Field> {
                vec![$($crate::section::Field {
                    name: stringify!($field),
                    doc: vec![$($doc),*],
                    shape: <$type as $crate::section::Setting>::SHAPE,
                },)*]
            }
        }
    };
}

pub(crate) use section;
