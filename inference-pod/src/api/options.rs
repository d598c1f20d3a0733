//! What bodies of several APIs have in common: read without any I/O.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{engine::Input, tokenise::Cut};

/// One input or several.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "the input must be a text, a list of token ids, or a list of such, which is not empty itself"
)]
pub(super) enum Inputs {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Lists(Vec<Vec<u32>>),
    Mixed(Vec<One>),
}

/// One of several inputs.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum One {
    Text(String),
    Tokens(Vec<u32>),
}

impl From<Inputs> for Vec<Input> {
    fn from(inputs: Inputs) -> Self {
        match inputs {
            Inputs::Text(text) => vec![Input::Text(text)],
            Inputs::Texts(texts) => texts.into_iter().map(Input::Text).collect(),
            Inputs::Tokens(ids) => vec![Input::Tokens(ids)],
            Inputs::Lists(lists) => lists.into_iter().map(Input::Tokens).collect(),
            Inputs::Mixed(mixed) => mixed.into_iter().map(One::into).collect(),
        }
    }
}

impl From<One> for Input {
    fn from(one: One) -> Self {
        match one {
            One::Text(text) => Self::Text(text),
            One::Tokens(ids) => Self::Tokens(ids),
        }
    }
}

/// The side from which a text that is too long is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum Direction {
    #[serde(alias = "left")]
    Left,
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// Whether a text that is too long is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "must be true, false, \"NONE\", \"START\" or \"END\"")]
pub(super) enum Truncate {
    Said(bool),
    Word(Word),
}

/// The same in the words of other servers of OpenAI's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Word {
    None,
    Start,
    End,
}

/// What is cut. Who says nothing has it cut: that is what clients of either API are used to.
pub(super) fn cut(truncate: Option<Truncate>, direction: Option<Direction>) -> Cut {
    match (truncate, direction.unwrap_or_default()) {
        (Some(Truncate::Said(false) | Truncate::Word(Word::None)), _) => Cut::Refuse,
        (Some(Truncate::Word(Word::Start)), _) => Cut::Start,
        (Some(Truncate::Word(Word::End)), _) | (_, Direction::Right) => Cut::End,
        (_, Direction::Left) => Cut::Start,
    }
}

/// The same in the fields of text-embeddings-inference.
#[derive(Default, Deserialize)]
pub(super) struct Truncation {
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
}

impl Truncation {
    /// What is cut.
    pub(super) fn cut(self) -> Cut {
        cut(self.truncate.map(Truncate::Said), self.truncation_direction)
    }
}

/// A JSON object and nothing else: serde would read a list as the fields in their order too.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_read() {
        let read = |json: &str| {
            let (truncate, direction) = serde_json::from_str(json).expect("a good pair");
            cut(truncate, direction)
        };
        for (json, expected) in [
            ("[null, null]", Cut::End),
            ("[true, null]", Cut::End),
            (r#"[true, "left"]"#, Cut::Start),
            (r#"[null, "Left"]"#, Cut::Start),
            (r#"[false, "Left"]"#, Cut::Refuse),
            (r#"["NONE", null]"#, Cut::Refuse),
            (r#"["START", "Right"]"#, Cut::Start),
            (r#"["END", "Left"]"#, Cut::End),
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
        assert!(serde_json::from_str::<Truncate>(r#""none""#).is_err());
    }
}
