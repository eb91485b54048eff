//! Tenant isolation: tenants must always be equal, `None` only with `None`. On the event's way it is routing: the topics of other
//! tenants are not looked at.

use super::Decision;
use crate::event::Audience;

/// Whether a tenant is one where everybody must have one. Without `multi_tenant` nobody has to.
pub fn decide(multi_tenant: bool, tenant: Option<&str>) -> Decision {
    Decision::allow_if(!multi_tenant || tenant.is_some_and(|tenant| !tenant.is_empty()))
}

/// Whether an event may be published: [`Audience::All`] is the one way to reach several tenants.
pub fn decide_event(multi_tenant: bool, audience: &Audience) -> Decision {
    match audience {
        Audience::All => Decision::Allow,
        Audience::Tenant(tenant) => decide(multi_tenant, tenant.as_deref()),
    }
}

/// Whether an event for this audience is for a viewer of this tenant.
pub fn route(audience: &Audience, viewer: Option<&str>) -> Decision {
    match audience {
        Audience::All => Decision::Allow,
        Audience::Tenant(tenant) => Decision::allow_if(tenant.as_deref() == viewer),
    }
}

#[cfg(test)]
mod tests;
