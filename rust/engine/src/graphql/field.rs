//! A subscription field with the function that was declared for it. All that can be wrong with a declaration is said here: the channel's
//! template, the predicates and the scopes check themselves against what this hands them of the type system.

use std::sync::Arc;

use apollo_compiler::schema::{ExtendedType, FieldDefinition, InputValueDefinition, Type};
use apollo_compiler::{Name, Node};
use serde::Deserialize;

use super::schema::Schema;
use super::sdl::SchemaError;
use crate::limits::Overflow;
use crate::matching::{ChannelTemplate, Placeholder};
use crate::predicate::{Expr, OperandKind, Predicate};
use crate::security::fields::Guard;
use crate::security::scope::{Scope, ScopeInput};

/// The scalars that a channel's template takes.
const CHANNEL_SCALARS: [&str; 5] = ["ID", "String", "Int", "Boolean", "UUID"];

/// One function that was declared with `@subscription`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declaration {
    /// The field of the subscription type.
    pub field: String,
    /// The function's qualified name, for messages.
    pub function: String,
    /// The channel's template, whose placeholders are Python argument names: `orders:{order_id}`.
    pub channel: String,
    /// Event types that the field is about; `None` is any.
    pub event_types: Option<Vec<String>>,
    /// Which events the subscription is about.
    #[serde(rename = "where")]
    pub where_: Option<Expr>,
    /// Which of them the viewer may see.
    pub rows: Option<Expr>,
    /// How the function runs.
    pub kind: Kind,
    /// Whether it is called with `info`, so that its result may differ from viewer to viewer.
    pub takes_info: bool,
    /// What arguments must equal of the viewer.
    pub scope: Vec<ScopeInput>,
    /// What the field asks of its viewers.
    pub requires: Option<Guard>,
    /// The only services whose events the field is about; `None` is any.
    pub sources: Option<Vec<String>>,
    /// Seconds that one call may take, in place of the limit.
    pub timeout: Option<f64>,
    /// In place of the limit.
    pub overflow: Option<Overflow>,
    /// In place of the limit.
    pub events_per_second: Option<f64>,
}

/// How a function runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Not at all: the event's data is the result.
    Passthrough,
    /// On the event loop.
    #[default]
    Async,
    /// In a worker thread.
    Sync,
    /// One async generator for each subscription.
    Generator,
}

/// A field of the subscription type with its function, compiled once.
#[derive(Debug)]
pub struct Field {
    /// The position among the declarations: how the resolver knows the function.
    pub index: usize,
    /// The GraphQL name.
    pub name: Arc<str>,
    /// The field as the type system has it.
    pub definition: Node<FieldDefinition>,
    /// What was declared.
    pub declaration: Declaration,
    /// Where its events are published; `None` for a generator, which finds its events itself.
    pub channel: Option<ChannelTemplate>,
    /// Which events the subscription is about.
    pub where_: Option<Predicate>,
    /// Which of them the viewer may see.
    pub rows: Option<Predicate>,
    /// What arguments must equal of the viewer.
    pub scope: Vec<Scope>,
}

impl Field {
    /// Checks a declaration against the type system.
    pub(super) fn build(schema: &Schema, index: usize, declaration: Declaration) -> Result<Field, SchemaError> {
        let root = &schema.root;
        let wrong = |problem: String| {
            SchemaError(format!("{} ({root}.{}): {problem}", declaration.function, declaration.field))
        };
        let definition = schema.graphql.type_field(root, &declaration.field).ok();
        // Introspection fields have no function.
        let definition = definition.filter(|_| !declaration.field.starts_with("__")).ok_or_else(|| {
            let names: Vec<&str> = schema.root_fields().map(Name::as_str).collect();
            wrong(format!("there is no such field, expected one of {}", names.join(", ")))
        })?;
        let argument = |name: &str| {
            let coordinate = |argument: &InputValueDefinition| format!("{root}.{}.{}", definition.name, argument.name);
            let found = |argument: &&Node<InputValueDefinition>| schema.python_name(&coordinate(argument)) == name;
            definition.arguments.iter().find(found)
        };
        let is_generator = declaration.kind == Kind::Generator;
        let filters = [
            ("channel", !declaration.channel.is_empty()),
            ("event_types", declaration.event_types.is_some()),
            ("where", declaration.where_.is_some()),
            ("rows", declaration.rows.is_some()),
            ("sources", declaration.sources.is_some()),
            ("timeout", declaration.timeout.is_some()),
            ("events_per_second", declaration.events_per_second.is_some()),
        ];
        if let Some((name, _)) = filters.iter().find(|(_, given)| is_generator && *given) {
            return Err(wrong(format!("a generator takes no {name}")));
        }
        let channel = if is_generator {
            None
        } else {
            let placeholder = |name: &str| Some(schema.placeholder(argument(name)?));
            Some(ChannelTemplate::parse(&declaration.channel, &placeholder).map_err(wrong)?)
        };
        let kind = |name: &str, path: &[String]| schema.operand_kind(&argument(name)?.ty, path, false);
        let compile = |expr: &Option<Expr>, what: &str| {
            let compiled = expr.as_ref().map(|expr| Predicate::compile(expr, &kind)).transpose();
            compiled.map_err(|problem| wrong(format!("{what}: {problem}")))
        };
        let scoped = |name: &str, path: &[String]| schema.operand_kind(&argument(name)?.ty, path, true);
        let scope = declaration.scope.iter().map(|rule| Scope::compile(rule, &scoped));
        let scope = scope.collect::<Result<_, _>>().map_err(|problem| wrong(format!("scope: {problem}")))?;
        Ok(Field {
            index,
            name: declaration.field.as_str().into(),
            definition: definition.node.clone(),
            channel,
            where_: compile(&declaration.where_, "where")?,
            rows: compile(&declaration.rows, "rows")?,
            scope,
            declaration,
        })
    }

    /// A warning about orders between two sides of which nobody can tell the type.
    pub(super) fn untyped_orders(&self) -> Option<String> {
        let filters = [("where", &self.where_), ("rows", &self.rows)].into_iter();
        let orders = filters.flat_map(|(name, filter)| {
            let orders = filter.as_ref().map(Predicate::untyped_orders).unwrap_or_default();
            orders.into_iter().map(move |order| format!("{name}: {order}"))
        });
        let orders = orders.collect::<Vec<_>>().join(", ");
        let Declaration { function, field, .. } = &self.declaration;
        (!orders.is_empty()).then(|| {
            format!(
                "{function} ({field}) asks for an order of two sides without a type ({orders}). Two texts are then ordered by their \
                 letters, so that \"10\" is less than \"9\". Where numbers may be texts, write decimal(...) around one side, from \
                 fraiseql_subs"
            )
        })
    }
}

impl Schema {
    /// How an argument, or what a path of Python names leads to below it, compares in a predicate or, with `scoped`, in a scope: that
    /// goes through lists, and an object as a whole is no value that a viewer has.
    pub(super) fn operand_kind(&self, ty: &Type, path: &[String], scoped: bool) -> Option<OperandKind> {
        match (self.graphql.types.get(ty.inner_named_type())?, path.split_first()) {
            (ExtendedType::InputObject(input), Some((step, rest))) if scoped || !ty.is_list() => {
                let python_name = |name: &Name| self.python_name(&format!("{}.{name}", input.name));
                let field = input.fields.values().find(|field| python_name(&field.name) == step.as_str())?;
                self.operand_kind(&field.ty, rest, scoped)
            }
            (ExtendedType::InputObject(_), path) => (path.is_none() && !scoped).then_some(OperandKind::Json),
            (ExtendedType::Scalar(scalar), path) => {
                OperandKind::of_scalar(self.scalar(&scalar.name).kind().name(), path.is_some())
            }
            (_, path) => path.is_none().then_some(OperandKind::Enum),
        }
    }

    /// What a channel's template has to know of an argument.
    fn placeholder(&self, argument: &InputValueDefinition) -> Placeholder {
        let ty = &argument.ty;
        // Of these equal values have one form. `1.50` and `1.5` are equal, and two texts.
        let has_one_form = match self.graphql.types.get(ty.inner_named_type()) {
            Some(ExtendedType::Scalar(scalar)) => CHANNEL_SCALARS.contains(&self.scalar(&scalar.name).kind().name()),
            Some(definition) => definition.is_enum(),
            None => false,
        };
        let is_given = ty.is_non_null() || argument.default_value.as_ref().is_some_and(|default| !default.is_null());
        let is_taken = has_one_form && !ty.is_list() && is_given;
        Placeholder { name: argument.name.as_str().into(), is_taken, ty: ty.to_string() }
    }
}
