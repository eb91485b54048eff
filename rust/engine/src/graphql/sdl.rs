//! SDL becomes a valid type system, when a schema is built. What a user may leave out is added: a query type, `@oneOf`.
//!
//! Apollo Federation's directives may be used undeclared, renamed or namespaced by `@link`. Most mean something to a router and
//! nothing to a subscription, so those that are not declared are taken off. Those that restrict access are read
//! ([`Restricted`]) or, where they cannot be honoured, refused: ignoring one would open what it closes.

use std::cmp::Reverse;
use std::fmt;

use apollo_compiler::ast::{self, OperationType, Value};
use apollo_compiler::collections::IndexMap;
use apollo_compiler::diagnostic::{Diagnostic, ToCliReport as _};
use apollo_compiler::parser::{Parser, SourceMap, SourceSpan};
use apollo_compiler::schema::{Component, Directive, ExtendedType, FieldDefinition, InputValueDefinition};
use apollo_compiler::validation::{DiagnosticData, DiagnosticList, Valid};
use apollo_compiler::{Name, Node, Schema};
use rustc_hash::{FxHashMap, FxHashSet};

use super::edition;
use crate::security::fields::Guard;

/// Why a schema cannot be built, in words that name function, field and what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// Parses and validates; what the user may leave out is added, and what restricts access is told apart.
pub(crate) fn parse(mut sdl: String) -> Result<(String, Valid<Schema>, Restricted), SchemaError> {
    let fault = |errors: &DiagnosticList| SchemaError(format!("the SDL is not valid: {}", describe(errors)));
    let document = Parser::new().parse_ast(sdl.as_str(), "schema.graphql").map_err(|error| fault(&error.errors))?;
    let (mut has_one_of, mut is_explicit) = (false, false);
    let (mut defined, mut listed) = (Vec::new(), Vec::new());
    for definition in &document.definitions {
        match definition {
            ast::Definition::SchemaDefinition(schema) => {
                is_explicit = true;
                listed.extend(schema.root_operations.iter().map(|root| root.0));
            }
            ast::Definition::SchemaExtension(schema) => listed.extend(schema.root_operations.iter().map(|root| root.0)),
            ast::Definition::DirectiveDefinition(directive) => has_one_of |= directive.name == "oneOf",
            other => defined.extend(other.name().map(Name::as_str)),
        }
    }
    let lists = is_explicit || !listed.is_empty();
    let has_query = if lists { listed.contains(&OperationType::Query) } else { defined.contains(&"Query") };
    if !has_query && !defined.contains(&"Query") {
        sdl.push_str("\n\ntype Query {\n  _empty: Boolean\n}\n");
    }
    if !has_query && lists {
        sdl.push_str("\nextend schema {\n  query: Query\n}\n");
    }
    // An extension that lists a root may leave those out that go without saying.
    let has_subscription = is_explicit || !lists || listed.contains(&OperationType::Subscription);
    if !has_subscription && defined.contains(&"Subscription") {
        sdl.push_str("\nextend schema {\n  subscription: Subscription\n}\n");
    }
    // Federation's subgraphs may only extend their root types.
    let mut builder = Schema::builder().adopt_orphan_extensions().ignore_builtin_redefinitions();
    builder = builder.parse(sdl.as_str(), "schema.graphql").parse(edition::IS_ONE_OF, "edition.graphql");
    if !has_one_of {
        builder = builder.parse("directive @oneOf on INPUT_OBJECT", "one_of.graphql");
    }
    let mut schema = builder.build().map_err(|error| fault(&error.errors))?;
    let restricted = accept(&mut schema)?;
    let schema = schema.validate().map_err(|error| fault(&error.errors))?;
    Ok((sdl, schema, restricted))
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

/// Where the SDL's directives restrict access.
#[derive(Debug, Default)]
pub(crate) struct Restricted {
    /// Types and what they ask for; a type stands here once for each directive.
    pub(crate) types: Vec<(Name, Guard)>,
    /// Fields of objects and interfaces, likewise.
    pub(crate) fields: Vec<(Name, Name, Guard)>,
}

impl Restricted {
    fn add(&mut self, owner: Owner<'_>, guard: Guard) -> Result<(), String> {
        match owner {
            Owner::Type(name) => self.types.push((name.clone(), guard)),
            Owner::Field(name, field) => self.fields.push((name.clone(), field.clone(), guard)),
            Owner::Other(..) => {
                let places = "a field, or on an object, an interface, a scalar or an enum";
                return Err(format!("restricts nothing here: expected it on {places}"));
            }
        }
        Ok(())
    }
}

/// Takes off what is not declared, and reads what restricts access, declared or not.
fn accept(schema: &mut Schema) -> Result<Restricted, SchemaError> {
    let sources = schema.sources.clone();
    let links = Links::of(schema)
        .map_err(|(problem, location)| SchemaError(format!("{problem}{}", place(location, &sources))))?;
    let declared: FxHashSet<Name> = schema.directive_definitions.keys().cloned().collect();
    let (mut restricted, mut problem) = (Restricted::default(), None);
    retain(schema, &mut |directive, owner| {
        let meaning = links.meaning(&directive.name);
        let guard = match meaning {
            Some("policy") => Err("cannot be honoured: expected requires= or a function that checks".to_owned()),
            Some("authenticated") => authenticated(directive),
            Some("requiresScopes") => requires_scopes(directive),
            _ => return meaning.is_none() || declared.contains(&directive.name),
        };
        let added = guard.and_then(|guard| restricted.add(owner, guard));
        if let Err(what) = added {
            let (name, place) = (&directive.name, place(directive.location(), &sources));
            problem.get_or_insert_with(|| format!("@{name} on {owner} {what}{place}"));
        }
        declared.contains(&directive.name)
    });
    problem.map_or(Ok(restricted), |problem| Err(SchemaError(problem)))
}

fn authenticated(directive: &Directive) -> Result<Guard, String> {
    if directive.arguments.is_empty() { Ok(Guard::authenticated()) } else { Err("takes no arguments".into()) }
}

/// A list of lists of strings; what is no list is a list of itself, as
/// [the specification](https://spec.graphql.org/October2021/#sec-List.Input-Coercion) says.
fn requires_scopes(directive: &Directive) -> Result<Guard, String> {
    let scopes = match directive.arguments.as_slice() {
        [argument] if argument.name == "scopes" => &argument.value,
        _ => return Err("takes one argument: scopes".into()),
    };
    let text = |scope: &Node<Value>| match scope.as_str() {
        Some(text) => Ok(Box::from(text)),
        None => Err(format!("takes scopes that are lists of lists of strings, not {}", scope.serialize().no_indent())),
    };
    let all = |scopes: &Node<Value>| items(scopes).iter().map(text).collect();
    Ok(Guard::from(items(scopes).iter().map(all).collect::<Result<Vec<Vec<_>>, String>>()?))
}

fn items(value: &Node<Value>) -> &[Node<Value>] {
    value.as_list().unwrap_or(std::slice::from_ref(value))
}

/// What `@link` says about names ([spec](https://specs.apollo.dev/link/v1.0/)).
#[derive(Default)]
struct Links {
    /// Local names of imported directives, and what they are where they come from.
    imported: FxHashMap<String, String>,
    /// Local names of specifications and their own, the longest first.
    namespaces: Vec<(String, String)>,
}

impl Links {
    /// Whatever on the schema has a specification's URL is taken for a link, as `@link` itself may be renamed. One that
    /// cannot be understood is an error: a directive that restricts access may hide behind it.
    fn of(schema: &Schema) -> Result<Links, (String, Option<SourceSpan>)> {
        let mut links = Links::default();
        let mut namespaces = vec![("federation".to_owned(), "federation".to_owned())];
        for link in &schema.schema_definition.directives {
            let text = |name: &str| link.specified_argument_by_name(name).and_then(|value| value.as_str());
            let url = text("url").or_else(|| text("feature"));
            let Some(url) = url.or(matches!(link.name.as_str(), "link" | "core").then_some("")) else {
                continue;
            };
            let specification = specification(url);
            namespaces.push((text("as").unwrap_or(specification).to_owned(), specification.to_owned()));
            let imports = link.specified_argument_by_name("import").map(items).unwrap_or_default();
            for import in imports.iter().filter(|import| !import.is_null()) {
                let (name, local) = imported(import).ok_or_else(|| {
                    let import = import.serialize().no_indent();
                    (format!("@{} has an import that cannot be read: {import}", link.name), link.location())
                })?;
                let Some(name) = name.strip_prefix('@') else {
                    continue;
                };
                let local = local.strip_prefix('@').unwrap_or(local);
                let other = links.imported.insert(local.to_owned(), name.to_owned());
                if other.is_some_and(|other| other != name) {
                    return Err((format!("@{} imports a second directive as @{local}", link.name), link.location()));
                }
            }
        }
        namespaces.retain(|(local, _)| !local.is_empty());
        namespaces.sort_by_key(|(local, _)| Reverse(local.len()));
        links.namespaces = namespaces;
        Ok(links)
    }

    /// What a directive is called where it is defined; `None` for one of the user's own.
    fn meaning<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if let Some(name) = self.imported.get(name) {
            return Some(name);
        }
        for (namespace, specification) in &self.namespaces {
            match name.strip_prefix(namespace.as_str()) {
                // The directive that the specification is called after.
                Some("") if KNOWN.contains(&specification.as_str()) => return Some(specification),
                Some(rest) if rest.starts_with("__") => return Some(&rest[2..]),
                _ => {}
            }
        }
        KNOWN.contains(&name).then_some(name)
    }
}

/// `https://specs.apollo.dev/federation/v2.3` is `federation`.
fn specification(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
    let is_version = last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    if is_version { above.rsplit('/').next().unwrap_or_default() } else { last }
}

/// The name of what is imported, and its local name.
fn imported(import: &Value) -> Option<(&str, &str)> {
    match import {
        Value::String(name) => Some((name, name)),
        Value::Object(members) => {
            let member = |key: &str| members.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
            let name = member("name")??;
            Some((name, member("as").unwrap_or(Some(name))?))
        }
        _ => None,
    }
}

/// What a directive stands on.
#[derive(Clone, Copy)]
enum Owner<'a> {
    /// An object, an interface, a scalar or an enum.
    Type(&'a Name),
    /// A field of an object or an interface.
    Field(&'a Name, &'a Name),
    /// Anything else: what it is, and its coordinate.
    Other(&'static str, &'a [&'a Name]),
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Type(name) => write!(out, "{name}"),
            Owner::Field(name, field) => write!(out, "{name}.{field}"),
            Owner::Other(kind, names) => {
                out.write_str(kind)?;
                names
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, name)| write!(out, "{}{name}", if at == 0 { " " } else { "." }))
            }
        }
    }
}

type Keep<'a> = &'a mut dyn FnMut(&Node<Directive>, Owner<'_>) -> bool;

/// Keeps the directives of a schema that `keep` says yes to.
fn retain(schema: &mut Schema, keep: Keep<'_>) {
    let root = Owner::Other("the schema", &[]);
    schema.schema_definition.make_mut().directives.0.retain(|directive| keep(directive, root));
    for definition in schema.directive_definitions.values_mut().filter(|definition| !definition.is_built_in()) {
        let definition = definition.make_mut();
        retain_in_arguments(&mut definition.arguments, &[&definition.name], keep);
    }
    // Of the built-in types, scalars may be extended.
    for definition in schema.types.values_mut() {
        match definition {
            ExtendedType::Scalar(scalar) => {
                let scalar = scalar.make_mut();
                scalar.directives.0.retain(|directive| keep(directive, Owner::Type(&scalar.name)));
            }
            ExtendedType::Union(union_) => {
                let union_ = union_.make_mut();
                let owner = [&union_.name];
                union_.directives.0.retain(|directive| keep(directive, Owner::Other("the union", &owner)));
            }
            ExtendedType::Object(object) => {
                let object = object.make_mut();
                object.directives.0.retain(|directive| keep(directive, Owner::Type(&object.name)));
                retain_in_fields(&mut object.fields, &object.name, keep);
            }
            ExtendedType::Interface(interface) => {
                let interface = interface.make_mut();
                interface.directives.0.retain(|directive| keep(directive, Owner::Type(&interface.name)));
                retain_in_fields(&mut interface.fields, &interface.name, keep);
            }
            ExtendedType::Enum(enum_) => {
                let enum_ = enum_.make_mut();
                enum_.directives.0.retain(|directive| keep(directive, Owner::Type(&enum_.name)));
                for (name, value) in &mut enum_.values {
                    let owner = [&enum_.name, name];
                    value
                        .make_mut()
                        .directives
                        .0
                        .retain(|directive| keep(directive, Owner::Other("the value", &owner)));
                }
            }
            ExtendedType::InputObject(input) => {
                let input = input.make_mut();
                let owner = [&input.name];
                input.directives.0.retain(|directive| keep(directive, Owner::Other("the input", &owner)));
                for (name, field) in &mut input.fields {
                    let owner = [&input.name, name];
                    field
                        .make_mut()
                        .directives
                        .0
                        .retain(|directive| keep(directive, Owner::Other("the input field", &owner)));
                }
            }
        }
    }
}

fn retain_in_fields(fields: &mut IndexMap<Name, Component<FieldDefinition>>, type_name: &Name, keep: Keep<'_>) {
    for (name, field) in fields {
        let field = field.make_mut();
        field.directives.0.retain(|directive| keep(directive, Owner::Field(type_name, name)));
        retain_in_arguments(&mut field.arguments, &[type_name, name], keep);
    }
}

fn retain_in_arguments(arguments: &mut [Node<InputValueDefinition>], above: &[&Name], keep: Keep<'_>) {
    for argument in arguments {
        let argument = argument.make_mut();
        let owner = [above, &[&argument.name]].concat();
        argument.directives.0.retain(|directive| keep(directive, Owner::Other("the argument", &owner)));
    }
}
