//! A request's text becomes a [`Document`] that is known to be valid. What a hostile text could make costly is refused before it
//! costs anything: bytes, tokens and nesting before it is parsed, depth, fields and aliases before it is validated.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use apollo_compiler::ast::{self, Definition, Selection};
use apollo_compiler::diagnostic::{Diagnostic, ToCliReport as _};
use apollo_compiler::executable::{self, ExecutableDocument};
use apollo_compiler::parser::{Parser, SourceSpan};
use apollo_compiler::schema::{ExtendedType, InputValueDefinition, Type};
use apollo_compiler::validation::{DiagnosticData, Valid};
use apollo_compiler::{Name, Node};
use apollo_parser::{Lexer, TokenKind};

use super::coerce;
use super::edition::{self, Descriptions};
use super::positions::Positions;
use super::schema::Schema;
use crate::error::{GraphQLError, Rejection, code};
use crate::limits::Limits;
use crate::value::MAX_NESTING;

/// What is said to mutations and queries.
pub(crate) const ONLY_SUBSCRIPTIONS: &str =
    "Only subscriptions are served here, and queries for __schema, __type and __typename.";

/// A client learns nothing from more errors than these.
const MAX_ERRORS: usize = 20;

/// A chain of fragments longer than this is refused.
const MAX_CHAIN: usize = 100;

/// A valid document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) executable: Valid<ExecutableDocument>,
    /// The variables that each operation uses below its root fields or in a directive, by operation name.
    pub(crate) inner_variables: HashMap<Option<Name>, Vec<Name>>,
    /// Whether a field of it may be `__schema` or `__type`.
    pub(crate) may_introspect: bool,
    /// About the memory it takes, in bytes.
    pub(crate) weight: usize,
}

impl Document {
    /// Parses and validates. `operation_name` only decides what is said of a document that is not valid.
    pub(crate) fn parse(
        schema: &Schema,
        limits: &Limits,
        text: &str,
        operation_name: Option<&str>,
    ) -> Result<Document, Rejection> {
        let (tokens, text) = scan(text, limits)?;
        let text = &*text;
        let parsed = Parser::new().recursion_limit(MAX_NESTING * 2).parse_ast(text, "document.graphql");
        let document = parsed.map_err(|error| rejected(code::PARSE_FAILED, error.errors.iter(), text))?;
        Measure::new(&document).check(limits)?;
        if let Some(location) = not_served(&document, operation_name) {
            let mut error = GraphQLError::new(code::VALIDATION_FAILED, ONLY_SUBSCRIPTIONS);
            error.locations.extend(Positions::of_text(text).at(location));
            return Err(Rejection::Request(vec![error]));
        }
        // A field that does not exist is said once, and not as an empty selection of its parent as well.
        let built = document.to_executable(&schema.graphql);
        let built = built.map_err(|error| rejected(code::VALIDATION_FAILED, error.errors.iter(), text))?;
        let mut executable = built.validate(&schema.graphql).or_else(|error| {
            let is_wrong = |one: &Diagnostic<'_, _>| edition::is_wrong(one, &error.partial, text);
            let mut wrong = error.errors.iter().filter(is_wrong).peekable();
            if wrong.peek().is_some() {
                return Err(rejected(code::VALIDATION_FAILED, wrong, text));
            }
            drop(wrong);
            Ok(Valid::assume_valid(error.partial))
        })?;
        if text.contains("isOneOf") {
            let mut asked = executable.into_inner();
            edition::ask_is_one_of(&mut asked);
            executable = Valid::assume_valid(asked);
        }
        let mut inner_variables = HashMap::new();
        for operation in executable.operations.iter() {
            let used = Usage::check(schema, &executable, operation)?;
            inner_variables.insert(operation.name.clone(), used);
        }
        let may_introspect = text.replace("__typename", "").contains("__");
        Ok(Document { executable, inner_variables, may_introspect, weight: text.len() * 2 + tokens * 200 })
    }
}

/// Counts the [lexical tokens](https://spec.graphql.org/October2021/#sec-Source-Text.Lexical-Tokens) and how deep they are nested; the
/// text comes back without its descriptions.
fn scan<'a>(text: &'a str, limits: &Limits) -> Result<(usize, Cow<'a, str>), Rejection> {
    let refuse = |message: String| Err(Rejection::request(code::LIMIT_EXCEEDED, message));
    if text.len() > limits.max_query_bytes {
        return refuse(format!("The document is larger than {} bytes.", limits.max_query_bytes));
    }
    let (mut tokens, mut ignored, mut depth) = (0usize, 0usize, 0usize);
    let mut descriptions = Descriptions::default();
    for token in Lexer::new(text) {
        match token.as_ref().map(apollo_parser::Token::kind) {
            // They count for nothing, but parsing them costs as much as anything.
            Ok(TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma) => {
                ignored += 1;
                if ignored > limits.max_query_tokens.saturating_mul(4) {
                    return refuse("The document is little but commas, comments and blanks.".into());
                }
                continue;
            }
            Ok(TokenKind::Eof) => continue,
            Ok(TokenKind::LCurly | TokenKind::LBracket | TokenKind::LParen) => depth += 1,
            Ok(TokenKind::RCurly | TokenKind::RBracket | TokenKind::RParen) => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens += 1;
        if tokens > limits.max_query_tokens {
            return refuse(format!("The document has more than {} tokens.", limits.max_query_tokens));
        }
        if depth > MAX_NESTING {
            return refuse(format!("The document is nested deeper than {MAX_NESTING}."));
        }
        if let Ok(token) = &token {
            descriptions.token(token, depth);
        }
    }
    Ok((tokens, descriptions.blank(text)))
}

/// Depth, fields and aliases of a selection set with its fragments inlined.
#[derive(Clone, Copy, Default)]
struct Size {
    depth: usize,
    fields: usize,
    aliases: usize,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.depth = self.depth.max(other.depth);
        self.fields = self.fields.saturating_add(other.fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
    }
}

/// Measures a document without inlining anything: each fragment once.
struct Measure<'a> {
    document: &'a ast::Document,
    fragments: HashMap<&'a str, &'a [Selection]>,
    /// `None` while a fragment is being measured: one that spreads itself adds nothing, and validation refuses it.
    sizes: HashMap<&'a str, Option<Size>>,
    chain: usize,
}

impl<'a> Measure<'a> {
    fn new(document: &'a ast::Document) -> Measure<'a> {
        let fragments = document.definitions.iter().filter_map(Definition::as_fragment_definition);
        Measure {
            document,
            fragments: fragments.map(|fragment| (fragment.name.as_str(), &*fragment.selection_set)).collect(),
            sizes: HashMap::new(),
            chain: 0,
        }
    }

    fn check(mut self, limits: &Limits) -> Result<(), Rejection> {
        let mut all = Size::default();
        for definition in &self.document.definitions {
            let selections = match definition {
                Definition::OperationDefinition(operation) => &operation.selection_set,
                // Those that no operation spreads are validated too.
                Definition::FragmentDefinition(fragment) => &fragment.selection_set,
                _ => continue,
            };
            let size = self.selections(selections)?;
            for (what, size, limit) in [
                ("is deeper than", size.depth, limits.max_query_depth),
                ("has more fields than", size.fields, limits.max_query_fields),
                ("has more aliases than", size.aliases, limits.max_query_aliases),
            ] {
                if size > limit {
                    return Err(Rejection::request(code::LIMIT_EXCEEDED, format!("The operation {what} {limit}.")));
                }
            }
            all.add(size);
        }
        // Each operation of a document is validated, whichever is asked for.
        if all.fields > limits.max_query_fields.saturating_mul(4) {
            return Err(Rejection::request(code::LIMIT_EXCEEDED, "The document's operations have too many fields."));
        }
        Ok(())
    }

    fn selections(&mut self, selections: &'a [Selection]) -> Result<Size, Rejection> {
        let mut total = Size::default();
        for selection in selections {
            total.add(match selection {
                Selection::Field(field) => {
                    let inner = self.selections(&field.selection_set)?;
                    Size {
                        depth: inner.depth + 1,
                        fields: inner.fields.saturating_add(1),
                        aliases: inner.aliases.saturating_add(usize::from(field.alias.is_some())),
                    }
                }
                Selection::InlineFragment(inline) => self.selections(&inline.selection_set)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.fragment_name)?,
            });
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &'a str) -> Result<Size, Rejection> {
        if let Some(size) = self.sizes.get(name) {
            return Ok(size.unwrap_or_default());
        }
        let Some(selections) = self.fragments.get(name) else {
            return Ok(Size::default());
        };
        self.chain += 1;
        if self.chain > MAX_CHAIN {
            let message = format!("More than {MAX_CHAIN} fragments lead into each other.");
            return Err(Rejection::request(code::LIMIT_EXCEEDED, message));
        }
        self.sizes.insert(name, None);
        let size = self.selections(selections)?;
        self.sizes.insert(name, Some(size));
        self.chain -= 1;
        Ok(size)
    }
}

/// Where the operation asked for asks for something that is not served here at all, so that the answer says this first.
fn not_served(document: &ast::Document, name: Option<&str>) -> Option<Option<SourceSpan>> {
    let mut operations = document.definitions.iter().filter_map(Definition::as_operation_definition);
    let asked = operations.find(|operation| name.is_none() || operation.name.as_deref() == name);
    let fragments = document.definitions.iter().filter_map(Definition::as_fragment_definition);
    let fragments: HashMap<&str, _> = fragments.map(|fragment| (fragment.name.as_str(), fragment)).collect();
    let operation = asked.filter(|operation| !operation.operation_type.is_subscription())?;
    let (mut open, mut seen) = (vec![&*operation.selection_set], HashSet::new());
    while let Some(selections) = open.pop() {
        for selection in selections {
            match selection {
                Selection::Field(field) if !is_introspection(&field.name) => return Some(field.location()),
                Selection::Field(_) => {}
                Selection::InlineFragment(inline) => open.push(&inline.selection_set),
                Selection::FragmentSpread(spread) => {
                    if seen.insert(&spread.fragment_name) {
                        open.extend(
                            fragments.get(spread.fragment_name.as_str()).map(|fragment| &*fragment.selection_set),
                        );
                    }
                }
            }
        }
    }
    (!operation.operation_type.is_query()).then(|| operation.location())
}

fn is_introspection(name: &str) -> bool {
    matches!(name, "__schema" | "__type" | "__typename")
}

fn rejected<'a, E: Iterator<Item = Diagnostic<'a, DiagnosticData>>>(
    code: &'static str,
    errors: E,
    text: &str,
) -> Rejection {
    let positions = Positions::of_text(text);
    let one = |error: Diagnostic<'_, DiagnosticData>| {
        let mut located = GraphQLError::new(code, error.error.to_string());
        located.locations.extend(positions.at(error.error.location()));
        located
    };
    Rejection::Request(errors.take(MAX_ERRORS).map(one).collect())
}

/// [All Variable Usages are Allowed](https://spec.graphql.org/October2021/#sec-All-Variable-Usages-are-Allowed), also in lists,
/// input objects and custom scalars, where apollo-compiler asks for the type's name alone; and what it does not know of
/// literals: `@oneOf`, and which texts are values of a custom scalar.
struct Usage<'a> {
    schema: &'a Schema,
    document: &'a ExecutableDocument,
    operation: &'a executable::Operation,
    seen: HashSet<(&'a Name, bool)>,
    inner: Vec<Name>,
    errors: Vec<(&'static str, String, Option<SourceSpan>)>,
}

/// Where a value stands: its type, and whether a default stands behind it.
type Place<'a> = Option<(&'a Type, bool)>;

impl<'a> Usage<'a> {
    fn check(
        schema: &'a Schema,
        document: &'a ExecutableDocument,
        operation: &'a executable::Operation,
    ) -> Result<Vec<Name>, Rejection> {
        let mut usage =
            Usage { schema, document, operation, seen: HashSet::new(), inner: Vec::new(), errors: Vec::new() };
        usage.directives(&operation.directives);
        for variable in &operation.variables {
            usage.directives(&variable.directives);
            if let Some(default) = &variable.default_value {
                usage.value(default, Some((&variable.ty, false)), false);
            }
        }
        usage.selections(&operation.selection_set, true);
        if usage.errors.is_empty() {
            return Ok(usage.inner);
        }
        let positions = Positions::new(document);
        let located = |(code, message, location)| {
            let mut error = GraphQLError::new(code, message);
            error.locations.extend(positions.at(location));
            error
        };
        Err(Rejection::Request(usage.errors.into_iter().take(MAX_ERRORS).map(located).collect()))
    }

    fn selections(&mut self, set: &'a executable::SelectionSet, is_root: bool) {
        for selection in &set.selections {
            if self.is_full() {
                return;
            }
            self.directives(selection.directives());
            match selection {
                executable::Selection::Field(field) => {
                    self.arguments(&field.arguments, &field.definition.arguments, is_root);
                    self.selections(&field.selection_set, false);
                }
                executable::Selection::InlineFragment(inline) => self.selections(&inline.selection_set, is_root),
                executable::Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.fragment_name)
                        && self.seen.insert((&fragment.name, is_root))
                    {
                        self.directives(&fragment.directives);
                        self.selections(&fragment.selection_set, is_root);
                    }
                }
            }
        }
    }

    fn directives(&mut self, directives: &'a executable::DirectiveList) {
        for directive in directives.iter() {
            if let Some(definition) = self.schema.graphql.directive_definitions.get(&directive.name) {
                self.arguments(&directive.arguments, &definition.arguments, false);
            }
        }
    }

    fn arguments(
        &mut self,
        arguments: &'a [Node<ast::Argument>],
        definitions: &'a [Node<InputValueDefinition>],
        is_root: bool,
    ) {
        for argument in arguments {
            let definition = definitions.iter().find(|definition| definition.name == argument.name);
            let place = definition.map(|definition| (&*definition.ty, definition.default_value.is_some()));
            self.value(&argument.value, place, is_root);
        }
    }

    fn value(&mut self, value: &'a Node<ast::Value>, place: Place<'a>, is_root: bool) {
        if self.is_full() {
            return;
        }
        // The root's arguments are coerced for every request, others only where they are used.
        if let Some((ty, _)) = place.filter(|_| !is_root)
            && let Some(message) = coerce::custom_literal(self.schema, ty, value)
        {
            self.errors.push((code::BAD_USER_INPUT, message, value.location()));
        }
        match &**value {
            ast::Value::Variable(name) => self.variable(name, place, value.location(), is_root),
            ast::Value::List(items) => {
                let place = place.filter(|(ty, _)| ty.is_list()).map(|(ty, _)| (ty.item_type(), false));
                items.iter().for_each(|item| self.value(item, place, is_root));
            }
            ast::Value::Object(members) => {
                let input = place.and_then(|(ty, _)| self.schema.graphql.types.get(ty.inner_named_type()));
                let input = input.and_then(ExtendedType::as_input_object);
                let is_one_of = input.is_some_and(|input| input.directives.has("oneOf"));
                if is_one_of && !matches!(&members[..], [(_, member)] if !member.is_null()) {
                    let message = "Exactly one key must be specified for a OneOf type, and it must not be null.";
                    self.refuse(message, value.location());
                }
                let mut names = HashSet::new();
                for (name, member) in members {
                    if self.is_full() {
                        return;
                    }
                    if !names.insert(name) {
                        let message = format!("There can be only one input field named '{name}'.");
                        self.refuse(message, member.location());
                    }
                    let field = input.and_then(|input| input.fields.get(name));
                    let place = field.map(|field| (&*field.ty, field.default_value.is_some()));
                    if let (Some(input), Some(variable)) = (input, member.as_variable())
                        && is_one_of
                        && self.definition(variable).is_some_and(|definition| !definition.ty.is_non_null())
                    {
                        let message = format!(
                            "Variable '${variable}' must be non-nullable to be used for OneOf Input Object '{}'.",
                            input.name
                        );
                        self.refuse(message, member.location());
                    }
                    self.value(member, place, is_root);
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, message: impl Into<String>, location: Option<SourceSpan>) {
        self.errors.push((code::VALIDATION_FAILED, message.into(), location));
    }

    /// Nothing more is looked at.
    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    fn definition(&self, name: &Name) -> Option<&'a Node<executable::VariableDefinition>> {
        self.operation.variables.iter().find(|definition| definition.name == *name)
    }

    fn variable(&mut self, name: &Name, place: Place<'a>, location: Option<SourceSpan>, is_root: bool) {
        if !is_root && !self.inner.contains(name) {
            self.inner.push(name.clone());
        }
        let Some(definition) = self.definition(name) else {
            return self.refuse(format!("Variable '${name}' is not defined."), location);
        };
        let Some((expected, has_default)) = place else {
            return;
        };
        let ty = &definition.ty;
        let own_default = definition.default_value.as_ref().is_some_and(|default| !default.is_null());
        let is_allowed = if expected.is_non_null() && !ty.is_non_null() {
            (own_default || has_default) && ty.is_assignable_to(&expected.clone().nullable())
        } else {
            ty.is_assignable_to(expected)
        };
        if !is_allowed {
            let message = format!("Variable '${name}' of type '{ty}' used in position expecting type '{expected}'.");
            self.refuse(message, location);
        }
    }
}
