use super::*;

const TENANTS: [Option<&str>; 5] = [None, Some(""), Some("a"), Some("A"), Some("None")];

#[test]
fn a_tenant_is_itself_and_no_other() {
    for event in TENANTS {
        let audience = Audience::Tenant(event.map(Into::into));
        for viewer in TENANTS {
            assert_eq!(route(&audience, viewer), Decision::allow_if(event == viewer), "{event:?} {viewer:?}");
            assert_eq!(route(&Audience::All, viewer), Decision::Allow);
        }
    }
}

#[test]
fn missing_and_empty_are_refused_where_everybody_must_have_one() {
    for tenant in TENANTS {
        assert_eq!(decide(false, tenant), Decision::Allow);
        let is_one = !matches!(tenant, None | Some(""));
        assert_eq!(decide(true, tenant), Decision::allow_if(is_one), "{tenant:?}");
        let audience = Audience::Tenant(tenant.map(Into::into));
        assert_eq!(decide_event(true, &audience), decide(true, tenant));
        assert_eq!(decide_event(false, &audience), Decision::Allow);
    }
    assert_eq!(decide_event(true, &Audience::All), Decision::Allow);
}
