//! Who may see which field: guards of fields and types, brought to every place where they hold: to what implements an interface, and to what gives a type.

use std::collections::HashMap;

use apollo_compiler::Name;
use apollo_compiler::schema::ExtendedType;

use super::schema::Schema;
use super::sdl::{Restricted, SchemaError};
use crate::security::fields::Guard;

impl Schema {
    /// Brings each guard to every place where it holds.
    pub(super) fn fill_guards(
        &mut self,
        requires: &HashMap<String, Guard>,
        restricted: &Restricted,
    ) -> Result<(), SchemaError> {
        for (coordinate, guard) in requires {
            let unknown = || SchemaError(format!("requires: there is no field {coordinate}, expected Type.field"));
            let (type_name, field) = coordinate.split_once('.').ok_or_else(unknown)?;
            // The root type is `Subscription` to Python, whatever the SDL calls it.
            let is_root = type_name == "Subscription" && !self.graphql.types.contains_key(type_name);
            let type_name = if is_root { self.root.clone() } else { Name::new(type_name).map_err(|_| unknown())? };
            self.graphql.type_field(&type_name, field).map_err(|_| unknown())?;
            self.guard_field(&type_name, field, guard);
        }
        for (type_name, field, guard) in &restricted.fields {
            self.guard_field(type_name, field, guard);
        }
        for (type_name, guard) in &restricted.types {
            for name in self.behind(type_name) {
                self.add_guard(name.to_string(), guard);
            }
        }
        if !restricted.types.is_empty() {
            self.guard_what_gives_types();
        }
        Ok(())
    }

    /// A field that gives a guarded type is guarded itself, and so are the fields of a guarded root.
    fn guard_what_gives_types(&mut self) {
        let graphql = self.graphql.clone();
        for object in graphql.types.values().filter_map(ExtendedType::as_object) {
            for field in object.fields.values() {
                let given = self.guards.get(field.ty.inner_named_type().as_str()).cloned();
                let own = self.guards.get(object.name.as_str()).filter(|_| object.name == self.root).cloned();
                for guard in given.iter().chain(&own) {
                    self.add_guard(format!("{}.{}", object.name, field.name), guard);
                }
            }
        }
    }

    fn guard_field(&mut self, type_name: &Name, field: &str, guard: &Guard) {
        for name in self.behind(type_name) {
            self.add_guard(format!("{name}.{field}"), guard);
        }
    }

    /// A type, and every type that implements it.
    fn behind(&self, type_name: &Name) -> Vec<Name> {
        let implementers = self.implementers.get(type_name);
        let names = implementers.into_iter().flat_map(|types| types.objects.iter().chain(&types.interfaces));
        names.chain([type_name]).cloned().collect()
    }

    /// Adds to what is asked for already.
    pub(super) fn add_guard(&mut self, coordinate: String, guard: &Guard) {
        let known = self.guards.entry(coordinate);
        known.and_modify(|first| *first = first.and(guard)).or_insert_with(|| guard.clone());
    }
}
