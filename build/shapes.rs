//! Writes the table of message shapes (`src/proto/estimate`) from the
//! descriptors: every message with its fields and the size of its Rust type.
//!
//! A type that prost names otherwise than `rust_type` does not compile, so no
//! message can be missing.
//! Called by: `build.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const WELL_KNOWN: &str = "google.protobuf.";
/// Generated elsewhere, where `bytes` are `Vec<u8>`.
const FOREIGN: [&str; 2] = [WELL_KNOWN, "google.rpc."];
/// Repeated fields one message may have: `SLOTS` of `src/proto/estimate`.
const SLOTS: usize = 16;

type Failure = Box<dyn Error>;
type Messages<'a> = BTreeMap<String, &'a DescriptorProto>;

/// The whole table, as Rust source.
pub(crate) fn write(set: &FileDescriptorSet) -> Result<String, Failure> {
    let mut messages = Messages::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(&mut messages, file.package(), message);
        }
    }
    let used = used(&messages, set)?;
    let mut out = String::new();
    for name in &used {
        one(&mut out, &messages, name)?;
    }
    writeln!(out, "pub(super) static NAMED: &[&MessageShape] = &[")?;
    for name in &used {
        writeln!(out, "    &{},", constant(name))?;
    }
    writeln!(out, "];")?;
    methods(&mut out, set)?;
    Ok(out)
}

fn collect<'a>(messages: &mut Messages<'a>, parent: &str, message: &'a DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    for nested in &message.nested_type {
        collect(messages, &name, nested);
    }
    messages.insert(name, message);
}

/// All of ours, and what they use of the well-known ones.
fn used(messages: &Messages<'_>, set: &FileDescriptorSet) -> Result<BTreeSet<String>, Failure> {
    let ours = messages.keys().filter(|name| !name.starts_with(WELL_KNOWN));
    let mut open: Vec<String> = ours.cloned().collect();
    let services = set.file.iter().flat_map(|file| &file.service);
    for method in services.flat_map(|service| &service.method) {
        let ends = [method.input_type(), method.output_type()];
        open.extend(ends.map(|name| name.trim_start_matches('.').to_owned()));
    }
    let mut used = BTreeSet::new();
    while let Some(name) = open.pop() {
        let message = *messages.get(&name).ok_or_else(|| format!("no {name}"))?;
        if used.insert(name) {
            open.extend(message.field.iter().filter_map(child).map(str::to_owned));
        }
    }
    Ok(used)
}

/// The name of the message a field holds.
fn child(field: &FieldDescriptorProto) -> Option<&str> {
    (field.r#type() == Type::Message).then(|| field.type_name().trim_start_matches('.'))
}

fn one(out: &mut String, messages: &Messages<'_>, name: &str) -> Result<(), Failure> {
    let message = messages[name];
    let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let size = if is_map_entry(message) {
        entry_type(messages, message)?
    } else {
        rust_type(name)
    };
    writeln!(
        out,
        "static {}: MessageShape = MessageShape {{",
        constant(name)
    )?;
    writeln!(
        out,
        "    name: {name:?}, size: size_of::<{size}>(), fields: &["
    )?;
    let mut slot = 0;
    for field in fields {
        let (kind, element) = kind(name, field)?;
        let label = if field.label() == Label::Repeated {
            slot += 1;
            let entry = child(field).is_some_and(|name| is_map_entry(messages[name]));
            let variant = if entry { "Map" } else { "Repeated" };
            let element = match child(field) {
                Some(name) if entry => entry_type(messages, messages[name])?,
                _ => element,
            };
            format!(
                "Label::{variant} {{ slot: {}, size: size_of::<{element}>() }}",
                slot - 1
            )
        } else if child(field).is_some_and(|child| reaches(messages, child, name)) {
            "Label::Boxed".to_owned()
        } else {
            "Label::Single".to_owned()
        };
        let number = field.number();
        writeln!(
            out,
            "        Field {{ number: {number}, kind: {kind}, label: {label} }},"
        )?;
    }
    if slot > SLOTS {
        return Err(format!("{name} has {slot} repeated fields").into());
    }
    writeln!(out, "    ],\n}};")?;
    if !is_map_entry(message) && !is_wrapper(name) {
        let constant = constant(name);
        writeln!(
            out,
            "impl Shaped for {size} {{ fn shape() -> Shape {{ Shape(&{constant}) }} }}"
        )?;
    }
    Ok(())
}

/// What a field holds, and the Rust type of one.
fn kind(parent: &str, field: &FieldDescriptorProto) -> Result<(String, String), Failure> {
    let foreign = FOREIGN.iter().any(|package| parent.starts_with(package));
    let (kind, rust) = match field.r#type() {
        Type::Bool => ("Varint", "bool"),
        Type::Int32 | Type::Uint32 | Type::Sint32 | Type::Enum => ("Varint", "i32"),
        Type::Int64 | Type::Uint64 | Type::Sint64 => ("Varint", "i64"),
        Type::Fixed32 | Type::Sfixed32 | Type::Float => ("Fixed32", "i32"),
        Type::Fixed64 | Type::Sfixed64 | Type::Double => ("Fixed64", "i64"),
        Type::String => ("Copied", "String"),
        Type::Bytes if foreign => ("Copied", "Vec<u8>"),
        Type::Bytes => ("Shared", "::bytes::Bytes"),
        Type::Message => {
            let name = child(field).ok_or("a message has a name")?;
            return Ok((
                format!("Kind::Message(&{})", constant(name)),
                rust_type(name),
            ));
        }
        Type::Group => return Err(format!("{parent} has a group").into()),
    };
    Ok((format!("Kind::{kind}"), rust.to_owned()))
}

/// Whether `from` holds a `to` by its singular fields: prost boxes it then.
fn reaches(messages: &Messages<'_>, from: &str, to: &str) -> bool {
    let mut open = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            let fields = messages[name].field.iter();
            let singular = fields.filter(|field| field.label() != Label::Repeated);
            open.extend(singular.filter_map(child));
        }
    }
    false
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|o| o.map_entry())
}

fn entry_type(messages: &Messages<'_>, entry: &DescriptorProto) -> Result<String, Failure> {
    let types: Result<Vec<String>, Failure> = entry
        .field
        .iter()
        .map(|field| match child(field) {
            Some(name) if !messages.contains_key(name) => Err(format!("no {name}").into()),
            _ => Ok(kind("", field)?.1),
        })
        .collect();
    Ok(format!("({})", types?.join(", ")))
}

/// Whether the Rust type is one of the language's, and may stand for several.
fn is_wrapper(name: &str) -> bool {
    name != "google.protobuf.Empty"
        && name.starts_with(WELL_KNOWN)
        && !rust_type(name).starts_with("::prost_types")
}

/// The type prost makes of a message.
fn rust_type(name: &str) -> String {
    if let Some(name) = name.strip_prefix(WELL_KNOWN) {
        return match name {
            "BoolValue" => "bool".to_owned(),
            "Int32Value" | "UInt32Value" | "FloatValue" => "u32".to_owned(),
            "Int64Value" | "UInt64Value" | "DoubleValue" => "u64".to_owned(),
            "StringValue" => "String".to_owned(),
            "BytesValue" => "Vec<u8>".to_owned(),
            "Empty" => "()".to_owned(),
            name => format!("::prost_types::{name}"),
        };
    }
    if let Some(name) = name.strip_prefix("google.rpc.") {
        return format!("::tonic_types::{name}");
    }
    let (modules, message) = name.rsplit_once('.').unwrap_or(("", name));
    let modules: Vec<String> = modules.split('.').map(snake).collect();
    format!("crate::proto::{}::{message}", modules.join("::"))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn constant(name: &str) -> String {
    name.replace('.', "__")
}

/// The messages of every method, by its path.
fn methods(out: &mut String, set: &FileDescriptorSet) -> Result<(), Failure> {
    let mut lines = BTreeMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let input = constant(method.input_type().trim_start_matches('.'));
                lines.insert(path, input);
            }
        }
    }
    writeln!(
        out,
        "pub(super) static REQUESTS: &[(&str, &MessageShape)] = &["
    )?;
    for (path, input) in lines {
        writeln!(out, "    ({path:?}, &{input}),")?;
    }
    writeln!(out, "];")?;
    Ok(())
}
