//! SDL becomes a valid type system, when a schema is built. What a user may leave out is added: a query type, `@oneOf`.
//!
//! Apollo Federation's directives may be used undeclared, renamed or namespaced by `@link`. They mean something to a router and
//! nothing to a subscription, so those that are not declared are taken off; those that restrict who may see a field are refused,
//! as ignoring them would open it.

use apollo_compiler::ast::{self, Value};
use apollo_compiler::collections::IndexMap;
use apollo_compiler::diagnostic::{Diagnostic, ToCliReport as _};
use apollo_compiler::parser::{Parser, SourceMap, SourceSpan};
use apollo_compiler::schema::{Component, Directive, ExtendedType, FieldDefinition};
use apollo_compiler::validation::{DiagnosticData, DiagnosticList, Valid};
use apollo_compiler::{Name, Node, Schema};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::schema::SchemaError;

/// Parses and validates; what the user may leave out is added.
pub(crate) fn parse(mut sdl: String) -> Result<(String, Valid<Schema>), SchemaError> {
    let fault = |errors: &DiagnosticList| SchemaError(format!("the SDL is not valid: {}", describe(errors)));
    let document = Parser::new().parse_ast(sdl.as_str(), "schema.graphql").map_err(|error| fault(&error.errors))?;
    let mut has_query = [false, false];
    let mut has_one_of = false;
    let mut is_explicit = false;
    let queries = |operations: &[Node<(ast::OperationType, Name)>]| operations.iter().any(|node| node.0.is_query());
    for definition in &document.definitions {
        match definition {
            ast::Definition::SchemaDefinition(schema) => {
                is_explicit = true;
                has_query[1] |= queries(&schema.root_operations);
            }
            ast::Definition::SchemaExtension(schema) => has_query[1] |= queries(&schema.root_operations),
            ast::Definition::DirectiveDefinition(directive) => has_one_of |= directive.name == "oneOf",
            other => has_query[0] |= other.name().is_some_and(|name| name == "Query"),
        }
    }
    if !has_query[usize::from(is_explicit)] {
        if !has_query[0] {
            sdl.push_str("\n\ntype Query {\n  _empty: Boolean\n}\n");
        }
        if is_explicit {
            sdl.push_str("\nextend schema {\n  query: Query\n}\n");
        }
    }
    // Federation's subgraphs may only extend their root types.
    let mut builder = Schema::builder().adopt_orphan_extensions();
    builder = builder.parse(sdl.as_str(), "schema.graphql");
    if !has_one_of {
        builder = builder.parse("directive @oneOf on INPUT_OBJECT", "one_of.graphql");
    }
    let mut schema = builder.build().map_err(|error| fault(&error.errors))?;
    accept(&mut schema)?;
    let schema = schema.validate().map_err(|error| fault(&error.errors))?;
    Ok((sdl, schema))
}

/// The first few problems, with their places.
fn describe(errors: &DiagnosticList) -> String {
    let one = |error: Diagnostic<'_, DiagnosticData>| {
        format!("{}{}", error.error, place(error.error.location(), error.sources))
    };
    errors.iter().take(5).map(one).collect::<Vec<_>>().join("; ")
}

/// ` (line 1, column 2)`
fn place(location: Option<SourceSpan>, sources: &SourceMap) -> String {
    let position = location.and_then(|location| location.line_column(sources));
    position.map_or_else(String::new, |at| format!(" (line {}, column {})", at.line, at.column))
}

/// What Federation's versions and the specifications beside it define.
const KNOWN: [&str; 23] = [
    "authenticated",
    "cacheTag",
    "composeDirective",
    "connect",
    "context",
    "core",
    "cost",
    "extends",
    "external",
    "fromContext",
    "inaccessible",
    "interfaceObject",
    "key",
    "link",
    "listSize",
    "override",
    "policy",
    "provides",
    "requires",
    "requiresScopes",
    "shareable",
    "source",
    "tag",
];

/// Takes off what is not declared. Fails on a directive that restricts access.
fn accept(schema: &mut Schema) -> Result<(), SchemaError> {
    let links = Links::of(schema);
    let declared: FxHashSet<Name> = schema.directive_definitions.keys().cloned().collect();
    let sources = schema.sources.clone();
    let mut problem = None;
    retain(schema, &mut |directive| {
        let meaning = links.meaning(&directive.name);
        let what = match meaning {
            Some("policy") => "cannot be honoured: expected requires= or a function that checks",
            Some("requiresScopes" | "authenticated") => "is not supported yet: expected requires= on the field",
            _ => return meaning.is_none() || declared.contains(&directive.name),
        };
        problem.get_or_insert_with(|| format!("@{} {what}{}", directive.name, place(directive.location(), &sources)));
        true
    });
    problem.map_or(Ok(()), |problem| Err(SchemaError(problem)))
}

/// What `@link` says about names ([spec](https://specs.apollo.dev/link/v1.0/)).
#[derive(Default)]
struct Links {
    /// Local names of imported directives, and what they are where they come from.
    imported: FxHashMap<String, String>,
    namespaces: FxHashSet<String>,
}

impl Links {
    fn of(schema: &Schema) -> Links {
        let mut links = Links::default();
        links.namespaces.insert("federation".into());
        let directives = schema.schema_definition.directives.iter();
        for link in directives.filter(|directive| matches!(directive.name.as_str(), "link" | "core")) {
            let text = |name: &str| link.specified_argument_by_name(name).and_then(|value| value.as_str());
            // https://specs.apollo.dev/federation/v2.3 is `federation` unless `as` says otherwise.
            let mut segments = text("url").or_else(|| text("feature")).unwrap_or_default().rsplit('/');
            let last = segments.next();
            let is_version =
                |last: &str| last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let name = if last.is_some_and(is_version) { segments.next() } else { last };
            links.namespaces.extend(text("as").or(name).map(str::to_owned));
            let imports = link.specified_argument_by_name("import").and_then(|value| value.as_list());
            for import in imports.unwrap_or_default() {
                let (name, local) = match &**import {
                    Value::String(name) => (name.as_str(), name.as_str()),
                    Value::Object(members) => {
                        let member = |key: &str| members.iter().find(|(name, _)| name == key)?.1.as_str();
                        let name = member("name").unwrap_or_default();
                        (name, member("as").unwrap_or(name))
                    }
                    _ => continue,
                };
                if let (Some(name), Some(local)) = (name.strip_prefix('@'), local.strip_prefix('@')) {
                    links.imported.insert(local.to_owned(), name.to_owned());
                }
            }
        }
        links
    }

    /// What a directive is called where it is defined; `None` for one of the user's own.
    fn meaning<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if let Some(name) = self.imported.get(name) {
            return Some(name);
        }
        match name.split_once("__") {
            Some((namespace, name)) if self.namespaces.contains(namespace) => Some(name),
            _ => KNOWN.contains(&name).then_some(name),
        }
    }
}

/// Keeps the directives of a schema that `keep` says yes to.
fn retain(schema: &mut Schema, keep: &mut dyn FnMut(&Node<Directive>) -> bool) {
    schema.schema_definition.make_mut().directives.0.retain(|directive| keep(directive));
    for definition in schema.types.values_mut().filter(|definition| !definition.is_built_in()) {
        let directives = match definition {
            ExtendedType::Scalar(scalar) => &mut scalar.make_mut().directives,
            ExtendedType::Union(union_) => &mut union_.make_mut().directives,
            ExtendedType::Object(object) => {
                let object = object.make_mut();
                retain_in_fields(&mut object.fields, keep);
                &mut object.directives
            }
            ExtendedType::Interface(interface) => {
                let interface = interface.make_mut();
                retain_in_fields(&mut interface.fields, keep);
                &mut interface.directives
            }
            ExtendedType::Enum(enum_) => {
                let enum_ = enum_.make_mut();
                for value in enum_.values.values_mut() {
                    value.make_mut().directives.0.retain(|directive| keep(directive));
                }
                &mut enum_.directives
            }
            ExtendedType::InputObject(input) => {
                let input = input.make_mut();
                for field in input.fields.values_mut() {
                    field.make_mut().directives.0.retain(|directive| keep(directive));
                }
                &mut input.directives
            }
        };
        directives.0.retain(|directive| keep(directive));
    }
}

fn retain_in_fields(
    fields: &mut IndexMap<Name, Component<FieldDefinition>>,
    keep: &mut dyn FnMut(&Node<Directive>) -> bool,
) {
    for field in fields.values_mut() {
        let field = field.make_mut();
        field.directives.0.retain(|directive| keep(directive));
        for argument in &mut field.arguments {
            argument.make_mut().directives.0.retain(|directive| keep(directive));
        }
    }
}
