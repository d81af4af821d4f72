//! Checks the text of a script against the published schema (`docs/script.schema.json`), with line and column in every error.
//!
//! Knows as much of JSON Schema as that document uses: `type`, `properties`, `required`, `additionalProperties`, `items`, `enum`,
//! `const`, `$ref`, and `oneOf` told apart by the constant `op`.

use serde_json::Value;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vmrescue_base::error::{Error, Layer, Result};

/// The published schema.
const SCHEMA: &str = include_str!("../../../docs/script.schema.json");

/// Checks a script.
///
/// # Errors
/// `Invalid` with line and column: what is wrong, and what would be right.
pub(super) fn check(text: &str) -> Result<()> {
    let schema: Value = serde_json::from_str(SCHEMA)
        .map_err(|e| Error::invalid(Layer::Script, "the schema itself cannot be read").caused_by(e))?;
    let table = DeTable::parse(text)
        .map_err(|e| Error::invalid(Layer::Script, e.to_string().trim_end().to_string()))?;
    let checker = Checker { text, root: &schema };
    let span = table.span();
    checker.table(table.get_ref(), &span, &schema, "the script")
}

struct Checker<'a> {
    text: &'a str,
    root: &'a Value,
}

impl Checker<'_> {
    fn wrong(&self, span: &Range<usize>, what: String) -> Error {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Error::invalid(Layer::Script, format!("line {line}, column {column}: {what}"))
    }

    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        match schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
            Some(path) => self.root.pointer(path).unwrap_or(schema),
            None => schema,
        }
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, schema: &Value, name: &str) -> Result<()> {
        let (schema, span) = (self.resolved(schema), value.span());
        let found = value.get_ref();
        let fits = match schema["type"].as_str() {
            Some("string") => found.is_str(),
            Some("boolean") => found.is_bool(),
            Some("array") => found.is_array(),
            Some("object") => found.is_table(),
            _ => true,
        };
        if !fits {
            let wanted = schema["type"].as_str().unwrap_or_default();
            return Err(
                self.wrong(&span, format!("{name} must be a {wanted}, and is a {}", found.type_str()))
            );
        }
        if let (Some(list), Some(text)) = (schema["enum"].as_array(), found.as_str())
            && !list.iter().any(|known| known.as_str() == Some(text))
        {
            let known: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            return Err(self.wrong(&span, format!("{name} is {text:?}; it can be {}", known.join(", "))));
        }
        if let Some(list) = found.as_array() {
            for (place, item) in list.iter().enumerate() {
                self.value(item, &schema["items"], &format!("{name}[{place}]"))?;
            }
        }
        match (found.as_table(), schema["oneOf"].as_array()) {
            (Some(table), Some(kinds)) => self.one_of(table, &span, kinds, name),
            (None, Some(_)) => Err(self.wrong(&span, format!("{name} must be a table"))),
            (Some(table), None) if schema["type"] == "object" => self.table(table, &span, schema, name),
            _ => Ok(()),
        }
    }

    fn one_of(&self, table: &DeTable<'_>, span: &Range<usize>, kinds: &[Value], name: &str) -> Result<()> {
        let op = |kind: &Value| kind["properties"]["op"]["const"].as_str().unwrap_or_default().to_string();
        let Some(own) = table.get("op") else {
            return Err(self.wrong(span, format!("{name} has no op")));
        };
        let text = own.get_ref().as_str().unwrap_or_default();
        match kinds.iter().find(|kind| op(kind) == text) {
            Some(kind) => self.table(table, span, kind, &format!("{name} ({text})")),
            None => {
                let known: Vec<String> = kinds.iter().map(op).collect();
                Err(self
                    .wrong(&own.span(), format!("there is no op {text:?}; there are {}", known.join(", "))))
            }
        }
    }

    fn table(&self, table: &DeTable<'_>, span: &Range<usize>, schema: &Value, name: &str) -> Result<()> {
        for (key, value) in table {
            let text = key.get_ref().as_ref();
            let own = &schema["properties"][text];
            let below = if own.is_null() { &schema["additionalProperties"] } else { own };
            if !below.is_object() {
                let known: Vec<&String> =
                    schema["properties"].as_object().into_iter().flatten().map(|(k, _)| k).collect();
                let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
                return Err(self.wrong(
                    &key.span(),
                    format!("{name} has no key {text:?}; it can have {}", known.join(", ")),
                ));
            }
            let inner = if name == "the script" { text.to_string() } else { format!("{text} of {name}") };
            self.value(value, below, &inner)?;
        }
        let missing = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        match missing.into_iter().find(|key| !table.contains_key(*key)) {
            Some(key) => Err(self.wrong(span, format!("{name} needs the key {key:?}"))),
            None => Ok(()),
        }
    }
}
